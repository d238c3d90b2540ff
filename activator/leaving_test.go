package activator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestCloseTurnsWaitersAwayAndDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second, concurrency: 1}
		m := newTestModel(t, testConfig(), l)
		lease := wait(t, enqueue(t, m, Request{}))
		k := enqueue(t, m, Request{})
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- m.Close(context.Background()) }()
		<-k.Done()
		if _, err := k.Lease(); !errors.Is(err, ErrShuttingDown) {
			t.Errorf("waiter: %v", err)
		}
		synctest.Wait()
		wantState(t, m, Draining)
		if _, ok := m.TryAcquire(); ok {
			t.Error("a draining replica was entered")
		}
		if _, err := m.Enqueue(Request{}); !errors.Is(err, ErrShuttingDown) {
			t.Errorf("arrival: %v", err)
		}
		time.Sleep(time.Minute)
		lease.Release()
		if err := <-closed; err != nil {
			t.Errorf("close: %v", err)
		}
		if i := l.instance(0); !i.idleStop.Load() || i.stops.Load() != 1 {
			t.Error("want one stop, as idle")
		}
		if _, err := m.Enqueue(Request{}); !errors.Is(err, ErrShuttingDown) {
			t.Errorf("after the end: %v", err)
		}
		if err := m.Preempt(context.Background(), 1); err == nil {
			t.Error("preempted after the end")
		}
		if err := m.Close(context.Background()); err != nil { // again
			t.Error(err)
		}
	})
}

func TestCloseCutsOffWhatDoesNotEnd(t *testing.T) {
	for _, tt := range []struct {
		name        string
		drain, ends time.Duration // of ctx; 0: never
		want        time.Duration
		err         error
	}{
		{"by the drain time", time.Minute, 0, time.Minute, nil},
		{"by the context", time.Minute, 5 * time.Second, 5 * time.Second, context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testConfig()
				c.DrainTimeout = tt.drain
				l := &fakeLauncher{takes: time.Second}
				m := newTestModel(t, c, l)
				lease := wait(t, enqueue(t, m, Request{}))
				ctx := context.Background()
				if tt.ends > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.ends)
					defer cancel()
				}
				began := time.Now()
				if err := m.Close(ctx); !errors.Is(err, tt.err) {
					t.Errorf("close: %v", err)
				}
				if took := time.Since(began); took != tt.want {
					t.Errorf("took %v, want %v", took, tt.want)
				}
				if l.instance(0).idleStop.Load() {
					t.Error("stopped as idle with a request in flight")
				}
				lease.Release()
			})
		})
	}
}

func TestCloseCancelsAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Hour}
		m := newTestModel(t, testConfig(), l)
		enqueue(t, m, Request{})
		synctest.Wait()
		began := time.Now()
		closeModel(t, m)
		if l.cancelled != 1 || time.Since(began) != 0 {
			t.Errorf("%d cancelled after %v", l.cancelled, time.Since(began))
		}
	})
}

func TestUnloadServesTheQueueFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: 20 * time.Second, concurrency: 1}
		m := newTestModel(t, testConfig(), l)
		a, b := enqueue(t, m, Request{}), enqueue(t, m, Request{})
		unloaded := make(chan error, 1)
		go func() { unloaded <- m.Unload(context.Background()) }()
		synctest.Wait()
		if _, err := m.Enqueue(Request{}); !errors.Is(err, ErrUnloaded) {
			t.Errorf("arrival: %v", err)
		}
		for _, k := range []*Ticket{a, b} {
			lease := wait(t, k)
			time.Sleep(time.Second)
			lease.Release()
		}
		if err := <-unloaded; err != nil {
			t.Error(err)
		}
		if _, err := m.Enqueue(Request{}); !errors.Is(err, ErrUnloaded) {
			t.Errorf("after the end: %v", err)
		}
		if l.count() != 1 || l.instance(0).stops.Load() != 1 {
			t.Errorf("%d starts", l.count())
		}
	})
}

func TestUnloadEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.DrainTimeout = 10 * time.Second
		l := &fakeLauncher{takes: time.Second, concurrency: 1}
		m := newTestModel(t, c, l)
		lease := wait(t, enqueue(t, m, Request{}))
		k := enqueue(t, m, Request{})
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := m.Unload(ctx); !errors.Is(err, context.DeadlineExceeded) { // goes on without us
			t.Errorf("unload: %v", err)
		}
		<-m.Gone()
		if took := time.Since(began); took != c.DrainTimeout {
			t.Errorf("took %v", took)
		}
		if _, err := k.Lease(); !errors.Is(err, ErrUnloaded) {
			t.Errorf("waiter: %v", err)
		}
		lease.Release()
	})
}

func TestNewSpecReplacesReplicasAndKeepsPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := &fakeLauncher{takes: time.Minute, concurrency: 1}
		m := newTestModel(t, testConfig(), old)
		defer closeModel(t, m)
		update := func(l Launcher, hash string) {
			t.Helper()
			if err := m.Update(testConfig(), l, hash); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		// While it starts: the start is done over, and who waits keeps the place.
		a, b := enqueue(t, m, Request{}), enqueue(t, m, Request{})
		time.Sleep(time.Second)
		newer := &fakeLauncher{takes: time.Second, concurrency: 1}
		update(newer, "spec2")
		if old.cancelled != 1 {
			t.Errorf("%d starts cancelled", old.cancelled)
		}
		lease := wait(t, a)
		select {
		case <-b.Done():
			t.Error("two at once")
		default:
		}
		// The same spec with another launcher and other limits touches no replica.
		update(newer, "spec2")
		wantState(t, m, Ready)
		// While it is busy: it drains; the next one waits for the slot.
		newest := &fakeLauncher{takes: time.Second, concurrency: 1}
		update(newest, "spec3")
		wantState(t, m, Draining)
		time.Sleep(time.Minute)
		if newest.count() != 0 {
			t.Error("started beside the old one")
		}
		lease.Release()
		next := wait(t, b)
		if next.Instance() != newest.instance(0) || !newer.instance(0).idleStop.Load() {
			t.Error("not served by the new spec")
		}
		next.Release()
		// While it is idle, without demand: it goes, and none comes.
		update(old, "spec4")
		wantState(t, m, Cold)
		if old.count() != 1 {
			t.Error("started without demand")
		}
	})
}

func TestUpdateChangesLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.Concurrency = 1
		l := &fakeLauncher{takes: time.Second}
		m := newTestModel(t, c, l)
		defer closeModel(t, m)
		first := wait(t, enqueue(t, m, Request{}))
		k := enqueue(t, m, Request{})
		synctest.Wait()
		c.Concurrency = 2
		if err := m.Update(c, l, "spec1"); err != nil {
			t.Fatal(err)
		}
		second := wait(t, k)
		if l.count() != 1 {
			t.Errorf("%d starts", l.count())
		}
		first.Release()
		second.Release()
		c.Max = 0
		if err := m.Update(c, l, "spec1"); err == nil {
			t.Error("a configuration without replicas was taken")
		}
	})
}

func TestNewRefusesNonsense(t *testing.T) {
	good := DefaultConfig()
	for name, change := range map[string]func(*Options){
		"no name":     func(o *Options) { o.Name = "" },
		"no launcher": func(o *Options) { o.Launcher = nil },
		"min":         func(o *Options) { o.Config.Min = 2 },
		"max":         func(o *Options) { o.Config.Max = 0 },
		"time":        func(o *Options) { o.Config.DrainTimeout = -1 },
		"backoff":     func(o *Options) { o.Config.BackoffMax = 0 },
		"limit":       func(o *Options) { o.Config.Concurrency = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Name: "m", Launcher: &fakeLauncher{}, Config: good}
			change(&o)
			if _, err := New(o); err == nil {
				t.Error("taken")
			}
		})
	}
}
