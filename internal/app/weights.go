package app

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/backends/store"
	"pilotlight/backends/store/s3"
	"pilotlight/backends/weights"
	"pilotlight/internal/config"
)

// openStore is where models are kept; nil where the configuration knows of no place.
func (a *App) openStore(c config.Store, stateDir string) error {
	if c.Path == "" {
		return nil
	}
	o := store.Options{Path: c.Path, MaxBytes: c.MaxBytes, Logger: a.log}
	if c.Remote != "" {
		remote, err := s3.OpenRemote(context.Background(), c.Remote, os.LookupEnv, 0)
		if err != nil {
			return fmt.Errorf("store.remote: %w", err)
		}
		a.remote, o.Remote = remote, remote
	}
	s, err := store.New(o)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	a.keeper, a.cutter = weights.New(s, a.log), NewCutter(s, filepath.Join(stateDir, "logs"))
	return nil
}

// prepared are the weights of starts that are not launched yet.
type prepared struct {
	mu   sync.Mutex // guards the field below
	held map[uint64]*weights.Held
}

// put keeps weights for a start, until it takes them or is over.
func (p *prepared) put(ctx context.Context, id uint64, h *weights.Held, late func(error)) {
	p.mu.Lock()
	p.held[id] = h
	p.mu.Unlock()
	context.AfterFunc(ctx, func() {
		if h := p.take(id); h != nil {
			if err := h.Close(); err != nil {
				late(err)
			}
		}
	})
}

func (p *prepared) take(id uint64) *weights.Held {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.held[id]
	delete(p.held, id)
	return h
}

// Prepare is activator.Preparer's: it brings the weights into the store before GPUs are asked for.
func (l *launcher) Prepare(ctx context.Context, start activator.Start, progress func(activator.Progress)) error {
	held, err := l.hold(ctx, start.ID, progress)
	if held != nil {
		l.prepared.put(ctx, start.ID, held, func(err error) {
			l.log.Warn("weights of a start that came to nothing", "model", l.spec.Model, "error", err)
		})
	}
	return err
}

// hold returns the weights of a start, if the store provides them.
func (l *launcher) hold(ctx context.Context, id uint64, progress func(activator.Progress)) (*weights.Held, error) {
	if l.keeper == nil || l.spec.Weights.Label() == "" || l.spec.Driver != backends.DriverProcess {
		return nil, nil
	}
	env, err := Variables(&l.spec)
	if err != nil {
		return nil, err
	}
	request := weights.Request{
		Weights: l.spec.Weights, Who: fmt.Sprintf("%s replica %d", l.spec.Model, id), Env: env,
		Progress: func(p store.Progress) {
			progress(activator.Progress{
				Phase: string(backends.PhaseDownload), Share: p.Fraction(), Percent: min(99, 100*p.Fraction()), Detail: weights.Detail(p), Left: p.ETA,
			})
		},
	}
	if l.spec.Stream {
		return l.holdStreamed(ctx, request)
	}
	return l.keeper.Hold(ctx, request)
}

// Variables are those that hold for a model: its secrets and its own before the gateway's. The error is a *backends.Failure.
func Variables(spec *backends.Spec) (func(string) (string, bool), error) {
	secrets := map[string]string{}
	for _, s := range spec.Secrets {
		text, err := os.ReadFile(s.File)
		if err != nil {
			return nil, &backends.Failure{
				Class: backends.ClassSecret, Message: "the secret " + s.Name + " of the model cannot be read",
				Advice: "check that its file is there and that the gateway may read it", Err: err,
			}
		}
		secrets[s.Env] = strings.TrimRight(string(text), "\r\n")
	}
	return func(name string) (string, bool) {
		if value, ok := secrets[name]; ok {
			return value, true
		}
		if value, ok := spec.Env[name]; ok {
			return value, true
		}
		return os.LookupEnv(name)
	}, nil
}

// place has an engine read its weights from the store.
func place(on *backends.Placement, spec *backends.Spec, held *weights.Held) {
	if held == nil {
		return
	}
	on.ModelPath, on.Env = held.Path, map[string]string{}
	if held.Address != "" {
		on.ModelPath = held.Address
	}
	maps.Copy(on.Env, held.Env)
	if f := held.File(); f != nil {
		on.Files = append(on.Files, f)
	}
	if !asksHub(spec) {
		on.Env["HF_HUB_OFFLINE"] = "1" // what is here is whole, and a hub that is away must not delay a start
	}
}

// asksHub says whether an engine may need more of the hub than its model: what these options name, and code of the model's that names others.
func asksHub(spec *backends.Spec) bool {
	return slices.ContainsFunc(slices.Concat(spec.Command, spec.ExtraArgs), func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		return slices.ContainsFunc([]string{"--tokenizer", "--speculative-", "--lora", "--trust-remote-code", "--chat-template", "--adapter"}, func(option string) bool {
			return strings.HasPrefix(name, option)
		})
	})
}
