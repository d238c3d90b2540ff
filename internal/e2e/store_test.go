package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/internal/testtools"
	"pilotlight/internal/testtools/hubtest"
)

// hubFor makes a hub with a small model, and the gateway's environment such that it is the hub, with a store of its own.
func hubFor(t *testing.T) (hub *hubtest.Hub, store string) {
	t.Helper()
	hub, store = hubtest.New(t), t.TempDir()
	hub.Fill()
	for name, value := range map[string]string{"HF_ENDPOINT": hub.Front.URL, "HF_HUB_CACHE": store, "HF_TOKEN": "", "HF_TOKEN_PATH": filepath.Join(store, "no-token"), "HF_HOME": store} {
		t.Setenv(name, value)
	}
	return hub, store
}

// fromStore has a simulator's model take its weights from somewhere else.
func fromStore(model, field string) string {
	return regexp.MustCompile(`model_(hf_)?path: [^\n]*`).ReplaceAllString(model, field)
}

// slowly has the hub send large files at about this many bytes a second, over however many connections.
func slowly(hub *hubtest.Hub, rate int) {
	var turn sync.Mutex
	hub.FailWith(func(w http.ResponseWriter, r *http.Request) bool {
		name := strings.TrimPrefix(r.URL.Path, "/blob/")
		hub.Mu.Lock()
		content := hub.Files[name]
		hub.Mu.Unlock()
		from, to, status := 0, len(content)-1, http.StatusOK
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(content)))
			status = http.StatusPartialContent
		}
		w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
		w.WriteHeader(status)
		const piece = 64 << 10
		for at := from; at <= to; at += piece {
			if _, err := w.Write(content[at:min(at+piece, to+1)]); err != nil {
				return true
			}
			turn.Lock()
			time.Sleep(time.Duration(float64(time.Second) * piece / float64(rate)))
			turn.Unlock()
		}
		return true
	})
}

// pilotlight runs a command of the built program.
func pilotlight(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), testtools.Binary(t, "./cmd/pilotlight"), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// A cold model whose weights are nowhere on this machine: fetched, started, answered, for all that wait by one download.
func TestColdRequestFetchesTheModel(t *testing.T) {
	hub, store := hubFor(t)
	slowly(hub, 12<<20)
	s := serve(t, config(fromStore(simModel(t, "m", "scaling: {replicas: [0, 1], scaledown_after: 2}\ncold: {grace: 100ms, heartbeat: 100ms}", "--sim-start", "1s"), "model_path: store:org/model")))
	answers := make([]answer, 4)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = s.ask(t.Context(), "a", "m", fmt.Sprint("m", i), true) })
	}
	s.Until(20*time.Second, "status tells of the download", func() bool {
		m := s.model("m")
		return len(m.Replicas) == 1 && m.Replicas[0].Phase == "download" && m.Replicas[0].Percent > 0 && strings.Contains(m.Replicas[0].Detail, "/s")
	})
	if text, _, _ := pilotlight(t, "status", "--admin", s.AdminURL); !strings.Contains(text, "phase download, ") {
		t.Errorf("status:\n%s", text)
	}
	if n := len(s.Engines()); n != 0 {
		t.Errorf("%d engines during the download", n)
	}
	wg.Wait()
	percent := regexp.MustCompile(`^: pilotlight: the model is starting, phase download, [1-9]\d? %, [\d.]+ [kM]B of 27 MB, [\d.]+ [kM]B/s`)
	for i, a := range answers {
		a.wants(t, fmt.Sprint("m", i), true)
		told := 0
		for _, line := range a.heard {
			if percent.MatchString(line) {
				told++
			}
		}
		if told == 0 {
			t.Errorf("no heartbeat tells of the download: %q", a.heard)
		}
	}
	// A connection that turns out to be one too many is given up, with less than a mark's MiB on its way.
	want := int64(len(hub.Files["model-1.safetensors"]) + len(hub.Files["model-2.safetensors"]))
	if got := hub.BytesServed(); got < want || got > want+8<<20 {
		t.Errorf("%d bytes were fetched, want %d", got, want)
	}
	snapshot := filepath.Join(store, "models--org--model", "snapshots", hub.Commit)
	pid := s.model("m").Replicas[0].PID
	argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(argv, []byte("--model-path\x00"+snapshot+"\x00")) {
		t.Errorf("the engine's command: %q, %v", argv, err)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || !bytes.Contains(env, []byte("HF_HUB_OFFLINE=1\x00")) {
		t.Errorf("the engine's environment lacks HF_HUB_OFFLINE=1 (%v)", err)
	}
	if out, errs, code := pilotlight(t, "models", "rm", "org/model"); code != 1 || !strings.Contains(errs, "in use by m replica 1") {
		t.Errorf("models rm of what a replica uses: %d, %q, %q", code, out, errs)
	}
	if out, _, code := pilotlight(t, "models", "ls"); code != 0 || !strings.Contains(out, "m replica 1 (pid ") || !strings.Contains(out, "main="+hub.Commit[:12]) {
		t.Errorf("models ls: %d\n%s", code, out)
	}

	// The next start needs no hub.
	hub.Front.Close()
	s.Until(20*time.Second, "the replica is gone", func() bool { return s.model("m").State == "cold" })
	s.ask(t.Context(), "a", "m", "again", true).wants(t, "again", true)
	s.Until(20*time.Second, "the replica is gone", func() bool { return s.model("m").State == "cold" })
	if out, _, code := pilotlight(t, "models", "verify"); code != 0 || !strings.Contains(out, "are right") {
		t.Errorf("models verify: %d\n%s", code, out)
	}
	if out, errs, code := pilotlight(t, "models", "rm", "org/model"); code != 0 {
		t.Errorf("models rm: %d, %q, %q", code, out, errs)
	}
	if _, err := os.Stat(snapshot); err == nil {
		t.Error("it is still there")
	}
}

// An engine holds its model when the gateway that started it is killed.
func TestKilledGatewaysModelStays(t *testing.T) {
	hubFor(t)
	if _, errs, code := pilotlight(t, "prefetch", "org/model", "--name", "chat", "--exclude", "copy*"); code != 0 {
		t.Fatalf("prefetch: %d, %s", code, errs)
	}
	s := serve(t, config(fromStore(simModel(t, "m", "", "--sim-start", "200ms"), "model_path: store:chat")))
	s.ask(t.Context(), "a", "m", "one", false).wants(t, "one", false)
	s.Kill()
	if _, errs, code := pilotlight(t, "models", "rm", "chat"); code != 1 || !strings.Contains(errs, "in use by m replica 1") {
		t.Errorf("models rm while the engine lives: %d, %q", code, errs)
	}
	s.Start()
	s.ask(t.Context(), "a", "m", "two", false).wants(t, "two", false)
	if n := s.model("m").Starts; n != 0 {
		t.Errorf("%d starts: the replica was not taken over", n)
	}
}

func TestFailedDownloadIsAFailedStart(t *testing.T) {
	hub, _ := hubFor(t)
	hub.Mu.Lock()
	hub.Refusals = map[string]int{"GatedRepo": http.StatusForbidden}
	hub.Mu.Unlock()
	s := serve(t, config(fromStore(simModel(t, "m", ""), "model_hf_path: org/model\n    prefetch: true")))
	a := s.ask(t.Context(), "a", "m", "x", false)
	if a.status != 503 || a.code != "model_gated" || a.header.Get("X-Should-Retry") != "false" || !strings.Contains(a.message, "HF_TOKEN") {
		t.Errorf("got %v, x-should-retry %q", a, a.header.Get("X-Should-Retry"))
	}
	s.Until(10*time.Second, "the prefetch has failed", func() bool {
		p := s.state().Prefetch
		return len(p) == 1 && p[0].State == "failed" && p[0].Failure.Class == "model_gated"
	})
	if _, errs, code := pilotlight(t, "prefetch", "--all", "-c", s.File); code != 1 || !strings.Contains(errs, "the model's repository is gated") {
		t.Errorf("prefetch: %d, %s", code, errs)
	}
	hub.Mu.Lock()
	hub.Refusals = nil
	hub.Mu.Unlock()
	if out, errs, code := pilotlight(t, "prefetch", "--all", "-c", s.File); code != 0 || !strings.Contains(out, "/snapshots/"+hub.Commit) {
		t.Errorf("prefetch: %d, %s", code, errs)
	}
	if _, errs, code := pilotlight(t, "retry", "m", "--admin", s.AdminURL); code != 0 {
		t.Errorf("retry: %d, %s", code, errs)
	}
	s.ask(t.Context(), "a", "m", "now", false).wants(t, "now", false)
}

// The token of a private model is the model's own secret, for the gateway and for the command alike.
func TestPrefetchWithAModelsSecret(t *testing.T) {
	hub, _ := hubFor(t)
	hub.Mu.Lock()
	hub.Token = "hf_secret"
	hub.Mu.Unlock()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("hf_secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, config(fromStore(simModel(t, "m", "secrets: [{name: hub, env: HF_TOKEN, file: "+file+"}]"), "model_hf_path: org/model\n    prefetch: true")))
	s.Until(30*time.Second, "it is stored", func() bool { p := s.state().Prefetch; return len(p) == 1 && p[0].State == "stored" })
	if out, errs, code := pilotlight(t, "models", "rm", "org/model"); code != 0 {
		t.Fatalf("models rm: %d, %s, %s", code, out, errs)
	}
	if _, errs, code := pilotlight(t, "prefetch", "--all", "-c", s.File); code != 0 {
		t.Errorf("prefetch: %d, %s", code, errs)
	}
	if _, errs, code := pilotlight(t, "prefetch", "org/model"); code != 1 || !strings.Contains(errs, "HF_TOKEN, of which there is none") {
		t.Errorf("prefetch without a token: %d, %s", code, errs)
	}
	hub.Mu.Lock()
	defer hub.Mu.Unlock()
	if len(hub.Secrets) > 0 || strings.Contains(s.Log(), "hf_secret") {
		t.Error("the token went elsewhere")
	}
}

func TestPrefetchAtTheStart(t *testing.T) {
	hub, _ := hubFor(t)
	slowly(hub, 20<<20)
	s := serve(t, config(simModel(t, "m", ""))+"prefetch: [org/model]\n")
	s.Until(30*time.Second, "it is stored", func() bool {
		p := s.state().Prefetch
		return len(p) == 1 && p[0].Name == "org/model" && p[0].State == "stored" && p[0].Percent == 100
	})
	if out, _, _ := pilotlight(t, "status", "--admin", s.AdminURL); !strings.Contains(out, "prefetch org/model: stored") {
		t.Errorf("status:\n%s", out)
	}
	if out, _, code := pilotlight(t, "check", "-c", s.File); code != 0 || !strings.Contains(out, "prefetch     org/model: in the store, 2") {
		t.Errorf("check: %d\n%s", code, out)
	}
}

// A budget makes room for what starts, never at the cost of what runs.
func TestBudgetOfTheStore(t *testing.T) {
	hubFor(t)
	folders := t.TempDir()
	for i, name := range []string{"a", "b"} {
		if err := os.MkdirAll(filepath.Join(folders, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folders, name, "model.safetensors"), hubtest.Noise(byte(i), 6<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	life := "scaling: {replicas: [0, 1], scaledown_after: 1}"
	s := serve(t, config(fromStore(simModel(t, "a", life, "--sim-start", "200ms", "--sim-itl", "50ms"), "model_path: store:a"),
		fromStore(simModel(t, "b", life, "--sim-start", "200ms"), "model_path: store:b"))+"store: {max_bytes: 10MiB}\n")
	if _, errs, code := pilotlight(t, "prefetch", filepath.Join(folders, "a"), "--name", "a", "-c", s.File); code != 0 {
		t.Fatalf("prefetch: %d, %s", code, errs)
	}
	s.ask(t.Context(), "a", "a", "one", false).wants(t, "one", false)
	stay, leave := context.WithCancel(t.Context())
	defer leave()
	go s.send(stay, s.Key("a"), `{"messages":[{"role":"user","content":"go on"}],"model":"a","stream":true,"max_tokens":1000}`, true)
	s.Until(10*time.Second, "a request is in flight", func() bool { m := s.model("a"); return len(m.Replicas) == 1 && m.Replicas[0].InFlight > 0 })
	if _, errs, code := pilotlight(t, "prefetch", filepath.Join(folders, "b"), "--name", "b", "-c", s.File); code != 1 || !strings.Contains(errs, "do not fit in the store's budget") {
		t.Errorf("prefetch while the other runs: %d, %s", code, errs)
	}
	leave()
	s.Until(20*time.Second, "the replica is gone", func() bool { return s.model("a").State == "cold" })
	if _, errs, code := pilotlight(t, "prefetch", filepath.Join(folders, "b"), "--name", "b", "-c", s.File); code != 0 {
		t.Errorf("prefetch when nobody uses the other: %d, %s", code, errs)
	}
	s.ask(t.Context(), "a", "b", "two", false).wants(t, "two", false)
	s.Until(20*time.Second, "the replica is gone", func() bool { return s.model("b").State == "cold" })
	s.ask(t.Context(), "a", "a", "three", false).wants(t, "three", false) // evicted, known by its name, fetched again
	if out, _, _ := pilotlight(t, "models", "ls", "-c", s.File); !regexp.MustCompile(`local/a-\S+ +6\.3 MB .*main=.* a +a replica`).MatchString(out) || !regexp.MustCompile(`local/b-\S+ +\d\.\d kB`).MatchString(out) {
		t.Errorf("models ls:\n%s", out)
	}
}
