package activator

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// example is a start of 100 s: launch to 20 s, weights to 80 s in steps of a quarter, graphs to 100 s.
func example() StartRecord {
	c := course{}.note("launch", 0, 0).note("weights", 0, 20*time.Second)
	for i := range 4 {
		c = c.note("weights", float64(i+1)/4, time.Duration(20+15*(i+1))*time.Second)
	}
	c = c.note("graphs", 0, 80*time.Second)
	return StartRecord{Total: 100 * time.Second, Phases: c.phases}
}

func TestRemaining(t *testing.T) {
	s := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	weights := course{}.note("launch", 0, 0).note("weights", 0, s(20))
	for _, tt := range []struct {
		name     string
		course   course
		elapsed  float64
		from, to float64 // of the answer
	}{
		{"nothing reported", course{}, 30, 70, 70},
		{"as the example", weights.note("weights", 0.5, s(50)), 50, 50, 50},
		{"between two steps", weights.note("weights", 0.5, s(50)), 60, 40, 40},
		{"twice as slow: the phase at its pace, the rest as it was", weights.note("weights", 0.5, s(80)), 80, 70, 80},
		{"twice as fast", weights.note("weights", 0.5, s(35)), 35, 35, 42},
		{"the next step is overdue", weights.note("weights", 0.5, s(50)), 80, 35, 45},
		{"overdue at the beginning: later phases are still to come", course{}.note("launch", 0, 0), 60, 95, 95},
		{"before the first step", weights, 25, 75, 75},
		{"a share between two of the example", weights.note("weights", 0.375, s(42.5)), 42.5, 57.5, 57.5},
		{"the last phase", weights.note("graphs", 0, s(80)), 95, 5, 5},
		{"a little overdue", course{}.note("launch", 0, 0), 28, 80, 80},
		{"the last phase, overdue", weights.note("graphs", 0, s(80)), 130, 10, 10},
		{"unknown phase without shares: as long again, then the rest", course{}.note("launch", 0, 0).note("download", 0, s(20)), 40, 100, 100},
		{"unknown phase with shares", course{}.note("launch", 0, 0).note("download", 0, s(20)).note("download", 0.25, s(70)), 80, 220, 220},
		{"unknown phase that stalls", course{}.note("launch", 0, 0).note("download", 0, s(20)).note("download", 0.9, s(110)), 300, 80, 80},
		{"unknown phase at the end", weights.note("graphs", 0, s(80)).note("polish", 0, s(85)).note("polish", 0.5, s(90)), 90, 5, 5},
	} {
		got := example().remaining(tt.course, s(tt.elapsed)).Seconds()
		if got < tt.from-0.01 || got > tt.to+0.01 {
			t.Errorf("%s: %.1f s remain, want %v to %v", tt.name, got, tt.from, tt.to)
		}
	}
	// Without news the answer falls, or stands where a step is overdue and its delay counts; it never jumps.
	c := weights.note("weights", 0.5, s(50))
	last := example().remaining(c, s(50))
	for elapsed := s(50); elapsed < s(200); elapsed += s(0.1) {
		now := example().remaining(c, elapsed)
		if diff := now - last; diff > s(0.11) || diff < -s(0.11) {
			t.Fatalf("at %v: from %v to %v", elapsed, last, now)
		}
		last = now
	}
}

func TestCourse(t *testing.T) {
	c := course{}.note("launch", 0, time.Second).note("weights", 0, 2*time.Second)
	before := c
	c = c.note("download", 0.5, 3*time.Second).note("download", 0.2, 4*time.Second).note("download", 0.51, 5*time.Second)
	c = c.note("weights", 0, 6*time.Second).note("weights", 7, 7*time.Second)
	var names []string
	for _, p := range c.phases {
		names = append(names, p.Phase)
	}
	// Loading was announced, then the weights were fetched, then they were loaded.
	if !slices.Equal(names, []string{"launch", "download", "weights"}) || c.phases[0].At != time.Second || c.phases[2].At != 6*time.Second {
		t.Errorf("phases %+v", c.phases)
	}
	// Half of the download was told twice, a step back and a tiny step are no marks; a share is 1 at most.
	if m := c.phases[1].Marks; len(m) != 1 || m[0] != (Mark{0.5, 3 * time.Second}) {
		t.Errorf("marks of the download %v", m)
	}
	if m := c.phases[2].Marks; len(m) != 1 || m[0] != (Mark{1, 7 * time.Second}) || c.share != 1 {
		t.Errorf("marks of the weights %v, share %v", m, c.share)
	}
	if len(before.phases) != 2 || before.phases[1].Phase != "weights" || before.phases[1].Marks != nil {
		t.Errorf("an earlier course changed: %+v", before)
	}
	for i := range 3 * phasesKept {
		c = c.note(string(rune('A'+i)), 0, time.Duration(10+i)*time.Second)
	}
	if len(c.phases) != phasesKept {
		t.Errorf("%d phases", len(c.phases))
	}
	if r := (StartRecord{Total: time.Hour, Phases: c.phases}); !r.plausible() {
		t.Error("a course makes an implausible record")
	}
}

// A bar that was told never goes back, though the estimate of the rest grows.
func TestPercentNeverFalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := OpenDurations("", nil)
		if err != nil {
			t.Fatal(err)
		}
		d.Record(Subject{Model: "m", Spec: "spec1"}, StartRecord{Total: 40 * time.Second, Phases: []PhaseStart{{Phase: "launch"}, {Phase: "weights", At: 30 * time.Second}}})
		m := newTestModel(t, testConfig(), &fakeLauncher{takes: 200 * time.Second, phases: []string{"weights"}}, func(o *Options) { o.Durations = d })
		defer closeModel(t, m)
		k := enqueue(t, m, Request{})
		last := 0.0
		for range 190 {
			time.Sleep(time.Second)
			synctest.Wait() // what happens in the same moment has happened
			s := k.Status()
			if s.Percent < last || s.Percent > 99 {
				t.Fatalf("from %.1f %% to %.1f %%", last, s.Percent)
			}
			last = s.Percent
			status := m.Status()
			if r := status.Replicas[0]; r.ETA != status.ETA || r.Percent != s.Percent {
				t.Errorf("the replica's ETA %v of %v, %v %%", r.ETA, status.ETA, r.Percent)
			}
		}
		wait(t, k).Release()
	})
}
