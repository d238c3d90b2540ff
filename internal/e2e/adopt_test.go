package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/backends/process"
	"pilotlight/internal/testtools"
)

// only is the one replica of a model; the test ends if there is none or another beside it.
func (s *server) only(model string) (pid int, state string, unknown bool) {
	s.t.Helper()
	m := s.model(model)
	if len(m.Replicas) != 1 {
		s.t.Fatalf("replicas of %s: %+v, want one", model, m.Replicas)
	}
	r := m.Replicas[0]
	return r.PID, r.State, r.Unknown
}

func (s *server) records() []process.Record {
	s.t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.Dir, "state", "replicas", "*.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	var out []process.Record
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		var r process.Record
		if err := errors.Join(err, json.Unmarshal(b, &r)); err != nil {
			s.t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// A gateway dies while streams run. The next one takes the replica over as it is, does not count it as idle before the engine has
// noticed that nobody reads those streams, and evicts it in the end.
func TestReplicasOfAKilledGatewayAreTakenOver(t *testing.T) {
	s := serve(t, config(simModel(t, "m", "scaling: {scaledown_after: 1s}", "--sim-itl", "20ms", "--sim-disconnect-delay", "4s")))
	var streams sync.WaitGroup
	var broken atomic.Int32
	for range 20 {
		streams.Go(func() {
			a := s.send(t.Context(), s.Key("a"), `{"model":"m","stream":true,"max_tokens":5000,"messages":[{"role":"user","content":"go on"}]}`, true)
			if a.err != nil {
				broken.Add(1)
			}
		})
	}
	s.Until(20*time.Second, "twenty streams run", func() bool {
		m := s.model("m")
		return len(m.Replicas) == 1 && m.Replicas[0].InFlight == 20
	})
	pid, _, _ := s.only("m")
	key := s.records()[0].APIKey
	s.Kill()
	streams.Wait()
	if n := broken.Load(); n != 20 {
		t.Errorf("%d streams broke, want 20", n)
	}
	s.Start()
	if now, state, unknown := s.only("m"); now != pid || state != "ready" || !unknown {
		t.Fatalf("process %d is %s (unknown: %v), want %d, ready and unknown", now, state, unknown, pid)
	}
	s.ask(t.Context(), "a", "m", "warm", true).wants(t, "warm", true)
	if m := s.model("m"); m.Starts != 0 {
		t.Errorf("%d starts, want none", m.Starts)
	}
	settled := time.Time{}
	s.Until(30*time.Second, "the replica is evicted", func() bool {
		m := s.model("m")
		for _, r := range m.Replicas {
			if r.Unknown && r.State != "ready" {
				t.Errorf("it is %s while its streams may run", r.State)
			}
			if !r.Unknown && settled.IsZero() {
				settled = time.Now()
			}
		}
		return m.State == "cold"
	})
	if settled.IsZero() || len(s.Engines()) > 0 {
		t.Errorf("settled %v, engines left: %v", settled, s.Engines())
	}
	if strings.Contains(s.Log(), key) {
		t.Error("the engine's key is in the gateway's log")
	}
	s.ask(t.Context(), "a", "m", "again", false).wants(t, "again", false)
}

// A start outlives the gateway that began it; those who ask the next one wait for it.
func TestStartOfAKilledGatewayGoesOn(t *testing.T) {
	s := serve(t, config(simModel(t, "m", "", "--sim-start", "4s")))
	asking, stop := context.WithCancel(t.Context())
	defer stop()
	go s.ask(asking, "a", "m", "x", false)
	s.Until(20*time.Second, "the start is recorded", func() bool {
		r := s.records()
		return len(r) == 1 && r[0].State == process.StateStarting
	})
	pid := s.records()[0].PID
	s.Kill()
	s.Start()
	if _, state, _ := s.only("m"); state != "starting" {
		t.Errorf("it is %s, want starting", state)
	}
	s.ask(t.Context(), "a", "m", "y", true).wants(t, "y", true)
	if now, _, _ := s.only("m"); now != pid || len(s.Engines()) != 1 {
		t.Errorf("answered by process %d of %v, want %d", now, s.Engines(), pid)
	}
}

// One that was told to end is not worth taking over: its last words would be cut answers.
func TestStopOfAKilledGatewayIsFinished(t *testing.T) {
	s := serve(t, config(simModel(t, "m", "scaling: {scaledown_after: 1s}", "--sim-exit-delay", "20s")))
	s.ask(t.Context(), "a", "m", "x", false).wants(t, "x", false)
	pid, _, _ := s.only("m")
	s.Until(20*time.Second, "the replica stops", func() bool {
		return s.model("m").State == "stopping" && len(s.records()) == 1 && s.records()[0].State == process.StateStopping
	})
	s.Kill()
	s.Start()
	if left := s.Engines(); len(left) > 0 {
		t.Errorf("engines %v are left", left)
	}
	s.ask(t.Context(), "a", "m", "y", false).wants(t, "y", false)
	if now, _, _ := s.only("m"); now == pid {
		t.Error("answered by a replica that was told to end")
	}
}

// What the configuration has no place for any more is ended before anything is served.
func TestOrphansOfAKilledGatewayAreEnded(t *testing.T) {
	s := serve(t, config(simModel(t, "m", ""), simModel(t, "removed", "")))
	for _, m := range []string{"m", "removed"} {
		s.ask(t.Context(), "a", m, "x", false).wants(t, "x", false)
	}
	pid, _, _ := s.only("m")
	s.Kill()
	s.Write(config(simModel(t, "m", "")))
	s.Start()
	if left := s.Engines(); len(left) != 1 || left[0] != pid {
		t.Errorf("engines %v are left, want %d", left, pid)
	}
	s.ask(t.Context(), "a", "m", "y", false).wants(t, "y", false)
}

// Records tell nothing for sure: the machine may have started anew, and a pid may be somebody else's by now.
func TestStaleRecordsHarmNobody(t *testing.T) {
	s := serve(t, config(simModel(t, "m", "")))
	s.ask(t.Context(), "a", "m", "x", false).wants(t, "x", false)
	r := s.records()[0]
	s.Stop()
	stranger := exec.Command("sleep", "1000")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stranger.Wait() }()
	write := func(change func(*process.Record)) {
		t.Helper()
		stale := r
		change(&stale)
		b, err := json.Marshal(stale)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.Dir, "state", "replicas", fmt.Sprintf("m-%d.json", stale.ID)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(func(s *process.Record) { s.ID = 100 })                                                              // its process is gone
	write(func(s *process.Record) { s.ID, s.PID = 101, stranger.Process.Pid })                                 // its pid was given again
	write(func(s *process.Record) { s.ID, s.PID, s.BootID = 102, stranger.Process.Pid, "of another start" })   // reboot
	write(func(s *process.Record) { s.ID, s.PID, s.State = 103, stranger.Process.Pid, process.StateStarting }) //
	write(func(s *process.Record) {
		s.ID, s.PID, s.State, s.Engine = 104, stranger.Process.Pid, "of the future", ""
	}) //
	s.Start()
	if left := s.records(); len(left) > 0 {
		t.Errorf("records %v are left", left)
	}
	if m := s.model("m"); m.State != "cold" || len(m.Replicas) > 0 {
		t.Errorf("got %+v, want a cold model", m)
	}
	s.ask(t.Context(), "a", "m", "y", false).wants(t, "y", false)
	select {
	case err := <-ended:
		t.Errorf("a stranger was killed: %v", err)
	default:
	}
	if err := stranger.Process.Kill(); err != nil {
		t.Error(err)
	}
	<-ended
}

func TestSecondGatewayOnAStateFolderIsRefused(t *testing.T) {
	s := serve(t, config(simModel(t, "m", "")))
	second := exec.Command(testtools.Binary(t, "./cmd/pilotlight"), "serve", "-c", s.File)
	out, err := second.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v, want code 1", err)
	}
	if !bytes.Contains(out, []byte("in use by another gateway (pid "+strconv.Itoa(s.PID())+"); stop that one, or give this one a state_dir of its own")) {
		t.Errorf("it says %s", out)
	}
	s.ask(t.Context(), "a", "m", "y", false).wants(t, "y", false)
}

// A gateway is killed again and again under requests whose clients retry. Nothing is doubled or orphaned, and everybody is answered.
func TestKilledAgainAndAgain(t *testing.T) {
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	models := []string{"warm", "slow", "brief", "changing"}
	yaml := func(version int) string {
		return strings.Replace(config(
			simModel(t, "warm", ""),
			simModel(t, "slow", "scaling: {scaledown_after: 1s}", "--sim-start", "1500ms"),
			simModel(t, "brief", "scaling: {scaledown_after: 1s}", "--sim-exit-delay", "500ms"),
			simModel(t, "changing", "", "--sim-start", "700ms", "--sim-ttft", fmt.Sprint(version, "us")),
		), "listen: 127.0.0.1:0", "listen: 127.0.0.1:"+strconv.Itoa(port), 1)
	}
	s := serve(t, yaml(0))
	s.ask(t.Context(), "a", "warm", "x", false).wants(t, "x", false)
	warm, _, _ := s.only("warm")

	const clients = 12
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var asking sync.WaitGroup
	var answered, retried atomic.Int64
	for c := range clients {
		asking.Go(func() {
			r := rand.New(rand.NewPCG(uint64(c), 5))
			for i := 0; ctx.Err() == nil; i++ {
				marker, stream := fmt.Sprintf("c%d-%d", c, i), r.IntN(2) == 0
				give := time.Now().Add(time.Minute)
				for try := 0; ; try++ {
					// Not ctx: who has asked waits for the answer.
					a := s.ask(t.Context(), "a", models[c%len(models)], marker, stream)
					if a.err == nil && a.status == 200 && a.text == marker && a.done == stream {
						answered.Add(1)
						break
					}
					if a.err == nil && (a.status != 503 && a.status != 502 && a.status != 200) || time.Now().After(give) {
						t.Errorf("%s, try %d: %v", marker, try, a)
						break
					}
					retried.Add(1)
					time.Sleep(time.Duration(20+r.IntN(60)) * time.Millisecond)
				}
				pause := 400
				if name := models[c%len(models)]; name == "slow" || name == "brief" {
					pause = 5000 // long enough to be evicted now and then, so that starts and stops are hit, too
				}
				time.Sleep(time.Duration(r.IntN(pause)) * time.Millisecond)
			}
		})
	}
	cycles := scaled(8, 50)
	adopted := make(map[string]int) // by state
	most := map[string]int{"warm": 1, "slow": 1, "brief": 1, "changing": 2}
	for i := range cycles {
		time.Sleep(time.Duration(rand.IntN(1500)) * time.Millisecond)
		switch i % 3 {
		case 0: // before the next one comes
			s.Kill()
			s.Write(yaml(i))
		case 1: // while this one is about to notice, or has
			s.Write(yaml(i))
			time.Sleep(time.Duration(rand.IntN(800)) * time.Millisecond)
			s.Kill()
		default:
			s.Kill()
		}
		s.Start()
		for name, n := range s.enginesByModel() {
			if n > most[name] {
				t.Errorf("cycle %d: %d engines of %s", i, n, name)
			}
		}
		if pid, state, _ := s.only("warm"); pid != warm || state != "ready" {
			t.Errorf("cycle %d: warm is process %d, %s; want %d", i, pid, state, warm)
			warm = pid
		}
		for _, name := range models {
			for _, r := range s.model(name).Replicas {
				adopted[r.State]++
			}
		}
	}
	stop()
	asking.Wait()
	s.Until(30*time.Second, "each model has one engine at most, and each engine a record", func() bool {
		engines := s.enginesByModel()
		return engines["warm"] == 1 && engines["slow"] <= 1 && engines["brief"] <= 1 && engines["changing"] == 1 && len(s.Engines()) == len(s.records())
	})
	t.Logf("%d kills, replicas found %v, %d requests answered, %d tries failed", cycles, adopted, answered.Load(), retried.Load())
	if answered.Load() == 0 || retried.Load() == 0 {
		t.Error("nobody was answered, or nobody was hit")
	}
}

// enginesByModel counts the main processes that write into the logs of each model.
func (s *server) enginesByModel() map[string]int {
	out := make(map[string]int)
	for _, pid := range s.Engines() {
		if log, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/1", pid)); err == nil {
			name, _, _ := strings.Cut(filepath.Base(log), "-")
			out[name]++
		}
	}
	return out
}

// freePort is one that outgoing connections do not use by themselves.
func freePort() (int, error) {
	var last error
	for range 50 {
		port := 20000 + rand.IntN(10000)
		ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			return port, ln.Close()
		}
		last = err
	}
	return 0, last
}

// With --on-exit keep, SIGTERM drains and leaves what is ready; what is starting, or was removed, ends. The default ends everything.
func TestReplicasAreKeptOnExit(t *testing.T) {
	s := serve(t, config(simModel(t, "m", "", "--sim-itl", "20ms"), simModel(t, "slow", "", "--sim-start", "30s")))
	s.Stop()
	s.Args = []string{"--on-exit", "keep"}
	s.Start()
	s.ask(t.Context(), "a", "m", "x", false).wants(t, "x", false)
	pid, _, _ := s.only("m")
	streamed := make(chan answer, 1)
	go func() {
		streamed <- s.send(t.Context(), s.Key("a"), `{"model":"m","stream":true,"max_tokens":50,"messages":[{"role":"user","content":"go on"}]}`, true)
	}()
	go s.ask(t.Context(), "a", "slow", "x", false)
	s.Until(20*time.Second, "a stream and a start are under way", func() bool {
		slow := s.model("slow")
		return s.model("m").Replicas[0].InFlight == 1 && len(slow.Replicas) == 1 && slow.Replicas[0].State == "starting" && len(s.Engines()) == 2
	})
	s.Stop()
	if a := <-streamed; a.err != nil || !a.done || a.code != "" {
		t.Errorf("a stream in flight ended with %v", a)
	}
	if left := s.Engines(); len(left) != 1 || left[0] != pid {
		t.Errorf("engines %v are left, want %d", left, pid)
	}
	if r := s.records(); len(r) != 1 || r[0].State != process.StateReady {
		t.Errorf("got records %+v", r)
	}
	s.Args = nil
	s.Start()
	s.ask(t.Context(), "a", "m", "y", true).wants(t, "y", true)
	if now, _, _ := s.only("m"); now != pid || s.model("m").Starts != 0 {
		t.Errorf("process %d after %d starts, want %d", now, s.model("m").Starts, pid)
	}
	s.Stop()
	if left := s.Engines(); len(left) > 0 {
		t.Errorf("engines %v are left", left)
	}
}

// asks sends requests in turns until it is told to stop, each of which must be answered.
func (s *server) asks(model string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
			marker := fmt.Sprint("marker ", i)
			s.ask(context.Background(), "a", model, marker, i%2 == 0).wants(s.t, marker, i%2 == 0)
		}
	}()
	return func() { close(done); <-ended }
}

// A changed command: the old replica serves until the new one does, whether the file changes under a running gateway or between two.
func TestChangedModelIsReplacedNewFirst(t *testing.T) {
	model := func(ttft string) string {
		return config(simModel(t, "m", "scaling: {replicas: 1}", "--sim-start", "3s", "--sim-ttft", ttft))
	}
	s := serve(t, model("1ms"))
	s.Until(60*time.Second, "the first replica serves", func() bool { return s.model("m").State == "ready" })
	first, _, _ := s.only("m")
	replaced := func(old int, stop func()) int {
		t.Helper()
		s.Until(60*time.Second, "another takes its place", func() bool {
			m := s.model("m")
			return len(m.Replicas) == 1 && m.Replicas[0].PID != old && m.Replicas[0].State == "ready"
		})
		stop()
		if left := s.Engines(); len(left) != 1 {
			t.Errorf("engines %v, want one", left)
		}
		pid, _, _ := s.only("m")
		return pid
	}
	stop := s.asks("m")
	s.Write(model("2ms"))
	second := replaced(first, stop)

	s.Kill()
	s.Write(model("3ms"))
	s.Start()
	if m := s.model("m"); len(m.Replicas) != 2 || m.Replicas[0].PID != second && m.Replicas[1].PID != second {
		t.Errorf("got %+v, want process %d and its heir", m.Replicas, second)
	}
	third := replaced(second, s.asks("m"))

	// And if it dies in the midst of that.
	s.Write(model("4ms"))
	s.Until(20*time.Second, "the heir starts", func() bool { return len(s.records()) == 2 && s.records()[1].State == process.StateStarting })
	s.Kill()
	s.Start()
	if n := len(s.Engines()); n != 2 {
		t.Errorf("%d engines, want the old one and its heir", n)
	}
	replaced(third, s.asks("m"))
	s.Stop() // the access log is complete then
	if cold, warm := strings.Count(s.Log(), `"cold":true`), strings.Count(s.Log(), `"cold":false`); cold != 0 || warm == 0 {
		t.Errorf("%d requests have waited for a start, %d have not", cold, warm)
	}
}

// What no engine would take is not put in the place of one that serves.
func TestBadChangeLeavesTheOldReplica(t *testing.T) {
	s := serve(t, config(simModel(t, "m", "")))
	s.ask(t.Context(), "a", "m", "x", false).wants(t, "x", false)
	pid, _, _ := s.only("m")
	s.Write(config(simModel(t, "m", "", "--sim-fail", "oom-weights")))
	s.Until(30*time.Second, "the failure is told", func() bool { return s.model("m").RolledBack != nil })
	s.ask(t.Context(), "a", "m", "y", true).wants(t, "y", true)
	if now := s.model("m").Replicas[0].PID; now != pid {
		t.Errorf("process %d serves, want %d", now, pid)
	}
	s.Write(config(simModel(t, "m", "", "--sim-ttft", "1ms")))
	s.Until(30*time.Second, "a good one takes its place", func() bool {
		m := s.model("m")
		return len(m.Replicas) == 1 && m.Replicas[0].PID != pid && m.Replicas[0].State == "ready"
	})
}

// A gateway that does not come up leaves what it found for the one that does.
func TestFailedStartLeavesReplicas(t *testing.T) {
	s := serve(t, config(simModel(t, "m", "")))
	s.ask(t.Context(), "a", "m", "x", false).wants(t, "x", false)
	pid, _, _ := s.only("m")
	s.Kill()
	keys := filepath.Join(s.Dir, "keys.yaml")
	good, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keys, []byte("keys: nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(testtools.Binary(t, "./cmd/pilotlight"), "serve", "-c", s.File).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !bytes.Contains(out, []byte("taken over")) || !bytes.Contains(out, []byte("keys")) {
		t.Fatalf("got %v: %s", err, out)
	}
	if left := s.Engines(); len(left) != 1 || left[0] != pid {
		t.Errorf("engines %v are left, want %d", left, pid)
	}
	if err := os.WriteFile(keys, good, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start()
	s.ask(t.Context(), "a", "m", "y", false).wants(t, "y", false)
	if now, _, _ := s.only("m"); now != pid || s.model("m").Starts != 0 {
		t.Errorf("answered by process %d, want %d", now, pid)
	}
}
