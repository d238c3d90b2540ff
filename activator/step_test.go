package activator

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// machineIn brings a machine with one slot into a state, the way that leads there.
func machineIn(t *testing.T, state State) machine {
	t.Helper()
	c := testConfig()
	c.SleepAfter = time.Second
	m := newMachine(c, false, 1)
	k := &Ticket{}
	steps := map[State][]event{
		Cold:     {},
		Starting: {{kind: evArrive, ticket: k}},
		Ready:    {{kind: evArrive, ticket: k}, {kind: evStarted, id: 1}, {kind: evGranted, ticket: k}},
	}
	steps[Asleep] = append(slices.Clone(steps[Ready]), event{kind: evTick}, event{kind: evObserved, id: 1, since: 1}, event{kind: evFenced, id: 1, ok: true}, event{kind: evSlept, id: 1})
	steps[Draining] = append(slices.Clone(steps[Ready]), event{kind: evUpdate, change: &change{config: c, spec: 2}}, event{kind: evClosed, id: 1, word: 1})
	steps[Stopping] = append(slices.Clone(steps[Draining]), event{kind: evPoke}, event{kind: evObserved, id: 1})
	steps[Failed] = append(slices.Clone(steps[Starting]), event{kind: evFailed, id: 1, err: errLaunchEnd})
	now := moment(1)
	for _, e := range steps[state] {
		if e.kind == evTick {
			now += time.Second
		}
		m.step(e, now)
	}
	if got := m.slots[0].state; got != state {
		t.Fatalf("the way to %v leads to %v", state, got)
	}
	return m
}

// TestTable is the table of state.go: what each event makes of a slot in each state.
func TestTable(t *testing.T) {
	newSpec := event{kind: evUpdate, change: &change{config: testConfig(), spec: 2}}
	look := func(m *machine) { // as if somebody had asked
		m.slots[0].look = lookFence
		m.slots[0].idleSince = 1
	}
	for _, tt := range []struct {
		name   string
		before func(*machine)
		event  event
		want   string // by state, in order: cold starting ready asleep draining stopping failed
	}{
		{"started", nil, event{kind: evStarted, id: 1}, "cold ready ready asleep draining stopping failed"},
		{"failed", nil, event{kind: evFailed, id: 1, err: errLaunchEnd}, "cold failed ready asleep draining stopping failed"},
		{"fenced", look, event{kind: evFenced, id: 1, ok: true}, "cold starting asleep asleep draining stopping failed"},
		{"not fenced", look, event{kind: evFenced, id: 1}, "cold starting ready asleep draining stopping failed"},
		{"slept", nil, event{kind: evSlept, id: 1}, "cold starting ready asleep draining stopping failed"},
		{"not slept", func(m *machine) {
			if m.slots[0].state == Asleep {
				m.slots[0].work = workSleep
			}
		}, event{kind: evSlept, id: 1, err: errSleep}, "cold starting ready stopping draining stopping failed"},
		{"woken", func(m *machine) {
			if m.slots[0].state == Asleep {
				m.slots[0].work = workWake
			}
		}, event{kind: evWoken, id: 1}, "cold starting ready ready draining stopping failed"},
		{"stopped", nil, event{kind: evStopped, id: 1}, "cold starting ready asleep draining cold failed"},
		{"exited", nil, event{kind: evExited, id: 1, ok: true, err: errCrash}, "cold starting failed failed failed stopping failed"},
		{"request", nil, event{kind: evArrive, ticket: &Ticket{}}, "starting starting ready asleep draining stopping failed"},
		{"new spec", nil, newSpec, "cold starting ready stopping draining stopping cold"},
		{"close", nil, event{kind: evClose}, "cold starting ready stopping draining stopping cold"},
		{"poke", nil, event{kind: evPoke}, "cold starting ready asleep draining stopping failed"},
		{"retry", nil, event{kind: evRetry}, "cold starting ready asleep draining stopping cold"},
		{"tick much later", nil, event{kind: evTick}, "cold starting ready stopping stopping stopping failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for state, want := range strings.Fields(tt.want) {
				m := machineIn(t, State(state))
				if tt.before != nil {
					tt.before(&m)
				}
				now := moment(2 * time.Second)
				if tt.name == "tick much later" {
					now = time.Hour
				}
				m.step(tt.event, now)
				if got := m.slots[0].state.String(); got != want {
					t.Errorf("%v becomes %s, want %s", State(state), got, want)
				}
			}
		})
	}
}

func TestStopThatFailsIsTriedThreeTimes(t *testing.T) {
	m := machineIn(t, Stopping)
	now := moment(2 * time.Second)
	for try := 1; try <= stopTries; try++ {
		effects := m.step(event{kind: evStopped, id: 1, err: errStop}, now)
		if try == stopTries {
			break
		}
		if slices.ContainsFunc(effects, func(f effect) bool { return f.kind == effStop }) || m.nextDeadline(now) != now+stopPause {
			t.Fatalf("try %d: no pause", try)
		}
		now += stopPause
		if effects = m.step(event{kind: evTick}, now); !slices.ContainsFunc(effects, func(f effect) bool { return f.kind == effStop }) {
			t.Fatalf("try %d was the last", try)
		}
	}
	if got := m.slots[0].state; got != Cold {
		t.Errorf("in the end: %v", got)
	}
}

func TestShrinkingAndGrowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.Min, c.Max = 3, 3
		l := &fakeLauncher{takes: time.Second}
		m := newTestModel(t, c, l)
		defer closeModel(t, m)
		time.Sleep(time.Second)
		synctest.Wait()
		lease := acquire(t, m)
		for _, n := range []int{1, 4, 2} {
			c.Min, c.Max = n, n
			if err := m.Update(c, l, "spec1"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			ready := 0
			for _, r := range m.Status().Replicas {
				if r.State == Ready {
					ready++
				} else if r.State != Draining || r.InFlight != 1 {
					t.Errorf("at %d: %+v", n, r)
				}
			}
			if ready != n {
				t.Errorf("%d ready, want %d", ready, n)
			}
			lease.Release()
			synctest.Wait()
		}
	})
}

// oddLauncher returns neither a replica nor an error.
type oddLauncher struct{}

func (oddLauncher) Launch(context.Context, Start, func(Progress)) (Instance, error) { return nil, nil }

func TestLauncherThatReturnsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTestModel(t, testConfig(), oddLauncher{})
		defer closeModel(t, m)
		if f := failed(t, enqueue(t, m, Request{})); !strings.Contains(f.Error(), "neither") {
			t.Errorf("got %v", f)
		}
	})
}

// wants is a Hint that wants one replica, if it has room, and notes what it is told.
type wants struct {
	id     uint64 // 0: no preference; 99: nonsense
	placed []uint64
	left   int
}

func (w *wants) Pick(choices Choices) int {
	if w.id == 99 {
		return 99
	}
	for i := range choices.Len() {
		if at := choices.At(i); at.ReplicaID == w.id && at.InFlight < at.Limit && at.Instance != nil {
			return i
		}
	}
	return -1
}

func (w *wants) Placed(id uint64) { w.placed = append(w.placed, id) }
func (w *wants) Left()            { w.left++ }

func TestHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.Min, c.Max, c.Concurrency = 3, 3, 1
		m := newTestModel(t, c, &fakeLauncher{takes: time.Second})
		defer closeModel(t, m)
		time.Sleep(time.Second)
		synctest.Wait()
		if m.Open() != 3 {
			t.Fatalf("%d replicas are open", m.Open())
		}
		var leases []*Lease
		hints := []*wants{{id: 2}, {id: 2}, {id: 99}}
		for i, hint := range hints {
			lease, ok := m.TryAcquireFor(hint)
			if !ok || !lease.Held() || (lease.ReplicaID() == 2) != (i == 0) {
				t.Fatalf("lease %d: %v, replica %d", i, ok, lease.ReplicaID())
			}
			if len(hint.placed) != 1 || hint.placed[0] != lease.ReplicaID() || hint.left != 0 {
				t.Errorf("lease %d on %d was told %+v", i, lease.ReplicaID(), hint)
			}
			leases = append(leases, &lease)
		}
		refused := &wants{id: 1}
		if _, ok := m.TryAcquireFor(refused); ok || len(refused.placed) != 0 || refused.left != 1 {
			t.Errorf("with all full: %v, told %+v", ok, refused)
		}
		if _, there := m.TryAcquireOn(2, refused); !there || len(refused.placed) != 0 {
			t.Errorf("a replica that is full: there %v, told %+v", there, refused)
		}
		queued, gone := &wants{id: 2}, &wants{id: 2}
		k := enqueue(t, m, Request{Hint: queued})
		other := enqueue(t, m, Request{Hint: gone})
		synctest.Wait()
		if !other.Cancel() {
			t.Error("a waiting request has a replica")
		}
		for i, lease := range leases {
			lease.Release()
			if lease.Held() || lease.Instance() != nil || lease.ReplicaID() != 0 {
				t.Error("holds on")
			}
			if hints[i].left != 1 {
				t.Errorf("hint %d was told %d times that its request left", i, hints[i].left)
			}
		}
		lease := wait(t, k)
		if lease.ReplicaID() != 2 || len(queued.placed) != 1 || queued.placed[0] != 2 {
			t.Errorf("from the queue: replica %d, told %+v", lease.ReplicaID(), queued)
		}
		if len(gone.placed) != 0 {
			t.Errorf("a request that had left was placed: %+v", gone)
		}
		lease.Release()
		on, there := m.TryAcquireOn(3, queued)
		if !there || on.ReplicaID() != 3 {
			t.Errorf("got replica %d, want 3", on.ReplicaID())
		}
		on.Release()
		if _, there := m.TryAcquireOn(7, nil); there {
			t.Error("a replica is there that never was")
		}
	})
}

func TestChoicesTellSetsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.Min, c.Max = 2, 2
		l := &fakeLauncher{takes: time.Second}
		m := newTestModel(t, c, l)
		defer closeModel(t, m)
		time.Sleep(time.Second)
		synctest.Wait()
		before := Choices{m.open.Load()}
		l.instance(0).end(context.DeadlineExceeded)
		synctest.Wait()
		if after := (Choices{m.open.Load()}); after.Version() <= before.Version() || after.Len() != 1 {
			t.Errorf("version %d with %d replicas after version %d", after.Version(), after.Len(), before.Version())
		}
	})
}

func TestWithoutAHintTheLeastLoadedIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.Min, c.Max, c.Concurrency = 4, 4, 5
		m := newTestModel(t, c, &fakeLauncher{takes: time.Second})
		defer closeModel(t, m)
		time.Sleep(time.Second)
		synctest.Wait()
		var leases []*Lease
		for n := 1; n <= 20; n++ {
			leases = append(leases, acquire(t, m))
			least, most := 99, 0
			for _, r := range m.Status().Replicas {
				least, most = min(least, r.InFlight), max(most, r.InFlight)
			}
			if most > least+1 {
				t.Fatalf("after %d: between %d and %d in flight", n, least, most)
			}
		}
		if _, ok := m.TryAcquire(); ok {
			t.Error("more than all have room for")
		}
		for _, lease := range leases {
			lease.Release()
		}
	})
}

func TestChangesAfterTheEndAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second}
		m := newTestModel(t, testConfig(), l)
		lease := wait(t, enqueue(t, m, Request{}))
		go m.Close(context.Background())
		synctest.Wait()
		if err := m.Update(testConfig(), &fakeLauncher{}, "spec2"); err != nil {
			t.Fatal(err)
		}
		scale(m, 3)
		m.Retry()
		synctest.Wait()
		wantState(t, m, Draining)
		lease.Release()
		<-m.Gone()
		if l.count() != 1 || m.Name() != "m" {
			t.Errorf("%d starts", l.count())
		}
	})
}

func TestWordsForStates(t *testing.T) {
	if text, err := Failed.MarshalText(); string(text) != "failed" || err != nil || State(99).String() != "state(99)" {
		t.Errorf("got %s, %v", text, State(99))
	}
	totals := NewTotals(1, 0)
	totals.SetLimits(2, 10)
	if !totals.take("", 5) || totals.take("", 6) || !totals.take("", 5) || totals.take("", 0) {
		t.Error("limits are not those set last")
	}
}

func TestStatusOfAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.BackoffMin, c.BackoffMax = time.Minute, time.Minute
		began := time.Now()
		m := newTestModel(t, c, &fakeLauncher{takes: time.Second, err: func(int) error { return errTest }})
		defer closeModel(t, m)
		f := failed(t, enqueue(t, m, Request{}))
		if f.Error() != "starting m: engine said no" {
			t.Errorf("error %q", f)
		}
		synctest.Wait()
		s := m.Status()
		if s.LastFailure == nil || !s.LastFailure.RetryAt.Equal(began.Add(time.Minute+time.Second)) || !s.LastFailure.At.Equal(began.Add(time.Second)) {
			t.Errorf("last failure: %+v", s.LastFailure)
		}
		if len(s.Replicas) != 1 || !s.Replicas[0].Since.Equal(began.Add(time.Second)) || s.Replicas[0].State != Failed {
			t.Errorf("replicas: %+v", s.Replicas)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := m.Status(); !s.LastFailure.RetryAt.IsZero() || s.State != Cold {
			t.Errorf("after the backoff: %+v, %+v", s, s.LastFailure)
		}
	})
}
