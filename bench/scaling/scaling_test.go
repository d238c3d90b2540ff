package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pilotlight/activator/scaling"
	"pilotlight/bench/load"
)

func TestOneRequestByHand(t *testing.T) {
	f := fleet{Start: 10 * time.Second, Prefill: 100, PerToken: time.Second, Limit: 1, AfterLast: 99 * time.Second}
	// Both at half a second. Seen at 1 s, ready at 11 s. The first has its 200 tokens computed at 13 s and is done at 16 s; the limit is 1,
	// so the second begins then and is computed at 18 s.
	plan := []load.Arrival{{At: time.Second / 2, PromptTokens: 200, MaxTokens: 3}, {At: time.Second / 2, PromptTokens: 200, MaxTokens: 3}}
	got := simulate(f, always(1), plan)
	want := []time.Duration{12500 * time.Millisecond, 17500 * time.Millisecond}
	if !reflect.DeepEqual(got.Waits, want) || got.Starts != 1 || got.Left != 0 || got.Busy != 99*time.Second {
		t.Errorf("got %+v, want waits %v, one start, 99 s", got, want)
	}
}

// leaving wants one replica, then none.
type leaving struct{ after time.Duration }

func (l leaving) want(o scaling.Observation) int {
	if o.At > l.after {
		return 0
	}
	return 1
}

func TestWhoLeavesEndsItsWork(t *testing.T) {
	f := fleet{Start: time.Second, Prefill: 100, PerToken: time.Second, Limit: 8, AfterLast: time.Minute}
	got := simulate(f, leaving{4 * time.Second}, []load.Arrival{{At: 0, PromptTokens: 100, MaxTokens: 10}})
	// Wanted at 1 s, ready at 2 s, computed at 3 s, told to leave at 5 s, done at 13 s.
	if got.Busy != 12*time.Second || got.Left != 0 || len(got.Waits) != 1 || got.Waits[0] != 3*time.Second {
		t.Errorf("got %+v, want 12 s and a wait of 3 s", got)
	}
}

// TestNobodyIsLost: every request is answered once or still there, whatever the policy, and no replica is ever beyond what is allowed.
func TestNobodyIsLost(t *testing.T) {
	o := defaults()
	for _, w := range synthetic(7) {
		for _, c := range contenders(o.Limits) {
			p, err := c.New()
			if err != nil {
				t.Fatal(err)
			}
			r := simulate(o.Fleet, p, w.Plan)
			if r.Left == 0 && len(r.Waits) != len(w.Plan) || len(r.Waits)+r.Left < len(w.Plan) {
				t.Errorf("%s, %s: %d of %d answered, %d left", w.Name, c.Name, len(r.Waits), len(w.Plan), r.Left)
			}
			if r.Busy <= 0 || r.Starts < r.MostAtOne {
				t.Errorf("%s, %s: %v of replicas, %d starts, %d at once", w.Name, c.Name, r.Busy, r.Starts, r.MostAtOne)
			}
		}
	}
}

func TestDefaultStartsNoNeedlessReplica(t *testing.T) {
	o := defaults()
	for _, seed := range []uint64{1, 2, 3} {
		for _, w := range synthetic(seed)[:2] {
			p, err := contenders(o.Limits)[0].New()
			if err != nil {
				t.Fatal(err)
			}
			if r := simulate(o.Fleet, p, w.Plan); r.Starts != 1 || r.Left != 0 {
				t.Errorf("seed %d, %s: %d starts for what one replica can do, %d left", seed, w.Name, r.Starts, r.Left)
			}
		}
	}
}

func TestReport(t *testing.T) {
	o := defaults()
	o.Seeds = 2
	o.Trace = filepath.Join(t.TempDir(), "trace.csv")
	const lines = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
	if err := os.WriteFile(o.Trace, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := run(out, o); err != nil {
			t.Fatal(err)
		}
	}
	if first.String() != second.String() {
		t.Error("two runs with one seed differ")
	}
	if !strings.HasPrefix(first.String(), "the trace, 8 at once: 16 requests, seed 1\n") || strings.Count(first.String(), "\npilotlight ") != 6*2+1 {
		t.Errorf("got %s", first.String())
	}
	o.Trace = filepath.Join(t.TempDir(), "none.csv")
	if err := run(&first, o); err == nil {
		t.Error("a trace that is not there was accepted")
	}
	o.Fleet.Limit = 0
	if err := run(&first, o); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("limit 0: %v", err)
	}
}
