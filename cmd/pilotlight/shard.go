package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/google/shlex"
	"github.com/spf13/cobra"

	"pilotlight/backends"
	"pilotlight/backends/gpu"
	"pilotlight/backends/sglang/shard"
	"pilotlight/backends/store"
	"pilotlight/backends/weights"
	"pilotlight/internal/app"
	"pilotlight/internal/config"
)

// shardFlags say how weights are cut up, without a configuration.
type shardFlags struct{ shard, accelerator, python, args string }

func (f *shardFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.shard, "shard", "", "cut the weights up for `tp=N`, or tp=N,trust_remote_code")
	c.Flags().StringVar(&f.accelerator, "accelerator", "", "GPUs to cut on, `KIND:N` such as L40s:4 (default: CUDA_VISIBLE_DEVICES)")
	c.Flags().StringVar(&f.python, "python", "python3", "the `PROGRAM` that has SGLang")
	c.Flags().StringVar(&f.args, "engine-args", "", "SGLang's `ARGUMENTS` of the replicas, with shell quoting, such as \"--dtype bfloat16\"")
}

// spec is what replicas are that will load the parts; nil: nothing is cut up.
func (f *shardFlags) spec() (*backends.Spec, error) {
	if f.shard == "" {
		if f.accelerator != "" || f.args != "" {
			return nil, errors.New("--accelerator and --engine-args are for --shard tp=N")
		}
		return nil, nil
	}
	s := backends.Spec{Model: "prefetch", Engine: backends.EngineSGLang, Driver: backends.DriverProcess, Command: []string{f.python, "-m", "sglang.launch_server"}}
	for item := range strings.SplitSeq(f.shard, ",") {
		name, value, _ := strings.Cut(item, "=")
		n, err := strconv.Atoi(value)
		switch {
		case name == "tp" && err == nil && n > 0:
			s.Shard.TP = n
		case name == "trust_remote_code" && (value == "" || value == "true"):
			s.Shard.TrustRemoteCode = true
		case name == "engine" && value == string(backends.EngineSGLang):
		default:
			return nil, fmt.Errorf("--shard %s: write tp=N, or tp=N,trust_remote_code", f.shard)
		}
	}
	if s.Shard.TP == 0 {
		return nil, fmt.Errorf("--shard %s: write tp=N, the --tp-size that replicas start with", f.shard)
	}
	args, err := shlex.Split(f.args)
	if err != nil {
		return nil, fmt.Errorf("--engine-args: %w", err)
	}
	s.ExtraArgs = append([]string{"--tp-size", strconv.Itoa(s.Shard.TP)}, args...)
	return &s, nil
}

// cut is one model whose weights the configuration wants cut up.
type cut struct {
	label       string
	spec        backends.Spec
	accelerator string
}

// cutsOf are the models that want that, and entries of prefetch that no model serves. Models that want the same cost nothing twice.
func cutsOf(c *config.Config) (cuts []cut) {
	for i := range c.Models {
		if m := &c.Models[i]; m.Spec.Shard.TP > 0 {
			cuts = append(cuts, cut{label: m.Name, spec: m.Spec})
		}
	}
	for _, p := range c.Prefetch {
		served := false
		for _, other := range cuts {
			served = served || reflect.DeepEqual(other.spec.Weights, p.Weights) || other.spec.Weights.Name == p.Name
		}
		if p.Shard.TP == 0 || served {
			continue
		}
		flags := shardFlags{shard: "tp=" + strconv.Itoa(p.Shard.TP), python: "python3"}
		spec, err := flags.spec()
		if err != nil {
			panic("BUG: " + err.Error())
		}
		spec.Weights, spec.Shard = p.Weights, p.Shard
		one := cut{label: p.Name, spec: *spec}
		if p.Accelerator.Kind != "" {
			one.accelerator = p.Accelerator.String()
		}
		cuts = append(cuts, one)
	}
	return cuts
}

func (c cut) run(ctx context.Context, s *store.Store, k *weights.Keeper, log *slog.Logger, stdout, stderr io.Writer) error {
	if c.spec.Weights.Label() == "" {
		return cutUp(ctx, s, log, &c.spec, c.accelerator, c.spec.ModelPath, nil, stdout, stderr)
	}
	found, err := k.Find(c.spec.Weights)
	if err != nil {
		return fmt.Errorf("%s: its weights are not cut up, since they are not there: %w", c.label, err)
	}
	return cutUp(ctx, s, log, &c.spec, c.accelerator, found.Path, &found, stdout, stderr)
}

// cutUp has SGLang cut weights up, and prints the parts' folder.
func cutUp(ctx context.Context, s *store.Store, log *slog.Logger, spec *backends.Spec, accelerator, whole string, found *store.Snapshot, stdout, stderr io.Writer) (err error) {
	label := fmt.Sprintf("%s for --tp-size %d", spec.Model, spec.Shard.TP)
	if found != nil {
		label = fmt.Sprintf("%s for --tp-size %d", found.Repo, spec.Shard.TP)
		use, problem := s.Use(ctx, found.Repo, store.User{Who: "pilotlight prefetch"}) // room for the parts must not be made of what they are made from
		if problem != nil {
			return problem
		}
		defer func() { err = errors.Join(err, use.Close()) }()
	}
	on, err := devicesOf(ctx, accelerator, spec.Shard.TP)
	if err != nil {
		return err
	}
	job, err := app.NewCutter(s, "").Job(ctx, spec, on, whole, found)
	if err != nil {
		return explained(label, err)
	}
	told, phase := time.Now(), shard.Phase("")
	job.Progress = func(p shard.Progress) {
		if p.Phase == phase && time.Since(told) < logEvery {
			return
		}
		told, phase = time.Now(), p.Phase
		text := fmt.Sprintf("%s: %s", label, p.Phase)
		if p.Share > 0 && p.Phase != shard.Finished {
			text += fmt.Sprintf(", %.0f %%", 100*p.Share)
		}
		if p.Bytes > 0 {
			text += fmt.Sprintf(", %s of %s", humanize.Bytes(uint64(p.Bytes)), humanize.Bytes(uint64(p.Total)))
		}
		fmt.Fprintln(stderr, text)
	}
	parts, err := shard.Make(ctx, s, log, job)
	if err != nil {
		var f *backends.Failure
		if errors.As(err, &f) {
			for _, line := range f.Lines {
				fmt.Fprintln(stderr, "  "+line)
			}
		}
		return explained(label, err)
	}
	return printFetched(label, parts, stdout, stderr)
}

// devicesOf picks GPUs of a kind; without one it leaves the choice to CUDA_VISIBLE_DEVICES.
func devicesOf(ctx context.Context, accelerator string, n int) (on backends.Placement, err error) {
	if accelerator == "" {
		return on, nil
	}
	name, number, _ := strings.Cut(accelerator, ":")
	kind, known := gpu.Find(name)
	if !known {
		return on, usageError{fmt.Errorf("--accelerator %s: there is no such kind; known are %s", accelerator, strings.Join(gpu.Names(), ", "))}
	}
	if number != "" && number != strconv.Itoa(n) {
		return on, usageError{fmt.Errorf("--accelerator %s: tp=%d takes %d GPUs", accelerator, n, n)}
	}
	devices, err := gpu.SMI{}.List(ctx)
	if err != nil {
		return on, fmt.Errorf("looking for GPUs: %w", err)
	}
	for _, d := range devices {
		if d.Kind == kind.Name && !d.Missing && (n == 1 || !d.Alone) && len(on.Devices) < n {
			on.Devices = append(on.Devices, d.ID)
		}
	}
	if len(on.Devices) < n {
		return on, fmt.Errorf("--accelerator %s: %d of %d such GPUs are here", accelerator, len(on.Devices), n)
	}
	return on, nil
}
