package sglangsim

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestHealthTellsReadiness(t *testing.T) {
	f := serve(t, func(o *Options) { o.Start.Warmup = 300 * time.Millisecond })
	start := time.Now()
	for path, want := range map[string]int{"/health": 503, "/health_generate": 503, "/ping": 200, "/v1/models": 200} {
		if status, _ := f.get(path); status != want {
			t.Errorf("warming up, %s: %d, want %d", path, status, want)
		}
	}
	if status, _ := f.post("/v1/chat/completions", chatBody("x", "")); status != 200 {
		t.Errorf("a chat during the warm-up: %d", status)
	}
	if f.Ready() {
		t.Fatalf("ready after %v", time.Since(start))
	}
	f.eventually("ready", f.Ready)
	before := time.Now()
	if status, _ := f.get("/health"); status != 200 {
		t.Errorf("ready, /health: %d", status)
	}
	if d := time.Since(before); d < f.opts.HealthDelay {
		t.Errorf("a generating probe took %v", d)
	}
}

func TestInstantHealthDoesNotGenerate(t *testing.T) {
	f := serve(t, func(o *Options) { o.InstantHealth, o.HealthDelay = true, time.Hour })
	if status, _ := f.get("/health"); status != 200 {
		t.Errorf("/health: %d", status)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := f.do(ctx, "GET", "/health_generate", ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("/health_generate does not generate: %v", err)
	}
}

func TestHungServer(t *testing.T) {
	f := serve(t, func(o *Options) { o.Faults.HangAfter, o.WatchdogTimeout = 0, 400*time.Millisecond })
	start := time.Now()
	if status, _ := f.get("/health"); status != 503 || time.Since(start) < f.opts.HealthTimeout {
		t.Errorf("/health: %d after %v", status, time.Since(start))
	}
	f.alive()
	if _, _, err := f.do(t.Context(), "POST", "/v1/chat/completions", chatBody("x", "")); err == nil {
		t.Error("a hung server answered")
	}
	f.end(ErrDied) // by the watchdog
}

func TestFalseHealth(t *testing.T) {
	f := serve(t, func(o *Options) { o.InstantHealth, o.Faults.Health503 = true, 3 })
	got := ""
	for range 6 {
		status, _ := f.get("/health")
		got += http.StatusText(status)[:1]
	}
	if got != "OOSOOS" {
		t.Errorf("got %s, want each third one false", got)
	}
}

func TestDrainGoesOnServing(t *testing.T) {
	f := serve(t, slow)
	ctx, cancel := context.WithCancel(t.Context())
	f.open(ctx, longChat)
	f.Drain()
	if status, _ := f.get("/health"); status != 503 {
		t.Errorf("/health: %d", status)
	}
	if status, _ := f.post("/v1/chat/completions", chatBody("x", "")); status != 200 {
		t.Errorf("a new request while draining: %d", status)
	}
	time.Sleep(4 * f.opts.DrainPoll)
	f.alive()
	if v := f.Stats(); v.WhileDraining != 1 || !v.Draining {
		t.Errorf("stats %+v", v)
	}
	cancel()
	f.end(ErrDrained)
}

func TestUnhealthyServerDoesNotDrain(t *testing.T) {
	f := serve(t, func(o *Options) { o.Faults.HangAfter = 0 })
	f.get("/health")
	go func() { // ends with the server
		resp, err := f.client.Post(f.url+"/v1/chat/completions", "application/json", strings.NewReader(longChat))
		if err == nil {
			resp.Body.Close()
		}
	}()
	f.eventually("stuck", func() bool { return f.Stats().Running == 1 })
	f.Drain()
	f.end(ErrDrained)
}

func TestFailedWarmupKills(t *testing.T) {
	f := serve(t, func(o *Options) { o.Faults.Fail, o.Start.Warmup = failWarmup, time.Millisecond })
	f.end(ErrDied)
}

func TestCrashes(t *testing.T) {
	t.Run("after ready", func(t *testing.T) {
		f := serve(t, func(o *Options) { o.Faults.CrashAfter = 50 * time.Millisecond })
		f.end(ErrDied)
	})
	t.Run("at once", func(t *testing.T) {
		f := serve(t, slow)
		resp := f.open(t.Context(), longChat)
		f.Crash()
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("the stream ended well")
		}
		f.end(ErrDied)
	})
	t.Run("after tokens", func(t *testing.T) {
		f := serve(t, func(o *Options) { slow(o); o.Faults.CrashTokens = 3 })
		resp := f.open(t.Context(), longChat)
		data, err := io.ReadAll(resp.Body)
		if err == nil {
			t.Errorf("the stream ended well: %s", data)
		}
		if n := strings.Count(string(data), `"content":"`); n != 4 { // the role chunk and three tokens
			t.Errorf("%d chunks with content: %s", n, data)
		}
		f.end(ErrDied)
	})
}

func TestStreamFaults(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*Faults)
		want func(body string, err error) bool
	}{
		{"rst", func(f *Faults) { f.CutTokens, f.Cut = 3, "rst" }, func(_ string, err error) bool { return errors.Is(err, syscall.ECONNRESET) }},
		{"fin", func(f *Faults) { f.CutTokens, f.Cut = 3, "fin" }, func(_ string, err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"fin by default", func(f *Faults) { f.CutTokens = 3 }, func(_ string, err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"clean", func(f *Faults) { f.CutTokens, f.Cut = 3, "clean" }, func(body string, err error) bool {
			return err == nil && !strings.Contains(body, "[DONE]") && !strings.Contains(body, `"stop"`)
		}},
		{"error", func(f *Faults) { f.ErrorTokens = 3 }, func(body string, err error) bool {
			return err == nil && strings.Contains(body, `data: {"error":{"object":"error"`) && strings.HasSuffix(body, "data: [DONE]\n\n")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := serve(t, func(o *Options) { slow(o); c.set(&o.Faults) })
			resp := f.open(t.Context(), longChat)
			data, err := io.ReadAll(resp.Body)
			if !c.want(string(data), err) {
				t.Errorf("read %q, %v", data, err)
			}
			if n := strings.Count(string(data), `"content":"`); n != 4 && c.name != "rst" { // a reset may take the last bytes with it
				t.Errorf("%d chunks with content, want the role's and three", n)
			}
			f.eventually("counted", func() bool { return f.Stats().Faulted == 1 })
			f.alive()
		})
	}
}

func TestFaultsCanHitSomeRequests(t *testing.T) {
	f := serve(t, func(o *Options) { o.Faults.ErrorTokens, o.Faults.Every = 1, 2 })
	got := ""
	for range 4 {
		if _, body := f.post("/v1/chat/completions", chatBody("a b", `,"stream":true`)); strings.Contains(body, `"error"`) {
			got += "x"
		} else {
			got += "."
		}
	}
	if got != ".x.x" {
		t.Errorf("got %s", got)
	}
}

func TestHeadersCanBeLate(t *testing.T) {
	f := serve(t, func(o *Options) { o.Faults.HeadersDelay = 80 * time.Millisecond })
	for _, body := range []string{chatBody("x", ""), chatBody("x", `,"stream":true`)} {
		start := time.Now()
		f.post("/v1/chat/completions", body)
		if d := time.Since(start); d < 80*time.Millisecond {
			t.Errorf("answered after %v", d)
		}
	}
}

func TestReusedConnectionsCanBeReset(t *testing.T) {
	f := serve(t, func(o *Options) { o.Faults.ResetReuse = 1 })
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 4096)
	if _, err := io.WriteString(conn, "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200") {
		t.Fatalf("first request: %q, %v", buf[:n], err)
	}
	if _, err := io.WriteString(conn, "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("second request: %q, %v, want a reset", buf[:n], err)
	}
	if v := f.Stats(); v.ConnectionResets != 1 {
		t.Errorf("stats %+v", v)
	}
}
