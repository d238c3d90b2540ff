package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// scene is a configuration and what is done with it.
type scene struct {
	name   string
	about  string
	limit  time.Duration
	models func(ctx context.Context, o *options) ([]model, error)
	more   func(o *options) map[string]any // of the configuration, beside the models; nil: nothing
	steps  []step
}

// step is one thing that is done and checked.
type step struct {
	name string
	// vital: without it the rest of the scene means nothing.
	vital bool
	do    func(ctx context.Context, p *play) error
}

// scenes are all there are, most important first.
var scenes = []scene{coldScene, signalsScene, sleepScene, largeScene, swapScene, failuresScene, argumentsScene, storeScene, shardedScene, twoScene, besideScene}

func find(name string) (scene, error) {
	i := slices.IndexFunc(scenes, func(s scene) bool { return s.name == name })
	if i < 0 {
		return scene{}, fmt.Errorf("no scene %q; -list lists them", name)
	}
	return scenes[i], nil
}

// play is a scene being played. Steps run one after the other.
type play struct {
	*options
	gateway *gateway
	client  client
	gpu     gpu
	free    memory // in use before the scene
	said    string // by a model, for comparison
	// answered is when the ladder's last answer ended.
	answered time.Time
	step     *stepResult // the one that runs
}

// figure records a duration of the running step.
func (p *play) figure(name string, d time.Duration) {
	p.number(name, d.Seconds(), "s")
}

func (p *play) number(name string, value float64, unit string) {
	p.step.Figures = append(p.step.Figures, figure{name, value, unit})
}

// note records in words what was seen.
func (p *play) note(format string, args ...any) {
	p.step.Notes = append(p.step.Notes, fmt.Sprintf(format, args...))
}

// kept records a duration, and is an error if it is longer than limit.
func (p *play) kept(name string, d, limit time.Duration) error {
	p.figure(name, d)
	if d > p.within(limit) {
		return fmt.Errorf("%s: %v, and must be within %v", name, d.Round(time.Millisecond), p.within(limit))
	}
	return nil
}

// play plays the scene. The result is whole whatever happens; the error is about the machine, not about what was tried.
func (s scene) play(ctx context.Context, o options) (r result, err error) {
	began := time.Now()
	r = result{Scene: s.name, Began: began.UTC().Truncate(time.Second), Model: filepath.Base(o.Model)}
	defer func() { r.Seconds = time.Since(began).Seconds() }()
	say := func(format string, args ...any) {
		o.Log("%7.2f %s: %s", time.Since(began).Seconds(), s.name, fmt.Sprintf(format, args...))
	}
	dir := filepath.Join(o.Out, s.name)
	if err := os.RemoveAll(dir); err != nil { // of an earlier run
		return r, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	r.Machine, r.Versions = machine(ctx, o.smi()), versions(ctx, &o)
	p := &play{options: &o, gpu: gpu{o.smi()}}
	p.client, r.Versions.Client = newClient(ctx, o.Client)
	p.free = p.gpu.used(ctx)
	say("%s, %s", r.Machine.text(), r.Versions.text())
	models, err := s.models(ctx, &o)
	if err != nil {
		return r, err
	}
	config := o.config(models)
	if s.more != nil {
		maps.Copy(config, s.more(&o))
	}
	p.gateway, err = newGateway(ctx, &o, dir, config)
	if err != nil {
		return r, err
	}
	defer func() {
		// What the steps have left, whether they have succeeded or not, and even if there is no time left.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		end := r.run(step{name: "the gateway ends, and nothing is left", do: func(ctx context.Context, p *play) error { return p.over(ctx) }}, ctx, p)
		say("%s", end.text())
		r.judge(len(s.steps) + 1)
		err = errors.Join(err, p.gateway.tidy())
	}()
	for _, step := range s.steps {
		say("… %s", step.name)
		done := r.run(step, ctx, p)
		say("%s", done.text())
		if ctx.Err() != nil {
			say("the scene's time, %v, is over", s.limit)
			break
		}
		if step.vital && !done.OK {
			break
		}
	}
	return r, nil
}

// run does one step and records it.
func (r *result) run(s step, ctx context.Context, p *play) *stepResult {
	p.step = &stepResult{Name: s.name}
	began := time.Now()
	err := s.do(ctx, p)
	p.step.Seconds = time.Since(began).Seconds()
	if p.step.OK = err == nil; err != nil {
		p.step.Error = err.Error()
	}
	r.Steps = append(r.Steps, p.step)
	return p.step
}

// over ends the gateway as operators do, and whatever it has left with force.
func (p *play) over(ctx context.Context) error {
	began := time.Now()
	err := p.gateway.stop(ctx)
	p.figure("orderly end", time.Since(began))
	if left := p.gateway.processes(); len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("processes left: %v", left), killAll(left))
	}
	if records := p.gateway.records(); len(records) > 0 {
		err = errors.Join(err, fmt.Errorf("records left: %v", records))
	}
	return errors.Join(err, p.memoryBack(ctx, p.free))
}

// memoryBack waits until the GPUs have no more in use than free, give or take what drivers keep.
func (p *play) memoryBack(ctx context.Context, free memory) error {
	if !free.known {
		return nil
	}
	began := time.Now()
	for {
		now := p.gpu.used(ctx)
		if now.known && now.mib <= free.mib+slackMiB {
			p.figure("GPU memory back after", time.Since(began))
			p.number("GPU memory in use", float64(now.mib), "MiB")
			return nil
		}
		if !sleep(ctx, 50*time.Millisecond) || time.Since(began) > p.within(15*time.Second) {
			return fmt.Errorf("GPU memory in use is %d MiB and was %d MiB before the scene", now.mib, free.mib)
		}
	}
}

// sleep waits, and tells whether ctx lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// until waits for a condition.
func until(ctx context.Context, limit time.Duration, what string, cond func() (bool, error)) error {
	for end := time.Now().Add(limit); ; {
		ok, err := cond()
		if ok {
			return nil
		}
		if time.Now().After(end) || !sleep(ctx, 20*time.Millisecond) {
			if err != nil {
				return fmt.Errorf("%s: has not come: %w", what, err)
			}
			return fmt.Errorf("%s: has not come", what)
		}
	}
}
