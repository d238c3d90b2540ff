package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// scaledModel is a model whose replicas take four requests of about a third of a second each, start within half a second and are given up
// soon, all of which real ones do sixty times as slowly.
func scaledModel(t *testing.T, replicas, extra string, flags ...string) string {
	return simModel(t, "m", fmt.Sprintf("scaling: {replicas: %s, metric: {concurrency: 4}, window: 2s, scaledown_after: 1s}\n%s", replicas, extra),
		append([]string{"--sim-start", "500ms", "--sim-ttft", "100ms", "--sim-itl", "10ms"}, flags...)...)
}

// crowd has n clients ask until stop is called, and counts who was answered. check judges an answer.
func (s *server) crowd(n int, check func(a answer, marker string, stream bool) bool) (stop func() (answered int64)) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	var answered atomic.Int64
	for client := range n {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				marker, stream := fmt.Sprintf("answer %d to client %d is twenty words of text or so", i, client), rand.IntN(2) == 0
				if !check(s.ask(s.t.Context(), "a", "m", marker, stream), marker, stream) {
					return
				}
				answered.Add(1)
			}
		})
	}
	return func() int64 { close(done); wg.Wait(); return answered.Load() }
}

func (s *server) ready() (n int) {
	for _, r := range s.model("m").Replicas {
		if r.State == "ready" {
			n++
		}
	}
	return n
}

// From none to four and back, three times: every request is answered.
func TestReplicasFollowLoad(t *testing.T) {
	t.Parallel()
	s := serve(t, config(scaledModel(t, "[0, 4]", "")))
	for range 3 {
		stop := s.crowd(16, func(a answer, marker string, stream bool) bool { return a.wants(t, marker, stream) })
		s.Until(60*time.Second, "load has four replicas", func() bool { return s.ready() == 4 })
		if d := s.model("m").Scaling; d == nil || d.Want != 4 || d.Target != 4 || d.Metric != "concurrency" {
			t.Errorf("state says %+v", d)
		}
		if answered := stop(); answered == 0 {
			t.Error("nobody was answered")
		}
		s.Until(60*time.Second, "no replica is left", func() bool { return s.model("m").State == "cold" })
		if m := s.model("m"); len(s.Engines()) != 0 || m.Failure != nil || m.Crashes != 0 {
			t.Errorf("got %+v", m)
		}
	}
	if n := s.model("m").Starts; n < 12 || n > 24 {
		t.Errorf("%d starts for three times four replicas", n)
	}
	if !strings.Contains(s.Log(), "another number of replicas is wanted") {
		t.Error("the log does not say why there are more replicas")
	}
}

// A burst for a cold model starts one replica, not as many as would take it at once.
func TestBurstForAColdModel(t *testing.T) {
	t.Parallel()
	s := serve(t, config(scaledModel(t, "[0, 8]", "")))
	s.ask(t.Context(), "a", "m", "first", false).wants(t, "first", false)
	s.Until(60*time.Second, "no replica is left", func() bool { return s.model("m").State == "cold" })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			marker := fmt.Sprint("burst ", i)
			s.ask(t.Context(), "a", "m", marker, i%2 == 0).wants(t, marker, i%2 == 0)
		})
	}
	wg.Wait()
	if n := s.model("m").Starts; n != 2 {
		t.Errorf("%d starts, want one for each time", n)
	}
}

// A replica is killed every second under load. Whoever has not got a byte is answered all the same; whoever has is told.
func TestReplicaKilledEverySecond(t *testing.T) {
	t.Parallel()
	s := serve(t, config(scaledModel(t, "[2, 4]", "")))
	s.Until(30*time.Second, "those that always run do", func() bool { return s.ready() >= 2 })
	var broken atomic.Int64
	stop := s.crowd(8, func(a answer, marker string, stream bool) bool {
		if stream && a.status == 200 && a.code == "backend_unavailable" && !a.done && a.err != nil && strings.HasPrefix(marker, a.text) {
			broken.Add(1) // told, and without a clean end
			return true
		}
		return a.wants(t, marker, stream)
	})
	killed := 0
	for end := time.Now().Add(time.Duration(scaled(10, 600)) * time.Second); time.Now().Before(end) && !t.Failed(); time.Sleep(time.Second) {
		serving := s.pids()
		if len(serving) == 0 {
			continue // slow machines need more than a second for a start
		}
		if err := syscall.Kill(serving[rand.IntN(len(serving))], syscall.SIGKILL); err == nil {
			killed++
		}
	}
	answered := stop()
	m := s.model("m")
	t.Logf("%d engines killed, %d answers, %d streams broken and told, %d starts", killed, answered, broken.Load(), m.Starts)
	if killed == 0 || m.Starts < uint64(killed) {
		t.Error("the test has proved nothing")
	}
	s.Until(60*time.Second, "those that always run do again", func() bool { return s.ready() >= 2 })
}

// A gateway that is killed under load leaves four replicas to the next one, which keeps them for as long as they are needed.
func TestReplicasOutliveTheGateway(t *testing.T) {
	t.Parallel()
	s := serve(t, strings.Replace(config(scaledModel(t, "[0, 4]", "")), "scaledown_after: 1s", "scaledown_after: 5s", 1))
	stop := s.crowd(16, func(a answer, marker string, stream bool) bool { return a.wants(t, marker, stream) })
	s.Until(60*time.Second, "load has four replicas", func() bool { return s.ready() == 4 })
	stop()
	before := s.pids()
	s.Kill()
	s.Start()
	if now := s.pids(); !slices.Equal(now, before) {
		t.Errorf("processes %v serve, want %v", now, before)
	}
	stop = s.crowd(16, func(a answer, marker string, stream bool) bool { return a.wants(t, marker, stream) })
	time.Sleep(2 * time.Second)
	if now := s.pids(); !slices.Equal(now, before) {
		t.Errorf("processes %v serve after a while under load, want %v", now, before)
	}
	stop()
	s.Until(60*time.Second, "no replica is left", func() bool { return s.model("m").State == "cold" })
	if n := s.model("m").Starts; n != 0 {
		t.Errorf("%d starts by the second gateway", n)
	}
}

// On three GPUs a busy model has as many replicas as there is room for beside another one, and no fight over the last.
func TestReplicasTakeOnlyFreeGPUs(t *testing.T) {
	g := withGPUs(t, 3)
	s := serve(t, config(
		simModel(t, "m", "resources: {gpu: 1}\nscaling: {replicas: [0, 4], metric: {concurrency: 2}, window: 2s, scaledown_after: 3s}", "--sim-start", "300ms", "--sim-itl", "10ms", "--sim-gpu-dir", g.dir),
		g.model("other", "1", "")))
	stop := s.crowd(8, func(a answer, marker string, stream bool) bool { return a.wants(t, marker, stream) })
	s.Until(60*time.Second, "all GPUs are taken", func() bool { return s.ready() == 3 })
	time.Sleep(2 * time.Second)
	if m := s.model("m"); m.Scaling == nil || m.Scaling.Reason != "devices" || m.Scaling.Want != 3 || m.Starts != 3 || m.Failure != nil {
		t.Errorf("got %+v, %+v", m, m.Scaling)
	}
	s.ask(t.Context(), "a", "other", "whose GPU is that", false).wants(t, "whose GPU is that", false)
	time.Sleep(3 * time.Second)
	g.consistent(s)
	if m, other := s.model("m"), s.model("other"); s.ready() != 2 || other.State != "ready" || m.Starts != 3 || m.Preemptions != 1 || m.Failure != nil {
		t.Errorf("%d replicas serve beside one that is %s: got %+v", s.ready(), other.State, m)
	}
	stop()
	if n := g.most.Load(); n > 3 {
		t.Errorf("%d engines at once on three GPUs", n)
	}
}
