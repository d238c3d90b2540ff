package activator

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func sleepyConfig() Config {
	c := testConfig()
	c.SleepAfter, c.ScaledownAfter = 10*time.Second, time.Hour
	return c
}

func TestSleepAndWakeAreBounded(t *testing.T) {
	for _, wake := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := sleepyConfig()
			c.SleepTimeout = 30 * time.Second
			l := &fakeLauncher{takes: 5 * time.Second, naps: time.Second}
			m := newTestModel(t, c, l)
			defer closeModel(t, m)
			wait(t, enqueue(t, m, Request{})).Release()
			if wake {
				time.Sleep(20 * time.Second)
				synctest.Wait()
				wantState(t, m, Asleep)
			}
			l.instance(0).hangs.Store(true)
			if !wake {
				time.Sleep(10 * time.Second)
				synctest.Wait()
				wantState(t, m, Asleep)
			}
			// Who waits is served by the next one, once the time of this one is over.
			began := time.Now()
			lease := wait(t, enqueue(t, m, Request{}))
			if took := time.Since(began); took != 35*time.Second || lease.ReplicaID() != 2 {
				t.Errorf("wake %v: served by replica %d after %v", wake, lease.ReplicaID(), took)
			}
			lease.Release()
			if s := m.Status(); s.BadSleeps != 1 || s.Sleepless || s.StartFailures != 0 || s.LastFailure != nil {
				t.Errorf("wake %v: the status is %+v", wake, s)
			}
		})
	}
}

func TestWhatWentWrongTwiceIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: 5 * time.Second}
		var log bytes.Buffer
		m := newTestModel(t, sleepyConfig(), l, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		defer closeModel(t, m)
		for n := range 2 {
			if text := log.String(); strings.Contains(text, "twice in a row") {
				t.Errorf("given up after %d: %s", n, text)
			}
			wait(t, enqueue(t, m, Request{})).Release()
			l.instance(n).failSleep.Store(true)
			time.Sleep(11 * time.Second)
			synctest.Wait()
			wantState(t, m, Cold)
		}
		if text := log.String(); strings.Count(text, "twice in a row") != 1 {
			t.Errorf("the log says %s", text)
		}
		if s := m.Status(); !s.Sleepless || s.BadSleeps != 2 || s.Sleeps != 2 {
			t.Errorf("the status is %+v", s)
		}
		wait(t, enqueue(t, m, Request{})).Release()
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		wantState(t, m, Ready)
		m.Retry()
		synctest.Wait() // it has been idle for long
		wantState(t, m, Asleep)
		if m.Status().Sleepless {
			t.Error("a retry did not end it")
		}
		// A wake that goes well forgets what was before.
		l.instance(2).failWake.Store(true)
		wait(t, enqueue(t, m, Request{})).Release()
		time.Sleep(11 * time.Second)
		wait(t, enqueue(t, m, Request{})).Release()
		l.instance(3).failSleep.Store(true)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if s := m.Status(); s.Sleepless || s.BadSleeps != 4 || s.Wakes != 1 {
			t.Errorf("the status is %+v", s)
		}
	})
}

// A death asleep is no failure of a start: the next request has a cold start at once.
func TestADeathAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: 5 * time.Second}
		m := newTestModel(t, sleepyConfig(), l)
		defer closeModel(t, m)
		wait(t, enqueue(t, m, Request{})).Release()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		wantState(t, m, Asleep)
		l.instance(0).end(errTest)
		synctest.Wait()
		began := time.Now()
		wait(t, enqueue(t, m, Request{})).Release()
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("served after %v", took)
		}
		if s := m.Status(); s.Crashes != 1 || s.BadSleeps != 1 {
			t.Errorf("the status is %+v", s)
		}
	})
}

// Times that a reload shortens hold for replicas that are idle or asleep already.
func TestShorterTimesHoldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sleepyConfig()
		c.SleepAfter = 30 * time.Minute
		m := newTestModel(t, c, &fakeLauncher{takes: 5 * time.Second})
		defer closeModel(t, m)
		update := func(change func(*Config)) {
			t.Helper()
			change(&c)
			if err := m.Update(c, m.owner.launcher, "spec1"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		wait(t, enqueue(t, m, Request{})).Release()
		time.Sleep(time.Minute)
		update(func(c *Config) { c.SleepAfter = 30 * time.Second })
		wantState(t, m, Asleep)
		update(func(c *Config) { c.ScaledownAfter = 2 * time.Minute })
		wantState(t, m, Asleep)
		time.Sleep(time.Minute - time.Nanosecond)
		synctest.Wait()
		wantState(t, m, Asleep)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		wantState(t, m, Cold)
	})
}

func TestWakesAreLearnedAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := OpenDurations("", nil)
		if err != nil {
			t.Fatal(err)
		}
		var heard []Sleep
		m := newTestModel(t, sleepyConfig(), &fakeLauncher{takes: 50 * time.Second, naps: 4 * time.Second}, func(o *Options) {
			o.Durations, o.Observer.Sleep = d, func(s Sleep) { heard = append(heard, s) }
		})
		defer closeModel(t, m)
		wait(t, enqueue(t, m, Request{})).Release()
		time.Sleep(15 * time.Second)
		synctest.Wait()
		// The time of a start would be a lie, and no wake was seen yet.
		if s := m.Status(); s.State != Asleep || s.ETA != 0 || s.Replicas[0].Phase != "" {
			t.Errorf("the status is %+v", s)
		}
		wait(t, enqueue(t, m, Request{})).Release()
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if s := m.Status(); s.Replicas[0].Phase != phaseFalling || s.ETA != 4*time.Second {
			t.Errorf("falling asleep, the status is %+v", s)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s := m.Status(); s.State != Asleep || s.ETA != 4*time.Second {
			t.Errorf("asleep, the status is %+v", s)
		}
		ticket := enqueue(t, m, Request{})
		time.Sleep(time.Second)
		synctest.Wait()
		if s := ticket.Status(); s.State != Asleep || s.Phase != phaseWaking || s.ETA != 3*time.Second {
			t.Errorf("a waiter is told %+v", s)
		}
		if s := m.Status(); s.Replicas[0].ETA != 3*time.Second {
			t.Errorf("waking, the status is %+v", s)
		}
		wait(t, ticket).Release()
		var wakes []bool
		for _, s := range heard {
			wakes = append(wakes, s.Wake)
			if s.Model != "m" || s.Replica != 1 || s.Duration != 4*time.Second || s.Err != nil {
				t.Errorf("heard %+v", s)
			}
		}
		if !slices.Equal(wakes, []bool{false, true, false, true}) {
			t.Errorf("heard wakes %v", wakes)
		}
	})
}

func TestWakesSurviveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "durations.json")
	d, err := OpenDurations(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	of := Subject{Model: "m", Spec: "s"}
	d.RecordWake(of, time.Second) // never started: nobody knows whose it is
	d.Record(of, StartRecord{Total: time.Minute})
	for _, took := range []time.Duration{time.Second, 3 * time.Second, 2 * time.Second, 0, -1} {
		d.RecordWake(of, took)
	}
	d.Record(of, StartRecord{Total: time.Minute}) // another start keeps them
	d.Close()
	if d, err = OpenDurations(path, nil); err != nil {
		t.Fatal(err)
	}
	if got := d.EstimateWake(of); got != 2*time.Second {
		t.Errorf("got %v", got)
	}
	if got := d.EstimateWake(Subject{Model: "m", Spec: "another"}); got != 0 {
		t.Errorf("another spec wakes in %v", got)
	}
	for range 3 * startsKept {
		d.RecordWake(of, time.Minute)
	}
	if got := d.EstimateWake(of); got != time.Minute || len(d.models["m"][0].Wakes) != startsKept {
		t.Errorf("got %v of %d", got, len(d.models["m"][0].Wakes))
	}
	d.Close()
}

// Closing while it falls asleep, sleeps or wakes stops the replica, and tells who waits.
func TestCloseInEachPhaseOfASleep(t *testing.T) {
	for name, at := range map[string]time.Duration{"falling": 12 * time.Second, "asleep": 20 * time.Second, "waking": 31 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			l := &fakeLauncher{takes: 5 * time.Second, naps: 4 * time.Second}
			m := newTestModel(t, sleepyConfig(), l)
			wait(t, enqueue(t, m, Request{})).Release()
			time.Sleep(at)
			var ticket *Ticket
			if name == "waking" {
				ticket = enqueue(t, m, Request{})
				time.Sleep(time.Second)
			}
			synctest.Wait()
			wantState(t, m, Asleep)
			closeModel(t, m)
			if n := l.instance(0).stops.Load(); n != 1 {
				t.Errorf("%s: stopped %d times", name, n)
			}
			if ticket != nil {
				<-ticket.Done()
				if _, err := ticket.Lease(); !errors.Is(err, ErrShuttingDown) {
					t.Errorf("%s: a waiter got %v", name, err)
				}
			}
		})
	}
}
