package activator

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second, concurrency: 1}
		c := testConfig()
		m := newTestModel(t, c, l, func(*Options) {})
		defer closeModel(t, m)
		lease := wait(t, enqueue(t, m, Request{}))
		id := lease.ReplicaID()
		if n := m.InFlight(id); n != 1 || m.InFlight(id+1) != 0 {
			t.Errorf("%d in flight, and %d at a stranger", n, m.InFlight(id+1))
		}
		if _, ok := m.Hold(id + 1); ok {
			t.Error("a stranger is held")
		}
		release, ok := m.Hold(id) // beyond its limit of one
		if !ok {
			t.Fatal("a busy replica is not held")
		}
		lease.Release()
		// Held, it is not idle, however long ago the last request was.
		time.Sleep(3 * c.ScaledownAfter)
		synctest.Wait()
		wantState(t, m, Ready)
		release()
		// The hold was no activity: its idle time is over long since.
		time.Sleep(time.Second)
		synctest.Wait()
		wantState(t, m, Cold)
		if _, ok := m.Hold(id); ok {
			t.Error("a replica that is gone is held")
		}
		// One without requests is not held.
		lease = wait(t, enqueue(t, m, Request{}))
		id = lease.ReplicaID()
		lease.Release()
		if _, ok := m.Hold(id); ok || m.InFlight(id) != 0 {
			t.Error("an idle replica is held")
		}
	})
}
