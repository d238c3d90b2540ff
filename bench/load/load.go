// Package load drives an OpenAI-compatible endpoint with an open loop: requests go out when the plan says, whether or not earlier ones
// were answered, and latencies count from the planned time. So a server that stalls is seen to stall for everybody who would have
// asked meanwhile (no coordinated omission), and a generator that falls behind charges itself.
//
// Plan makes the arrivals, Run sends them, Result holds what was seen and prints itself as text, JSON or a page with plots.
package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"
)

// Caller is one API key and whom it stands for.
type Caller struct {
	Tenant string
	Key    string // empty: no Authorization header is sent
}

// Share is a model, or anything else that is drawn, with its weight among the others.
type Share struct {
	Name   string
	Weight float64
}

// Options say what to send where.
type Options struct {
	// URL is the base URL that a client would be given, such as http://127.0.0.1:8000/v1.
	URL     string
	Callers []Caller // taken in turn; none: one without a key
	Models  []Share  // drawn by weight; at least one
	// Stream is the share of requests that ask for a stream, 0 to 1.
	Stream float64
	Plan   []Arrival
	// Timeout of a request, from its planned time; 0 means 10 minutes.
	Timeout time.Duration
	// MaxInFlight bounds the requests at once. What exceeds it is not sent, and counted as dropped. 0 means 10,000.
	MaxInFlight int
	// Warmup is how much of the plan's beginning is sent and left out of the figures.
	Warmup time.Duration
	// SharedPrefix is how many tokens all prompts begin with.
	SharedPrefix int
	// Seed of models, streams and texts. The same plan and seed send the same requests.
	Seed uint64
	// Progress is told of the run about once a second; nil: nobody is.
	Progress func(sent, done, failed int)
	// Client sends the requests; nil means one with enough connections.
	Client *http.Client
}

const (
	defaultTimeout     = 10 * time.Minute
	defaultMaxInFlight = 10_000
	progressEvery      = time.Second
)

// Run sends the plan. Its error is only about options: what goes wrong with requests is in the Result. When ctx ends, nothing more is sent and
// the requests in flight are cancelled; the Result says so.
func Run(ctx context.Context, o Options) (*Result, error) {
	switch {
	case len(o.Models) == 0:
		return nil, errors.New("no model to ask for")
	case len(o.Plan) == 0:
		return nil, errors.New("no arrivals are planned")
	case o.Stream < 0 || o.Stream > 1:
		return nil, fmt.Errorf("share of streams %v: it must lie between 0 and 1", o.Stream)
	}
	if len(o.Callers) == 0 {
		o.Callers = []Caller{{Tenant: "-"}}
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = defaultMaxInFlight
	}
	if o.Client == nil {
		t := &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: o.MaxInFlight, IdleConnTimeout: time.Minute, DisableCompression: true}
		defer t.CloseIdleConnections()
		o.Client = &http.Client{Transport: t}
	}
	r := newRun(o)
	stop := r.watchStates(ctx)
	r.send(ctx)
	stop()
	return r.result(ctx.Err() != nil), nil
}

type run struct {
	o      Options
	draw   *drawer
	states *states

	mu       sync.Mutex // guards the fields below
	calls    []Call
	dropped  int
	inFlight int
	done     int
	failed   int
	start    time.Time
	end      time.Time
}

func newRun(o Options) *run {
	return &run{o: o, draw: newDrawer(o), states: newStates()}
}

// send keeps to the plan.
func (r *run) send(ctx context.Context) {
	var wg sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	r.start = time.Now()
	told := r.start
	for i, a := range r.o.Plan {
		planned := r.start.Add(a.At)
		if wait := time.Until(planned); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			break
		}
		q := r.draw.question(i, a)
		r.mu.Lock()
		full := r.inFlight >= r.o.MaxInFlight
		if full {
			r.dropped++
		} else {
			r.inFlight++
		}
		done, failed := r.done, r.failed
		r.mu.Unlock()
		if now := time.Now(); r.o.Progress != nil && now.Sub(told) >= progressEvery {
			told = now
			r.o.Progress(i, done, failed)
		}
		if full {
			continue
		}
		wg.Go(func() {
			c := r.ask(ctx, q, planned)
			c.At = a.At
			r.mu.Lock()
			defer r.mu.Unlock()
			r.inFlight--
			r.done++
			if c.Error != "" {
				r.failed++
			}
			r.calls = append(r.calls, c)
		})
	}
	wg.Wait()
	r.end = time.Now()
}

// seconds is d for people and JSON.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1e6 }
