package main

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pilotlight/bench/mockengine"
	"pilotlight/internal/testtools"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A short soak. Memory has not settled after so short a time, so its limit is wide; everything else must hold as in a long one. It leaves
// the machine some time, because tests of other packages that run beside it have deadlines.
func TestShortSoak(t *testing.T) {
	o := defaults()
	o.Duration, o.Workers, o.Pause, o.Limit = 15*time.Second, 32, 10*time.Millisecond, 30
	o.Pilotlight, o.Engine = testtools.Binary(t, "./cmd/pilotlight"), testtools.Binary(t, "./bench/soak")
	o.Log = t.Logf
	r, err := run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.text())
	if !r.Passed {
		t.Error("the soak failed")
	}
	file := filepath.Join(t.TempDir(), "report")
	if err := r.write(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var again report
	if err := json.Unmarshal(text, &again); err != nil || again.Requests != r.Requests || len(again.Samples) != len(r.Samples) || !again.Passed {
		t.Errorf("the report does not read back: %v", err)
	}
}

func TestWeights(t *testing.T) {
	sum := 0
	for _, k := range mix {
		sum += k.weight
	}
	if sum != 1000 {
		t.Errorf("the weights sum to %d", sum)
	}
}

func TestGrowth(t *testing.T) {
	var samples []sample
	for x := range int64(101) {
		samples = append(samples, sample{Requests: x * 1e6, Resident: (1000 + x) * 1e6}) // 1025 at 25, 1100 at 100
	}
	for i := range 25 { // what comes before does not count
		samples[i].Resident = 5
	}
	from, to, percent, err := growth(samples, 100e6)
	if err != nil || math.Abs(from-1025e6) > 1 || math.Abs(to-1100e6) > 1 || math.Abs(percent-7500.0/1025) > 1e-6 {
		t.Errorf("got %v, %v, %v, %v", from, to, percent, err)
	}
	if _, _, _, err := growth(samples[:40], 100e6); err == nil {
		t.Error("a line through 15 samples")
	}
	for i := range samples {
		samples[i].Requests = 100e6
	}
	if _, _, _, err := growth(samples, 100e6); err == nil {
		t.Error("a line through one place")
	}
}

func TestSumMetrics(t *testing.T) {
	got, err := sumMetrics("# HELP a of a\n# TYPE a counter\na{m=\"x y\"} 1\na{m=\"z\"} 2.5\nb 1e+06\n\n")
	if err != nil || got["a"] != 3.5 || got["b"] != 1e6 || len(got) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := sumMetrics("a x\n"); err == nil {
		t.Error("x is no number")
	}
}

// Each way in which a run can go wrong must be told, or a soak proves nothing.
func TestJudge(t *testing.T) {
	good := func() (*report, *traffic, mockengine.Record) {
		r := &report{Options: options{Limit: 3}, Requests: 4000, Starts: 2}
		for x := range int64(100) {
			r.Samples = append(r.Samples, sample{Requests: x * 40, Resident: 1000})
		}
		tr := newTraffic(&gateway{}, options{Workers: 1, Requests: 1e9})
		whole := int64(0)
		for i, k := range tr.tallies {
			k.right.Store(10)
			if mix[i].whole {
				whole += 10
			}
		}
		tr.bursts.right.Store(10)
		tr.slow.right.Store(10)
		return r, tr, mockengine.Record{Requests: whole + 20 + 24, Finished: whole + 20 + 3, Left: 5, Refused: 8, Broken: 8}
	}
	for _, tt := range []struct {
		name   string
		mutate func(r *report, tr *traffic, e *mockengine.Record)
		want   string // in the problems; empty: none
	}{
		{"good", func(*report, *traffic, *mockengine.Record) {}, ""},
		{"wrong answer", func(_ *report, tr *traffic, _ *mockengine.Record) {
			tr.ended(tr.tallies[0], 7, context.DeadlineExceeded)
		}, "every answer"},
		{"a kind that never was", func(_ *report, tr *traffic, e *mockengine.Record) {
			tr.slow.right.Store(0)
			e.Finished, e.Requests = e.Finished-10, e.Requests-10
		}, "slow reader"},
		{"growth", func(r *report, _ *traffic, _ *mockengine.Record) {
			for i := range r.Samples {
				r.Samples[i].Resident += int64(i)
			}
		}, "resident memory"},
		{"crash", func(r *report, _ *traffic, _ *mockengine.Record) { r.Crashes = 1 }, "crashed"},
		{"killed engine", func(r *report, _ *traffic, _ *mockengine.Record) { r.Starts = 3 }, "record"},
		{"sent twice", func(_ *report, _ *traffic, e *mockengine.Record) { e.Repeated = 1 }, "twice"},
		{"never ended", func(_ *report, _ *traffic, e *mockengine.Record) { e.InFlight, e.Left = 1, 4 }, "ended at its engine"},
		{"unexpected leaver", func(_ *report, _ *traffic, e *mockengine.Record) { e.Left, e.Requests = 11, e.Requests+6 }, "no client left"},
		{"lost answer", func(_ *report, _ *traffic, e *mockengine.Record) { e.Finished, e.Refused = e.Finished-4, e.Refused+4 }, "finished"},
		{"made up answer", func(_ *report, _ *traffic, e *mockengine.Record) { e.Finished, e.Requests = e.Finished+9, e.Requests+9 }, "finished"},
		{"malformed", func(_ *report, _ *traffic, e *mockengine.Record) { e.Malformed = 1 }, "read all"},
		{"expired", func(_ *report, _ *traffic, e *mockengine.Record) { e.Expired = 1 }, "idle"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, tr, e := good()
			tt.mutate(r, tr, &e)
			records := filepath.Join(t.TempDir(), "records")
			for _, part := range []mockengine.Record{e, {}} {
				if err := appendRecord(records, part); err != nil {
					t.Fatal(err)
				}
			}
			r.judge(tr, records)
			var problems []string
			for _, c := range r.Checks {
				if c.Problem != "" {
					problems = append(problems, c.Name+": "+c.Problem)
				}
			}
			text := strings.Join(problems, "\n")
			if r.Passed != (tt.want == "") || tt.want == "" && text != "" || !strings.Contains(text, tt.want) || len(problems) > 1 {
				t.Errorf("passed %v, problems %q; want %q", r.Passed, problems, tt.want)
			}
			if report := r.text(); strings.Contains(report, "FAILED") == r.Passed {
				t.Errorf("passed %v, and the report says\n%s", r.Passed, report)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []options{{Workers: 1}, {Requests: 1}, {Requests: 1, Workers: 1, Duration: -1}, {Requests: 1, Workers: 1, Pause: -1}} {
		if _, err := run(t.Context(), o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
