package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pilotlight/internal/testtools"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWorkloadsAreTheSameForTheSameSeed(t *testing.T) {
	p := &parameters{replicas: 8, prefill: 8000, load: 0.5, length: 5 * time.Second}
	for i := range workloads {
		w := &workloads[i]
		a, b, other := w.make(p.random(1), p), w.make(p.random(1), p), w.make(p.random(2), p)
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: two runs of one seed differ", w.name)
		}
		if reflect.DeepEqual(a, other) || len(a) == 0 {
			t.Errorf("%s: another seed makes the same, or nothing", w.name)
		}
	}
}

func TestReportTakesTheOldOnesPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "RESULTS.md")
	if err := os.WriteFile(file, []byte("# Results\n\nothers\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &parameters{replicas: 8, length: time.Second}
	first := table([]result{{Workload: "chat", Subject: "round robin", Seed: 1, P95: 2, Requests: 5}, {Workload: "chat", Subject: "pilotlight", Seed: 1, P95: 1, Requests: 5},
		{Workload: "chat", Subject: "round robin", Seed: 2, P95: 1}, {Workload: "chat", Subject: "pilotlight", Seed: 2, P95: 0.75}}, p, "1.0", "go run ./bench/routing")
	if !strings.Contains(first, "| chat | pilotlight | 5 | 0 | 0 % | 0.000 | 0.875 | 0.50 to 0.75 |") {
		t.Errorf("got %s", first)
	}
	for _, report := range []string{first, "## Later\n"} {
		if err := insert(file, report); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := "# Results\n\nothers\n\n" + begin + "\n\n## Later\n\n" + end + "\n"; string(b) != want {
		t.Errorf("got %q, want %q", b, want)
	}
}

// A short run of the whole: what is chosen by prefix finds more of it cached than what is chosen in turns.
func TestPrefixesAreFoundAgain(t *testing.T) {
	binary := testtools.Binary(t, "./cmd/pilotlight")
	p := &parameters{replicas: 4, prefill: 20_000, cache: 100_000, concurrency: 64, itl: time.Millisecond, output: 4, load: 1.5, length: time.Second}
	prompts := &workloads[1]
	hits := map[string]float64{}
	for _, policy := range []string{"round_robin", "prefix"} {
		s := ours(binary, policy, policy, p)
		r, err := play(t.Context(), prompts, &s, p, 1)
		if err != nil {
			t.Fatal(err)
		}
		if r.Failed > 0 || r.Requests < 20 || r.P95 <= 0 {
			t.Errorf("%+v", r)
		}
		hits[policy] = r.Hits
	}
	if hits["prefix"] < 1.3*hits["round_robin"] {
		t.Errorf("cached: %v, want clearly more by prefix", hits)
	}
}
