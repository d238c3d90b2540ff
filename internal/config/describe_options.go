package config

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"pilotlight/backends/sglang/flags"
)

// shortScaledown is less than SGLang's fastest known start: a model that leaves sooner mostly loads.
const shortScaledown = time.Minute

// given tells whether an option (any of its names) is given, and value what it was last given.
func (o *options) given(name string) bool {
	_, ok := o.value(name)
	return ok
}

func (o *options) value(name string) (string, bool) {
	if v, ok := o.extra.Value(name); ok {
		return v, true
	}
	return o.command.Value(name)
}

// options explains the command line, option by option: what SGLang gets, and which line of the file is to blame.
func (d *describer) options(m *Model) {
	o := m.options
	d.line(1, "release      %s", o.release.describe())
	type row struct{ args, from string }
	var rows []row
	add := func(e flags.Explained, field string) {
		from := field
		if e.From != "" {
			from = fmt.Sprintf("%s, there %s", field, e.From)
		}
		rows = append(rows, row{quoted(maskArgs(e.Args())), from})
	}
	for _, e := range o.command.Options {
		add(e, "backend.process.command")
	}
	for _, g := range o.ours(d.commandLine(&m.Spec)) {
		from := map[string]string{
			"--model-path": o.field, "--served-model-name": "model_id", "--host": "the gateway: replicas listen on loopback",
			"--port": "the gateway: a free one at each start", "--api-key": "the gateway: a new one for each replica",
			"--enable-memory-saver": "scaling.sleep_after", "--enable-weights-cpu-backup": "scaling.sleep_after", "--enable-draft-weights-cpu-backup": "scaling.sleep_after",
			"--enable-cache-report": "scaling.replicas",
		}[g.Option.Name]
		if from == "" {
			from = "the gateway"
		}
		rows = append(rows, row{quoted(maskArgs(append([]string{g.Full}, g.Values...))), from})
	}
	for _, e := range o.extra.Options {
		add(e, "extra_args")
	}
	width := 0
	for _, r := range rows {
		width = max(width, min(utf8.RuneCountInString(r.args), 48))
	}
	for i, r := range rows {
		label := "options"
		if i > 0 {
			label = ""
		}
		d.line(1, "%-12s %-*s  %s", label, width, r.args, r.from)
	}
}

// ours are the options that the launch puts between the command's own and extra_args.
func (o *options) ours(argv []string) []flags.Given {
	from, to := o.program+len(o.command.Args), len(argv)-len(o.extra.Args)
	if from > to {
		return nil
	}
	given, _ := o.release.table.Parse(argv[from:to])
	return given
}

func (r release) describe() string {
	table := "options of SGLang " + r.table.Version()
	switch {
	case r.custom:
		return table + "; others pass (engine_version: custom)"
	case r.version != "" && r.given:
		return fmt.Sprintf("SGLang %s by engine_version, %s", r.version, table)
	case r.version != "":
		return fmt.Sprintf("SGLang %s is installed, %s", r.version, table)
	}
	return fmt.Sprintf("not known, %s; engine_version says which", table)
}

// engineAdvice is what a model's options could be better at.
func (d *describer) engineAdvice(m *Model, add func(format string, args ...any)) {
	o := m.options
	switch err := o.release.err; {
	case errors.Is(err, flags.ErrNoSGLang):
		add("%s: %s has no package sglang; name its interpreter in backend.process.command", m.Name, m.Spec.Command[0])
	case err != nil && !errors.Is(err, flags.ErrNoPython):
		add("%s: %v; set backend.process.engine_version", m.Name, err)
	}
	if !o.given("--context-length") {
		add("%s: without --context-length the model's own maximum sets the KV cache; name what your prompts need", m.Name)
	}
	if m.Activator.Min == 0 && m.Activator.ScaledownAfter < shortScaledown {
		add("%s: scaledown_after %s is less than an SGLang start takes; most requests would wait for one", m.Name, m.Activator.ScaledownAfter)
	}
	if n := m.Resources.GPU.Count; n > 1 && !flags.RanksOf(o.command, o.extra).Given {
		add("%s: asks for %d GPUs and SGLang uses one; add --tp-size %d", m.Name, n, n)
	}
	if (m.Activator.Min > 0 || m.Activator.ScaledownAfter > longIdle) && !o.given("--sleep-on-idle") {
		add("%s: an idle SGLang keeps a processor core busy for each GPU; --sleep-on-idle ends that", m.Name)
	}
}

// longIdle is when a busy core of an idle server (SGLang's schedulers poll without it) is worth an option.
const longIdle = time.Hour
