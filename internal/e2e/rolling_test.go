package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// pids are the processes of the model's replicas that serve, ascending.
func (s *server) pids() (pids []int) {
	for _, r := range s.model("m").Replicas {
		if r.State == "ready" {
			pids = append(pids, r.PID)
		}
	}
	slices.Sort(pids)
	return pids
}

// Three replicas are changed under load, to what works, what does not, there and back: no request fails, there are never fewer than three that
// serve, and what does not work replaces nothing.
func TestRollingChangeUnderLoad(t *testing.T) {
	t.Parallel()
	version := func(flags ...string) string {
		return config(simModel(t, "m", "scaling: {replicas: 3, metric: {concurrency: 4}}",
			append([]string{"--sim-start", "300ms", "--sim-ttft", "20ms", "--sim-itl", "5ms"}, flags...)...))
	}
	first, second, bad, slow := version(), version("--sim-output-tokens", "17"), version("--sim-fail", "oom"), version("--sim-start", "30s")
	s := serve(t, first)
	s.Until(60*time.Second, "three serve", func() bool { return s.ready() == 3 })
	stop := s.crowd(6, func(a answer, marker string, stream bool) bool { return a.wants(t, marker, stream) })
	before := s.pids()
	replaced := func(what string) {
		t.Helper()
		s.Until(60*time.Second, what, func() bool {
			now := s.pids()
			if len(now) < 3 {
				t.Errorf("%s: %d replicas serve", what, len(now))
			}
			return len(now) == 3 && len(s.Engines()) == 3 && !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(before, pid) })
		})
		before = s.pids()
	}
	s.Write(second)
	replaced("all are of the second version")

	s.Write(bad)
	s.Until(60*time.Second, "the change is given up", func() bool { return s.model("m").RolledBack != nil })
	if m := s.model("m"); m.RolledBack.Class != "out_of_memory" || !slices.Equal(s.pids(), before) {
		t.Errorf("got %+v, and processes %v of %v", m.RolledBack, s.pids(), before)
	}
	if n := s.metric(fmt.Sprintf("pilotlight_rollbacks_total{gen_ai_request_model=%q,result=%q}", "m", "out_of_memory")); n != 1 {
		t.Errorf("%v roll-backs are counted", n)
	}
	if !strings.Contains(s.Log(), "no replica of the changed model became ready") {
		t.Error("the log does not tell of the roll-back")
	}

	s.Write(first)
	replaced("all are of the first version again")

	for range 3 { // faster than a start
		s.Write(slow)
		time.Sleep(300 * time.Millisecond)
		s.Write(first)
		time.Sleep(300 * time.Millisecond)
	}
	s.Until(60*time.Second, "three of the first version serve, and no others", func() bool {
		return s.ready() == 3 && len(s.Engines()) == 3 && s.state().Config.Error == ""
	})
	kept := 0
	for _, pid := range s.pids() {
		if slices.Contains(before, pid) {
			kept++
		}
	}
	if answered := stop(); answered == 0 || kept < 3 {
		t.Errorf("%d answers; %d of three replicas outlived the way there and back", answered, kept)
	}
	if m := s.model("m"); m.RolledBack != nil || m.Failure != nil || m.Crashes != 0 {
		t.Errorf("got %+v", m)
	}
}
