package config

import (
	"fmt"

	"github.com/dustin/go-humanize"

	"pilotlight/backends"
	"pilotlight/backends/sglang/flags"
)

// sleep reads what a model's replicas give back on their way from ready to stopped. The times are read already.
func (r *reader) sleep(m *Model, scaling fields, share value) {
	after, how := scaling.get("sleep_after"), scaling.get("sleep")
	level := backends.Sleep(how.text(string(backends.SleepWeights)))
	if level != backends.SleepKV && level != backends.SleepWeights {
		how.fail("is no way to sleep", "write kv to give back the cache alone, or weights to give back the weights, too")
	}
	if !after.given() {
		if how.given() {
			how.warn("has no effect without scaling.sleep_after", "say after how long without traffic, or remove it")
		}
		return
	}
	switch {
	case m.Spec.Driver != backends.DriverProcess:
		after.fail("only engines of the process backend can be put to sleep", "remove it")
		return
	case m.Spec.Engine != backends.EngineSGLang:
		after.fail("only SGLang can be put to sleep", "remove it; scaledown_after stops the replica")
		return
	case m.Activator.SleepAfter >= m.Activator.ScaledownAfter:
		after.fail(fmt.Sprintf("is not below scaledown_after (%s), when the replica is stopped", m.Activator.ScaledownAfter), "lower it, or raise scaledown_after")
	case m.Spec.Devices.Share > 0:
		share.fail("excludes scaling.sleep_after: who starts beside a sleeper would take the memory that it needs to wake up", "remove one of them")
	case m.Activator.Min > 0:
		after.warn("has no effect: replicas that always run stay awake", "run them on demand: scaling.replicas: [0, 1]")
		m.Activator.SleepAfter = 0
		return
	}
	m.Spec.Sleep = level
	r.sleepOptions(m, after, how)
}

// sleepOptions refuses to put an engine to sleep that would not wake up well.
func (r *reader) sleepOptions(m *Model, after, how value) {
	at := after
	if how.given() {
		at = how
	}
	o := m.options
	if o == nil || o.release.custom {
		return
	}
	for _, name := range flags.ForSleep(m.Spec.Sleep == backends.SleepWeights, m.Spec.Command, m.Spec.ExtraArgs) {
		if o.release.table.Option(name) != nil {
			continue
		}
		fix := "write sleep: kv, which keeps the weights on the GPU, or use a later release"
		if m.Spec.Sleep == backends.SleepKV {
			fix = "remove sleep_after"
		}
		at.fail(fmt.Sprintf("needs %s, which SGLang %s does not have: its answers would be empty after the wake", name, o.release.table.Version()), fix)
	}
	if mode, given := o.value("--weight-cache-mode"); given && mode != "off" && m.Spec.Sleep == backends.SleepWeights {
		at.fail("excludes --weight-cache-mode: SGLang refuses to release weights that it shares", "write sleep: kv, or remove the option")
	}
}

// sleeping says what becomes of an idle replica before it is stopped; empty: nothing.
func (d *describer) sleeping(m *Model) string {
	if m.Spec.Sleep == "" {
		return ""
	}
	text := fmt.Sprintf("asleep after %s: the KV cache leaves the GPU", m.Activator.SleepAfter)
	if m.Spec.Sleep == backends.SleepWeights {
		text = fmt.Sprintf("asleep after %s: weights and KV cache leave the GPU, and a copy of the weights", m.Activator.SleepAfter)
		if a := m.arithmetic(); a != nil && a.weights > 0 {
			text += " (" + humanize.IBytes(uint64(a.weights)*uint64(a.devices)) + ")"
		}
		text += " stays in this machine's memory"
	}
	return fmt.Sprintf("%s; falling asleep and waking up may take %s each", text, m.Activator.SleepTimeout)
}
