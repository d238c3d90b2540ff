package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// The ladder's times are short, so that a scene is; how they are counted is the same with longer ones.
const (
	sleepAfter = 2 * time.Second
	stopAfter  = 10 * time.Second
	// largeStopAfter leaves time between the two: an 8B-shaped model's weights took 7 to 9 s to their copy on an H100.
	largeStopAfter = 45 * time.Second
	// wakeLimit is from a request for a model that sleeps to its first token.
	wakeLimit = 2 * time.Second
)

// sleepScene goes down the ladder and up again with the small model.
var sleepScene = ladder("sleep", "the small model", stopAfter, func(_ context.Context, o *options) (string, error) { return o.Model, nil })

// largeScene does with as many weights as are worth it.
var largeScene = ladder("large", "a model of 8B's shape with random weights", largeStopAfter, func(ctx context.Context, o *options) (string, error) {
	dir := o.Large
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "pilotlight-8b")
	}
	began := time.Now()
	if err := makeRandom(ctx, o.Model, dir, eight); err != nil {
		return "", fmt.Errorf("making a large model: %w", err)
	}
	o.Log("        the large model is in %s after %.1f s", dir, time.Since(began).Seconds())
	return dir, nil
})

// ladder is a scene: ready, asleep, an answer, asleep, stopped, and cold again.
func ladder(name, who string, stopAfter time.Duration, path func(context.Context, *options) (string, error)) scene {
	return scene{
		name: name, about: "idle, asleep, an answer, idle, stopped, cold again: " + who, limit: 8 * time.Minute,
		models: func(ctx context.Context, o *options) ([]model, error) {
			dir, err := path(ctx, o)
			return []model{{
				Name: name, Path: dir,
				Fields: map[string]any{
					"resources": map[string]any{"gpu": "1"},
					"scaling":   map[string]any{"sleep_after": sleepAfter.String(), "scaledown_after": stopAfter.String()},
				},
			}}, err
		},
		steps: []step{
			{name: "cold start", vital: true, do: coldStart(name)},
			{name: "idle: it falls asleep, and its GPU memory is free", vital: true, do: fallAsleep(name)},
			{name: "asleep: a request wakes it, and is answered as before", vital: true, do: wake(name)},
			{name: "idle: asleep again, then stopped, and all GPU memory is back", vital: true, do: stopped(name)},
			{name: "cold again", do: again(name)},
		},
	}
}

// telling is a question whose answer tells whether the weights are what they were. Random ones would end it anywhere.
func telling(name string) question {
	return chat(name, "Name three colours.", map[string]any{"max_tokens": 32, "ignore_eos": true}).streamed()
}

// fallAsleep asks once more, and waits for the sleep that follows.
func fallAsleep(name string) func(ctx context.Context, p *play) error {
	return func(ctx context.Context, p *play) error {
		awake := p.gpu.used(ctx)
		a, err := p.ask(ctx, telling(name))
		if err != nil {
			return err
		}
		if p.said = a.Text; p.said == "" {
			return fmt.Errorf("no text: %s", a.text())
		}
		if now := p.gpu.used(ctx); now.mib > awake.mib { // nothing was asked of it before
			awake = now
		}
		if err := p.asleep(ctx, name); err != nil {
			return err
		}
		p.figure("asleep after", time.Since(a.End))
		asleep := p.gpu.used(ctx)
		if !awake.known || !asleep.known {
			return nil
		}
		p.number("GPU memory awake", float64(awake.mib), "MiB")
		p.number("asleep", float64(asleep.mib), "MiB")
		if asleep.mib-p.free.mib > (awake.mib-p.free.mib)/4 {
			return errors.New("too little of the GPU's memory was given back")
		}
		return nil
	}
}

// asleep waits until a model's replica is, altogether.
func (p *play) asleep(ctx context.Context, name string) error {
	return until(ctx, time.Minute, name+" is asleep", func() (bool, error) {
		m, err := p.gateway.model(ctx, name)
		if err != nil {
			return false, err
		}
		return len(m.Replicas) == 1 && m.Replicas[0].State == "asleep" && m.Replicas[0].Phase == "", fmt.Errorf("%+v", m)
	})
}

// wake asks a model that sleeps. The engine must be the one that fell asleep, with its weights.
func wake(name string) func(ctx context.Context, p *play) error {
	return func(ctx context.Context, p *play) error {
		before, err := p.gateway.engine(name)
		if err != nil {
			return err
		}
		if err := p.asleep(ctx, name); err != nil {
			return err
		}
		a, err := p.ask(ctx, telling(name))
		if err != nil {
			return err
		}
		after, err := p.gateway.engine(name)
		if err != nil {
			return err
		}
		if after.PID != before.PID {
			return errors.New("it was started anew")
		}
		p.answered = a.End
		if a.Text != p.said {
			return fmt.Errorf("it says %q and said %q before", a.Text, p.said)
		}
		return p.kept("request to first token", a.First.Sub(a.Sent), wakeLimit)
	}
}

// stopped waits for the ladder's end.
func stopped(name string) func(ctx context.Context, p *play) error {
	return func(ctx context.Context, p *play) error {
		began := p.answered
		if err := p.asleep(ctx, name); err != nil {
			return err
		}
		p.figure("asleep after", time.Since(began))
		err := until(ctx, time.Minute, name+" is stopped", func() (bool, error) {
			m, err := p.gateway.model(ctx, name)
			left := p.gateway.processes()
			return err == nil && m.State == "cold" && len(left) == 0, errors.Join(err, fmt.Errorf("%s, processes %v", m.State, left))
		})
		if err != nil {
			return err
		}
		p.figure("gone after", time.Since(began))
		return p.memoryBack(ctx, p.free)
	}
}
