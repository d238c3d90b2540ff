package shard

import (
	"errors"
	"fmt"
	"slices"

	"pilotlight/backends"
	"pilotlight/backends/sglang/flags"
	"pilotlight/backends/sglang/installed"
)

// Source is a model's folder, and what it is.
type Source struct {
	Model  string // "org/name", or a folder's own name
	Commit string // 40 hex digits
	Folder string
}

// JobFor says what cutting up a source for replicas of spec takes, where version is the release of SGLang that spec's command starts. Whoever
// runs the job adds to its Environ, Env, Devices and Log. The error says what rules it out, and what to do.
func JobFor(spec *backends.Spec, version string, source Source) (Job, error) {
	python, err := installed.Python(spec.Command, spec.Dir)
	if err != nil {
		return Job{}, fmt.Errorf("SGLang's own code cuts weights up, and so the Python that has it must be known: %w; give a command that begins with it, or with sglang", err)
	}
	options, err := Options(spec, version)
	if err != nil {
		return Job{}, err
	}
	recipe, err := NewRecipe(source.Model, source.Commit, source.Folder, version, options)
	if err != nil {
		return Job{}, err
	}
	args := options.Args
	if _, given := options.Value("--trust-remote-code"); spec.Shard.TrustRemoteCode && !given {
		args = append(slices.Clone(args), "--trust-remote-code")
	}
	return Job{Recipe: recipe, Source: source.Folder, Command: []string{python}, Options: args, Dir: spec.Dir, Stall: spec.StartTimeout}, nil
}

// Options are SGLang's options of spec's replicas, in full names, and --tp-size among them whether it is given or not.
func Options(spec *backends.Spec, version string) (*flags.Line, error) {
	table, _, err := flags.ForVersion(version)
	if err != nil {
		return nil, err
	}
	n, ok := flags.Begins(spec.Command)
	if !ok {
		return nil, errors.New("weights are cut up for commands that start SGLang itself, such as python3 -m sglang.launch_server")
	}
	options := table.Check(slices.Concat(spec.Command[n:], spec.ExtraArgs), true)
	tp := flags.RanksOf(options).TP
	if _, given := options.Value("--tp-size"); !given {
		options = table.Check(slices.Concat(options.Args, []string{"--tp-size", fmt.Sprint(tp)}), true)
	}
	if spec.Shard.TP > 0 && tp != spec.Shard.TP {
		return nil, fmt.Errorf("the weights are to be cut for --tp-size %d, and replicas start with --tp-size %d; make them equal", spec.Shard.TP, tp)
	}
	return options, nil
}
