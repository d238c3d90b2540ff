package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/bench/mockengine"
	"pilotlight/bench/wire"
	"pilotlight/internal/testtools/gatewaytest"
)

// mock starts an engine in this process; it ends with the test.
func mock(t *testing.T) (engine *mockengine.Server, url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	engine = &mockengine.Server{}
	served := make(chan error, 1)
	go func() { served <- engine.Serve(ln) }()
	t.Cleanup(func() {
		engine.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return engine, "http://" + ln.Addr().String()
}

// addr is where clients connect.
func (s *server) addr() string {
	return strings.TrimSuffix(strings.TrimPrefix(s.BaseURL, "http://"), "/v1")
}

// dial connects with tenant a's key, from one of many addresses so that ports do not run out.
func (s *server) dial(ctx context.Context, key string, from int) (*wire.Conn, error) {
	c, err := wire.Dial(ctx, wire.Options{Addr: s.addr(), Key: key, Local: net.IPv4(127, 0, 1, byte(1+from%200))})
	if err != nil {
		return nil, err
	}
	return c, c.Deadline(time.Now().Add(time.Minute))
}

// How clients leave streams.
const (
	leaveBeforeEnd  = iota // in the middle of their request
	leaveBeforeHead        // while the engine is silent, or before it has been asked
	leaveWithHead          // within the head of the answer
	leaveBetween           // between two frames
	leaveInFrame           // in the middle of a frame, which the engine has not finished
	leaveAfterDone         // with [DONE], before the final chunk
	leaveAfterEnd          // with everything, as anybody does
	waysToLeave            // their number
)

// endless scripts would go on for longer than any test; an engine that finishes one was not told that its client had left.
func endless(id uint64, way int) (s mockengine.Script) {
	s = mockengine.Script{ID: id, Frames: 1_000_000, Gap: 2 * time.Millisecond}
	switch way {
	case leaveBeforeHead:
		s.Hold = time.Hour
	case leaveInFrame:
		s.Split = true
	case leaveAfterDone, leaveAfterEnd:
		s.Frames, s.Gap = 1+rand.IntN(4), 0
	}
	return s
}

// leaveStream asks for one stream on a connection of its own, and leaves.
func (s *server) leaveStream(ctx context.Context, key string, id uint64, way int) error {
	c, err := s.dial(ctx, key, int(id))
	if err != nil {
		return err
	}
	if rand.IntN(2) == 0 {
		defer c.Close()
	} else {
		defer c.Reset()
	}
	script := endless(id, way)
	request := wire.Request{Model: "m", Prompt: script.String(), Stream: true}
	if way == leaveBeforeEnd {
		request.Cut = 1 + rand.IntN(300)
	}
	if err := c.Send(request); err != nil {
		return err
	}
	frame := func() string { return fmt.Sprintf("%d.%d ", id, rand.IntN(4)) }
	switch way {
	case leaveBeforeHead:
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
	case leaveWithHead:
		err = c.Await(1 + rand.IntN(60))
	case leaveBetween:
		if err = c.AwaitText(frame()); err == nil {
			err = c.AwaitText("}]}\n\n\r\n")
		}
	case leaveInFrame:
		if err = c.AwaitText(frame()); err == nil {
			time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
		}
	case leaveAfterDone:
		err = c.AwaitText("[DONE]")
	case leaveAfterEnd:
		var a wire.Answer
		if a, err = c.Receive(); err == nil && (a.Status != 200 || string(a.Text) != script.Text() || !a.Done) {
			err = fmt.Errorf("want %q, got %v", script.Text(), a)
		}
	}
	return err
}

// A stream that its client leaves costs nothing afterwards, whenever that happens: the engine hears of each, and the gateway
// keeps no goroutine, descriptor or place.
func TestStreamsThatAreLeft(t *testing.T) {
	t.Parallel() // it waits more than it works
	n := uint64(scaled(10_000, 1_000_000))
	const workers = 64
	engine, url := mock(t)
	// Fewer places than clients: some leave the queue.
	s := serve(t, config(gatewaytest.Model("m", "scaling: {metric: {concurrency: 48}}\nbackend: {static: {urls: ["+url+"], probe: /health}}"))+
		"telemetry: {access_log: false}\n")
	pid, key := s.PID(), s.Key("a")
	s.Until(10*time.Second, "the engine is ready", func() bool { return s.model("m").State == "ready" })
	var next atomic.Uint64
	var ways [waysToLeave]atomic.Int64
	play := func(until uint64) {
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for !t.Failed() {
					id := next.Add(1)
					if id > until {
						next.Add(^uint64(0))
						return
					}
					way := rand.IntN(waysToLeave)
					if err := s.leaveStream(t.Context(), key, id, way); err != nil {
						t.Errorf("request %d, way %d: %v", id, way, err)
						return
					}
					ways[way].Add(1)
				}
			})
		}
		wg.Wait()
	}
	quiet := func() {
		t.Helper()
		s.Until(20*time.Second, "nobody is connected, nothing waits, no place is held and the engine has nothing to do", func() bool {
			m := s.model("m")
			return s.state().Clients == 0 && m.QueuedRequests == 0 && len(m.Replicas) == 1 && m.Replicas[0].InFlight == 0 && engine.Record().InFlight == 0
		})
	}
	for way := range waysToLeave { // what the first make is no leak
		if err := s.leaveStream(t.Context(), key, next.Add(1), way); err != nil {
			t.Fatal(err)
		}
		ways[way].Add(1)
	}
	quiet()
	goroutines, open, files := s.metric("go_goroutines"), descriptors(t, pid), openFiles(t, pid)
	begin := time.Now()
	play(waysToLeave + n)
	took := time.Since(begin)
	quiet()
	record := engine.Record()
	t.Logf("%d streams left in %v (%.0f a second): %+v", n, took.Round(time.Second), float64(n)/took.Seconds(), record)
	if want := ways[leaveAfterDone].Load() + ways[leaveAfterEnd].Load(); record.Finished != want {
		t.Errorf("the engine finished %d streams, want the %d that were read to [DONE]", record.Finished, want)
	}
	if record.Left != record.Requests-record.Finished || record.Repeated != 0 || record.Malformed != 0 || record.Expired != 0 {
		t.Errorf("engine's record: %+v", record)
	}
	// Those that leave before the head may leave before the engine was asked; the others are seen by it for sure.
	if atLeast := ways[leaveWithHead].Load() + ways[leaveBetween].Load() + ways[leaveInFrame].Load(); record.Left < atLeast {
		t.Errorf("the engine saw %d clients leave, want at least %d", record.Left, atLeast)
	}
	if v := s.metric(`pilotlight_requests_active{gen_ai_request_model="m"}`); v != 0 {
		t.Errorf("pilotlight_requests_active is %v", v)
	}
	s.Until(20*time.Second, fmt.Sprintf("goroutines are back to %v", goroutines), func() bool { return s.metric("go_goroutines") <= goroutines })
	for deadline := time.Now().Add(20 * time.Second); descriptors(t, pid) > open; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("descriptors were %v, and are now\n%v", files, openFiles(t, pid))
		}
	}
}
