package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// The main job: cold, answered, idle, gone, and again.
func TestColdAnsweredIdleGoneAndAgain(t *testing.T) {
	s := serve(t, config(simModel(t, "m", "scaling: {replicas: [0, 1], scaledown_after: 1}\ncold: {grace: 200ms, heartbeat: 200ms}", "--sim-start", "1s", "--sim-children", "2")))
	for round := range 2 {
		if n := len(s.Engines()); n != 0 {
			t.Fatalf("round %d: %d processes of a cold model", round, n)
		}
		a := s.ask(t.Context(), "a", "m", fmt.Sprintf("round %d", round), true)
		a.wants(t, fmt.Sprintf("round %d", round), true)
		if a.beats < 2 {
			t.Errorf("%d heartbeats in a start of a second", a.beats)
		}
		s.ask(t.Context(), "a", "m", "plain", false).wants(t, "plain", false)
		answered := time.Now()
		s.Until(6*time.Second, "the replica and its children are gone", func() bool { return len(s.Engines()) == 0 })
		if d := time.Since(answered); d < 900*time.Millisecond {
			t.Errorf("gone %v after the last answer, before scaledown_after", d)
		}
		s.Until(time.Second, "the model is cold", func() bool { return s.model("m").State == "cold" })
		if m := s.model("m"); m.Starts != uint64(round+1) || m.Evictions != uint64(round+1) {
			t.Errorf("%d starts, %d evictions in round %d", m.Starts, m.Evictions, round)
		}
	}
}

// One start, as many right answers as requests, and nobody's turn comes twice before another's.
func TestThousandRequestsForAColdModel(t *testing.T) {
	const tenants = 20
	n := scaled(400, 1000)
	s := serve(t, config(simModel(t, "m", "cold: {grace: 500ms, heartbeat: 1s}\nscaling: {metric: {concurrency: 32}}", "--sim-start", "3s", "--sim-ttft", "20ms", "--sim-itl", "1ms")))
	for i := range tenants {
		s.Key(fmt.Sprint("tenant", i))
	}
	time.Sleep(1200 * time.Millisecond) // the keys file is seen within a second
	answers := make([]answer, n)
	finished := make([]time.Time, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			answers[i] = s.ask(t.Context(), fmt.Sprint("tenant", i%tenants), "m", fmt.Sprint("marker ", i), i%2 == 0)
			finished[i] = time.Now()
		})
	}
	wg.Wait()
	for i, a := range answers {
		if !a.wants(t, fmt.Sprint("marker ", i), i%2 == 0) && t.Failed() {
			break
		}
	}
	if m := s.model("m"); m.Starts != 1 {
		t.Errorf("%d starts, want one", m.Starts)
	}
	// Fair: after half of all answers, every tenant has had its half, give or take what is in flight at once.
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return finished[a].Compare(finished[b]) })
	var got [tenants]int
	for _, i := range order[:n/2] {
		got[i%tenants]++
	}
	if lo, hi := slices.Min(got[:]), slices.Max(got[:]); hi-lo > 5 {
		t.Errorf("after half of the answers tenants have between %d and %d of %d", lo, hi, n/tenants)
	}
}

// Waiting requests are cheap: memory, heartbeats, and none lost.
func TestThousandsWaiting(t *testing.T) {
	n := scaled(2000, 10000)
	s := serve(t, config(simModel(t, "m", "cold: {grace: 1s, heartbeat: 2s}\nqueue: {max_requests: 20000}\nscaling: {metric: {concurrency: 64}}", "--sim-start", fmt.Sprintf("%ds", scaled(6, 25)), "--sim-ttft", "1ms", "--sim-itl", "0s"))+
		"queue: {max_requests: 20000}\n")
	before := rss(t, s.PID())
	var wg sync.WaitGroup
	answers := make([]answer, n)
	pad := make([]byte, 4096)
	for i := range pad {
		pad[i] = 'x'
	}
	gate := make(chan struct{}, 200) // a listen backlog is not what is tested here
	for i := range n {
		wg.Go(func() {
			gate <- struct{}{}
			time.AfterFunc(20*time.Millisecond, func() { <-gate })
			body := fmt.Sprintf(`{"messages":[{"role":"system","content":"%s"},{"role":"user","content":"echo: w%d"}],"model":"m","stream":true}`, pad, i)
			answers[i] = s.send(t.Context(), s.Key("a"), body, true)
		})
	}
	s.Until(40*time.Second, "all wait", func() bool { return s.model("m").QueuedRequests == n })
	time.Sleep(2 * time.Second)
	peak := rss(t, s.PID())
	wg.Wait()
	t.Logf("%d waiting: %d MiB resident, %d MiB before, %d bytes each", n, peak>>20, before>>20, (peak-before)/n)
	if limit := 512 << 20; peak > limit*n/10000+before {
		t.Errorf("%d MiB resident with %d waiting", peak>>20, n)
	}
	for i, a := range answers {
		if !a.wants(t, fmt.Sprint("w", i), true) {
			break
		}
		if a.beats < 1 {
			t.Errorf("no heartbeat in %v", a.took)
			break
		}
	}
}

func TestManyColdModelsAtOnce(t *testing.T) {
	const n = 25
	models := make([]string, n)
	for i := range models {
		models[i] = simModel(t, fmt.Sprint("m", i), "", "--sim-start", "0s")
	}
	s := serve(t, config(models...))
	var wg sync.WaitGroup
	answers := make([]answer, n)
	for i := range n {
		wg.Go(func() {
			answers[i] = s.ask(t.Context(), "a", fmt.Sprint("m", i), fmt.Sprint("answer ", i), i%2 == 0)
		})
	}
	wg.Wait()
	took := make([]time.Duration, n)
	for i, a := range answers {
		a.wants(t, fmt.Sprint("answer ", i), i%2 == 0)
		took[i] = a.took
	}
	slices.Sort(took)
	t.Logf("25 cold models at once: median %v, p95 %v", took[n/2], took[n*95/100])
}

// Arrivals that meet evictions: nothing fails, nothing reaches a replica that is on its way out, nothing is left.
func TestArrivalsMeetEvictions(t *testing.T) {
	models, rounds := scaled(10, 50), scaled(15, 40)
	entries := make([]string, models)
	for i := range entries {
		entries[i] = simModel(t, fmt.Sprint("m", i), "scaling: {replicas: [0, 1], scaledown_after: 50ms}", "--sim-start", "0s", "--sim-ttft", "0s", "--sim-itl", "0s", "--sim-output-tokens", "2")
	}
	s := serve(t, config(entries...))
	var wg sync.WaitGroup
	for i := range models {
		wg.Go(func() {
			for r := range rounds {
				// Around the 50 ms at which the replica goes.
				time.Sleep(35*time.Millisecond + time.Duration((r*7919+i*104729)%30000)*time.Microsecond)
				marker := fmt.Sprintf("m%d r%d", i, r)
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				a := s.ask(ctx, "a", fmt.Sprint("m", i), marker, r%2 == 0)
				cancel()
				if !a.wants(t, marker, r%2 == 0) {
					return
				}
			}
		})
	}
	wg.Wait()
	var starts, evictions uint64
	for _, m := range s.state().Models {
		starts += m.Starts
		evictions += m.Evictions
		if m.StartFailures+m.Crashes != 0 {
			t.Errorf("%s: %d failed starts, %d crashes", m.Name, m.StartFailures, m.Crashes)
		}
	}
	t.Logf("%d requests to %d models: %d starts, %d evictions", models*rounds, models, starts, evictions)
	s.Until(20*time.Second, "all replicas are gone", func() bool { return len(s.Engines()) == 0 })
}
