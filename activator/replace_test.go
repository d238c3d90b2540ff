package activator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// surging is a model with one replica that serves, and may have another beside it while that is replaced.
func surging(t *testing.T, l *fakeLauncher, change ...func(*Options)) (*Model, *fakeInstance) {
	t.Helper()
	c := testConfig()
	c.Surge = true
	m := newTestModel(t, c, l, change...)
	lease := wait(t, enqueue(t, m, Request{}))
	lease.Release()
	return m, l.instance(0)
}

func update(t *testing.T, m *Model, l Launcher, hash string) {
	t.Helper()
	c := testConfig()
	c.Surge = true
	if err := m.Update(c, l, hash); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// serves takes a place at once, and tells whose.
func serves(t *testing.T, m *Model) uint64 {
	t.Helper()
	lease := acquire(t, m)
	defer lease.Release()
	return lease.ReplicaID()
}

func TestOldReplicaServesUntilTheNewOneDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second}
		m, old := surging(t, l)
		defer closeModel(t, m)
		held := acquire(t, m)
		update(t, m, &fakeLauncher{takes: 10 * time.Second}, "spec2")
		time.Sleep(10*time.Second - time.Nanosecond)
		if id := serves(t, m); id != 1 {
			t.Errorf("replica %d serves while its heir starts", id)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if id := serves(t, m); id != 2 {
			t.Errorf("replica %d serves, although its heir does", id)
		}
		if s := m.Status(); len(s.Replicas) != 2 || s.Replicas[0].State != Draining || old.stops.Load() != 0 {
			t.Errorf("got %+v; want the old one to end its request", s)
		}
		held.Release()
		synctest.Wait()
		if s := m.Status(); len(s.Replicas) != 1 || s.Replicas[0].ID != 2 || old.stops.Load() != 1 || old.misused.Load() != 0 {
			t.Errorf("got %+v", s)
		}
		// The next time the first slot is used.
		update(t, m, l, "spec3")
		time.Sleep(time.Second)
		synctest.Wait()
		if s := m.Status(); len(s.Replicas) != 1 || s.Replicas[0].ID != 3 || s.Replicas[0].Slot != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

// What cannot be replaced goes on, and nobody is told of failures that do not concern them.
func TestOldReplicaServesThoughTheNewOneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, old := surging(t, &fakeLauncher{takes: time.Second})
		defer closeModel(t, m)
		bad := &fakeLauncher{takes: time.Second, err: func(int) error { return permanentError{errors.New("wrong flag")} }}
		update(t, m, bad, "spec2")
		time.Sleep(30 * time.Second)
		if id := serves(t, m); id != 1 || bad.count() != 1 {
			t.Errorf("replica %d serves after %d starts", id, bad.count())
		}
		if s := m.Status(); s.RolledBack == nil || !s.RolledBack.Permanent || s.RollBacks != 1 || s.LastFailure != nil {
			t.Errorf("got %+v", s)
		}
		update(t, m, &fakeLauncher{takes: time.Second}, "spec3")
		time.Sleep(time.Second)
		synctest.Wait()
		if id := serves(t, m); id != 3 || old.stops.Load() != 1 {
			t.Errorf("replica %d serves, the old one was stopped %d times", id, old.stops.Load())
		}
	})
}

// An heir that dies while it starts is tried again after the pause.
func TestHeirIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := surging(t, &fakeLauncher{takes: time.Second})
		defer closeModel(t, m)
		flaky := &fakeLauncher{takes: time.Second, err: func(n int) error {
			if n == 1 {
				return errors.New("not today")
			}
			return nil
		}}
		update(t, m, flaky, "spec2")
		time.Sleep(3 * time.Second) // the start, a pause of a second, the start
		synctest.Wait()
		if id := serves(t, m); id != 3 || flaky.count() != 2 {
			t.Errorf("replica %d serves after %d starts", id, flaky.count())
		}
	})
}

// Where there are no devices for both, the old one leaves first.
func TestOldReplicaMakesRoomForTheNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &fakeLedger{free: make(chan struct{}, 2)}
		ledger.free <- struct{}{}
		m, old := surging(t, &fakeLauncher{takes: time.Second}, func(o *Options) { o.Ledger = ledger })
		defer closeModel(t, m)
		update(t, m, &fakeLauncher{takes: time.Second}, "spec2")
		if s := m.Status(); old.stops.Load() != 1 || s.State != Cold || s.LastFailure != nil {
			t.Errorf("stopped %d times: %+v", old.stops.Load(), s)
		}
		lease := wait(t, enqueue(t, m, Request{}))
		if id := lease.ReplicaID(); id != 3 { // 2 was the one without room
			t.Errorf("replica %d serves", id)
		}
		lease.Release()
	})
}

func TestAdoptedReplicaOfAnOldSpecIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.Surge = true
		l := &fakeLauncher{takes: 10 * time.Second}
		found := newFound(4)
		m := newTestModel(t, c, l, adopting(Adopted{ID: 4, Instance: found, Outdated: true}))
		defer closeModel(t, m)
		synctest.Wait()
		if id := serves(t, m); id != 4 || l.count() != 1 {
			t.Errorf("replica %d serves, %d starts", id, l.count())
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if id := serves(t, m); id != 5 || found.stops.Load() != 0 {
			t.Errorf("replica %d serves, the old one was stopped %d times, although somebody's requests may be on it", id, found.stops.Load())
		}
		close(found.settled)
		synctest.Wait()
		if found.stops.Load() != 1 {
			t.Error("the old one was not stopped")
		}
	})
}

// What an earlier gateway was replacing when it died goes on being replaced.
func TestAdoptedReplacementGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.Surge = true
		l := &fakeLauncher{takes: 10 * time.Second}
		old := newFound(4)
		m := newTestModel(t, c, l, adopting(Adopted{ID: 5, Began: time.Now()}, Adopted{ID: 4, Instance: old, Outdated: true}))
		defer closeModel(t, m)
		time.Sleep(9 * time.Second)
		if id := serves(t, m); id != 4 || l.count() != 1 {
			t.Errorf("replica %d serves, %d starts", id, l.count())
		}
		close(old.settled)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := m.Status(); len(s.Replicas) != 1 || s.Replicas[0].ID != 5 || old.stops.Load() != 1 {
			t.Errorf("got %+v", s)
		}
		// One that is there already leaves nothing to wait for.
		fresh, older := newFound(1), newFound(2)
		close(older.settled)
		n := newTestModel(t, c, l, adopting(Adopted{ID: 1, Instance: fresh}, Adopted{ID: 2, Instance: older, Outdated: true}))
		defer closeModel(t, n)
		synctest.Wait()
		if s := n.Status(); len(s.Replicas) != 1 || s.Replicas[0].ID != 1 || older.stops.Load() != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

// Several are replaced one after another, so that there is never more than one too many.
func TestSeveralAreReplacedOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.Min, c.Max, c.Surge = 3, 3, true
		l := &fakeLauncher{takes: time.Second}
		m := newTestModel(t, c, l)
		defer closeModel(t, m)
		time.Sleep(time.Second)
		synctest.Wait()
		if err := m.Update(c, l, "spec2"); err != nil {
			t.Fatal(err)
		}
		for second := range 3 {
			synctest.Wait()
			if s := m.Status(); len(s.Replicas) != 4 {
				t.Errorf("second %d: %d replicas, want 4", second, len(s.Replicas))
			}
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if s := m.Status(); len(s.Replicas) != 3 || l.count() != 6 {
			t.Errorf("%d replicas after %d starts", len(s.Replicas), l.count())
		}
		for i := range 3 {
			if l.instance(i).stops.Load() != 1 {
				t.Errorf("the old replica %d was stopped %d times", i, l.instance(i).stops.Load())
			}
		}
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// Who changes a model and changes it back finds it as it was.
func TestThereAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second}
		m, old := surging(t, l)
		defer closeModel(t, m)
		other := &fakeLauncher{takes: 10 * time.Second}
		for range 5 {
			update(t, m, other, "spec2")
			time.Sleep(5 * time.Second)
			update(t, m, l, "spec1")
			time.Sleep(time.Second)
		}
		time.Sleep(20 * time.Second)
		if id := serves(t, m); id != 1 || l.count() != 1 || old.stops.Load() != 0 {
			t.Errorf("replica %d serves after %d starts", id, l.count())
		}
		if other.count() != 5 || other.cancelled != 5 {
			t.Errorf("%d starts of the other, %d of them cancelled", other.count(), other.cancelled)
		}
		update(t, m, other, "spec2") // and it is replaced like any other
		time.Sleep(10*time.Second - time.Millisecond)
		if id := serves(t, m); id != 1 {
			t.Errorf("replica %d serves before its heir does", id)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if serves(t, m) == 1 || old.stops.Load() != 1 {
			t.Errorf("got %+v", m.Status())
		}
	})
}

// Where the old one had to leave first, it comes back if the new one does not start, and who waits notices nothing.
func TestRollBackWhereNobodyServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second}
		m := newTestModel(t, testConfig(), l)
		defer closeModel(t, m)
		wait(t, enqueue(t, m, Request{})).Release()
		bad := &fakeLauncher{takes: time.Second, err: func(int) error { return errTest }}
		change := func(l Launcher, hash string) {
			if err := m.Update(testConfig(), l, hash); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		change(bad, "spec2")
		wait(t, enqueue(t, m, Request{})).Release()
		s := m.Status()
		if l.count() != 2 || bad.count() != 1 || s.RolledBack == nil || !errors.Is(s.RolledBack.Cause, errTest) || s.LastFailure != nil {
			t.Errorf("%d starts of the old one, %d of the new: %+v", l.count(), bad.count(), s)
		}
		m.Retry() // goes on with what was given up
		synctest.Wait()
		wait(t, enqueue(t, m, Request{})).Release()
		if s := m.Status(); l.count() != 3 || bad.count() != 2 || s.RollBacks != 2 || s.RolledBack == nil {
			t.Errorf("%d starts of the old one, %d of the new: %+v", l.count(), bad.count(), s)
		}
		good := &fakeLauncher{takes: time.Second}
		change(good, "spec3")
		wait(t, enqueue(t, m, Request{})).Release()
		if s := m.Status(); good.count() != 1 || l.count() != 3 || s.RolledBack != nil {
			t.Errorf("%d starts of the mended one: %+v", good.count(), s)
		}
		// What has served once is not given up for what was before.
		change(bad, "spec4")
		wait(t, enqueue(t, m, Request{})).Release()
		change(good, "spec3")
		if s := m.Status(); s.RolledBack != nil {
			t.Errorf("got %+v for what is in force", s)
		}
	})
}

// While the old ones serve, a start that failed is tried again before the change is given up.
func TestRollBackAfterSomeTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		m, old := surging(t, &fakeLauncher{takes: time.Second}, func(o *Options) {
			o.Observer.RollBack = func(model, spec string, err error) { told = append(told, model+" "+spec+" "+err.Error()) }
		})
		bad := &fakeLauncher{takes: time.Second, err: func(int) error { return errTest }}
		update(t, m, bad, "spec2")
		time.Sleep(30 * time.Second)
		if id := serves(t, m); id != 1 || bad.count() != rollTries || old.stops.Load() != 0 {
			t.Errorf("replica %d serves after %d tries", id, bad.count())
		}
		closeModel(t, m)
		if len(told) != 1 || told[0] != "m spec2 "+errTest.Error() {
			t.Errorf("the observer heard %q", told)
		}
	})
}

// Several replicas are replaced one at a time, beside each other where that is possible.
func TestReplicasAreReplacedOneByOne(t *testing.T) {
	for _, surge := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c := testConfig()
			c.Min, c.Max, c.Surge = 3, 3, surge
			l := &fakeLauncher{takes: time.Second}
			m := newTestModel(t, c, l)
			defer closeModel(t, m)
			waitFor(t, m, 3, 10*time.Second)
			fresh := &fakeLauncher{takes: 10 * time.Second}
			if err := m.Update(c, fresh, "spec2"); err != nil {
				t.Fatal(err)
			}
			least, most := 3, 0
			for range 600 {
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
				least, most = min(least, replicasIn(m, Ready)), max(most, replicasIn(m, Starting))
			}
			want := 2
			if surge {
				want = 3
			}
			if least != want || most != 1 || l.count() != 3 || fresh.count() != 3 || replicasIn(m, Ready) != 3 {
				t.Errorf("surge %v: at least %d served, at most %d were starting at a time; %d new ones", surge, least, most, fresh.count())
			}
			for i := range 3 {
				if l.instance(i).stops.Load() != 1 {
					t.Errorf("surge %v: old replica %d was stopped %d times", surge, i, l.instance(i).stops.Load())
				}
			}
		})
	}
}
