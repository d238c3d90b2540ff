package app

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/backends/sglang/installed"
	"pilotlight/backends/sglang/shard"
	"pilotlight/backends/store"
	"pilotlight/backends/weights"
)

// Cutter says what cutting weights up takes, for replicas as they are configured. Safe for concurrent use.
type Cutter struct {
	store     *store.Store
	installed *installed.Detector
	environ   []string // what SGLang's environment begins with
	logs      string   // folder; empty: SGLang's output is not kept
}

// NewCutter takes the store that the parts go to, and the folder for SGLang's output; without one none is kept.
func NewCutter(s *store.Store, logs string) *Cutter {
	environ := slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "PILOTLIGHT_") }) // our own, such as the admin token
	return &Cutter{store: s, installed: installed.New(environ), environ: environ, logs: logs}
}

// cut gives a start sharded weights in the place of the whole ones, and makes them first if need be, on the start's devices. Weights that are
// sharded already must fit. release is to be called when the engine has inherited the placement's files, or will not.
func (l *launcher) cut(ctx context.Context, id uint64, on *backends.Placement, held *weights.Held, progress func(activator.Progress)) (release func() error, err error) {
	release = func() error { return nil }
	if l.spec.Engine != backends.EngineSGLang {
		return release, nil
	}
	folder := l.spec.ModelPath
	if on.ModelPath != "" {
		folder = on.ModelPath
	}
	if l.spec.Shard.TP == 0 {
		return release, l.fit(on, folder)
	}
	if l.spec.Stream {
		// SGLang's streaming loader reads whole weights, with any --tp-size; sharded_state is a loader of its own, which reads a folder.
		return release, shard.Refuse(errors.New("weights that are streamed are not cut up: SGLang's streaming loader reads the whole ones"),
			"write stream_model: false to start from the parts, or leave shard out")
	}
	if l.cutter == nil {
		return release, shard.Refuse(errors.New("there is no store to put them into"), "write store: {path: /var/lib/models}")
	}
	var found *store.Snapshot
	if held != nil {
		found = &held.Snapshot
	}
	job, err := l.cutter.Job(ctx, &l.spec, *on, folder, found)
	if err != nil {
		return release, err
	}
	job.Progress = func(p shard.Progress) { progress(cutting(p)) }
	if _, err := shard.Make(ctx, l.cutter.store, l.log, job); err != nil {
		return release, cutFailure(err)
	}
	use, err := l.cutter.store.Use(ctx, job.Recipe.Repo(), store.User{Who: fmt.Sprintf("%s replica %d", l.spec.Model, id)})
	if err != nil {
		return release, cutFailure(err)
	}
	parts, err := shard.Find(l.cutter.store, job.Recipe) // again, now that nobody takes them away
	if err != nil {
		return use.Close, cutFailure(err)
	}
	on.ModelPath, on.Args, on.Files = parts.Path, shard.Args(), nil
	if use.File != nil {
		on.Files = []*os.File{use.File}
	}
	return use.Close, nil
}

func cutFailure(err error) error {
	var f *backends.Failure
	switch {
	case errors.As(err, &f):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &backends.Failure{Class: backends.ClassStopped, Message: "cutting the weights up was cancelled", Err: err}
	}
	return &backends.Failure{Class: backends.ClassLaunch, Message: "the weights could not be cut up", Advice: "see the gateway's log", Err: err}
}

// Job is what cutting up takes for replicas of spec that are placed so; whole is the folder of the whole weights, and found says what it is if it
// is one of the store. The error is a *backends.Failure.
func (c *Cutter) Job(ctx context.Context, spec *backends.Spec, on backends.Placement, whole string, found *store.Snapshot) (shard.Job, error) {
	version, err := c.installed.Version(spec.Command, spec.Dir, spec.Env)
	if err != nil {
		return shard.Job{}, shard.Refuse(fmt.Errorf("SGLang's own code cuts weights up, and its release is not known: %w", err), "give a command that begins with its Python")
	}
	source, err := sourceOf(ctx, whole, found)
	if err != nil {
		return shard.Job{}, err
	}
	job, err := shard.JobFor(spec, version, source)
	if err != nil {
		return shard.Job{}, shard.Refuse(err, "change extra_args or prefetch.shard")
	}
	env, err := Variables(spec)
	if err != nil {
		return shard.Job{}, err
	}
	job.Env = map[string]string{}
	for name := range spec.Env {
		job.Env[name], _ = env(name)
	}
	for _, s := range spec.Secrets {
		job.Env[s.Env], _ = env(s.Env)
	}
	job.Environ, job.Devices = c.environ, on.Devices
	if c.logs != "" {
		job.Log = filepath.Join(c.logs, "shard-"+spec.Model+".log")
	}
	if on.MemoryFraction > 0 {
		job.Options = append([]string{"--mem-fraction-static", strconv.FormatFloat(math.Floor(on.MemoryFraction*1000)/1000, 'f', 3, 64)}, job.Options...)
	}
	return job, nil
}

// sourceOf names what lies in the folder of whole weights.
func sourceOf(ctx context.Context, folder string, found *store.Snapshot) (shard.Source, error) {
	if found != nil {
		return shard.Source{Model: found.Repo, Commit: found.Commit, Folder: found.Path}, nil
	}
	missing := func(err error) error {
		return &backends.Failure{
			Class: backends.ClassModelNotFound, Permanent: true, Message: "the model's folder, whose weights are to be cut up, cannot be read", Err: err,
			Advice: "give the folder of a model as model_path, or prefetch it",
		}
	}
	f, err := store.NewFolder(folder)
	if err != nil {
		return shard.Source{}, missing(err)
	}
	list, err := f.List(ctx, "")
	if err != nil {
		return shard.Source{}, missing(err)
	}
	name := filepath.Base(folder)
	if store.CheckRepo(name) != nil {
		name = "model" // the commit tells them apart
	}
	return shard.Source{Model: name, Commit: list.Commit, Folder: folder}, nil
}

// fit sees whether weights that somebody gave as the model's are sharded ones of ours, and are these replicas'.
func (l *launcher) fit(on *backends.Placement, folder string) error {
	m, err := shard.ReadManifest(folder)
	if err != nil {
		return shard.Refuse(err, "cut them up again: pilotlight prefetch SOURCE --shard tp=N")
	}
	if m == nil || l.cutter == nil {
		return nil
	}
	version, err := l.cutter.installed.Version(l.spec.Command, l.spec.Dir, l.spec.Env)
	if err != nil {
		return shard.Refuse(fmt.Errorf("they were made by SGLang %s, and the release of this replica's is not known: %w", m.Version, err), "give a command that begins with its Python")
	}
	options, err := shard.Options(&l.spec, version)
	if err != nil {
		return shard.Refuse(err, "change extra_args")
	}
	wanted, err := shard.NewRecipe(m.Model, m.Commit, folder, version, options)
	if err == nil {
		err = wanted.Fits(m.Recipe)
	}
	if err != nil {
		return shard.Refuse(err, fmt.Sprintf("start with --tp-size %d and that release, or cut them up again: pilotlight prefetch %s --shard tp=%d", m.TP, m.Model, wanted.TP))
	}
	on.ModelPath, on.Args = folder, shard.Args()
	return nil
}

// cutting is a progress for those who wait. It has no percentage: that is of the start proper, which comes afterwards.
func cutting(p shard.Progress) activator.Progress {
	out := activator.Progress{Phase: string(backends.PhaseShard), Share: p.Share, Detail: string(p.Phase)}
	if p.Bytes > 0 && p.Total > 0 {
		out.Detail += ", " + humanize.Bytes(uint64(p.Bytes)) + " of " + humanize.Bytes(uint64(p.Total))
	}
	return out
}
