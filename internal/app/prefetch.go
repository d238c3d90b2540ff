package app

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"pilotlight/backends"
	"pilotlight/backends/store"
	"pilotlight/backends/weights"
	"pilotlight/internal/config"
)

// PrefetchState is a model that the configuration wants in the store.
type PrefetchState struct {
	Name     string `json:"name"`
	Source   string `json:"source"`
	Revision string `json:"revision,omitempty"`
	// State is waiting, downloading, stored or failed.
	State     string        `json:"state"`
	Percent   float64       `json:"percent,omitempty"`
	Bytes     int64         `json:"bytes,omitempty"` // of all its files
	BytesDone int64         `json:"bytes_done,omitempty"`
	Rate      float64       `json:"bytes_per_second,omitempty"`
	ETA       float64       `json:"eta_seconds,omitempty"` // 0: not known
	Detail    string        `json:"detail,omitempty"`      // the same in words
	Failure   *FailureState `json:"failure,omitempty"`
}

const (
	prefetchesAtOnce = 2 // each opens eight connections, which fill most lines
	prefetchPause    = 5 * time.Second
	prefetchMaxPause = 5 * time.Minute
)

// prefetcher fetches what the configuration wants in the store. Safe for concurrent use.
type prefetcher struct {
	keeper *weights.Keeper
	log    *slog.Logger
	places chan struct{} // holds one for each download that may run
	ctx    context.Context
	end    context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex // guards the field below
	items []*prefetching
}

// prefetching is one item. mu of its prefetcher guards state.
type prefetching struct {
	key    string
	cancel context.CancelFunc
	state  PrefetchState
}

func newPrefetcher(k *weights.Keeper, log *slog.Logger) *prefetcher {
	p := &prefetcher{keeper: k, log: log, places: make(chan struct{}, prefetchesAtOnce)}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p
}

// use takes another configuration: items that are new begin, and those that are gone end. again has failed ones begin, too.
func (p *prefetcher) use(c *config.Config, again bool) {
	if p.keeper == nil {
		return
	}
	specs := map[string]*backends.Spec{}
	for i := range c.Models {
		specs[c.Models[i].Name] = &c.Models[i].Spec
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var items []*prefetching
	for _, item := range c.Prefetch {
		spec := specs[item.Model]
		if spec == nil {
			spec = &backends.Spec{}
		}
		text, err := json.Marshal([]any{item.Name, item.Weights, spec.Env, spec.Secrets})
		if err != nil {
			panic("BUG: plain values: " + err.Error())
		}
		at := slices.IndexFunc(p.items, func(was *prefetching) bool {
			return was.key == string(text) && (!again || was.state.State != "failed")
		})
		if at >= 0 {
			items = append(items, p.items[at])
			p.items = slices.Delete(p.items, at, at+1)
			continue
		}
		fresh := &prefetching{key: string(text), state: PrefetchState{
			Name: item.Name, Source: item.Weights.Origin, Revision: item.Weights.Revision, State: "waiting",
		}}
		var ctx context.Context
		ctx, fresh.cancel = context.WithCancel(p.ctx)
		items = append(items, fresh)
		p.wg.Go(func() { p.run(ctx, fresh, item.Weights, spec) })
	}
	for _, gone := range p.items {
		gone.cancel()
	}
	p.items = items
}

// close ends all downloads; what they fetched is used the next time.
func (p *prefetcher) close() {
	p.end()
	p.wg.Wait()
}

func (p *prefetcher) run(ctx context.Context, item *prefetching, w backends.Weights, spec *backends.Spec) {
	defer item.cancel()
	for pause := prefetchPause; ; pause = min(2*pause, prefetchMaxPause) {
		select {
		case p.places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := p.fetch(ctx, item, w, spec)
		<-p.places
		if ctx.Err() != nil {
			return
		}
		var f *backends.Failure
		switch {
		case err == nil:
			p.set(item, func(s *PrefetchState) {
				s.State, s.Percent, s.Rate, s.ETA, s.Detail, s.Failure = "stored", 100, 0, 0, "", nil
			})
			return
		case !errors.As(err, &f):
			f = &backends.Failure{Class: backends.ClassLaunch, Message: "the store cannot be used", Err: err}
		}
		at := time.Now()
		state := &FailureState{Class: string(f.Class), Message: f.Message, Advice: f.Advice, Permanent: f.Permanent, At: at}
		p.log.WarnContext(ctx, "a prefetch failed", "name", item.state.Name, "class", f.Class, "permanent", f.Permanent, "error", f)
		if f.Permanent {
			p.set(item, func(s *PrefetchState) { s.State, s.Failure, s.Rate, s.ETA, s.Detail = "failed", state, 0, 0, "" })
			return
		}
		again := at.Add(pause)
		state.RetryAt = &again
		p.set(item, func(s *PrefetchState) { s.State, s.Failure, s.Rate, s.ETA, s.Detail = "waiting", state, 0, 0, "" })
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (p *prefetcher) fetch(ctx context.Context, item *prefetching, w backends.Weights, spec *backends.Spec) error {
	env, err := Variables(spec)
	if err != nil {
		return err
	}
	request := weights.Request{Weights: w, Who: "a prefetch", Env: env, Progress: func(now store.Progress) {
		p.set(item, func(s *PrefetchState) {
			s.State, s.Failure = "downloading", nil
			if now.Phase == store.Asking {
				return
			}
			s.Percent, s.Bytes, s.BytesDone = min(99, 100*now.Fraction()), now.Bytes, now.BytesDone
			s.Rate, s.ETA, s.Detail = now.Rate, now.ETA.Seconds(), weights.Detail(now)
		})
	}}
	held, err := p.keeper.Hold(ctx, request)
	if err == nil && held != nil {
		err = p.keeper.Share(ctx, request, held)
	}
	return errors.Join(err, held.Close())
}

func (p *prefetcher) set(item *prefetching, change func(*PrefetchState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&item.state)
}

// states are in the configuration's order.
func (p *prefetcher) states() []PrefetchState {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []PrefetchState
	for _, item := range p.items {
		s := item.state
		if s.Failure != nil {
			failure := *s.Failure
			s.Failure = &failure
		}
		out = append(out, s)
	}
	return out
}
