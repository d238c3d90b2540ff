package activator

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// failed takes the *StartFailedError out of a ticket.
func failed(t *testing.T, k *Ticket) *StartFailedError {
	t.Helper()
	<-k.Done()
	_, err := k.Lease()
	var f *StartFailedError
	if !errors.As(err, &f) {
		t.Fatalf("got %v, want a failed start", err)
	}
	return f
}

func TestIdleReplicaGoesExactlyWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second}
		m := newTestModel(t, testConfig(), l)
		defer closeModel(t, m)

		// Nobody came: counted from ready.
		enqueue(t, m, Request{}).Cancel()
		time.Sleep(time.Second + time.Minute - time.Nanosecond)
		synctest.Wait()
		wantState(t, m, Ready)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		wantState(t, m, Cold)
		if i := l.instance(0); i.stops.Load() != 1 || !i.idleStop.Load() {
			t.Error("want one stop, as idle")
		}

		// Somebody came: counted from the end of the last response, of two that overlap.
		first := wait(t, enqueue(t, m, Request{}))
		time.Sleep(2 * time.Minute)
		second := acquire(t, m)
		first.Release()
		time.Sleep(30 * time.Second)
		second.Release()
		time.Sleep(time.Minute - time.Nanosecond)
		synctest.Wait()
		wantState(t, m, Ready)

		// At the last instant somebody comes: the eviction is off.
		last := acquire(t, m)
		time.Sleep(time.Hour)
		synctest.Wait()
		wantState(t, m, Ready)
		last.Release()
		time.Sleep(time.Minute)
		synctest.Wait()
		wantState(t, m, Cold)
		if s := m.Status(); s.Evictions != 2 || s.Starts != 2 || s.Ignored != 0 {
			t.Errorf("counters: %+v", s.Counters)
		}
	})
}

func TestMinimumIsStartedAtOnceAndReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.Min, c.Max = 2, 3
		l := &fakeLauncher{takes: time.Second}
		m := newTestModel(t, c, l)
		defer closeModel(t, m)
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := m.Status(); len(s.Replicas) != 2 || s.State != Ready {
			t.Fatalf("after an hour: %+v", s)
		}
		acquire(t, m).Release()
		l.instance(0).end(errTest)
		synctest.Wait()
		time.Sleep(2 * time.Second) // it may not have served: a pause
		synctest.Wait()
		if s := m.Status(); len(s.Replicas) != 2 || s.Crashes != 1 || s.Starts != 3 || !errors.Is(s.LastFailure.Cause, errTest) {
			t.Errorf("after a crash: %+v", s)
		}
	})
}

func TestFailedStartsAreToldAtOnceAndBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.BackoffMin, c.BackoffMax = time.Second, 30*time.Second
		var good atomic.Bool
		l := &fakeLauncher{takes: 2 * time.Second, err: func(int) error {
			if good.Load() {
				return nil
			}
			return errTest
		}}
		m := newTestModel(t, c, l)
		defer closeModel(t, m)
		for i, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			pause *= time.Second
			began := time.Now()
			a, b := enqueue(t, m, Request{}), enqueue(t, m, Request{})
			for _, k := range []*Ticket{a, b} {
				if f := failed(t, k); !errors.Is(f, errTest) || f.Permanent || f.RetryAfter != pause || f.Model != "m" {
					t.Fatalf("failure %d: %+v, want a pause of %v", i, f, pause)
				}
			}
			if time.Since(began) > 2*time.Second+patience {
				t.Fatalf("told after %v", time.Since(began))
			}
			synctest.Wait()
			wantState(t, m, Failed)
			if pause <= patience { // those who come now wait for the end of it: the next round does
				time.Sleep(pause / 2)
				continue
			}
			// Too long to wait for: refused at once, with the rest.
			time.Sleep(pause - patience - time.Second)
			var f *StartFailedError
			if _, err := m.Enqueue(Request{}); !errors.As(err, &f) || f.RetryAfter != patience+time.Second || !errors.Is(err, errTest) {
				t.Fatalf("refusal: %v %+v", err, f)
			}
			time.Sleep(time.Second)
		}
		if n := l.count(); n != 7 {
			t.Errorf("%d starts, want 7", n)
		}
		good.Store(true)
		wait(t, enqueue(t, m, Request{})).Release()
		if s := m.Status(); s.StartFailures != 7 || s.LastFailure.Count != 7 {
			t.Errorf("status: %+v", s)
		}
		// A replica that served well makes the failures history.
		time.Sleep(2 * time.Minute)
		good.Store(false)
		if f := failed(t, enqueue(t, m, Request{})); f.RetryAfter != time.Second {
			t.Errorf("pause %v after a good replica, want the shortest", f.RetryAfter)
		}
	})
}

func TestPermanentFailureWaitsForAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := &fakeLauncher{takes: time.Second, err: func(int) error { return permanentError{errTest} }}
		m := newTestModel(t, testConfig(), bad)
		defer closeModel(t, m)
		if f := failed(t, enqueue(t, m, Request{})); !f.Permanent || f.RetryAfter != 0 {
			t.Errorf("failure: %+v", f)
		}
		refused := func() {
			t.Helper()
			time.Sleep(24 * time.Hour)
			var f *StartFailedError
			if _, err := m.Enqueue(Request{}); !errors.As(err, &f) || !f.Permanent {
				t.Errorf("got %v, want the permanent failure", err)
			}
		}
		refused()
		if err := m.Update(testConfig(), bad, "spec1"); err != nil { // nothing that matters has changed
			t.Fatal(err)
		}
		synctest.Wait()
		refused()
		m.Retry()
		synctest.Wait()
		failed(t, enqueue(t, m, Request{}))
		if n := bad.count(); n != 2 {
			t.Errorf("%d starts, want one more after Retry", n)
		}
		refused()
		if err := m.Update(testConfig(), &fakeLauncher{takes: time.Second}, "spec2"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wait(t, enqueue(t, m, Request{})).Release()
	})
}

func TestCrashKeepsWaitersAndRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second, concurrency: 1}
		m := newTestModel(t, testConfig(), l)
		defer closeModel(t, m)
		wait(t, enqueue(t, m, Request{})).Release()
		victim := acquire(t, m)
		k := enqueue(t, m, Request{})
		synctest.Wait()
		began := time.Now()
		l.instance(0).end(errTest)
		lease := wait(t, k)
		if lease.ReplicaID() != 2 || time.Since(began) != time.Second || !lease.Cold() {
			t.Errorf("served by replica %d after %v", lease.ReplicaID(), time.Since(began))
		}
		victim.Release() // late, of a replica that is long gone
		lease.Release()
		if n := l.instance(0).stops.Load(); n != 1 {
			t.Errorf("the crashed replica was swept %d times", n)
		}

		// Crashes before anything was served count as failed starts; waiters stay while the pause is short.
		time.Sleep(2 * time.Minute)
		for i, pause := range []time.Duration{1, 2, 4} {
			enqueue(t, m, Request{}).Cancel() // the start goes on without it
			time.Sleep(time.Second)
			synctest.Wait()
			wantState(t, m, Ready)
			l.instance(2 + i).end(errTest)
			synctest.Wait()
			if s := m.Status(); s.LastFailure.Count != i+1 || time.Until(s.LastFailure.RetryAt) != pause*time.Second {
				t.Errorf("crash %d: %+v, in %v", i, s.LastFailure, time.Until(s.LastFailure.RetryAt))
			}
			k := enqueue(t, m, Request{})
			time.Sleep(pause*time.Second - 1)
			synctest.Wait()
			wantState(t, m, Failed)
			k.Cancel()
			time.Sleep(1)
		}
		wait(t, enqueue(t, m, Request{})).Release()
	})
}

func TestSleepLadder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.SleepAfter, c.ScaledownAfter = 10*time.Second, time.Minute
		l := &fakeLauncher{takes: 5 * time.Second, naps: 100 * time.Millisecond}
		m := newTestModel(t, c, l)
		defer closeModel(t, m)
		wait(t, enqueue(t, m, Request{})).Release()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		wantState(t, m, Asleep)
		if _, ok := m.TryAcquire(); ok {
			t.Fatal("a sleeping replica was entered")
		}
		began := time.Now()
		lease := wait(t, enqueue(t, m, Request{}))
		if time.Since(began) != 100*time.Millisecond || l.count() != 1 || !lease.Cold() {
			t.Errorf("woken after %v, %d starts", time.Since(began), l.count())
		}
		lease.Release()
		// A request that comes while it falls asleep waits for that, and wakes it.
		time.Sleep(10*time.Second + 50*time.Millisecond)
		synctest.Wait()
		began = time.Now()
		wait(t, enqueue(t, m, Request{})).Release()
		if time.Since(began) != 150*time.Millisecond {
			t.Errorf("asleep and awake again after %v", time.Since(began))
		}
		// Idle for long: gone.
		time.Sleep(time.Minute - time.Nanosecond)
		synctest.Wait()
		wantState(t, m, Asleep)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		wantState(t, m, Cold)

		// A wake that fails ends in a cold start, with nobody lost.
		wait(t, enqueue(t, m, Request{})).Release()
		l.instance(1).failWake.Store(true)
		time.Sleep(20 * time.Second)
		lease = wait(t, enqueue(t, m, Request{}))
		if lease.ReplicaID() != 3 {
			t.Errorf("served by replica %d", lease.ReplicaID())
		}
		lease.Release()
		// So does a sleep that fails.
		l.instance(2).failSleep.Store(true)
		time.Sleep(10*time.Second + 50*time.Millisecond)
		lease = wait(t, enqueue(t, m, Request{}))
		if lease.ReplicaID() != 4 {
			t.Errorf("served by replica %d", lease.ReplicaID())
		}
		lease.Release()
		for i := range 4 {
			if n := l.instance(i).misused.Load(); n != 0 {
				t.Errorf("replica %d was misused %d times", i, n)
			}
		}
	})
}

// fakeLedger grants what is free, and remembers.
type fakeLedger struct {
	free   chan struct{}
	denied error
}

func (f *fakeLedger) ReserveNow(string, uint64) error { return ErrNoRoom }

func (f *fakeLedger) Room(string, int) int { return 0 }

func (f *fakeLedger) Reserve(ctx context.Context, _ string, _ uint64, because func(string)) error {
	if f.denied != nil {
		return f.denied
	}
	select {
	case <-f.free:
		return nil
	default:
		because("held by somebody")
	}
	select {
	case <-f.free:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fakeLedger) Release(string, uint64) { f.free <- struct{}{} }

func TestDevicesArePreemptedOnlyFromTheIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &fakeLedger{free: make(chan struct{}, 1)}
		ledger.free <- struct{}{}
		share := func(o *Options) { o.Ledger = ledger }
		l := &fakeLauncher{takes: time.Second}
		a, b := newTestModel(t, testConfig(), l, share), newTestModel(t, testConfig(), l, share)
		defer closeModel(t, b)
		defer closeModel(t, a)
		ctx := context.Background()
		lease := wait(t, enqueue(t, a, Request{}))
		k := enqueue(t, b, Request{})
		time.Sleep(time.Second)
		synctest.Wait()
		if s := k.Status(); s.State != Starting || s.Phase != "queued" || s.Reason != "held by somebody" {
			t.Errorf("without devices: %+v", s)
		}
		if err := a.Preempt(ctx, lease.ReplicaID()); !errors.Is(err, ErrBusy) {
			t.Errorf("preempting a busy replica: %v", err)
		}
		lease.Release()
		if err := a.Preempt(ctx, 99); !errors.Is(err, ErrNoReplica) {
			t.Errorf("preempting nothing: %v", err)
		}
		if err := a.Preempt(ctx, 1); err != nil {
			t.Errorf("preempting an idle replica: %v", err)
		}
		last := wait(t, k)
		synctest.Wait() // the place is given before the state is published
		if s := k.Status(); s.Reason != "" || s.State != Ready {
			t.Errorf("with devices: %+v", s)
		}
		last.Release()
		wantState(t, a, Cold)
		if s := a.Status(); s.Preemptions != 1 {
			t.Errorf("counters: %+v", s.Counters)
		}
		// A refusal is a failed start.
		ledger.denied = errTest
		if f := failed(t, enqueue(t, a, Request{})); !errors.Is(f, errTest) {
			t.Errorf("denied: %v", f)
		}
	})
}

func TestABusyReplicaYieldsWithoutLosingARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &fakeLedger{free: make(chan struct{}, 1)}
		ledger.free <- struct{}{}
		l := &fakeLauncher{takes: time.Second, concurrency: 1}
		a := newTestModel(t, testConfig(), l, func(o *Options) { o.Ledger = ledger })
		defer closeModel(t, a)
		ctx := context.Background()
		lease := wait(t, enqueue(t, a, Request{}))
		waiting := enqueue(t, a, Request{})
		if err := a.Yield(ctx, 99); !errors.Is(err, ErrNoReplica) {
			t.Errorf("yielding nothing: %v", err)
		}
		if err := a.Yield(ctx, 1); err != nil {
			t.Fatalf("yielding a busy replica: %v", err)
		}
		// Much longer than testConfig's DrainTimeout: nobody is cut for another model's sake.
		time.Sleep(time.Hour)
		synctest.Wait()
		wantState(t, a, Draining)
		if l.instance(0).stops.Load() != 0 {
			t.Error("stopped with a request in flight")
		}
		if err := a.Yield(ctx, 1); !errors.Is(err, ErrBusy) {
			t.Errorf("yielding again: %v", err)
		}
		lease.Release()
		wait(t, waiting).Release() // on another one
		if l.count() != 2 || l.instance(0).stops.Load() != 1 || l.instance(0).misused.Load() != 0 {
			t.Errorf("%d starts, %d stops", l.count(), l.instance(0).stops.Load())
		}
		// One that drains for another's sake does not outlive its own end.
		busy := acquire(t, a)
		if err := a.Yield(ctx, 2); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := a.Unload(ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != testConfig().DrainTimeout {
			t.Errorf("unloading took %v, want the drain's time", took)
		}
		busy.Release()
	})
}

func TestAStartThatNobodyWantsAnyMoreIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &fakeLedger{free: make(chan struct{}, 1), denied: fmt.Errorf("waited: %w", ErrUnwanted)}
		m := newTestModel(t, testConfig(), &fakeLauncher{takes: time.Second}, func(o *Options) { o.Ledger = ledger })
		defer closeModel(t, m)
		enqueue(t, m, Request{}).Cancel()
		synctest.Wait()
		if s := m.Status(); s.State != Cold || s.LastFailure != nil || s.StartFailures != 0 || s.Starts != 1 {
			t.Errorf("got %+v", s)
		}
	})
}
