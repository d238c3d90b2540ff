package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pilotlight/bench/load"
	"pilotlight/internal/testtools"
)

// bench runs `pilotlight bench` against the gateway from eight tenants, and reads its JSON. started, if given, is called with the running program.
func (s *server) bench(started func(*os.Process), args ...string) (r load.Result, code int, output string) {
	s.t.Helper()
	dir := s.t.TempDir()
	var keys strings.Builder
	for i := range 8 {
		fmt.Fprintf(&keys, "tenant%d:%s\n", i, s.Key(fmt.Sprint("tenant", i)))
	}
	object, file := filepath.Join(dir, "result.json"), filepath.Join(dir, "keys")
	if err := os.WriteFile(file, []byte(keys.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testtools.Binary(s.t, "./cmd/pilotlight"), append([]string{"bench", "--url", s.BaseURL, "--keys-file", file, "--json", object, "--html", filepath.Join(dir, "page.html")}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	if started != nil {
		started(cmd.Process)
	}
	if err := cmd.Wait(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			s.t.Fatal(err)
		}
		code = exit.ExitCode()
	}
	text, err := os.ReadFile(object)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		s.t.Fatalf("%v: exit code %d\n%s", err, code, &out)
	}
	if page, err := os.Stat(filepath.Join(dir, "page.html")); err != nil || page.Size() < 50_000 {
		s.t.Errorf("the page: %v", err)
	}
	return r, code, out.String()
}

// A cold model, a warm one, a trace, an interrupt and failures, as `pilotlight bench` tells them; the gateway's own account agrees.
func TestBenchAgainstTheGateway(t *testing.T) {
	s := serve(t, config(simModel(t, "m", "cold: {grace: 200ms, heartbeat: 200ms}", "--sim-start", "2s", "--sim-ttft", "30ms", "--sim-itl", "2ms"),
		simModel(t, "broken", "", "--sim-fail", "exit", "--sim-start", "100ms")))
	for i := range 8 {
		s.Key(fmt.Sprint("tenant", i))
	}
	time.Sleep(1200 * time.Millisecond) // the keys file is seen within a second

	r, code, out := s.bench(nil, "--model", "m", "--rate", "40", "--arrivals", "constant", "--requests", "240", "--stream", "0.5", "--max-tokens", "8")
	if code != 0 || r.OK != 240 || r.Sent != 240 || r.Tokens != 240*8 || len(r.Tenants) != 8 || r.Tenants[7].OK != 30 || r.Fairness.Tokens < 0.999 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	// Whoever comes within the start is cold: 40 a second for two seconds and what the process takes.
	if r.Cold < 75 || r.Cold > 200 || r.ColdEnd.Count != r.Cold || r.ColdEnd.Max < 1.9 || r.EndToEnd.P50 > r.ColdEnd.P90 || r.ColdTTFT.Count == 0 || r.ColdTTFT.Count == r.Cold {
		t.Errorf("%d cold\n%s", r.Cold, out)
	}
	if m := s.model("m"); m.Starts != 1 {
		t.Errorf("%d starts", m.Starts)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // it is written four times a second
		n := strings.Count(s.Log(), `"route":"chat","status":200`)
		if n == 240 {
			break
		}
		if n > 240 || time.Now().After(end) {
			t.Errorf("the gateway's log has %d answers", n)
			break
		}
	}

	trace := filepath.Join(t.TempDir(), "trace.csv")
	text := "TIMESTAMP,ContextTokens,GeneratedTokens\n"
	for i := range 40 {
		text += fmt.Sprintf("2023-11-16 18:17:%02d.5,%d,%d\n", i, 100+i, 1+i%10)
	}
	if err := os.WriteFile(trace, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, code, out = s.bench(nil, "--model", "m", "--trace", trace, "--speed", "40")
	// 40 requests, 100 to 139 tokens and what the template adds, 1 to 10 tokens of answer, one 40th of a second apart.
	if code != 0 || r.OK != 40 || r.Tokens != 220 || r.PromptTokens < 40*100 || r.PromptTokens > 40*200 || r.Cold != 0 || r.Seconds < 0.97 {
		t.Errorf("exit code %d, %+v\n%s", code, r.Counts, out)
	}

	began := time.Now()
	r, code, out = s.bench(func(p *os.Process) {
		time.Sleep(1500 * time.Millisecond)
		if err := p.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
	}, "--model", "m", "--rate", "20", "--duration", "10m")
	if code != 0 || !r.Interrupted || r.OK == 0 || r.Failed != 0 || r.Planned < 10_000 || time.Since(began) > 20*time.Second || !strings.Contains(out, "interrupted") {
		t.Errorf("exit code %d\n%s", code, out)
	}

	r, code, out = s.bench(nil, "--model", "broken", "--rate", "100", "--requests", "5")
	if code != 1 || r.OK != 0 || r.Errors["http 503 engine_exited"] != 5 {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
