package activator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// foundInstance is a replica of an earlier gateway. It settles when it is told to.
type foundInstance struct {
	fakeInstance
	settled chan struct{}
}

func newFound(id uint64) *foundInstance {
	return &foundInstance{fakeInstance: fakeInstance{id: id, concurrency: 2, exited: make(chan struct{})}, settled: make(chan struct{})}
}

func (f *foundInstance) Settle(ctx context.Context) error {
	select {
	case <-f.settled:
		return nil
	case <-f.exited:
		return errors.New("gone")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func adopting(found ...Adopted) func(*Options) { return func(o *Options) { o.Adopted = found } }

func TestAdoptedReplicaIsNotIdleBeforeItIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second}
		found := newFound(41)
		m := newTestModel(t, testConfig(), l, adopting(Adopted{ID: 41, Instance: found}))
		defer closeModel(t, m)
		lease := acquire(t, m)
		if lease.Instance() != found || lease.ReplicaID() != 41 {
			t.Errorf("lease of replica %d", lease.ReplicaID())
		}
		lease.Release()
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := m.Status(); s.State != Ready || !s.Replicas[0].Unknown || s.Replicas[0].Limit != 2 {
			t.Fatalf("adopted: %+v", s)
		}
		if err := m.Preempt(context.Background(), 41); !errors.Is(err, ErrBusy) {
			t.Errorf("preempting the unknown: %v", err)
		}
		close(found.settled)
		time.Sleep(time.Minute - time.Nanosecond)
		synctest.Wait()
		wantState(t, m, Ready)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		wantState(t, m, Cold)
		if found.stops.Load() != 1 || l.count() != 0 {
			t.Error("not stopped, or another was started")
		}
		lease = wait(t, enqueue(t, m, Request{}))
		if lease.ReplicaID() != 42 {
			t.Errorf("the next one is replica %d", lease.ReplicaID())
		}
		lease.Release()
	})
}

// A replica that cannot tell is taken to be idle, or it would stay for ever.
func TestAdoptedReplicaThatCannotTellIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		found := &fakeInstance{id: 3, exited: make(chan struct{})}
		m := newTestModel(t, testConfig(), &fakeLauncher{}, adopting(Adopted{ID: 3, Instance: found}))
		defer closeModel(t, m)
		time.Sleep(time.Minute)
		synctest.Wait()
		wantState(t, m, Cold)
	})
}

// Several are taken over before any is started in their place.
func TestAdoptedReplicasAreNotDoubled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.Min, c.Max = 3, 3
		l := &fakeLauncher{takes: time.Second}
		m := newTestModel(t, c, l, adopting(Adopted{ID: 7, Instance: newFound(7)}, Adopted{ID: 9, Instance: newFound(9)}))
		defer closeModel(t, m)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := m.Status(); l.count() != 1 || len(s.Replicas) != 3 || s.Replicas[0].ID != 7 || s.Replicas[1].ID != 9 || s.Replicas[2].ID != 10 {
			t.Errorf("got %d starts, %+v; want the one that is missing", l.count(), s)
		}
	})
}

// A start that an earlier gateway began goes on: whoever waits gets its replica, and its times, of which a part was not seen, teach nothing.
func TestStartOfAnEarlierGatewayGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second, phases: []string{"weights"}}
		learned, err := OpenDurations(t.TempDir()+"/durations.json", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer learned.Close()
		m := newTestModel(t, testConfig(), l, adopting(Adopted{ID: 5, Began: time.Now().Add(-time.Minute)}), func(o *Options) { o.Durations = learned })
		defer closeModel(t, m)
		synctest.Wait()
		wantState(t, m, Starting)
		lease := wait(t, enqueue(t, m, Request{}))
		if lease.ReplicaID() != 5 || l.count() != 1 || l.starts[0].ID != 5 {
			t.Errorf("lease of replica %d after %d starts", lease.ReplicaID(), l.count())
		}
		lease.Release()
		if _, known := learned.Estimate(Subject{Model: "m", Spec: "spec1"}); known {
			t.Error("a start that was seen in part was learned from")
		}
	})
}

func TestAdoptedReplicaThatDiesIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second}
		found := newFound(1)
		m := newTestModel(t, testConfig(), l, adopting(Adopted{ID: 1, Instance: found}))
		defer closeModel(t, m)
		found.end(errors.New("crashed"))
		synctest.Wait()
		lease := wait(t, enqueue(t, m, Request{}))
		if lease.ReplicaID() != 2 {
			t.Errorf("lease of replica %d", lease.ReplicaID())
		}
		lease.Release()
	})
}

func TestNewRefusesWhatItCannotAdopt(t *testing.T) {
	for name, found := range map[string][]Adopted{
		"without id": {{}}, "twice": {{ID: 1}, {ID: 1}}, "too many": {{ID: 1}, {ID: 2}},
	} {
		if _, err := New(Options{Name: "m", Config: testConfig(), Launcher: &fakeLauncher{}, Adopted: found}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
