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
		if f := m.Status().LastFailure; f == nil || !f.Permanent {
			t.Errorf("got failure %+v", f)
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
