package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// fleet is a configuration that a reload may bring.
type fleet struct {
	setting int  // of a setting that no replica sees
	spec    int  // of the engine's command
	extra   bool // one model more
	broken  bool
}

func (f fleet) yaml(t *testing.T) string {
	scaling := "scaling: {replicas: [0, 1], metric: {concurrency: 16}}\n"
	text := config(
		simModel(t, "steady", scaling, "--sim-start", "0s", "--sim-ttft", "5ms", "--sim-itl", "1ms"),
		simModel(t, "setting", scaling+fmt.Sprintf("cold: {grace: %dms}", 100+f.setting), "--sim-start", "0s", "--sim-ttft", "5ms", "--sim-itl", "1ms"),
		simModel(t, "spec", scaling, "--sim-start", "0s", "--sim-ttft", "5ms", "--sim-itl", fmt.Sprintf("%dus", 1000+f.spec)))
	if f.extra {
		text += simModel(t, "extra", scaling, "--sim-start", "0s", "--sim-ttft", "5ms", "--sim-itl", "1ms")
	}
	if f.broken {
		text += "no_such_field: 1\n"
	}
	return text + "telemetry: {access_log: false}\n"
}

// Ten reloads a second under load: no request is lost, a model that did not change does not notice, and a broken file changes nothing.
func TestReloadsUnderLoad(t *testing.T) {
	var now fleet
	s := serve(t, now.yaml(t))
	s.ask(t.Context(), "a", "steady", "first", true).wants(t, "first", true)
	steady := s.model("steady").Replicas[0].PID

	done := make(chan struct{})
	var wg sync.WaitGroup
	var answered, refused atomic.Int64
	for worker := range 12 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				model := []string{"steady", "setting", "spec", "extra"}[(worker+i)%4]
				marker, stream := fmt.Sprintf("marker %d of %d", i, worker), rand.IntN(2) == 0
				a := s.ask(t.Context(), "a", model, marker, stream)
				if model == "extra" && a.err == nil && (a.status == 404 && a.code == "model_not_found" || a.status == 503 && a.code == "model_removed") {
					refused.Add(1)
					continue
				}
				if !a.wants(t, marker, stream) {
					t.Errorf("asked %s", model)
					return
				}
				answered.Add(1)
			}
		})
	}
	reloads := 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Duration(scaled(10, 60)) * time.Second); time.Now().Before(end) && !t.Failed(); reloads++ {
		<-tick.C
		now.broken = false
		switch rand.IntN(6) {
		case 0:
			now.extra = !now.extra
		case 1:
			now.spec++
		case 2:
			now.broken = true
		case 3: // the same again
		default:
			now.setting++
		}
		s.Write(now.yaml(t))
		if rand.IntN(3) == 0 {
			s.Signal(syscall.SIGHUP)
		}
	}
	close(done)
	wg.Wait()
	t.Logf("%d reloads, %d answers, %d clean refusals", reloads, answered.Load(), refused.Load())
	if m := s.model("steady"); m.Starts != 1 || m.Replicas[0].PID != steady {
		t.Errorf("the model that did not change was started %d times", m.Starts)
	}
	if m := s.model("setting"); m.Starts != 1 {
		t.Errorf("the model whose settings changed was started %d times", m.Starts)
	}
	if answered.Load() == 0 || refused.Load() == 0 {
		t.Error("the test has proved nothing")
	}

	// The last word counts, good or bad.
	now.broken, now.extra = true, false
	s.Write(now.yaml(t))
	s.Until(5*time.Second, "the broken file is told of", func() bool { return strings.Contains(s.state().Config.Error, "no_such_field") })
	if v := s.metric("pilotlight_config_valid_ratio"); v != 0 {
		t.Errorf("pilotlight_config_valid_ratio is %v with a broken file", v)
	}
	if !strings.Contains(s.Log(), "configuration not reloaded") {
		t.Error("the log does not tell of the broken file")
	}
	s.ask(t.Context(), "a", "steady", "still here", true).wants(t, "still here", true)
	now.broken = false
	s.Write(now.yaml(t))
	s.Until(5*time.Second, "the good file is in force", func() bool {
		state := s.state()
		return state.Config.Error == "" && len(state.Models) == 3
	})
	if v := s.metric("pilotlight_config_valid_ratio"); v != 1 {
		t.Errorf("pilotlight_config_valid_ratio is %v with a good file", v)
	}
	s.ask(t.Context(), "a", "spec", "the newest", false).wants(t, "the newest", false)
	s.Until(20*time.Second, "old replicas are gone", func() bool { return len(s.Engines()) <= 3 })
}
