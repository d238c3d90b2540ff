package load

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// states follows which models are ready, where the server tells: Pilotlight does, in GET /v1/models/{id}, which wakes nothing.
type states struct {
	mu   sync.Mutex // guards seen
	seen map[string]seen
}

// seen is what was last seen of a model.
type seen struct {
	cold     bool
	lastCold time.Time // when the last look that found no replica began
}

func newStates() *states { return &states{seen: map[string]seen{}} }

// cold tells whether the last look found no ready replica. A model that came up since then still counts as cold: what
// is sent just then waits for the wave of requests before it, and does not belong among the warm.
func (s *states) cold(model string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[model].cold
}

// coldSince tells whether a look since then found no ready replica.
func (s *states) coldSince(model string, t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[model].lastCold.After(t)
}

func (s *states) saw(model string, began time.Time, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := seen{!ready, s.seen[model].lastCold}
	if !ready {
		v.lastCold = began
	}
	s.seen[model] = v
}

// forget is for looks that failed: an old state is none.
func (s *states) forget(model string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, model)
}

const (
	lookEvery = 200 * time.Millisecond // a model, as long as there are few
	lookPause = 10 * time.Millisecond  // between two looks, so that many models make no load of their own
	lookLimit = 2 * time.Second
)

// watchStates asks for the models' states until stop is called, which waits for its end. A server that does not tell is asked once.
func (r *run) watchStates(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var telling []string
	for _, m := range r.o.Models {
		told, err := r.look(ctx, m.Name)
		if err != nil {
			break // who is not there does not tell
		}
		if told {
			telling = append(telling, m.Name)
		}
	}
	var wg sync.WaitGroup
	if len(telling) > 0 {
		wg.Go(func() { r.keepLooking(ctx, telling) })
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

func (r *run) keepLooking(ctx context.Context, models []string) {
	t := time.NewTicker(max(lookEvery/time.Duration(len(models)), lookPause))
	defer t.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		model := models[i%len(models)]
		if told, err := r.look(ctx, model); err != nil || !told {
			r.states.forget(model)
		}
	}
}

// look asks for one model's state. The error is the connection's.
func (r *run) look(ctx context.Context, model string) (told bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.o.URL+"/models/"+url.PathEscape(model), nil)
	if err != nil {
		return false, err
	}
	if key := r.o.Callers[0].Key; key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	began := time.Now()
	resp, err := r.client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return false, err
	}
	var m struct {
		Pilotlight *struct {
			Replicas int `json:"replicas"`
		} `json:"pilotlight"`
	}
	if json.Unmarshal(body, &m) != nil || m.Pilotlight == nil {
		return false, nil
	}
	r.states.saw(model, began, m.Pilotlight.Replicas > 0)
	return true, nil
}
