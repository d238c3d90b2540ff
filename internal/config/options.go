package config

import (
	"fmt"
	"slices"
	"strings"

	"pilotlight/backends/gpu"
	"pilotlight/backends/sglang/flags"
	"pilotlight/backends/sglang/footprint"
)

// options is what an SGLang model's arguments mean, kept for Describe.
type options struct {
	release release
	program int         // how many words of Spec.Command come before SGLang's options
	command *flags.Line // of the command; empty if the program is not known to be SGLang
	extra   *flags.Line // of extra_args
	field   string      // model_path or model_hf_path, whichever was given
	// footprint is what the model's folder tells; nil: it is not at hand, or footprintErr.
	footprint    *footprint.Model
	footprintErr error
}

// release is which options the arguments were held against, and why those.
type release struct {
	version string // as given or installed; empty: not known
	given   bool   // by engine_version
	custom  bool   // engine_version: custom
	table   *flags.Table
	err     error // why the installed release is not known
}

// customVersion is the engine_version of builds whose options no release has.
const customVersion = "custom"

// engineVersion reads backend.process.engine_version, or finds out what is installed.
func (r *reader) engineVersion(m *Model) release {
	v := m.engineVersion
	rel := release{version: v.text("")}
	switch {
	case rel.version == customVersion:
		return release{custom: true, given: true}
	case rel.version != "":
		rel.given = true
		var exact bool
		var err error
		rel.table, exact, err = flags.ForVersion(rel.version)
		if err != nil {
			v.fail("is not a release of SGLang", "write one such as 0.5.15, custom for a build of your own, or leave it out to have it found out")
			return release{}
		}
		r.nearestRelease(v, rel, exact)
	case r.engineRelease != nil:
		rel.version, rel.err = r.engineRelease(m.Spec.Command, m.Spec.Dir, m.Spec.Env)
		if rel.err != nil {
			rel.version = ""
			return rel
		}
		var exact bool
		rel.table, exact, rel.err = flags.ForVersion(rel.version)
		if rel.err == nil {
			r.nearestRelease(v, rel, exact)
		}
	}
	return rel
}

func (r *reader) nearestRelease(v value, rel release, exact bool) {
	if exact || rel.table == nil {
		return
	}
	v.warn(fmt.Sprintf("SGLang %s is not among the releases whose options are known; %s is taken instead", rel.version, rel.table.Version()),
		"set engine_version: custom if an option is refused that your SGLang has")
}

// checkOptions holds the arguments against the options of SGLang, and puts what it gets into the spec.
func (r *reader) checkOptions(m *Model, f fields, command, extra []word, gpuKnown bool) {
	o := &options{release: r.engineVersion(m), field: "model_hf_path"}
	if f.get("model_path").given() {
		o.field = "model_path"
	}
	var known bool
	if o.program, known = flags.Begins(m.Spec.Command); !known {
		o.program = len(m.Spec.Command)
		for _, w := range command {
			r.checkWrapper(w)
		}
	}
	own := m.Spec.Command[o.program:]
	table := o.release.table
	if table == nil {
		table = flags.Accepting(o.release.custom, own, m.Spec.ExtraArgs)
	}
	o.release.table = table
	o.command = table.Check(own, o.release.custom)
	o.extra = table.Check(m.Spec.ExtraArgs, o.release.custom)
	if len(own) > 0 {
		r.findings(o.command, command[o.program:])
	}
	r.findings(o.extra, extra)
	m.options = o
	wrong := len(o.command.Errors)+len(o.extra.Errors) > 0
	if message, _ := flags.RanksOf(o.command, o.extra).Problem(); !wrong || message == "" { // else it is said already
		r.checkRanks(m, f, command, extra, gpuKnown)
	}
	if !wrong {
		m.Spec.Command = append(m.Spec.Command[:o.program:o.program], o.command.Args...)
		m.Spec.ExtraArgs = o.extra.Args
	}
}

// findings reports what was found at the words of a line.
func (r *reader) findings(line *flags.Line, words []word) {
	text := func(f flags.Finding) string {
		parts := []string{f.Name}
		if f.Value != "" && !looksSecret("", f.Value) {
			parts = append(parts, shown(f.Value))
		}
		return strings.TrimSpace(strings.Join(append(parts, f.Message), " "))
	}
	for _, f := range line.Errors {
		words[f.At].at.asSecret().fail(text(f), f.Fix)
	}
	for _, f := range line.Warnings {
		words[f.At].at.asSecret().warn(text(f), f.Fix)
	}
}

// checkWrapper looks at a word of a program that is not known to be SGLang but may hand its arguments on.
func (r *reader) checkWrapper(w word) {
	name, _, _ := strings.Cut(w.text, "=")
	if !strings.HasPrefix(name, "--") || len(name) == 2 {
		return
	}
	if fix := flags.Owned(name); fix != "" {
		w.refuse(name, "is set by the gateway", fix)
	}
}

// checkRanks compares the GPUs that the options use with those asked for: SGLang takes one GPU per rank, and takes them
// whether or not others of this machine's models were promised them.
func (r *reader) checkRanks(m *Model, f fields, command, extra []word, gpuKnown bool) {
	o := m.options
	ranks := flags.RanksOf(o.command, o.extra)
	at := f.get("extra_args").asSecret()
	for _, lines := range []struct {
		line  *flags.Line
		words []word
		skip  int
	}{{o.command, command, o.program}, {o.extra, extra, 0}} {
		for _, e := range lines.line.Options {
			switch e.Option.Name {
			case "--tp-size", "--tensor-parallel-size", "--pp-size", "--pipeline-parallel-size", "--dp-size", "--data-parallel-size",
				"--ep-size", "--expert-parallel-size", "--base-gpu-id", "--gpu-id-step":
				at = lines.words[lines.skip+e.At].at.asSecret()
			}
		}
	}
	if message, fix := ranks.Problem(); message != "" {
		at.fail(message, fix)
		return
	}
	asked := m.Resources.GPU
	need := ranks.Devices()
	if !gpuKnown || need == asked.Count || !ranks.Given && need < asked.Count {
		return // GPUs that nothing uses are advice until an option says how many it wants
	}
	fix := fmt.Sprintf("set resources.gpu: %q", GPU{asked.Kind, need})
	if k, known := gpu.Find(asked.Kind); known && !slices.Contains(k.Counts, need) {
		fix = ""
	}
	if sized := ranks.Sized(asked.Count); sized != "" && asked.Count > 0 {
		if fix != "" {
			fix += ", or "
		}
		fix += "write " + sized
	}
	at.fail(fmt.Sprintf("%s uses %s, and resources.gpu asks for %d", ranks.Arithmetic(), count(need, "GPU"), asked.Count), fix)
}
