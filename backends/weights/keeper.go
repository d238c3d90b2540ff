// Package weights sees to it that a model's files are in the store when an engine looks for them: it finds them there, or has them fetched, says
// how fast that goes, and explains in the terms of backends.Failure why it did not. It holds what replicas use, so that no budget removes it.
//
// It does not decide when, and starts no engine. A Keeper is safe for concurrent use.
package weights

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"pilotlight/backends"
	"pilotlight/backends/store"
	"pilotlight/backends/store/s3"
)

// Keeper brings weights into one store.
type Keeper struct {
	store *store.Store
	log   *slog.Logger
}

// New takes the store. A nil logger is silent.
func New(s *store.Store, log *slog.Logger) *Keeper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{store: s, log: log}
}

// Request is for one model's weights.
type Request struct {
	Weights backends.Weights
	Who     string // uses them, in words for people, such as "qwen3 replica 4"
	// Env looks up variables, as os.LookupEnv does: the hub's endpoint and token, an object store's credentials. nil: there are none.
	Env func(name string) (string, bool)
	// Progress, if not nil, is called about five times a second while something is fetched, on the goroutine that asked.
	Progress func(store.Progress)
}

// Held are weights that stay until Close.
type Held struct {
	store.Snapshot
	// Address is what an engine gets for a model path in place of Path: where it streams its weights from; empty: it reads them from Path.
	Address string
	// Env are variables that the engine needs for that.
	Env map[string]string

	use *store.Use
}

// File is for an engine to inherit, which then holds them for as long as it lives; nil: nothing can take them away.
func (h *Held) File() *os.File {
	if h == nil || h.use == nil {
		return nil
	}
	return h.use.File
}

// Close lets them go. nil has nothing to let go.
func (h *Held) Close() error {
	if h == nil {
		return nil
	}
	return h.use.Close()
}

// want is a Request with its origin found out.
type want struct {
	name     string // of the artefact
	origin   store.Origin
	revision string
	filter   store.Filter
}

// resolve finds out where weights come from.
func (k *Keeper) resolve(w backends.Weights) (want, error) {
	out := want{name: w.Name, revision: w.Revision, filter: store.Filter{Include: w.Include, Exclude: w.Exclude}}
	text := w.Origin
	if text == "" {
		a, err := k.store.Lookup(w.Name)
		switch {
		case err == nil:
			text, out.revision, out.filter = a.Origin, a.Revision, a.Filter()
		case errors.Is(err, store.ErrIncomplete):
			// Not fetched by that name. A hub's model can be fetched by its own.
			if text = w.Name; !hubName(text) {
				return want{}, unnamed(w.Name, err)
			}
		default:
			return want{}, failure(err, false)
		}
	}
	var err error
	if out.origin, err = store.ParseOrigin(text, "/"); err != nil {
		return want{}, failure(err, false)
	}
	if out.name == "" {
		out.name = out.origin.Name
	}
	if out.revision == "" {
		out.revision = "main"
	}
	return out, nil
}

// hubName says whether a name can only be a hub's: names without an owner are what people give to artefacts.
func hubName(name string) bool {
	o, err := store.ParseOrigin(name, "/")
	return err == nil && o.Kind == store.FromHub && slices.Contains([]byte(name), '/')
}

// Find looks in the store alone. The error wraps store.ErrIncomplete where something is missing.
func (k *Keeper) Find(w backends.Weights) (store.Snapshot, error) {
	q, err := k.resolve(w)
	if err != nil {
		return store.Snapshot{}, err
	}
	return k.find(w, q)
}

func (k *Keeper) find(w backends.Weights, q want) (store.Snapshot, error) {
	found, err := k.store.Find(q.origin.Name, q.revision, q.filter)
	switch {
	case err == nil && !found.Guessed:
		return found, nil
	case err == nil:
		err = fmt.Errorf("%s at %s: nobody knows whether that is all: %w", q.origin.Name, q.revision, store.ErrIncomplete)
	case errors.Is(err, store.ErrIncomplete) && w.IfPresent:
		// Somebody may have chosen what is needed of it.
		_, known, e := k.store.Known(q.origin.Name, q.revision)
		if e == nil {
			return known, nil
		}
		err = e
	}
	return store.Snapshot{}, err
}

// Hold returns weights that are in the store, after it has fetched them if need be; with IfPresent, nil where they are not. Any number of
// callers cause one download. The error is a *backends.Failure.
func (k *Keeper) Hold(ctx context.Context, r Request) (*Held, error) {
	q, err := k.resolve(r.Weights)
	if err != nil {
		return nil, err
	}
	for range holdTries {
		// Looked for first, so that what is not there and cannot be fetched leaves nothing in the store.
		_, err := k.find(r.Weights, q)
		if errors.Is(err, store.ErrIncomplete) {
			if r.Weights.IfPresent {
				return nil, nil
			}
			_, err = k.fetch(ctx, q, r, false)
		}
		if err != nil {
			return nil, failure(err, false)
		}
		use, err := k.store.Use(ctx, q.origin.Name, store.User{Who: r.Who})
		if err != nil {
			return nil, failure(err, false)
		}
		found, err := k.find(r.Weights, q)
		if err == nil {
			return &Held{Snapshot: found, use: use}, nil
		}
		if e := use.Close(); e != nil || !errors.Is(err, store.ErrIncomplete) {
			return nil, failure(errors.Join(err, e), false)
		}
	}
	return nil, &backends.Failure{
		Class: backends.ClassDiskFull, Message: "the weights were removed as soon as they were there",
		Advice: "raise store.max_bytes: several downloads seem to take each other's room", Err: store.ErrOverBudget,
	}
}

// holdTries is how often weights are looked for that somebody removes before they are held: once is chance, three times is a store too small.
const holdTries = 3

// Fetch asks the origin what the revision stands for now, fetches what is missing of that, and gives it to the store's remote, if there is one.
// The error is a *backends.Failure.
func (k *Keeper) Fetch(ctx context.Context, r Request) (store.Snapshot, error) {
	q, err := k.resolve(r.Weights)
	if err != nil {
		return store.Snapshot{}, err
	}
	found, err := k.fetch(ctx, q, r, true)
	if err != nil {
		return store.Snapshot{}, err
	}
	if err := k.push(ctx, q, r, found); err != nil {
		return store.Snapshot{}, err
	}
	return found, nil
}

// logEvery is how often the log is told how far a download is.
const logEvery = 30 * time.Second

// Share gives weights that are held to the store's remote, if there is one; what that has already is not sent again. The error is a
// *backends.Failure.
func (k *Keeper) Share(ctx context.Context, r Request, h *Held) error {
	q, err := k.resolve(r.Weights)
	if err != nil {
		return err
	}
	return k.push(ctx, q, r, h.Snapshot)
}

func (k *Keeper) push(ctx context.Context, q want, r Request, found store.Snapshot) error {
	if err := k.store.Push(ctx, found, q.revision, r.Progress); err != nil {
		return failure(err, false)
	}
	return nil
}

// fetch asks the store's remote before the origin; fresh: after the origin was asked what the revision stands for.
func (k *Keeper) fetch(ctx context.Context, q want, r Request, fresh bool) (_ store.Snapshot, err error) {
	access, err := store.AccessFrom(r.Env)
	if err != nil {
		return store.Snapshot{}, failure(err, false)
	}
	access.S3 = s3.Open
	token := access.HubToken != ""
	source, err := q.origin.Open(access)
	if err != nil {
		return store.Snapshot{}, failure(err, token)
	}
	var last store.Progress
	began := time.Now()
	told := began
	found, err := k.store.Fetch(ctx, store.Request{
		Repo: q.origin.Name, Revision: q.revision, Source: source, Filter: q.filter, Fresh: fresh,
		Progress: func(p store.Progress) {
			last = p
			if now := time.Now(); p.Phase == store.Downloading && now.Sub(told) >= logEvery {
				told = now
				k.log.InfoContext(ctx, "a model is being fetched", "model", q.origin.Name, "for", r.Who, "percent", int(100*p.Fraction()), "bytes", p.BytesDone, "of", p.Bytes, "bytes_per_second", int64(p.Rate))
			}
			if r.Progress != nil {
				r.Progress(p)
			}
		},
	})
	if err = errors.Join(err, source.Close()); err != nil {
		return store.Snapshot{}, failure(err, token)
	}
	if err := k.remember(q, found); err != nil {
		return store.Snapshot{}, failure(err, token)
	}
	if n := last.BytesFetched; n > 0 {
		k.log.InfoContext(ctx, "a model was fetched", "model", q.origin.Name, "from", q.origin.Kind.String(), "commit", found.Commit, "bytes", n, "duration", time.Since(began))
	}
	return found, nil
}

func (k *Keeper) remember(q want, found store.Snapshot) error {
	a := store.Artefact{
		Name: q.name, Origin: q.origin.Text, Repo: q.origin.Name, Revision: q.revision, Commit: found.Commit,
		Include: q.filter.Include, Exclude: q.filter.Exclude, At: time.Now(),
	}
	was, err := k.store.Lookup(q.name)
	if err == nil {
		was.At = a.At
		if was.Origin == a.Origin && was.Repo == a.Repo && was.Revision == a.Revision && was.Commit == a.Commit &&
			slices.Equal(was.Include, a.Include) && slices.Equal(was.Exclude, a.Exclude) {
			return nil
		}
	} else if !errors.Is(err, store.ErrIncomplete) {
		return err
	}
	return k.store.Remember(a)
}
