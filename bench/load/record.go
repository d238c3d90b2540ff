package load

import (
	"sync"
	"time"
)

// record gathers what becomes of the requests, as they end.
type record struct {
	warmup time.Duration

	mu       sync.Mutex // guards the fields below
	calls    []Call     // those after the warm-up, dropped ones too
	gaps     histogram
	byModel  map[string]histogram // of gaps
	byTenant map[string]histogram
	sent     int
	inFlight int
	failed   int
}

func newRecord(warmup time.Duration) *record {
	return &record{warmup: warmup, gaps: newHistogram(fine), byModel: map[string]histogram{}, byTenant: map[string]histogram{}}
}

// admit takes a place for one more request, if there are fewer than most in flight.
func (r *record) admit(most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inFlight >= most {
		return false
	}
	r.inFlight++
	r.sent++
	return true
}

// done gives the place back.
func (r *record) done(c Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight--
	if c.Error != "" {
		r.failed++
	}
	if c.At < r.warmup {
		return
	}
	// Each gap is counted now and not kept: a long run has more of them than memory.
	if c.Error == "" {
		model, tenant := gapsOf(r.byModel, c.Model), gapsOf(r.byTenant, c.Tenant)
		for _, gap := range c.gaps {
			r.gaps.add(gap)
			model.add(gap)
			tenant.add(gap)
		}
	}
	c.gaps = nil
	r.calls = append(r.calls, c)
}

func gapsOf(by map[string]histogram, name string) histogram {
	h, ok := by[name]
	if !ok {
		h = newHistogram(coarse)
		by[name] = h
	}
	return h
}

// drop is for a request that was not admitted.
func (r *record) drop(c Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.At >= r.warmup {
		r.calls = append(r.calls, c)
	}
}

func (r *record) progress() (sent, done, failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent, r.sent - r.inFlight, r.failed
}
