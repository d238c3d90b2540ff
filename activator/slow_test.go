package activator

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// startOf makes a record of phases with lengths in seconds, and megabytes read in the second one.
func startOf(launch, weights, graphs float64, megabytes int64) StartRecord {
	s := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	return StartRecord{Total: s(launch + weights + graphs), Phases: []PhaseStart{
		{Phase: "launch"}, {Phase: "weights", At: s(launch), ReadBytes: megabytes * 1e6}, {Phase: "graphs", At: s(launch + weights)},
	}}
}

func TestSlowStarts(t *testing.T) {
	usual := []StartRecord{startOf(20, 15, 10, 0), startOf(21, 15, 10, 0), startOf(19, 15, 10, 0)}
	for _, tt := range []struct {
		name    string
		start   StartRecord
		past    []StartRecord
		running bool
		phase   string // empty: not slow
		slower  bool
		usual   time.Duration
		rate    float64
	}{
		{"as usual", startOf(20, 15, 10, 0), usual, false, "", false, 0, 0},
		{"a little slower", startOf(30, 30, 20, 0), usual, false, "", false, 0, 0},
		{"slow weights", startOf(20, 100, 10, 2000), usual, false, "weights", true, 15 * time.Second, 20e6},
		{"everything slow: the phase that exceeds its usual length by most", startOf(80, 40, 25, 0), usual, false, "launch", true, 20 * time.Second, 0},
		{"the first start, one phase over half of it", startOf(5, 20, 10, 4000), nil, false, "weights", false, 0, 200e6},
		{"the first start, no phase over half of it", startOf(12, 12, 11, 0), nil, false, "", false, 0, 0},
		{"short", startOf(1, 7, 1, 0), nil, false, "", false, 0, 0},
		{"running and not slower yet", startOf(5, 30, 0, 0), usual, true, "", false, 0, 0},
		{"running and slower", startOf(20, 75, 0, 1500), usual, true, "weights", true, 15 * time.Second, 20e6},
		{"no phases", StartRecord{Total: time.Hour}, usual, false, "", false, 0, 0},
		{"an engine without phases", StartRecord{Total: time.Hour, Phases: []PhaseStart{{Phase: "launch"}}},
			[]StartRecord{{Total: time.Minute, Phases: []PhaseStart{{Phase: "launch"}}}}, false, "", false, 0, 0},
		{"stuck in the first phase", StartRecord{Total: time.Hour, Phases: []PhaseStart{{Phase: "launch"}}}, usual, true, "launch", true, 20 * time.Second, 0},
	} {
		got := diagnose(tt.start, tt.past, tt.running)
		if got == nil {
			if tt.phase != "" {
				t.Errorf("%s: not slow", tt.name)
			}
			continue
		}
		if got.Phase != tt.phase || got.Slower() != tt.slower || got.Usual != tt.usual && tt.slower || got.Running != tt.running || got.BytesPerSecond() != tt.rate {
			t.Errorf("%s: %+v, slower %v, %v B/s", tt.name, got, got.Slower(), got.BytesPerSecond())
		}
	}
}

// The observer hears when a start has taken twice as long as learned, and once more when it is over; the status shows both.
func TestSlowStartIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := OpenDurations("", nil)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var heard []SlowStart
		told := func() []SlowStart {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(heard)
		}
		l := &fakeLauncher{takes: 40 * time.Second, phases: []string{"weights", "graphs", "warmup"}}
		c := testConfig()
		m := newTestModel(t, c, l, func(o *Options) {
			o.Durations = d
			o.Observer = Observer{SlowStart: func(model string, replica uint64, s SlowStart) {
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, s)
				if model != "m" || replica == 0 {
					t.Errorf("model %q, replica %d", model, replica)
				}
			}}
		})
		defer closeModel(t, m)
		for i := range 2 {
			lease := wait(t, enqueue(t, m, Request{}))
			lease.Release()
			if s := m.Status().Slow; s != nil || len(told()) != 0 {
				t.Errorf("start %d is slow: %+v, %v", i, s, told())
			}
			time.Sleep(c.ScaledownAfter + time.Second)
			wantState(t, m, Cold)
		}
		l.takes = 120 * time.Second
		k := enqueue(t, m, Request{})
		time.Sleep(79 * time.Second)
		synctest.Wait()
		if s := m.Status().Slow; s != nil || len(told()) != 0 {
			t.Errorf("slow too early: %+v, %v", s, told())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s, got := m.Status().Slow, told(); s == nil || !s.Running || s.Phase != "weights" || s.Learned != 40*time.Second || len(got) != 1 || !got[0].Running {
			t.Errorf("while it runs: %+v, %+v", s, got)
		}
		wait(t, k).Release()
		if s, got := m.Status().Slow, told(); s == nil || s.Running || s.Total < 2*time.Minute || len(got) != 2 || got[1].Running {
			t.Errorf("afterwards: %+v, %+v", s, got)
		}
	})
}

// What was read counts for the phase that it was read in.
func TestBytesReadPerPhase(t *testing.T) {
	c := course{}
	for _, p := range []struct {
		phase string
		read  int64
		at    time.Duration
	}{{"launch", 0, 0}, {"launch", 50, 1}, {"weights", 60, 2}, {"weights", 1000, 3}, {"weights", 900, 4}, {"graphs", 1060, 5}, {"graphs", 1061, 6}} {
		c = c.with(p.read).note(p.phase, 0, p.at)
	}
	var got []int64
	for _, p := range c.record(10).Phases {
		got = append(got, p.ReadBytes)
	}
	if len(got) != 3 || got[0] != 60 || got[1] != 1000 || got[2] != 1 {
		t.Errorf("got %v", got)
	}
}
