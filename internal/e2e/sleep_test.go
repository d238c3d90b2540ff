package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// sleepyModel sleeps after 200 ms without a request.
func sleepyModel(t *testing.T, extra string, flags ...string) string {
	t.Helper()
	return simModel(t, "m", "scaling: {sleep_after: 200ms, scaledown_after: 1h, metric: {concurrency: 64}}\n"+extra, flags...)
}

func (s *server) untilState(model, state string) {
	s.t.Helper()
	s.Until(30*time.Second, model+" is "+state, func() bool {
		m := s.model(model)
		return m.State == state && (state != "asleep" || m.Replicas[0].Phase == "")
	})
}

func TestAnIdleModelSleepsAndWakesForARequest(t *testing.T) {
	for _, how := range []string{"weights", "kv"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := serve(t, config(strings.Replace(sleepyModel(t, ""), "{sleep_after", "{sleep: "+how+", sleep_after", 1)))
			s.ask(t.Context(), "a", "m", "one", false).wants(t, "one", false)
			pid := s.replica("m").PID
			for n := range 3 {
				s.untilState("m", "asleep")
				if v := s.metric(`pilotlight_replicas{gen_ai_request_model="m",state="asleep"}`); v != 1 {
					t.Errorf("%v replicas asleep by the metrics", v)
				}
				marker := fmt.Sprint("after nap ", n)
				s.ask(t.Context(), "a", "m", marker, n%2 == 0).wants(t, marker, n%2 == 0)
				if r := s.replica("m"); r.PID != pid {
					t.Fatalf("process %d has become %d", pid, r.PID)
				}
			}
			s.untilState("m", "asleep")
			m := s.model("m")
			if m.Starts != 1 || m.Sleeps != 4 || m.Wakes != 3 || m.BadSleeps != 0 || m.Crashes != 0 || m.Sleepless {
				t.Errorf("the state has %+v", m)
			}
			for result, want := range map[string]float64{"asleep": 4, "awake": 3} {
				if v := s.metric(fmt.Sprintf(`pilotlight_sleep_duration_seconds_count{gen_ai_request_model="m",result=%q}`, result)); v != want {
					t.Errorf("%v times %s by the metrics, want %v", v, result, want)
				}
			}
			// What lasted three wakes is known.
			if m.ETASeconds <= 0 || m.ETASeconds > 10 {
				t.Errorf("a sleeper is ready in %v s", m.ETASeconds)
			}
		})
	}
}

func TestASleeperIsStoppedInTheEnd(t *testing.T) {
	t.Parallel()
	s := serve(t, config(simModel(t, "m", "scaling: {sleep_after: 100ms, scaledown_after: 3s}")))
	s.ask(t.Context(), "a", "m", "one", false).wants(t, "one", false)
	s.untilState("m", "asleep")
	s.untilState("m", "cold")
	if n := len(s.Engines()); n != 0 {
		t.Errorf("%d processes left", n)
	}
	m := s.model("m")
	if m.Sleeps != 1 || m.Wakes != 0 || m.Evictions != 1 || m.Crashes != 0 {
		t.Errorf("the state has %+v", m)
	}
	s.ask(t.Context(), "a", "m", "two", true).wants(t, "two", true)
	if m := s.model("m"); m.Starts != 2 {
		t.Errorf("%d starts", m.Starts)
	}
}

func TestTheWakeIsTold(t *testing.T) {
	t.Parallel()
	s := serve(t, config(sleepyModel(t, "cold: {grace: 100ms, heartbeat: 500ms}", "--sim-wake-delay", "3s")))
	s.ask(t.Context(), "a", "m", "one", false).wants(t, "one", false)
	s.untilState("m", "asleep")
	a := s.ask(t.Context(), "a", "m", "x", false, "X-Pilotlight-Max-Wait", "0s")
	if a.status != 503 || a.code != "model_cold" || !strings.Contains(a.message, "was asleep and is waking up") || a.header.Get("X-Should-Retry") != "true" {
		t.Errorf("who does not wait got %v with %v", a, a.header)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.BaseURL+"/chat/completions", strings.NewReader(`{"messages":[{"role":"user","content":"echo: x"}],"model":"m","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Key("a"))
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stream := bufio.NewReader(resp.Body)
	if beat, err := stream.ReadString('\n'); err != nil || !strings.HasPrefix(beat, ": pilotlight: the model is waking up, ") {
		t.Errorf("the heartbeat says %q, %v", beat, err)
	}
	if r := s.replica("m"); r.State != "asleep" || r.Phase != "waking" {
		t.Errorf("the state has %+v", r)
	}
	rest, err := io.ReadAll(stream)
	if err != nil || !strings.Contains(string(rest), `"content":"x"`) || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
		t.Errorf("the stream ends with %q, %v", rest, err)
	}
}

// Who comes while a model falls asleep waits until it has, and is answered.
func TestARequestWhileFallingAsleep(t *testing.T) {
	t.Parallel()
	s := serve(t, config(sleepyModel(t, "", "--sim-sleep-delay", "2s")))
	s.ask(t.Context(), "a", "m", "one", false).wants(t, "one", false)
	s.Until(30*time.Second, "it falls asleep", func() bool { return s.replica("m").Phase == "falling asleep" })
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			marker := fmt.Sprint("late ", n)
			s.ask(t.Context(), "a", "m", marker, n%2 == 0).wants(t, marker, n%2 == 0)
		})
	}
	wg.Wait()
	if m := s.model("m"); m.Starts != 1 || m.Wakes != 1 {
		t.Errorf("the state has %+v", m)
	}
}

// Whatever goes wrong with a sleep or a wake, requests are answered, after a cold start if need be; and what went wrong twice is not
// tried again until somebody says so.
func TestSleepGoesWrong(t *testing.T) {
	for _, tt := range []struct {
		name  string
		wake  bool
		flags string
	}{
		{"never idle", false, "--sim-sleep-fault busy"},
		{"refuses to sleep", false, "--sim-sleep-fault status"},
		{"hangs falling asleep", false, "--sim-sleep-fault hang"},
		{"dies falling asleep", false, "--sim-sleep-fault die"},
		{"refuses to wake", true, "--sim-wake-fault status"},
		{"hangs waking", true, "--sim-wake-fault hang"},
		{"dies waking", true, "--sim-wake-fault die"},
		{"has lost its weights", true, "--sim-wake-fault mute"},
		{"dies of its first request awake", true, "--sim-wake-fault late"},
		{"sleeps too slowly", false, "--sim-sleep-delay 1h"},
		{"wakes too slowly", true, "--sim-wake-delay 1h"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, config(sleepyModel(t, "timeouts: {sleep: 1s}", strings.Fields(tt.flags)...)))
			burst := func(name string) {
				t.Helper()
				var wg sync.WaitGroup
				for n := range 20 {
					wg.Go(func() {
						marker := fmt.Sprint(name, " ", n)
						s.ask(t.Context(), "a", "m", marker, n%2 == 0).wants(t, marker, n%2 == 0)
					})
				}
				wg.Wait()
			}
			burst("first")
			for round := range 2 {
				if tt.wake {
					s.untilState("m", "asleep")
				} else {
					s.Until(30*time.Second, "it goes wrong", func() bool { m := s.model("m"); return m.BadSleeps > uint64(round) || m.Replicas[0].State != "ready" })
				}
				burst(fmt.Sprint("round ", round))
				s.Until(30*time.Second, "it went wrong", func() bool { return s.model("m").BadSleeps > uint64(round) })
			}
			burst("last")
			m := s.model("m")
			if m.Starts != 3 || m.BadSleeps != 2 || !m.Sleepless || m.StartFailures != 0 {
				t.Errorf("the state has %+v", m)
			}
			time.Sleep(500 * time.Millisecond) // more than sleep_after
			if m := s.model("m"); m.State != "ready" {
				t.Errorf("it is %s, although sleeping went wrong", m.State)
			}
			resp, err := http.Post(s.AdminURL+"/api/models/m/retry", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			s.Until(30*time.Second, "it is put to sleep again", func() bool { m := s.model("m"); return m.Sleeps > 2 })
		})
	}
}

// Requests come at the very moments at which the model falls asleep or wakes up, all the time. The engine dies of any mistake: of a
// generation while it sleeps, of a release while it works, of a second release, of a resume without one.
func TestArrivalsAgainstFallingAsleep(t *testing.T) {
	s := serve(t, config(simModel(t, "m", "scaling: {sleep_after: 10ms, scaledown_after: 1h, metric: {concurrency: 8}}",
		"--sim-ttft", "0s", "--sim-itl", "0s", "--sim-crash-delay", "0s", "--sim-sleep-delay", "1ms", "--sim-wake-delay", "1ms")))
	s.ask(t.Context(), "a", "m", "first", false).wants(t, "first", false)
	pid := s.replica("m").PID
	lasts := time.Duration(scaled(8, 120)) * time.Second
	end := time.Now().Add(lasts)
	var answered, left atomic.Int64
	var wg sync.WaitGroup
	for c := range 3 {
		wg.Go(func() {
			for n := 0; time.Now().Before(end) && !t.Failed(); n++ {
				time.Sleep(rand.N(60 * time.Millisecond)) // about as long as a sleep takes to begin and to end
				for burst := range 1 + rand.IntN(6) {
					stream := rand.IntN(2) == 0
					marker := fmt.Sprint(c, "-", n, "-", burst)
					if !s.ask(t.Context(), "a", "m", marker, stream).wants(t, marker, stream) {
						return
					}
					answered.Add(1)
				}
			}
		})
	}
	wg.Go(func() { // clients that leave: what they asked for is still generated when nobody is counted any more
		for time.Now().Before(end) && !t.Failed() {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond+rand.N(30*time.Millisecond))
			s.send(ctx, s.Key("a"), `{"messages":[{"role":"user","content":"a long one"}],"model":"m","stream":true,"max_tokens":8000}`, true)
			cancel()
			left.Add(1)
			time.Sleep(rand.N(200 * time.Millisecond))
		}
	})
	wg.Wait()
	m := s.model("m")
	if m.Starts != 1 || m.Crashes != 0 || m.BadSleeps != 0 || s.replica("m").PID != pid {
		t.Errorf("the state has %+v", m)
	}
	if m.Sleeps < 10 || m.Wakes < 10 {
		t.Errorf("%d sleeps and %d wakes: nothing was tested", m.Sleeps, m.Wakes)
	}
	t.Logf("in %v: %d answered, %d left, %d sleeps, %d wakes", lasts, answered.Load(), left.Load(), m.Sleeps, m.Wakes)
}

// The next gateway takes over what is awake, puts it to sleep and wakes it as its own, and has no use for what its predecessor left asleep.
func TestSleepAcrossGateways(t *testing.T) {
	t.Parallel()
	s := serve(t, config(simModel(t, "m", "scaling: {sleep_after: 3s, scaledown_after: 1h}")))
	s.ask(t.Context(), "a", "m", "one", false).wants(t, "one", false)
	pid := s.replica("m").PID
	s.Kill()
	s.Start()
	s.untilState("m", "asleep")
	s.ask(t.Context(), "a", "m", "two", true).wants(t, "two", true)
	if m := s.model("m"); m.Replicas[0].PID != pid || m.Starts != 0 || m.Wakes != 1 {
		t.Errorf("taken over, the state has %+v, and the process was %d", m, pid)
	}
	s.untilState("m", "asleep")
	s.Kill()
	s.Start()
	if m := s.model("m"); m.State != "cold" || len(s.Engines()) != 0 {
		t.Errorf("a sleeper was taken over: %+v", m)
	}
	s.ask(t.Context(), "a", "m", "three", false).wants(t, "three", false)
}

func TestSleepersGiveTheirGPUsToOthers(t *testing.T) {
	g := withGPUs(t, 2)
	nap := func(name, extra string) string {
		return strings.Replace(g.model(name, "1", extra), "{scaledown_after", "{sleep_after: 300ms, scaledown_after", 1)
	}
	s := serve(t, config(nap("pinned", "pinned: true"), nap("sleepy", ""), g.model("other", "1", "")))
	for _, name := range []string{"pinned", "sleepy"} {
		s.ask(t.Context(), "a", name, "one", false).wants(t, "one", false)
	}
	for _, name := range []string{"pinned", "sleepy"} {
		s.untilState(name, "asleep")
		// All but 1.2 % of the GPU, of 88 %.
		if freed, want := s.replica(name).Freed, int64(868*gpuMiB/1000)<<20; freed < want-want/50 || freed > want+want/50 {
			t.Errorf("%s has freed %d bytes, want about %d", name, freed, want)
		}
	}
	// Both hold a GPU while they sleep, and one of them gives it to who needs it.
	if n := g.most.Load(); n != 2 {
		t.Errorf("%d engines on two GPUs", n)
	}
	s.ask(t.Context(), "a", "other", "two", false).wants(t, "two", false)
	if m := s.model("sleepy"); m.Preemptions != 1 || m.State != "cold" {
		t.Errorf("the sleeper is %+v", m)
	}
	if m := s.model("pinned"); m.State != "asleep" || m.Preemptions != 0 {
		t.Errorf("the pinned one is %+v", m)
	}
	// It still has the memory that it needs to wake up.
	s.ask(t.Context(), "a", "pinned", "three", true).wants(t, "three", true)
	if m := s.model("pinned"); m.Wakes != 1 || m.Starts != 1 || m.Replicas[0].Freed != 0 {
		t.Errorf("the pinned one is %+v", m)
	}
	s.ask(t.Context(), "a", "sleepy", "four", false).wants(t, "four", false)
	g.consistent(s)
}

func TestModelsThatSleepSwapOnOneGPUUnderLoad(t *testing.T) {
	g := withGPUs(t, 1)
	nap := func(name string) string {
		return strings.Replace(g.model(name, "1", ""), "{scaledown_after", "{sleep_after: 10ms, scaledown_after", 1)
	}
	s := serve(t, config(nap("a"), nap("b")))
	lasts := time.Duration(scaled(6, 60)) * time.Second
	end := time.Now().Add(lasts)
	var answered [2]atomic.Int64
	var wg sync.WaitGroup
	for i, model := range []string{"a", "b"} {
		wg.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				marker := fmt.Sprint(model, "-", n)
				if !s.ask(t.Context(), "a", model, marker, n%2 == 0).wants(t, marker, n%2 == 0) {
					return
				}
				answered[i].Add(1)
				time.Sleep(rand.N(80 * time.Millisecond))
			}
		})
	}
	wg.Wait()
	g.consistent(s)
	a, b := s.model("a"), s.model("b")
	if a.Crashes+b.Crashes+a.BadSleeps+b.BadSleeps > 0 || a.Starts+b.Starts < 2 || a.Sleeps+b.Sleeps < 1 {
		t.Errorf("the state has %+v and %+v", a, b)
	}
	t.Logf("in %v: %d and %d answered, %d starts, %d sleeps, %d wakes", lasts, answered[0].Load(), answered[1].Load(), a.Starts+b.Starts, a.Sleeps+b.Sleeps, a.Wakes+b.Wakes)
}
