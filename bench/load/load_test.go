package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plan is n requests at equal distances.
func plan(n int, gap time.Duration) (p []Arrival) {
	for i := range n {
		p = append(p, Arrival{time.Duration(i) * gap, 5, 3})
	}
	return p
}

// engine answers posts within a bubble, where sockets would stop the clock. It tells nothing of models.
type engine func(r *http.Request) (body io.Reader, err error)

func (e engine) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet {
		return &http.Response{StatusCode: http.StatusNotFound, Body: http.NoBody, Request: r}, nil
	}
	body, err := e(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: io.NopCloser(body), Request: r}, nil
}

const wholeAnswer = `{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`

func near(got, want float64) bool { return math.Abs(got-want) <= want*0.001+2e-6 }

// An engine that answers one request at a time, and stalls once for half a second, makes all wait that were planned meanwhile: 50 of the
// hundred. A closed loop would see one slow request.
func TestStallsAreChargedToAllWhoWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn := make(chan struct{}, 1)
		n := 0
		r, err := Run(t.Context(), Options{URL: "http://x/v1", sleep: time.Sleep, Models: []Share{{"m", 1}}, Plan: plan(100, 10*time.Millisecond), Transport: engine(func(*http.Request) (io.Reader, error) {
			turn <- struct{}{}
			defer func() { <-turn }()
			if n++; n == 20 {
				time.Sleep(500 * time.Millisecond)
			}
			return strings.NewReader(wholeAnswer), nil
		})})
		if err != nil || r.OK != 100 {
			t.Fatal(r, err)
		}
		// The twentieth takes 500 ms, the next 490, and so on; the other 50 take no time.
		if e := r.EndToEnd; !near(e.P50, 0) || !near(e.P90, 0.4) || !near(e.P99, 0.49) || !near(e.Max, 0.5) || !near(e.Mean, 0.1275) {
			t.Errorf("%+v", e)
		}
		if r.Late.Max > 1e-6 {
			t.Errorf("the engine's stall is called the generator's: %+v", r.Late)
		}
	})
}

// What the generator misses is part of the latency, and is said.
func TestLateGeneratorChargesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, err := Options{URL: "http://x/v1", sleep: time.Sleep, Models: []Share{{"m", 1}}, Plan: plan(1, 0), Transport: engine(func(*http.Request) (io.Reader, error) {
			time.Sleep(50 * time.Millisecond)
			return strings.NewReader(wholeAnswer), nil
		})}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		r := newRun(o)
		planned := time.Now()
		time.Sleep(time.Second)
		if c := r.ask(t.Context(), r.draw.question(0, o.Plan[0]), planned); c.Late != time.Second || c.Total != 1050*time.Millisecond || c.Error != "" {
			t.Errorf("%+v", c)
		}
	})
}

func TestTimesOfAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := Run(t.Context(), Options{URL: "http://x/v1", sleep: time.Sleep, Models: []Share{{"m", 1}}, Stream: 1, Plan: plan(3, time.Second), Transport: engine(func(*http.Request) (io.Reader, error) {
			out, in := io.Pipe()
			go func() {
				time.Sleep(100 * time.Millisecond)
				for _, line := range strings.SplitAfter(streamed, "\n\n") { // role, a, comment and b, usage, done, ""
					fmt.Fprint(in, line)
					time.Sleep(30 * time.Millisecond)
				}
				in.Close()
			}()
			return out, nil
		})})
		if err != nil || r.OK != 3 || r.Cold != 0 {
			t.Fatal(r, err)
		}
		if !near(r.TTFT.P50, 0.13) || !near(r.InterToken.P50, 0.06) || !near(r.EndToEnd.P50, 0.31) || !near(r.TTFT.Max, 0.13) || r.InterToken.Count != 3 || r.Tokens != 27 {
			t.Errorf("%+v", r)
		}
		if p := r.Models[0]; math.Abs(p.InterToken.P99-0.06) > 0.0006 || p.TTFT != r.TTFT || p.EndToEnd != r.EndToEnd {
			t.Errorf("%+v", p)
		}
	})
}

func TestDropsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := Run(t.Context(), Options{URL: "http://x/v1", sleep: time.Sleep, Callers: []Caller{{"a", ""}, {"b", ""}}, Models: []Share{{"m", 1}}, Plan: plan(10, time.Millisecond), MaxInFlight: 3,
			Transport: engine(func(*http.Request) (io.Reader, error) {
				time.Sleep(time.Second)
				return strings.NewReader(wholeAnswer), nil
			})})
		if err != nil || r.Planned != 10 || r.OK != 3 || r.Dropped != 7 || r.Sent != 3 || r.Failed != 0 || len(r.Errors) != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		if a, b := r.Tenants[0], r.Tenants[1]; a.Sent != 2 || a.Dropped != 3 || b.Sent != 1 || b.Dropped != 4 || r.Series[0].Dropped != 7 {
			t.Errorf("%+v %+v %+v", a, b, r.Series)
		}
	})
}

func TestWarmupIsSentAndNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		r, err := Run(t.Context(), Options{URL: "http://x/v1", sleep: time.Sleep, Models: []Share{{"m", 1}}, Plan: plan(20, 100*time.Millisecond), Warmup: time.Second, Transport: engine(func(*http.Request) (io.Reader, error) {
			if n := sent.Add(1); n <= 10 {
				time.Sleep(5 * time.Second) // slow, and then one fails
				if n == 3 {
					return nil, errors.New("no")
				}
			}
			time.Sleep(100 * time.Millisecond)
			return strings.NewReader(wholeAnswer), nil
		})})
		if err != nil || sent.Load() != 20 || r.Planned != 10 || r.Sent != 10 || r.OK != 10 || !near(r.EndToEnd.Max, 0.1) || len(r.Errors) != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		// The slow ones of the warm-up end at 6.0 s, which is when the run ends.
		if !near(r.Seconds, 5) || !near(r.RequestsPerSecond, 2) || !near(r.TokensPerSecond, 4) {
			t.Errorf("%v s, %v/s, %v/s", r.Seconds, r.RequestsPerSecond, r.TokensPerSecond)
		}
	})
}

func TestInterruptEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 950*time.Millisecond)
		defer cancel()
		var told atomic.Int64
		began := time.Now()
		r, err := Run(ctx, Options{URL: "http://x/v1", sleep: time.Sleep, Models: []Share{{"m", 1}}, Plan: plan(1000, 100*time.Millisecond), Progress: func(int, int, int) { told.Add(1) },
			Transport: engine(func(r *http.Request) (io.Reader, error) {
				select {
				case <-time.After(500 * time.Millisecond):
					return strings.NewReader(wholeAnswer), nil
				case <-r.Context().Done():
					return nil, r.Context().Err()
				}
			})})
		// Ten were sent, at 0 to 900 ms; those of 500 to 900 ms had no answer yet.
		if err != nil || !r.Interrupted || r.Sent != 10 || r.OK != 5 || r.Cancelled != 5 || r.Failed != 0 || len(r.Errors) != 0 || r.Planned != 1000 || time.Since(began) != 950*time.Millisecond {
			t.Errorf("%+v, %v", r, err)
		}
		if told.Load() != 0 {
			t.Error("progress within a second")
		}
	})
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told [][3]int
		_, err := Run(t.Context(), Options{URL: "http://x/v1", sleep: time.Sleep, Models: []Share{{"m", 1}}, Plan: plan(12, 900*time.Millisecond), Progress: func(sent, done, failed int) { told = append(told, [3]int{sent, done, failed}) },
			Transport: engine(func(*http.Request) (io.Reader, error) {
				time.Sleep(950 * time.Millisecond)
				return strings.NewReader("no JSON"), nil
			})})
		if err != nil || len(told) != 2 || told[0] != [3]int{6, 5, 5} || told[1] != [3]int{12, 11, 11} {
			t.Errorf("%v, %v", told, err)
		}
	})
}

// gateway tells of one model, and wakes it with its first request. It takes 30 s, and says so in the stream after 10.
type gateway struct {
	silent bool // it tells nothing but in the stream

	mu    sync.Mutex // guards the fields below
	ready time.Time
	looks int
}

func (g *gateway) RoundTrip(r *http.Request) (*http.Response, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if r.Method == http.MethodGet {
		g.looks++
		if g.silent {
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(`{"id":"m"}`)), Request: r}, nil
		}
		replicas := 0
		if !g.ready.IsZero() && !now.Before(g.ready) {
			replicas = 1
		}
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(fmt.Sprintf(`{"id":"m","pilotlight":{"state":"x","replicas":%d}}`, replicas))), Request: r}, nil
	}
	if g.ready.IsZero() {
		g.ready = now.Add(30 * time.Second)
	}
	ready := g.ready
	out, in := io.Pipe()
	go func() {
		if wait := ready.Sub(now); wait > 10*time.Second {
			time.Sleep(10 * time.Second)
			fmt.Fprint(in, ": pilotlight: the model is starting, phase weights, position 1 of 1\n")
		}
		time.Sleep(max(0, time.Until(ready)) + 100*time.Millisecond)
		fmt.Fprint(in, streamed)
		in.Close()
	}()
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: out, Request: r}, nil
}

func TestColdRequestsAreKeptApart(t *testing.T) {
	for _, tt := range []struct {
		name     string
		silent   bool
		cold     int // of the 50 requests, one a second: 30 wait, of which the last 9 or 10 wait less than 10 s
		coldMost float64
	}{{"told", false, 30, 30.1}, {"by the stream alone", true, 20, 30.1}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gateway{silent: tt.silent}
				p := plan(50, time.Second)
				for i := range p {
					p[i].At += 500 * time.Millisecond * time.Duration(min(i, 1)) // the first at 0, the second at 1.5 s
				}
				r, err := Run(t.Context(), Options{URL: "http://x/v1", sleep: time.Sleep, Models: []Share{{"m", 1}}, Stream: 1, Plan: p, Transport: g})
				if err != nil || r.OK != 50 || r.Cold != tt.cold || r.ColdEnd.Count != tt.cold || r.ColdTTFT.Count != tt.cold || r.EndToEnd.Count != 50-tt.cold || !near(r.ColdTTFT.Max, tt.coldMost) {
					t.Errorf("%+v, %v", r, err)
				}
				if r.Models[0].Latencies.ColdEnd != r.ColdEnd || r.Tenants[0].Cold != tt.cold {
					t.Errorf("%+v", r.Models[0])
				}
				if !tt.silent && !near(r.EndToEnd.Max, 0.1) {
					t.Errorf("a cold answer among the warm: %+v", r.EndToEnd)
				}
				if tt.silent && g.looks != 1 {
					t.Errorf("asked %d times who does not tell", g.looks)
				}
			})
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := func() Options {
		return Options{URL: "http://x/v1/", Models: []Share{{"m", 1}}, Plan: plan(2, time.Second)}
	}
	if o, err := good().withDefaults(); err != nil || o.URL != "http://x/v1" || o.Timeout != 10*time.Minute || o.MaxInFlight != 10_000 || len(o.Callers) != 1 {
		t.Errorf("%+v, %v", o, err)
	}
	for name, mutate := range map[string]func(*Options){
		"no URL": func(o *Options) { o.URL = "" }, "no scheme": func(o *Options) { o.URL = "x/v1" }, "ftp": func(o *Options) { o.URL = "ftp://x" },
		"password": func(o *Options) { o.URL = "http://a:secret@x/v1" }, "query": func(o *Options) { o.URL = "http://x/v1?a" },
		"no model": func(o *Options) { o.Models = nil }, "no weight": func(o *Options) { o.Models[0].Weight = 0 }, "NaN": func(o *Options) { o.Models[0].Weight = math.NaN() },
		"no plan": func(o *Options) { o.Plan = nil }, "streams": func(o *Options) { o.Stream = 1.1 }, "no share": func(o *Options) { o.Stream = math.NaN() },
		"time-out": func(o *Options) { o.Timeout = -1 }, "in flight": func(o *Options) { o.MaxInFlight = -1 }, "prefix": func(o *Options) { o.SharedPrefix = -1 },
		"all is warm-up": func(o *Options) { o.Warmup = 2 * time.Second },
	} {
		o := good()
		mutate(&o)
		if _, err := Run(t.Context(), o); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
