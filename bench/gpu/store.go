package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// storeDir is the scene's own store, which is thrown away with scratch.
const storeDir = scratch + "/store"

// quickStart are arguments for starts that are about weights and nothing else.
var quickStart = []string{"--cuda-graph-backend-decode=disabled", "--cuda-graph-backend-prefill=disabled", "--skip-server-warmup"}

// storeScene brings the model into a store and serves it from there.
var storeScene = scene{
	name: "store", about: "a model that was prefetched into the store, and an engine that reads it there", limit: 6 * time.Minute,
	models: func(context.Context, *options) ([]model, error) {
		return []model{{Name: "stored", Path: "store:small", Args: quickStart}}, nil
	},
	more: func(*options) map[string]any { return map[string]any{"store": map[string]any{"path": storeDir}} },
	steps: []step{
		{name: "prefetch into the store", vital: true, do: prefetchSmall},
		{name: "cold start from the store, a streaming client waits", vital: true, do: coldStart("stored")},
		{name: "the engine reads it there", do: func(ctx context.Context, p *play) error {
			if err := p.readsBelow(ctx, "stored", storeDir); err != nil {
				return err
			}
			return p.loadFigure("stored")
		}},
		{name: "nobody can remove it meanwhile", do: func(ctx context.Context, p *play) error {
			out, err := p.gateway.command(ctx, "models", "rm", "-c", p.gateway.file(), "small")
			if err == nil || !strings.Contains(out, "in use") {
				return fmt.Errorf("models rm: %w, and it says %q", err, out)
			}
			_, err = p.ask(ctx, chat("stored", "Say hello.", nil))
			return err
		}},
	},
}

// prefetchSmall fetches the small model, twice: the second time has nothing to do.
func prefetchSmall(ctx context.Context, p *play) error {
	for _, what := range []string{"fetched in", "looked up in"} {
		began := time.Now()
		out, err := p.gateway.command(ctx, "prefetch", "-c", p.gateway.file(), "--name", "small", p.Model)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		p.figure(what, time.Since(began))
	}
	return nil
}

// command runs the gateway's program for at most five minutes, and returns all that it prints.
func (g *gateway) command(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, g.program, args...)
	cmd.Env = g.environ
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// readsBelow sees that a model's engine was given a folder below this one, of the scene's.
func (p *play) readsBelow(ctx context.Context, name, dir string) error {
	e, err := p.gateway.engine(name)
	if err != nil {
		return err
	}
	settings, err := e.settings(ctx)
	if err != nil {
		return err
	}
	path := fmt.Sprint(settings["model_path"])
	if !strings.HasPrefix(path, filepath.Join(p.gateway.dir, dir)+"/") {
		return errors.New("it reads " + path)
	}
	return nil
}
