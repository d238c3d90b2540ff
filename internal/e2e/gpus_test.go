package e2e

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// gpus is a folder in which simulated engines say which GPUs they are on, and an nvidia-smi that believes them.
type gpus struct {
	t     *testing.T
	dir   string
	count int
	quit  chan struct{}
	ended chan struct{}
	most  atomic.Int64 // engines seen at once
}

const gpuMiB = 143771 // an H200's

// withGPUs lets the gateways that the test starts find this many H200. Until its end it watches that no GPU is given out beyond
// what it has.
func withGPUs(t *testing.T, count int) *gpus {
	t.Helper()
	g := &gpus{t: t, dir: t.TempDir(), count: count, quit: make(chan struct{}), ended: make(chan struct{})}
	bin := t.TempDir()
	// Memory comes back 200 ms after its engine's end.
	script := fmt.Sprintf(`#!/bin/sh
cd %q || exit 1
sum=""
for f in [0-9]*; do
	[ -e "$f" ] || continue
	if ! kill -0 "$f" 2>/dev/null; then
		[ -e ".dead$f" ] || : >".dead$f"
		[ -n "$(find ".dead$f" -newermt '-0.2 seconds')" ] || continue
	fi
	sum="$sum
$(cat ".mib$f" 2>/dev/null)"
done
echo "$sum" | awk -v n=%d -v full=%d -v what="$1" '
	NF == 2 { k = split($1, d, ","); for (i = 1; i <= k; i++) used[d[i]] += $2 }
	END { for (i = 0; i < n; i++) {
		m = int(used[i]) + 3
		if (what ~ /uuid/) printf "%%d, GPU-%%d, NVIDIA H200, %%d, %%d, Disabled\n", i, i, full, m
		else printf "%%d, %%d\n", i, m
	} }'
`, g.dir, count, gpuMiB)
	if err := os.WriteFile(filepath.Join(bin, "nvidia-smi"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	go g.watch()
	t.Cleanup(func() {
		close(g.quit)
		<-g.ended
	})
	return g
}

// claims are the engines that live, by process id: on which GPUs, and with which fraction.
func (g *gpus) claims() map[int]string {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		g.t.Error(err)
	}
	out := map[int]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || syscall.Kill(pid, 0) != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(g.dir, e.Name()))
		if err != nil {
			g.t.Error(err)
		}
		out[pid] = strings.TrimSpace(string(b))
	}
	return out
}

func (g *gpus) watch() {
	defer close(g.ended)
	takes := map[int]float64{} // MiB of each of its GPUs, by process id
	shown := map[int]float64{} // less while it sleeps
	for {
		select {
		case <-g.quit:
			return
		case <-time.After(2 * time.Millisecond):
		}
		taken := map[string]float64{}
		claims := g.claims()
		g.most.Store(max(g.most.Load(), int64(len(claims))))
		pids := slices.Sorted(maps.Keys(claims))
		slices.SortStableFunc(pids, func(a, b int) int { return cmp.Compare(takes[b], takes[a]) }) // new ones last
		for _, pid := range pids {
			claim := strings.Fields(claims[pid])
			devices := claim[0]
			fraction, err := strconv.ParseFloat(claim[1], 64)
			asleep := 0.0
			if err == nil && len(claim) > 2 {
				asleep, err = strconv.ParseFloat(claim[2], 64)
			}
			if err != nil || devices == "all" {
				g.t.Errorf("engine %d is on %q", pid, claims[pid])
				return
			}
			list := strings.Split(devices, ",")
			if takes[pid] == 0 { // as SGLang does: a fraction of what is free when it starts
				takes[pid] = fraction * (gpuMiB - taken[list[0]])
			}
			mib := takes[pid]
			if asleep > 0 {
				mib = asleep * gpuMiB
			}
			if shown[pid] != mib {
				shown[pid] = mib
				name := filepath.Join(g.dir, fmt.Sprintf(".mib%d", pid))
				if err := errors.Join(os.WriteFile(name+"~", fmt.Appendf(nil, "%s %d", devices, int(mib)), 0o600), os.Rename(name+"~", name)); err != nil {
					g.t.Error(err)
				}
			}
			for _, d := range list {
				// What engines on shares leave free of a GPU is a tenth and more.
				if taken[d] += takes[pid]; taken[d] > 0.9*gpuMiB {
					g.t.Errorf("GPU %s is given out beyond what it has: %v", d, claims)
					return
				}
			}
		}
	}
}

// model is one with GPUs that starts in 150 ms and takes 16 requests at once.
func (g *gpus) model(name, gpu, extra string) string {
	return simModel(g.t, name, "resources: {gpu: "+gpu+"}\nscaling: {scaledown_after: 1h, metric: {concurrency: 16}}\n"+extra, "--sim-start", "150ms", "--sim-itl", "10ms", "--sim-gpu-dir", g.dir)
}

// consistent waits until each GPU is held by the engines that are on it and by no others.
func (g *gpus) consistent(s *server) {
	g.t.Helper()
	var got, want []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		state := s.state()
		got, want = nil, nil
		for _, d := range state.Devices {
			if d.State != "usable" {
				got = append(got, d.Label+" "+d.State)
			}
			for _, h := range d.Holders {
				for _, m := range state.Models {
					for _, r := range m.Replicas {
						if m.Name == h.Model && r.ID == h.Replica && r.PID != 0 {
							got = append(got, fmt.Sprintf("%d on %s", r.PID, d.ID))
						}
					}
				}
			}
		}
		for pid, claim := range g.claims() {
			devices, _, _ := strings.Cut(claim, " ")
			for d := range strings.SplitSeq(devices, ",") {
				want = append(want, fmt.Sprintf("%d on %s", pid, d))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if slices.Equal(got, want) {
			return
		}
	}
	g.t.Errorf("the gateway has %v, the engines %v", got, want)
}

// clients ask each model without a pause, until the time is over. Every request must be answered.
func clients(t *testing.T, s *server, each int, lasts time.Duration, models ...string) map[string]int64 {
	t.Helper()
	answered := make([]atomic.Int64, len(models))
	var wg sync.WaitGroup
	end := time.Now().Add(lasts)
	for i, model := range models {
		for c := range each {
			wg.Go(func() {
				for n := 0; time.Now().Before(end); n++ {
					stream := n%2 == 0
					marker := fmt.Sprintf("%s-%d-%d", model, c, n)
					if !s.ask(t.Context(), "a", model, marker, stream).wants(t, marker, stream) {
						return
					}
					answered[i].Add(1)
				}
			})
		}
	}
	wg.Wait()
	out := map[string]int64{}
	for i, model := range models {
		out[model] = answered[i].Load()
	}
	return out
}

func (s *server) starts(models ...string) (n uint64) {
	for _, m := range models {
		n += s.model(m).Starts
	}
	return n
}

func TestModelsSwapOnOneGPUUnderLoad(t *testing.T) {
	g := withGPUs(t, 1)
	s := serve(t, config(g.model("a", "H200:1", ""), g.model("b", "1", "")))
	lasts := time.Duration(scaled(6, 60)) * time.Second
	answered := clients(t, s, 4, lasts, "a", "b")
	g.consistent(s)
	starts := s.starts("a", "b")
	if answered["a"] < 10 || answered["b"] < 10 || starts < 4 {
		t.Errorf("answered %v with %d starts: want both served in turns", answered, starts)
	}
	// A start takes 150 ms at the least, and each replica stays as long.
	if most := uint64(lasts/(300*time.Millisecond)) + 2; starts > most {
		t.Errorf("%d starts in %v, want at most %d", starts, lasts, most)
	}
	if n := g.most.Load(); n != 1 {
		t.Errorf("%d engines at once on one GPU", n)
	}
	t.Logf("in %v: answered %v, %d starts", lasts, answered, starts)
}

func TestThreeModelsShareTwoGPUs(t *testing.T) {
	g := withGPUs(t, 2)
	s := serve(t, config(g.model("a", "1", ""), g.model("b", "1", ""), g.model("c", "1", "")))
	lasts := time.Duration(scaled(5, 60)) * time.Second
	answered := clients(t, s, 3, lasts, "a", "b", "c")
	g.consistent(s)
	for model, n := range answered {
		if n < 10 {
			t.Errorf("%s answered %d requests", model, n)
		}
	}
	if n := g.most.Load(); n != 2 {
		t.Errorf("%d engines at once on two GPUs", n)
	}
	t.Logf("in %v: answered %v, %d starts", lasts, answered, s.starts("a", "b", "c"))
}

func TestAModelOfTwoGPUsAmongModelsOfOne(t *testing.T) {
	g := withGPUs(t, 2)
	s := serve(t, config(g.model("a", "1", ""), g.model("b", "1", ""), g.model("big", "H200:2", "extra_args: [--tp, 2]")))
	lasts := time.Duration(scaled(6, 60)) * time.Second
	answered := clients(t, s, 2, lasts, "a", "b", "big")
	g.consistent(s)
	for model, n := range answered {
		if n < 5 {
			t.Errorf("%s answered %d requests", model, n)
		}
	}
	t.Logf("in %v: answered %v, %d starts", lasts, answered, s.starts("a", "b", "big"))
}

func TestSharesOfOneGPURunSideBySide(t *testing.T) {
	g := withGPUs(t, 1)
	s := serve(t, config(g.model("a", "1", "gpu_share: 0.5"), g.model("b", "1", "gpu_share: 0.5"), g.model("c", "1", "gpu_share: 0.3")))
	s.ask(t.Context(), "a", "a", "one", false).wants(t, "one", false)
	s.ask(t.Context(), "a", "b", "two", false).wants(t, "two", false)
	var fractions []string
	for _, claim := range g.claims() {
		fractions = append(fractions, strings.Fields(claim)[1])
	}
	slices.Sort(fractions)
	// 0.5 less 12 % of it, of all; then the same of the 0.56 that the first has left, less 3 MiB that are in use anyway.
	if want := []string{"0.439", "0.784"}; !slices.Equal(fractions, want) && !slices.Equal(fractions, []string{"0.440", "0.785"}) {
		t.Errorf("the engines run with --mem-fraction-static %v, want about %v", fractions, want)
	}
	if a, b := s.model("a").State, s.model("b").State; a != "ready" || b != "ready" {
		t.Errorf("a is %s and b is %s", a, b)
	}
	s.ask(t.Context(), "a", "c", "three", false).wants(t, "three", false) // one of them leaves
	if n := s.model("a").Preemptions + s.model("b").Preemptions; n != 1 {
		t.Errorf("%d replicas left for c", n)
	}
	g.consistent(s)
}

func TestTheWaitForGPUsIsTold(t *testing.T) {
	g := withGPUs(t, 1)
	s := serve(t, config(g.model("held", "1", ""), g.model("waits", "1", "cold: {grace: 100ms, heartbeat: 1s}"), g.model("pinned", "1", "pinned: true")))
	ctx, cancel := context.WithCancel(t.Context())
	long := make(chan answer, 1)
	go func() {
		long <- s.send(ctx, s.Key("a"), `{"messages":[{"role":"user","content":"a long one"}],"model":"held","stream":true,"max_tokens":8000}`, true)
	}()
	s.Until(20*time.Second, "a long request in flight", func() bool {
		m := s.model("held")
		return m.State == "ready" && m.Replicas[0].InFlight == 1
	})
	const reason = "waiting for GPUs: held by held (busy, 1 request)"
	body := `{"messages":[{"role":"user","content":"echo: x"}],"model":"waits","stream":true}`
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.BaseURL+"/chat/completions", strings.NewReader(body))
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
	beat, err := stream.ReadString('\n')
	// Its turn may be over when the words are read: then the holder is on its way out.
	leaving := "waiting for GPUs: held by held (leaving after 1 in flight)"
	if err != nil || !strings.HasPrefix(beat, ": pilotlight: "+reason+", position ") && !strings.HasPrefix(beat, ": pilotlight: "+leaving+", position ") {
		t.Errorf("the heartbeat says %q, %v", beat, err)
	}
	a := s.ask(t.Context(), "a", "waits", "y", false, "X-Pilotlight-Max-Wait", "1s")
	if a.status != 503 || a.code != "gpus_busy" || !strings.Contains(a.message, "waiting for GPUs: held by held (") || a.header.Get("Retry-After") == "" || a.header.Get("X-Should-Retry") != "true" {
		t.Errorf("got %v with %v", a, a.header)
	}
	if r := s.model("waits").Replicas[0]; r.State != "starting" || r.Phase != "queued" || !strings.HasPrefix(r.Reason, "waiting for GPUs: held by held (") {
		t.Errorf("the state has %+v", r)
	}
	cancel() // the long request's client leaves; nothing else would have ended it
	<-long
	rest, err := io.ReadAll(stream)
	if err != nil || !strings.Contains(string(rest), `"content":"x"`) || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
		t.Errorf("the waiting stream ends with %q, %v", rest, err)
	}
	s.ask(t.Context(), "a", "pinned", "z", false).wants(t, "z", false)
	a = s.ask(t.Context(), "a", "held", "y", false, "X-Pilotlight-Max-Wait", "1s")
	if a.code != "gpus_busy" || !strings.Contains(a.message, "held by pinned (pinned)") {
		t.Errorf("got %v", a)
	}
	g.consistent(s)
}

func TestAKilledHolderGivesItsGPUBack(t *testing.T) {
	g := withGPUs(t, 1)
	s := serve(t, config(g.model("a", "1", "pinned: true"), g.model("b", "1", "")))
	s.ask(t.Context(), "a", "a", "one", false).wants(t, "one", false)
	waiting := make(chan answer, 1)
	go func() { waiting <- s.ask(t.Context(), "a", "b", "two", true) }()
	s.Until(20*time.Second, "b waits for the GPU", func() bool {
		m := s.model("b")
		return len(m.Replicas) > 0 && m.Replicas[0].Reason != ""
	})
	if err := syscall.Kill(s.model("a").Replicas[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	(<-waiting).wants(t, "two", true)
	g.consistent(s)
	// The gateway's own end by SIGKILL leaves an engine on the GPU, which the next gateway takes over: others have to wait for it.
	holder := s.model("b").Replicas[0].PID
	s.Kill()
	s.Start()
	if m := s.model("b"); len(m.Replicas) != 1 || m.Replicas[0].PID != holder {
		t.Errorf("got %+v, want process %d again", m.Replicas, holder)
	}
	g.consistent(s)
	s.ask(t.Context(), "a", "a", "three", false).wants(t, "three", false)
	g.consistent(s)
}

// A request for GPUs that models which always run have for good must not wait for them.
func TestGPUsOfModelsThatAlwaysRunAreNotWaitedFor(t *testing.T) {
	g := withGPUs(t, 1)
	always := strings.Replace(g.model("always", "1", ""), "scaledown_after: 1h", "replicas: 1", 1)
	s := serve(t, config(always, g.model("b", "1", "")))
	s.Until(20*time.Second, "the one that always runs", func() bool { return s.model("always").State == "ready" })
	a := s.ask(t.Context(), "a", "b", "x", false, "X-Pilotlight-Max-Wait", "1h")
	if a.status != 503 || a.code != "gpus_busy" || !strings.Contains(a.message, "belong to models that always run: always. For the operator: run one of them on demand") {
		t.Errorf("got %v", a)
	}
	if n := s.metric(`pilotlight_gpus{state="held"}`); n != 1 {
		t.Errorf("%v GPUs are held, want 1", n)
	}
	// It is served as soon as the other one runs on demand: the failure before is none of its own.
	loaded := s.state().Config.Loaded
	s.Write(config(g.model("always", "1", ""), g.model("b", "1", "")))
	s.Until(20*time.Second, "the configuration reloaded", func() bool { return s.state().Config.Loaded.After(loaded) })
	s.ask(t.Context(), "a", "b", "y", false).wants(t, "y", false)
	g.consistent(s)
}

// A changed model's new replica starts beside the old one where a GPU is free, and after it where none is.
func TestReplacementGoesByTheGPUs(t *testing.T) {
	for _, count := range []int{1, 2} {
		t.Run(strconv.Itoa(count), func(t *testing.T) {
			g := withGPUs(t, count)
			model := func(version string) string { return config(g.model("m", "1", "env_vars: {VERSION: "+version+"}")) }
			s := serve(t, model("'1'"))
			s.ask(t.Context(), "a", "m", "one", false).wants(t, "one", false)
			old := s.model("m").Replicas[0].PID
			s.Write(model("'2'"))
			s.Until(30*time.Second, "the old one is gone", func() bool {
				_, there := g.claims()[old]
				return !there
			})
			if most := int(g.most.Load()); most != count {
				t.Errorf("%d engines at once, want %d", most, count)
			}
			s.ask(t.Context(), "a", "m", "two", true).wants(t, "two", true)
			// As at a restart with a changed file.
			old = s.model("m").Replicas[0].PID
			s.Kill()
			s.Write(model("'3'"))
			s.Start()
			s.ask(t.Context(), "a", "m", "three", false).wants(t, "three", false)
			s.Until(30*time.Second, "the old one is gone", func() bool {
				_, there := g.claims()[old]
				return !there
			})
			s.ask(t.Context(), "a", "m", "four", true).wants(t, "four", true)
			g.consistent(s)
		})
	}
}
