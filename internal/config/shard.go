package config

import (
	"fmt"
	"slices"

	"pilotlight/backends"
	"pilotlight/backends/sglang/flags"
)

// sharding reads how weights are cut up, and on which GPUs.
func (r *reader) sharding(f fields) (s backends.Shard, accelerator GPU) {
	at, where := f.get("shard"), f.get("accelerator")
	if where.given() {
		accelerator = where.gpu()
	}
	if !at.given() {
		if where.given() {
			where.fail("says on which GPUs weights are cut up, and they are not", "add shard: {engine: sglang, tp: N}, or remove it")
		}
		return s, accelerator
	}
	fields := at.fields("engine", "tp", "trust_remote_code")
	if at.kind() != "a mapping" {
		return s, accelerator
	}
	if engine := fields.get("engine"); engine.given() && engine.text("") != string(backends.EngineSGLang) {
		engine.fail("is no engine that can cut weights up here", "write engine: sglang")
	}
	tp := fields.get("tp")
	s = backends.Shard{TP: int(tp.integer(0, 1, maxGPUs)), TrustRemoteCode: fields.get("trust_remote_code").boolean(false)}
	switch {
	case !tp.given():
		at.fail("does not say for how many GPUs", "write tp: N, the --tp-size that replicas start with")
	case s.TP > 0 && accelerator.Count > 0 && accelerator.Count != s.TP:
		where.fail(fmt.Sprintf("has %d GPUs, and tp: %d takes %d", accelerator.Count, s.TP, s.TP), fmt.Sprintf("write %q", GPU{accelerator.Kind, s.TP}))
	}
	return s, accelerator
}

// unserved warns of entries of prefetch that ask for parts which nobody starts from: a gateway cuts weights up on the GPUs of a start.
func unserved(c *Config, list value) {
	if list.kind() != "a list" {
		return // reported, or none
	}
	for _, item := range list.items() {
		for _, p := range c.Prefetch {
			served := slices.ContainsFunc(c.Models, func(m Model) bool { return m.Spec.Weights.Name == p.Name && m.Spec.Shard.TP > 0 })
			if p.Line == item.line && p.Shard.TP > 0 && p.Model == "" && !served {
				item.warn("asks for sharded weights that no model serves, so that no start of the gateway's cuts them up", "give a model model_path: store:"+p.Name+", or run pilotlight prefetch --all")
			}
		}
	}
}

// checkSharding holds how a model's weights are cut up against the options and the GPUs that its replicas have.
func (r *reader) checkSharding(m *Model, at, where value, accelerator GPU) {
	tp := m.Spec.Shard.TP
	if tp == 0 || m.Spec.Driver == backends.DriverStatic {
		return
	}
	if _, starts := flags.Begins(m.Spec.Command); m.Spec.Engine != backends.EngineSGLang || m.options == nil || !starts {
		at.fail("weights are cut up by SGLang's own code, for commands that start SGLang itself", "leave shard out, or give such a command")
		return
	}
	if have := flags.RanksOf(m.options.command, m.options.extra).TP; have != tp {
		at.fail(fmt.Sprintf("cuts the weights up for --tp-size %d, and replicas start with --tp-size %d", tp, have),
			fmt.Sprintf("add --tp-size %d to extra_args, or write tp: %d", tp, have))
	}
	if message, fix := flags.Unshardable(m.options.command, m.options.extra); message != "" {
		at.fail("does not go with "+message, fix)
	}
	asked := m.Resources.GPU
	if accelerator.Kind != "" && asked.Kind != "" && accelerator.Kind != asked.Kind {
		where.fail(fmt.Sprintf("is not what replicas have, which is %s: the first of them cuts the weights up on its own GPUs", asked.Kind), fmt.Sprintf("write %q", asked))
	}
}
