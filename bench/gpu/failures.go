package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"time"
)

// failing are models whose start fails for good, and the class that operators and clients must hear.
var failing = []struct{ name, why, class string }{
	{"flag", "an unknown flag", "invalid_launch_argument"},
	{"missing", "a model that is not there", "model_not_found_upstream"},
	{"cache", "no memory left for the KV cache", "out_of_memory"},
	{"giant", "weights larger than the GPU", "out_of_memory"},
}

// failuresScene starts what cannot start, all at once.
var failuresScene = scene{
	name: "failures", about: "wrong flag, missing model, out of memory: what the client and the operator are told", limit: 5 * time.Minute,
	models: func(_ context.Context, o *options) ([]model, error) {
		giant := filepath.Join(o.Out, "failures", scratch, "giant-model")
		if err := makeGiant(o.Model, giant); err != nil {
			return nil, fmt.Errorf("making a giant of %s: %w", o.Model, err)
		}
		return []model{
			{Name: "flag", Version: "custom", Args: []string{"--no-such-flag", "1"}},
			{Name: "missing", Path: "/nowhere/no-such-model"},
			{Name: "cache", Fraction: "0.0001"},
			{Name: "giant", Path: giant, Args: []string{"--load-format", "dummy"}, Fraction: "0.9"},
		}, nil
	},
	steps: []step{
		{name: "four starts fail, side by side", do: func(ctx context.Context, p *play) error {
			return p.eachFails(ctx, func(ctx context.Context, name, class string) (string, error) { return p.fails(ctx, name, class) })
		}},
		{name: "the next client hears at once, without another start", do: func(ctx context.Context, p *play) error {
			return p.eachFails(ctx, func(ctx context.Context, name, class string) (string, error) {
				before, err := p.gateway.model(ctx, name)
				if err != nil {
					return "", err
				}
				began := time.Now()
				words, err := p.fails(ctx, name, class)
				if took := time.Since(began); took > p.within(time.Second) {
					err = errors.Join(err, fmt.Errorf("%s: told after %v", name, took))
				}
				after, e := p.gateway.model(ctx, name)
				if after.Starts != before.Starts {
					err = errors.Join(err, fmt.Errorf("%s: started again", name))
				}
				return words, errors.Join(err, e)
			})
		}},
		{name: "nothing of them is left", do: func(ctx context.Context, p *play) error {
			return until(ctx, time.Minute, "all processes of failed starts are gone", func() (bool, error) {
				left := p.gateway.processes()
				return len(left) == 0, fmt.Errorf("processes %v", left)
			})
		}},
	},
}

// eachFails does the same with each failing model, side by side, and notes what each told.
func (p *play) eachFails(ctx context.Context, f func(ctx context.Context, name, class string) (string, error)) error {
	var wg sync.WaitGroup
	words, errs, took := make([]string, len(failing)), make([]error, len(failing)), make([]time.Duration, len(failing))
	for i, c := range failing {
		wg.Go(func() {
			began := time.Now()
			words[i], errs[i] = f(ctx, c.name, c.class)
			took[i] = time.Since(began)
		})
	}
	wg.Wait()
	for i, c := range failing {
		p.figure(c.why, took[i])
		if words[i] != "" {
			p.note("%s: %s", c.why, words[i])
		}
	}
	return errors.Join(errs...)
}

// fails asks a model that cannot start: 503 with the class, and advice not to try again. The operator's view has the same class. It
// returns what the client was told.
func (p *play) fails(ctx context.Context, name, class string) (string, error) {
	s, err := open(ctx, p.gateway, chat(name, "Say hello.", nil))
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	defer s.close()
	code, message := errorOf(s.body)
	words := fmt.Sprintf("%s: %q", code, message)
	if s.resp.StatusCode != 503 || code != class || s.resp.Header.Get("X-Should-Retry") != "false" {
		return words, fmt.Errorf("%s: status %d, %s, x-should-retry %q: want 503 %s and false", name, s.resp.StatusCode, words, s.resp.Header.Get("X-Should-Retry"), class)
	}
	m, err := p.gateway.model(ctx, name)
	if err != nil {
		return words, err
	}
	if m.Failure == nil || m.Failure.Class != class || !m.Failure.Permanent {
		return words, fmt.Errorf("%s: the operator is told %+v", name, m.Failure)
	}
	return words, nil
}

// makeGiant makes a folder like the small model's, but for the size that its config tells: 250 layers of 0.86 billion parameters
// each, 430 GB in bf16, more than any GPU has. Weights are not there; SGLang makes them up with --load-format dummy.
func makeGiant(small, giant string) error {
	config, err := readConfig(small)
	if err != nil {
		return err
	}
	maps.Copy(config, map[string]any{
		"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 250, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
	})
	return likeModel(small, giant, config)
}
