package process

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/backends"
)

// What a guard sees at each look, and when it gives up.
func TestGuardJudges(t *testing.T) {
	type world struct {
		inFlight int
		working  bool          // uses a processor
		speaks   time.Duration // a line of output each; 0: none
		alive    bool          // answers when asked
		strange  bool          // answers in a way that says nothing
		gone     bool          // nothing is in flight any more when it is to be held
	}
	for _, c := range []struct {
		name  string
		world world
		hung  time.Duration // about when; 0: not within two hours
		asks  bool
	}{
		{"nothing in flight, nothing happens", world{}, 0, false},
		{"a long prefill that logs its chunks", world{inFlight: 1, working: true, speaks: 25 * time.Second}, 0, false},
		{"a long prefill without output: it works for minutes", world{inFlight: 1, working: true}, 20 * time.Minute, true},
		{"streams tokens, logs nothing", world{inFlight: 3, working: true, alive: true}, 0, true},
		{"waits for a slow device, but answers", world{inFlight: 3, alive: true}, 0, true},
		{"does nothing with requests in flight", world{inFlight: 2}, 3 * time.Minute, true},
		{"a route that answers strangely proves nothing", world{inFlight: 2, strange: true}, 0, true},
		{"its requests end as it is looked at", world{inFlight: 1, gone: true}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var elapsed, cpu time.Duration
			var lines int64
			held, looks, asked := 0, 0, false
			w := c.world
			g := &guard{
				guardTimes: guardTimes{}.orDefaults(),
				Watch: Watch{
					InFlight: func() int { return w.inFlight },
					Hold: func() (func(), bool) {
						if w.gone {
							return nil, false
						}
						held++
						return func() { held-- }, true
					},
				},
				lines:  func() int64 { return lines },
				vitals: func() (vitals, error) { looks++; return vitals{cpu: cpu}, nil },
				ask: func(context.Context) (bool, error) {
					if asked = true; held != 1 {
						t.Error("asked without a hold")
					}
					if w.strange {
						return false, errors.New("404")
					}
					return w.alive, nil
				},
			}
			begin := time.Now()
			var hung time.Duration
			for ; elapsed < 2*time.Hour && hung == 0; elapsed += g.pace {
				if w.working {
					cpu += g.pace
				}
				if w.speaks > 0 {
					lines = int64(elapsed / w.speaks)
				}
				verdict, err := g.step(t.Context(), begin.Add(elapsed))
				if (err != nil) != (w.strange && asked && err != nil) {
					t.Fatal(err)
				}
				if verdict > 0 {
					hung = elapsed
				}
			}
			if c.hung == 0 && hung != 0 || hung < c.hung || hung > c.hung+2*time.Minute {
				t.Errorf("hung after %v, want %v", hung, c.hung)
			}
			if c.world.speaks > 0 && looks > 450 { // of 720
				t.Errorf("the processes of a server that speaks were looked at %d times", looks)
			}
			if asked != c.asks || held != 0 {
				t.Errorf("asked %v, want %v; %d holds left", asked, c.asks, held)
			}
		})
	}
}

// Requests that come and go begin the count anew, and what cannot be looked at is not judged.
func TestGuardForgets(t *testing.T) {
	inFlight := 1
	broken := errors.New("no /proc")
	var fails error
	g := &guard{
		guardTimes: guardTimes{}.orDefaults(),
		Watch:      Watch{InFlight: func() int { return inFlight }, Hold: func() (func(), bool) { return func() {}, true }},
		lines:      func() int64 { return 0 },
		vitals:     func() (vitals, error) { return vitals{}, fails },
		ask:        func(context.Context) (bool, error) { return false, nil },
	}
	begin := time.Now()
	for i := range 1000 {
		inFlight = 1
		if i%15 == 14 { // two and a half minutes
			inFlight = 0
		}
		if verdict, err := g.step(t.Context(), begin.Add(time.Duration(i)*g.pace)); verdict != 0 || err != nil {
			t.Fatalf("look %d: %v, %v", i, verdict, err)
		}
	}
	fails, inFlight = broken, 1
	for i := range 1000 {
		if verdict, err := g.step(t.Context(), begin.Add(time.Duration(2000+i)*g.pace)); verdict != 0 || !errors.Is(err, broken) {
			t.Fatalf("look %d: %v, %v", i, verdict, err)
		}
	}
}

// guarded starts the simulator under a guard that is quick to lose its patience.
func guarded(t *testing.T, d *Driver, hold *atomic.Int64, args ...string) *Replica {
	t.Helper()
	r := mustLaunch(t, d, simulated(args...), 1)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		r.Guard(ctx, Watch{
			InFlight: func() int { return 1 },
			Hold:     func() (func(), bool) { hold.Add(1); return func() { hold.Add(-1) }, true },
		})
	})
	return r
}

// post sends a request that takes its time; the answer does not matter.
func post(t *testing.T, r *Replica, body string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.Endpoint().Addr+"/v1/chat/completions", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+r.Endpoint().APIKey)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body) // the server may be gone
			_ = resp.Body.Close()
		}
		http.DefaultClient.CloseIdleConnections()
	}()
}

func TestAHungServerIsEnded(t *testing.T) {
	d := newDriver(t, func(o *Options) {
		o.guard = guardTimes{pace: 50 * time.Millisecond, silent: 300 * time.Millisecond, still: time.Second}
		// A simulator that hangs still serves /health_generate's wait by timers, which costs next to no processor time, but no exact amount.
		o.vitals = func(family) (vitals, error) { return vitals{}, nil }
	})
	var hold atomic.Int64
	r := guarded(t, d, &hold, "--sim-hang-after", "0s", "--sim-health-timeout", "200ms")
	post(t, r, `{"model":"m","messages":[{"role":"user","content":"hi"}]}`)
	select {
	case <-r.Exited():
	case <-time.After(60 * time.Second):
		t.Fatal("a server that hangs was not ended")
	}
	var f *backends.Failure
	if !errors.As(r.Cause(), &f) || f.Class != backends.ClassHang || !strings.Contains(f.Message, "hung") || len(f.Lines) == 0 || f.Permanent {
		t.Errorf("got %+v", r.Cause())
	}
	if hold.Load() != 0 {
		t.Errorf("%d holds left", hold.Load())
	}
}

// A server whose probes time out while it works on one long prompt is left alone.
func TestALongPrefillIsNoHang(t *testing.T) {
	var looks atomic.Int64
	d := newDriver(t, func(o *Options) {
		o.guard = guardTimes{pace: 50 * time.Millisecond, silent: 200 * time.Millisecond, still: 500 * time.Millisecond, mute: time.Hour}
		o.vitals = func(family) (vitals, error) { return vitals{cpu: time.Duration(looks.Add(1)) * time.Second}, nil } // it works, says the kernel
	})
	var hold atomic.Int64
	r := guarded(t, d, &hold, "--sim-hang-after", "0s", "--sim-health-timeout", "100ms")
	post(t, r, `{"model":"m","messages":[{"role":"user","content":"hi"}]}`)
	deadline := time.After(60 * time.Second)
	for looks.Load() < 60 { // three seconds at least
		select {
		case <-r.Exited():
			t.Fatalf("a server that works was ended: %v", r.Cause())
		case <-deadline:
			t.Fatal("the guard does not look")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A healthy server under load answers when it is asked.
func TestAHealthyServerIsLeftAlone(t *testing.T) {
	var looks atomic.Int64
	d := newDriver(t, func(o *Options) {
		o.guard = guardTimes{pace: 20 * time.Millisecond, silent: 50 * time.Millisecond, still: 2 * time.Second, mute: 2 * time.Second}
		o.vitals = func(family) (vitals, error) { looks.Add(1); return vitals{}, nil }
	})
	var hold atomic.Int64
	r := guarded(t, d, &hold, "--sim-health-delay", "10ms")
	deadline := time.After(60 * time.Second)
	for looks.Load() < 200 { // four seconds at least, twice as long as it may be silent
		select {
		case <-r.Exited():
			t.Fatalf("a healthy server was ended: %v", r.Cause())
		case <-deadline:
			t.Fatal("the guard does not look")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
