package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/internal/testtools/gatewaytest"
)

// limits of the gateway that slow clients meet: as in README, and idle_stream as this test sets it.
const (
	slowHead   = 30 * time.Second
	slowBody   = 5 * time.Minute
	slowStream = 5 * time.Second
	// slowSlack is what a busy machine may be late by.
	slowSlack = 20 * time.Second
)

// endlessEngine is an engine that streams for as long as anybody takes it, and answers everything else at once.
type endlessEngine struct {
	streams   atomic.Int64 // now
	cancelled atomic.Int64
}

var bigEvent = []byte(`data: {"choices":[{"delta":{"content":"` + strings.Repeat("y", 4000) + "\"}}]}\n\n")

func (e *endlessEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || !strings.Contains(string(body), `"stream":true`) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"model":"m","choices":[{"message":{"content":"fine"}}]}`)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	e.streams.Add(1)
	defer e.streams.Add(-1)
	for {
		if _, err := w.Write(bigEvent); err != nil {
			e.cancelled.Add(1)
			return
		}
	}
}

// slowClients are many of one kind.
type slowClients struct {
	what  string
	limit time.Duration // after which the gateway has ended them; 0: they go by themselves
	begin func(c net.Conn) error
	each  func(c net.Conn) error // once a second, until the connection ends

	lasted []time.Duration
	mu     sync.Mutex
}

// run opens n connections and plays them until they end, or until stop.
func (s *slowClients) run(addr string, n int, stop <-chan struct{}) error {
	var wg sync.WaitGroup
	failed := make(chan error, n)
	for range n {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				failed <- err
				return
			}
			defer c.Close()
			if err := c.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
				failed <- err
				return
			}
			start := time.Now()
			if err := s.begin(c); err != nil {
				failed <- fmt.Errorf("%s: %w", s.what, err)
				return
			}
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				if s.each(c) != nil {
					s.mu.Lock()
					s.lasted = append(s.lasted, time.Since(start))
					s.mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	return <-failed
}

// sendByte sends one, and tells when the other side has ended.
func sendByte(c net.Conn) error {
	if _, err := c.Write([]byte("a")); err != nil {
		return err
	}
	return ended(c)
}

// ended tells whether the other side has ended or reset the connection; what it said before is skipped.
func ended(c net.Conn) error {
	if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return nil
	}
	if err == nil {
		err = io.EOF
	}
	return err
}

// hungUp tells whether the connection is gone, and reads nothing.
func hungUp(c net.Conn) error {
	_, err := c.Write([]byte("\r\n")) // empty lines between requests mean nothing
	return err
}

// Clients that send or read slowly are many, cost little, are ended in time, and nobody else is kept waiting.
func TestSlowClients(t *testing.T) {
	n := scaled(200, 2000)
	engine := &endlessEngine{}
	upstream := httptest.NewUnstartedServer(engine)
	// What is under test is the gateway's memory, not four megabytes of the kernel's for each of the engine's connections.
	upstream.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if err := c.(*net.TCPConn).SetWriteBuffer(64 << 10); err != nil {
			t.Error(err)
		}
		return ctx
	}
	upstream.Start()
	defer upstream.Close()
	defer upstream.CloseClientConnections()
	s := serve(t, config(gatewaytest.Model("m", fmt.Sprintf(
		"model_path: elsewhere\nrequires_auth: false\nscaling: {metric: {concurrency: 10000}}\ntimeouts: {idle_stream: %s}\n"+
			"backend: {static: {urls: [%q], engine: openai, probe: /health}}\n", slowStream, upstream.URL))))
	at, err := url.Parse(s.BaseURL)
	if err != nil {
		t.Fatal(err)
	}
	if a := s.ask(t.Context(), "a", "m", "x", false); a.status != 200 {
		t.Fatal(a)
	}

	const head = "POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n"
	stream := `{"model":"m","stream":true,"messages":[]}`
	readStream := func(c net.Conn) error {
		if _, err := fmt.Fprintf(c, "%sContent-Length: %d\r\n\r\n%s", head, len(stream), stream); err != nil {
			return err
		}
		_, _ = bufio.NewReaderSize(c, 16).ReadString('\n') // it has begun; where it has ended already, the next look tells
		return nil
	}
	kinds := []*slowClients{
		{what: "head byte by byte", begin: func(net.Conn) error { return nil }, each: sendByte},
		{what: "body byte by byte", begin: func(c net.Conn) error {
			_, err := io.WriteString(c, head+"Content-Length: 33554432\r\n\r\n")
			return err
		}, each: sendByte},
		{what: "never reads", limit: slowStream, begin: readStream, each: hungUp},
		{what: "reads a byte a second", limit: slowStream, begin: readStream, each: func(c net.Conn) error {
			if _, err := c.Read(make([]byte, 1)); err != nil {
				return err
			}
			return hungUp(c)
		}},
	}
	if gatewaytest.Full() {
		kinds[0].limit, kinds[1].limit = slowHead, slowBody // else their clients go with the last of the others
	}
	before := rss(t, s.PID())
	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop) })
	var wg, running sync.WaitGroup
	defer func() { // also when the test ends early
		end()
		running.Wait()
		wg.Wait()
	}()
	var most time.Duration // of others' requests
	var asked, peak int
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			a := s.ask(t.Context(), "a", "m", "x", false)
			if asked++; a.status != 200 {
				t.Errorf("somebody else got %v", a)
			}
			most, peak = max(most, a.took), max(peak, rss(t, s.PID()))
		}
	})
	longest := slowStream
	var ended sync.WaitGroup // by the gateway
	for _, k := range kinds {
		longest = max(longest, k.limit)
		if k.limit > 0 {
			ended.Add(1)
		}
		running.Go(func() {
			if err := k.run(at.Host, n, stop); err != nil {
				t.Error(err)
			}
			if k.limit > 0 {
				ended.Done()
			}
		})
	}
	late := time.AfterFunc(longest+slowSlack, end)
	defer late.Stop()
	// The streams are ended first, with their engines' work.
	s.Until(slowStream+2*slowSlack, "the engine is rid of all streams", func() bool { return engine.cancelled.Load() == int64(2*n) })
	s.Until(slowSlack, "all leases are back", func() bool { return s.model("m").Replicas[0].InFlight <= 1 })
	ended.Wait()
	end()
	running.Wait()
	wg.Wait()
	for _, k := range kinds {
		if k.limit == 0 {
			t.Logf("%s: %d went by themselves, %d were ended", k.what, n-len(k.lasted), len(k.lasted))
			continue
		}
		if len(k.lasted) != n {
			t.Errorf("%s: %d of %d were ended", k.what, len(k.lasted), n)
			continue
		}
		slices.Sort(k.lasted)
		t.Logf("%s: ended after %.1f to %.1f s", k.what, k.lasted[0].Seconds(), k.lasted[n-1].Seconds())
		if k.lasted[n-1] > k.limit+slowSlack || k.lasted[0] < k.limit/2 {
			t.Errorf("%s: ended after %v to %v, want %v", k.what, k.lasted[0], k.lasted[n-1], k.limit)
		}
	}
	per := (peak - before) / (len(kinds) * n)
	t.Logf("%d of each: %d KiB a connection, %d MiB in all; %d other requests, the slowest took %v", n, per>>10, peak>>20, asked, most.Round(time.Millisecond))
	if per > 64<<10 {
		t.Errorf("%d KiB a connection", per>>10)
	}
}
