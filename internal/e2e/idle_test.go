package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/bench/sglangsim"
	"pilotlight/bench/wire"
	"pilotlight/internal/testtools/gatewaytest"
)

// witness stands between a gateway and an engine's connections, and sees who ends them.
type witness struct {
	net.Listener
	accepted, dropped, expired, reused atomic.Int64 // dropped by the gateway, expired at the engine
	longest                            atomic.Int64 // pause before a request on a reused connection, nanoseconds
}

type witnessed struct {
	net.Conn
	w      *witness
	wrote  atomic.Int64 // when, in Unix nanoseconds; 0: a request is being read
	closed sync.Once
}

func (w *witness) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w.accepted.Add(1)
	return &witnessed{Conn: c, w: w}, nil
}

func (c *witnessed) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		if wrote := c.wrote.Swap(0); wrote != 0 {
			c.w.reused.Add(1)
			pause := time.Now().UnixNano() - wrote
			for old := c.w.longest.Load(); pause > old && !c.w.longest.CompareAndSwap(old, pause); old = c.w.longest.Load() {
			}
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		c.closed.Do(func() { c.w.dropped.Add(1) })
	}
	return n, err
}

func (c *witnessed) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.wrote.Store(time.Now().UnixNano())
	return n, err
}

func (c *witnessed) Close() error {
	c.closed.Do(func() {
		// Others are probes, which ask for the end of their connection.
		if wrote := c.wrote.Load(); wrote != 0 && time.Now().UnixNano()-wrote > int64(4500*time.Millisecond) {
			c.w.expired.Add(1)
		}
	})
	return c.Conn.Close()
}

// engineLog counts how often each request has reached an engine.
type engineLog struct {
	mu    sync.Mutex // guards times
	times map[int]int
}

var asked = regexp.MustCompile(`echo: pause(\d+)"`)

func (l *engineLog) observe(r *http.Request, body []byte) {
	m := asked.FindSubmatch(body)
	if m == nil {
		return
	}
	id, err := strconv.Atoi(string(m[1]))
	if err != nil {
		panic("BUG: a number too long: " + err.Error()) // fails the test
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times[id]++
}

// simulator starts a simulated engine in this process behind a witness; it ends with the test.
func simulator(t *testing.T, opts sglangsim.Options) (*witness, string) {
	t.Helper()
	engine, err := sglangsim.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{Listener: ln}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // until the clean-up
	served := make(chan error, 1)
	go func() { served <- engine.Serve(ctx, w) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return w, "http://" + ln.Addr().String()
}

// gap is how long nobody asks after a group's wave: from 3 to 7 s, half of the time close to where the gateway drops an idle connection
// (4 s) or the engine does (5 s).
func gap(turn int) time.Duration {
	near := func(d time.Duration) time.Duration { return d + time.Duration(rand.IntN(60)-30)*time.Millisecond }
	switch turn % 4 {
	case 0:
		return 3*time.Second + rand.N(900*time.Millisecond)
	case 1:
		return near(4 * time.Second)
	case 2:
		return near(5 * time.Second)
	}
	return 3*time.Second + rand.N(4*time.Second)
}

// Between waves of requests, connections on both sides lie idle for about as long as an engine keeps them. No request may meet one that is
// being closed, and none may be sent twice to make up for it.
func TestIdleGaps(t *testing.T) {
	t.Parallel() // it waits more than it works
	// Waves of one group find as many upstream connections idle as there were requests at once.
	groups, size := scaled(4, 36), 250
	n := scaled(0, 1_000_000) // 0: for as long as limit says
	limit := time.Duration(scaled(18, 3600)) * time.Second

	log := engineLog{times: map[int]int{}}
	opts := sglangsim.Defaults()
	opts.AccessLog, opts.InstantHealth = false, true
	// As long as a wave takes to come in, so that all of it is in flight at once; short answers.
	opts.TTFT, opts.ITL = 300*time.Millisecond, 0
	opts.Observe = log.observe
	var witnesses []*witness
	var models []string
	for g := range groups {
		w, url := simulator(t, opts)
		witnesses = append(witnesses, w)
		models = append(models, gatewaytest.Model(fmt.Sprint("m", g), fmt.Sprintf("scaling: {metric: {concurrency: %d}}\nbackend: {static: {urls: [%s], probe: /health}}", size, url)))
	}
	s := serve(t, config(models...)+"telemetry: {access_log: false}\n")
	key := s.Key("a")
	s.Until(20*time.Second, "the engines are ready", func() bool {
		for _, m := range s.state().Models {
			if m.State != "ready" {
				return false
			}
		}
		return true
	})

	var next, answered, latest atomic.Int64
	end := time.Now().Add(limit)
	one := func(g int, c *wire.Conn, wave int) error {
		time.Sleep(rand.N(20 * time.Millisecond))
		id := next.Add(1)
		if err := c.Deadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		stream := id%2 == 0
		want := fmt.Sprint("pause", id)
		sent := time.Now()
		if err := c.Send(wire.Request{Model: fmt.Sprint("m", g), Prompt: "echo: " + want, Stream: stream}); err != nil {
			return fmt.Errorf("wave %d: sending: %w", wave, err)
		}
		a, err := c.Receive()
		if err == nil && (a.Status != 200 || string(a.Text) != want || a.Done != stream || a.Close) {
			err = fmt.Errorf("want %q, got %v", want, a)
		}
		if err != nil {
			return fmt.Errorf("wave %d: %w", wave, err)
		}
		answered.Add(1)
		late := int64(time.Since(sent) - opts.TTFT)
		for old := latest.Load(); late > old && !latest.CompareAndSwap(old, late); old = latest.Load() {
		}
		return nil
	}
	begin := time.Now()
	var all sync.WaitGroup
	for g := range groups {
		all.Go(func() {
			conns := make([]*wire.Conn, size)
			for i := range conns {
				c, err := s.dial(t.Context(), key, g*size+i)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				conns[i] = c
			}
			for wave := 0; !t.Failed() && time.Now().Before(end) && (n == 0 || next.Load() < int64(n)); wave++ {
				var wg sync.WaitGroup
				for _, c := range conns {
					wg.Go(func() {
						if err := one(g, c, wave); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				time.Sleep(gap(g + wave))
			}
		})
	}
	all.Wait()
	took, late := time.Since(begin), time.Duration(latest.Load())
	var accepted, dropped, expired, reused int64
	var longest time.Duration
	for _, w := range witnesses {
		accepted, dropped, expired, reused = accepted+w.accepted.Load(), dropped+w.dropped.Load(), expired+w.expired.Load(), reused+w.reused.Load()
		longest = max(longest, time.Duration(w.longest.Load()))
	}
	t.Logf("%d answers on %d connections in %v; upstream %d connections, %d requests on a reused one after at most %v, %d dropped by the gateway, %d expired at an engine; answers were up to %v late",
		answered.Load(), groups*size, took.Round(time.Second), accepted, reused, longest.Round(time.Millisecond), dropped, expired, late.Round(time.Millisecond))
	// The engine counts from its last write, the gateway from when it has read it, and has a second to be ahead. On a machine that is so busy
	// that answers take long to come through neither can be blamed, and what remains is that no client may notice.
	if expired > 0 && late < 500*time.Millisecond {
		t.Errorf("%d connections lay idle until the engine closed them", expired)
	}
	if dropped < int64(size) || reused < int64(size)/2 || longest < 3*time.Second {
		t.Error("the test has proved nothing")
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	for id := 1; id <= int(next.Load()); id++ {
		if log.times[id] != 1 {
			t.Errorf("request %d reached the engine %d times", id, log.times[id])
		}
	}
	for g := range groups {
		if v := s.metricOr(fmt.Sprintf("pilotlight_retries_total{gen_ai_request_model=\"m%d\"}", g), 0); v != 0 {
			t.Errorf("model m%d: %v retries", g, v)
		}
	}
}
