package load

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// states follows which models are ready, where the server tells: Pilotlight does, in GET /v1/models/{id}, which wakes nothing.
type states struct {
	mu    sync.Mutex // guards ready
	ready map[string]bool
}

func newStates() *states { return &states{ready: map[string]bool{}} }

// cold tells whether the model is known not to be ready.
func (s *states) cold(model string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ready, known := s.ready[model]
	return known && !ready
}

const lookEvery = 200 * time.Millisecond

// watchStates asks for the models' states until stop is called, which waits for its end. A server that does not tell is asked once.
func (r *run) watchStates(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	told := false
	for _, m := range r.o.Models {
		told = r.look(ctx, m.Name) || told
	}
	var wg sync.WaitGroup
	if told {
		wg.Go(func() {
			t := time.NewTicker(lookEvery)
			defer t.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-t.C:
				}
				for _, m := range r.o.Models {
					r.look(ctx, m.Name)
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

func (r *run) look(ctx context.Context, model string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(r.o.URL, "/")+"/models/"+url.PathEscape(model), nil)
	if err != nil {
		return false
	}
	if key := r.o.Callers[0].Key; key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := r.o.Client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var m struct {
		Pilotlight *struct {
			State    string `json:"state"`
			Replicas int    `json:"replicas"`
		} `json:"pilotlight"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&m) != nil || m.Pilotlight == nil {
		return false
	}
	r.states.mu.Lock()
	r.states.ready[model] = m.Pilotlight.Replicas > 0
	r.states.mu.Unlock()
	return true
}
