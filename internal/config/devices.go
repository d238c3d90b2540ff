package config

import (
	"fmt"
	"math"
	"strings"

	"go.yaml.in/yaml/v3"

	"pilotlight/backends"
	"pilotlight/backends/gpu"
)

// Devices say which GPUs the gateway shares out.
type Devices struct {
	// Auto: those that nvidia-smi shows. Neither Auto nor List: none, and nobody keeps account of what models ask for.
	Auto bool
	List []gpu.Declared
}

// None: nobody keeps account of GPUs.
func (d Devices) None() bool { return !d.Auto && len(d.List) == 0 }

// String is the form of the file, in one line.
func (d Devices) String() string {
	switch {
	case d.Auto:
		return "auto"
	case d.None():
		return "none"
	}
	parts := make([]string, len(d.List))
	for i, e := range d.List {
		kind := e.Kind
		if kind == "" {
			kind = "of any kind"
		}
		parts[i] = fmt.Sprintf("%d %s", e.Count, kind)
	}
	return strings.Join(parts, ", ")
}

// devices reads auto, none, or a list of kinds and counts.
func (r *reader) devices(v value) Devices {
	if !v.given() {
		return Devices{Auto: true}
	}
	const fix = `write auto, none, or a list such as [{kind: L40s, count: 4}]`
	if v.node.Kind == yaml.ScalarNode {
		switch v.text("") {
		case "auto":
			return Devices{Auto: true}
		case "none":
		default:
			v.fail("expected auto, none or a list of devices", fix)
		}
		return Devices{}
	}
	var d Devices
	before := len(r.problems)
	items := v.items()
	if v.node.Kind == yaml.SequenceNode && len(v.node.Content) == 0 {
		v.fail("lists no device", fix)
	}
	for _, item := range items {
		f := item.fields("kind", "count")
		kind := f.get("kind")
		entry := gpu.Declared{Count: int(f.get("count").integer(1, 1, maxGPUs))}
		if kind.given() {
			entry.Kind = kind.gpuKind(kind.text(""))
		}
		d.List = append(d.List, entry)
	}
	if len(r.problems) > before {
		return Devices{} // what it lacks says nothing about models
	}
	return d
}

// gpuKind is the canonical name of a kind; empty if there is none such, which is reported.
func (v value) gpuKind(name string) string {
	if k, ok := gpu.Find(strings.TrimSpace(name)); ok {
		return k.Name
	}
	if name == "" {
		return "" // reported
	}
	if near := nearest(name, gpu.Names()); near != "" {
		v.fail("unknown GPU type", "did you mean "+near+"?")
	} else {
		v.fail("unknown GPU type", "known: "+strings.Join(gpu.Names(), ", "))
	}
	return ""
}

// least is what a server needs beside its weights and cache. SGLang leaves 512 MiB and 1.5 MiB for each token of a chunk of prefill out of
// its static memory; 2048 tokens are its smallest chunk (docs/facts/sglang.md, section 1.5).
const least = 3584 << 20

// sharing reads how a model shares the machine's GPUs with others.
func (r *reader) sharing(m *Model, f fields, gpuField value) {
	m.Pinned = f.get("pinned").boolean(false)
	m.Priority = int(f.get("priority").integer(0, -1000, 1000))
	asked := m.Resources.GPU
	if m.Spec.Driver == backends.DriverProcess && asked.Count > 0 {
		m.Spec.Devices = backends.Devices{Kind: asked.Kind, Count: asked.Count}
	}
	r.gpuShare(m, f.get("gpu_share"))
	if m.Spec.Devices.Count > 0 {
		if variable := f.get("env_vars"); m.Spec.Env["CUDA_VISIBLE_DEVICES"] != "" {
			variable.warn("CUDA_VISIBLE_DEVICES is replaced by the GPUs that the gateway gives to the model",
				"remove it, or write devices: none at the top to choose GPUs by hand")
		}
		return
	}
	for _, name := range []string{"pinned", "priority"} {
		if v := f.get(name); v.given() && (m.Pinned || m.Priority != 0) && !gpuField.given() {
			v.warn("has no effect without resources.gpu", `say how many GPUs a replica needs, such as resources: {gpu: "L40s:1"}`)
		}
	}
}

func (r *reader) gpuShare(m *Model, v value) {
	if !v.given() {
		return
	}
	share, ok := v.fraction()
	if !ok {
		return
	}
	thousandths := int(math.Round(share * 1000))
	d := &m.Spec.Devices
	switch {
	case share <= 0 || share > 1:
		v.fail("is not a share: expected more than 0 and at most 1", "")
	case thousandths < 10:
		v.fail("is below 0.01", "")
	case m.Spec.Driver != backends.DriverProcess:
		v.fail("only the process backend gives shares of GPUs", "remove it")
	case d.Count == 0:
		v.fail("a share of how many GPUs? resources.gpu is missing", `write resources: {gpu: "H200:1"} beside it, or a number`)
	case d.Count > 1:
		v.fail(fmt.Sprintf("a share is of one GPU, and resources.gpu asks for %d", d.Count), "ask for 1, or remove it")
	case m.options != nil && m.options.given("--mem-fraction-static"):
		v.fail("sets --mem-fraction-static, which the arguments give, too", "remove one of them")
	case thousandths == 1000: // the whole
	default:
		d.Share = thousandths
		if k, ok := gpu.Find(d.Kind); ok && k.Memory*int64(thousandths)/1000 <= least {
			v.fail(fmt.Sprintf("%g of the %d GB of an %s is %.1f GB; a server needs 3.8 GB beside its weights and cache", share, k.Memory/1e9, k.Name,
				float64(k.Memory)*share/1e9), "raise it")
		}
		if m.Spec.Engine != backends.EngineSGLang {
			v.warn("the engine is not told how much memory it may take", "bound it by an argument of its own")
		}
	}
}

// fit holds what models ask for against a list of devices.
func (r *reader) fit(c *Config, models []modelFields) {
	d := c.Devices
	if len(d.List) == 0 {
		return
	}
	have := map[string]int{} // entries of any kind may turn out to be the right one
	most := 0
	for _, e := range d.List {
		have[e.Kind] += e.Count
		most = max(most, have[e.Kind])
	}
	if len(have) > 1 {
		most += have[""]
	}
	always := map[string]int{}
	for _, read := range models {
		m := &read.model
		asked := m.Spec.Devices
		if asked.Count == 0 {
			continue
		}
		n := most
		if asked.Kind != "" {
			n = have[asked.Kind] + have[""]
		}
		if asked.Count > n {
			fix := fmt.Sprintf("ask for at most %d, or declare more", n)
			if n == 0 {
				fix = "ask for what is declared: " + d.String()
			}
			read.gpu.fail(fmt.Sprintf("is more than devices has: %s", d), fix)
			continue
		}
		if asked.Share == 0 {
			if always[asked.Kind] += asked.Count * m.Activator.Min; m.Activator.Min > 0 && always[asked.Kind] > n {
				read.gpu.warn(fmt.Sprintf("models that always run need %d of these GPUs, and devices has %d: the last never starts", always[asked.Kind], n),
					"run one of them on demand: scaling.replicas: [0, 1]")
			}
		}
	}
}
