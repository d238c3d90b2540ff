package app

import (
	"context"
	"errors"
	"os"

	"pilotlight/backends"
	"pilotlight/backends/sglang/installed"
	"pilotlight/backends/store"
	"pilotlight/backends/stream"
	"pilotlight/backends/weights"
)

// holdStreamed checks that an engine can stream its weights, and brings the other files of the same state of the model into the store.
func (l *launcher) holdStreamed(ctx context.Context, request weights.Request) (*weights.Held, error) {
	for again := false; ; again = true {
		plan, err := stream.Check(ctx, &l.spec, request.Env, installed.New(os.Environ()))
		if err != nil {
			return nil, err
		}
		request.Weights.Revision = plan.Commit
		held, err := l.keeper.Hold(ctx, request)
		if err != nil {
			if !again && (errors.Is(err, store.ErrRevisionNotFound) || errors.Is(err, store.ErrChanged)) {
				continue // it changed between the two looks
			}
			return nil, err
		}
		if err := l.lay(ctx, request.Env, plan.Address, held); err != nil {
			return nil, errors.Join(err, held.Close())
		}
		held.Address, held.Env = plan.Address, plan.Env
		l.log.InfoContext(ctx, "weights are streamed", "model", l.spec.Model, "from", plan.Address, "plan", plan)
		return held, nil
	}
}

// lay puts the files beside the weights where the engine looks for them.
func (l *launcher) lay(ctx context.Context, env func(string) (string, bool), address string, held *weights.Held) error {
	cache := stream.CacheDir(env)
	if cache == "" {
		return nil // the engine finds no place either, and says so
	}
	if err := stream.Place(ctx, cache, address, held.Snapshot); err != nil {
		return &backends.Failure{
			Class: backends.ClassLaunch, Message: "the files beside the weights cannot be put where the engine looks for them",
			Advice: "check that the gateway may write SGLang's cache: SGLANG_CACHE_DIR, else .cache/sglang in the home folder", Err: err,
		}
	}
	return nil
}

// closeRemote lets go of the connections to the store's remote.
func (a *App) closeRemote() {
	if a.remote != nil {
		_ = a.remote.Close() // it only forgets idle connections, and returns no error
	}
}
