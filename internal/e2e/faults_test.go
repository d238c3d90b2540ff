package e2e

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pilotlight/internal/app"
)

// A start that goes wrong tells each waiter the class and the right advice, and the next request tries again by itself.
func TestFailedStarts(t *testing.T) {
	for _, tt := range []struct {
		name      string
		flags     []string
		extra     string
		code      string
		says      string
		permanent bool
	}{
		{"fails at once", []string{"--sim-fail", "exit"}, "", "engine_exited", "did not start", false},
		{"dies after a while", []string{"--sim-fail", "exit", "--sim-fail-after", "2s"}, "", "engine_exited", "did not start", false},
		{"hangs", []string{"--sim-fail", "hang"}, "timeouts: {start: 1s}", "start_hang", "did not start", false},
		{"out of memory", []string{"--sim-fail", "oom"}, "", "out_of_memory", "memory", true},
		{"no memory for the cache", []string{"--sim-fail", "kv-memory"}, "", "out_of_memory", "mem-fraction-static", true},
		{"gated", []string{"--sim-fail", "gated"}, "", "model_gated", "HF_TOKEN", true},
		{"no such model", []string{"--sim-fail", "not-found"}, "", "model_not_found_upstream", "did not start", true},
		{"unsupported", []string{"--sim-fail", "unsupported"}, "", "unsupported_model", "did not start", true},
		{"full disk", []string{"--sim-fail", "disk-full"}, "", "disk_full", "disk", false},
		{"killed", []string{"--sim-fail", "killed"}, "", "killed", "did not start", false},
		{"wrong flag", []string{"--no-such-flag", "1"}, "", "invalid_launch_argument", "did not start", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			flags := append([]string{"--sim-start", "200ms", "--sim-fail-starts", "1", "--sim-fail-file", filepath.Join(t.TempDir(), "starts")}, tt.flags...)
			s := serve(t, config(simModel(t, "m", tt.extra, flags...)))
			stream := strings.Contains(tt.name, "o") // some of each
			a := s.ask(t.Context(), "a", "m", "x", stream)
			if a.status != 503 || a.code != tt.code || !strings.Contains(a.message, tt.says) {
				t.Fatalf("got %v, want %s saying %q", a, tt.code, tt.says)
			}
			if strings.Contains(a.message, s.Dir) || strings.Contains(a.message, "127.0.0.1") {
				t.Errorf("the message tells what is nobody's business: %s", a.message)
			}
			wantRetry, wantAfter := "true", true
			if tt.permanent {
				wantRetry, wantAfter = "false", false
			}
			if a.header.Get("X-Should-Retry") != wantRetry || (a.header.Get("Retry-After") != "") != wantAfter {
				t.Errorf("retry advice %v", a.header)
			}
			if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); wantAfter && (err != nil || seconds < 1 || seconds > 59) {
				t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
			}
			s.Until(time.Second, "the state tells the failure", func() bool { return s.model("m").Failure != nil })
			if f := s.model("m").Failure; f.Class != tt.code || f.Permanent != tt.permanent {
				t.Errorf("state says %+v", f)
			}
			if n := len(s.Engines()); n != 0 {
				t.Errorf("%d processes left of a failed start", n)
			}
			if tt.permanent {
				if a := s.ask(t.Context(), "a", "m", "x", false); a.code != tt.code {
					t.Errorf("a second request got %v", a)
				}
				if n := s.model("m").Starts; n != 1 {
					t.Errorf("%d starts although nothing has changed", n)
				}
				if tt.name == "wrong flag" {
					return // it would be as wrong again
				}
				s.Signal(syscall.SIGHUP)
				s.Until(2*time.Second, "the failure is forgotten", func() bool { return s.model("m").Failure == nil || s.model("m").State != "failed" })
			}
			s.ask(t.Context(), "a", "m", "recovered", true).wants(t, "recovered", true)
		})
	}
}

func (s *server) replica(model string) app.ReplicaState {
	m := s.model(model)
	if len(m.Replicas) == 0 {
		return app.ReplicaState{}
	}
	return m.Replicas[0]
}

func (s *server) kill(model string) {
	s.t.Helper()
	engines := s.Engines()
	if len(engines) != 1 {
		s.t.Fatalf("%d engines, want one to kill", len(engines))
	}
	if err := syscall.Kill(engines[0], syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
}

func TestEngineKilled(t *testing.T) {
	t.Run("while starting", func(t *testing.T) {
		t.Parallel()
		s := serve(t, config(simModel(t, "m", "", "--sim-start", "1500ms")))
		got := make(chan answer, 1)
		go func() { got <- s.ask(t.Context(), "a", "m", "x", false) }()
		s.Until(5*time.Second, "it starts", func() bool { return len(s.Engines()) == 1 })
		time.Sleep(300 * time.Millisecond)
		killed := time.Now()
		s.kill("m")
		if a := <-got; a.status != 503 || a.code != "killed" || a.header.Get("X-Should-Retry") != "true" {
			t.Errorf("got %v %v", a, a.header)
		} else if d := time.Since(killed); d > 500*time.Millisecond {
			t.Errorf("told after %v", d)
		}
		s.ask(t.Context(), "a", "m", "again", true).wants(t, "again", true)
	})
	t.Run("while idle", func(t *testing.T) {
		t.Parallel()
		s := serve(t, config(simModel(t, "m", "")))
		s.ask(t.Context(), "a", "m", "one", false).wants(t, "one", false)
		s.kill("m")
		s.ask(t.Context(), "a", "m", "two", false).wants(t, "two", false)
		if m := s.model("m"); m.Crashes != 1 || m.Starts != 2 {
			t.Errorf("%d crashes, %d starts", m.Crashes, m.Starts)
		}
	})
	t.Run("in mid-stream", func(t *testing.T) {
		t.Parallel()
		s := serve(t, config(simModel(t, "m", "", "--sim-itl", "20ms", "--sim-output-tokens", "500")))
		got := make(chan answer, 1)
		go func() {
			got <- s.send(t.Context(), s.Key("a"), `{"model":"m","stream":true,"messages":[{"role":"user","content":"go on"}]}`, true)
		}()
		s.Until(5*time.Second, "it streams", func() bool { return s.replica("m").InFlight == 1 })
		time.Sleep(300 * time.Millisecond)
		s.kill("m")
		if a := <-got; a.status != 200 || a.code != "backend_unavailable" || a.done || a.text == "" || a.err != nil && !strings.Contains(a.err.Error(), "unexpected EOF") {
			t.Errorf("got %v", a)
		}
		s.ask(t.Context(), "a", "m", "again", true).wants(t, "again", true)
	})
	t.Run("before the first byte of a plain answer", func(t *testing.T) {
		t.Parallel()
		s := serve(t, config(simModel(t, "m", "", "--sim-ttft", "700ms")))
		got := make(chan answer, 1)
		go func() { got <- s.ask(t.Context(), "a", "m", "survives", false) }()
		s.Until(5*time.Second, "it is at the engine", func() bool { return s.replica("m").InFlight == 1 })
		time.Sleep(200 * time.Millisecond)
		s.kill("m")
		a := <-got // nothing had been answered and the replica is dead: another one answers
		a.wants(t, "survives", false)
	})
}

// Somebody takes the port that was chosen before the engine binds it, minutes later on a real one.
func TestPortStolen(t *testing.T) {
	s := serve(t, config(simModel(t, "m", "", "--sim-start", "1s")))
	got := make(chan answer, 1)
	go func() { got <- s.ask(t.Context(), "a", "m", "x", false) }()
	var port string
	s.Until(5*time.Second, "the port is known", func() bool {
		_, after, ok := strings.Cut(s.Log(), `"msg":"engine process started"`)
		if ok {
			_, after, ok = strings.Cut(after, `"port":`)
			port, _, _ = strings.Cut(after, ",")
		}
		return ok
	})
	thief, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // it even answers health checks
		for {
			c, err := thief.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Read(make([]byte, 4096))
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}()
		}
	}()
	a := <-got
	if a.status != 503 || a.code != "port_taken" || a.header.Get("X-Should-Retry") != "true" {
		t.Errorf("got %v", a)
	}
	s.ask(t.Context(), "a", "m", "another port", false).wants(t, "another port", false)
	thief.Close()
}
