package activator

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// scaledConfig is a model with up to four replicas of two requests each.
func scaledConfig() Config {
	c := testConfig()
	c.Max, c.Concurrency = 4, 2
	return c
}

// learning has a model remember how long its starts take.
func learning(o *Options) {
	d, err := OpenDurations("", nil)
	if err != nil {
		panic(err)
	}
	o.Durations = d
}

// crowd keeps n requests of about a second each on the way until stop is called, which waits for them.
func crowd(t *testing.T, m *Model, n int) (stop func()) {
	var wg sync.WaitGroup
	ended := make(chan struct{})
	for client := range n {
		random := rand.New(rand.NewPCG(uint64(client), 3))
		wg.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				lease, ok := m.TryAcquire()
				if !ok {
					k, err := m.Enqueue(Request{})
					if err != nil {
						t.Errorf("enqueue: %v", err)
						return
					}
					<-k.Done()
					if lease, err = k.Lease(); err != nil {
						t.Errorf("lease: %v", err)
						return
					}
				}
				time.Sleep(time.Second/2 + time.Duration(random.Int64N(int64(time.Second))))
				lease.Release()
			}
		})
	}
	return func() { close(ended); wg.Wait() }
}

func replicasIn(m *Model, state State) int {
	n := 0
	for _, r := range m.Status().Replicas {
		if r.State == state {
			n++
		}
	}
	return n
}

// waitFor lets time pass until there are n replicas that serve.
func waitFor(t *testing.T, m *Model, n int, atMost time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for replicasIn(m, Ready) != n {
		if time.Since(began) > atMost {
			t.Fatalf("%d replicas serve after %v, want %d: %+v", replicasIn(m, Ready), atMost, n, m.Scaling())
		}
		time.Sleep(time.Second)
		synctest.Wait()
	}
	return time.Since(began)
}

func TestReplicasFollowLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: 10 * time.Second}
		m := newTestModel(t, scaledConfig(), l, learning)
		d := m.durations
		defer closeModel(t, m)
		for range 3 {
			stop := crowd(t, m, 7) // three and a half replicas' worth
			waitFor(t, m, 4, 3*time.Minute)
			if s := m.Scaling(); s.Want != 4 || s.Target != 2 || s.ByRate {
				t.Errorf("got %+v", s)
			}
			stop()
			last := time.Now()
			for n := 3; n > 1; n-- { // one by one
				waitFor(t, m, n, 4*time.Minute)
				if took := time.Since(last); took < 45*time.Second {
					t.Errorf("down to %d after %v", n, took)
				}
				last = time.Now()
			}
			waitFor(t, m, 0, 4*time.Minute)
			wantState(t, m, Cold)
		}
		for i := range l.count() {
			if n := l.instance(i).misused.Load(); n != 0 {
				t.Errorf("start %d was misused %d times", i, n)
			}
		}
		if l.count() != 12 {
			t.Errorf("%d starts for three times four replicas", l.count())
		}
		if s := d.Service(Subject{Model: "m", Spec: "spec1"}); s < 800*time.Millisecond || s > 1200*time.Millisecond {
			t.Errorf("remembered %v for requests of a second", s)
		}
	})
}

// The last replica is given up by idleness alone, which has been waited for once then, and not twice.
func TestNoIdleTimeIsWaitedForTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTestModel(t, scaledConfig(), &fakeLauncher{takes: 10 * time.Second})
		defer closeModel(t, m)
		lease := wait(t, enqueue(t, m, Request{}))
		lease.Release()
		if took := waitFor(t, m, 0, time.Hour); took > testConfig().ScaledownAfter+time.Second {
			t.Errorf("the only replica stayed for %v", took)
		}
	})
}

func TestColdBacklogStartsOneReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: 30 * time.Second}
		m := newTestModel(t, scaledConfig(), l)
		defer closeModel(t, m)
		var all []*Ticket
		for range 20 {
			all = append(all, enqueue(t, m, Request{}))
			time.Sleep(time.Second)
		}
		for _, k := range all {
			wait(t, k).Release()
		}
		if l.count() != 1 {
			t.Errorf("%d starts for 20 requests that take no time", l.count())
		}
	})
}

// What is busy drains; who has the fewest requests goes.
func TestCheapestReplicaGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scaledConfig()
		c.Max, c.Concurrency = 2, 8
		l := &fakeLauncher{takes: 100 * time.Millisecond}
		m := newTestModel(t, c, l)
		defer closeModel(t, m)
		wait(t, enqueue(t, m, Request{})).Release()
		scale(m, 2) // the autoscaler's own next word is a second away
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		busy := map[uint64][]*Lease{}
		for range 5 { // more to one than to the other
			lease := acquire(t, m)
			busy[lease.ReplicaID()] = append(busy[lease.ReplicaID()], lease)
		}
		if len(busy) != 2 {
			t.Fatalf("got %v, want requests on two replicas: %+v", busy, m.Status())
		}
		few, many := uint64(1), uint64(2)
		if len(busy[1]) > len(busy[2]) {
			few, many = 2, 1
		}
		scale(m, 1)
		synctest.Wait()
		for _, r := range m.Status().Replicas {
			if want := map[uint64]State{few: Draining, many: Ready}[r.ID]; r.State != want {
				t.Errorf("replica %d is %v, want %v", r.ID, r.State, want)
			}
		}
		time.Sleep(c.DrainTimeout + time.Minute) // surplus is no reason to cut anybody
		if l.instance(int(few)-1).stops.Load() != 0 {
			t.Errorf("replica %d was stopped with requests in flight", few)
		}
		for _, leases := range busy {
			for _, lease := range leases {
				lease.Release()
			}
		}
		synctest.Wait()
		if l.instance(int(few)-1).stops.Load() != 1 || l.instance(int(many)-1).stops.Load() != 0 {
			t.Errorf("got %+v", m.Status())
		}
	})
}

// Replicas beyond the first take devices that are free, and who gets none is no failure.
func TestMoreReplicasTakeOnlyFreeDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &countedLedger{left: 2}
		l := &fakeLauncher{takes: 10 * time.Second}
		m := newTestModel(t, scaledConfig(), l, func(o *Options) { o.Ledger = ledger })
		defer closeModel(t, m)
		stop := crowd(t, m, 8)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if s, d := m.Status(), m.Scaling(); replicasIn(m, Ready) != 2 || s.LastFailure != nil || s.Starts != 2 || d.Want != 2 || d.Reason != "devices" {
			t.Errorf("got %+v, %+v", s, d)
		}
		ledger.add(1)
		waitFor(t, m, 3, time.Minute)
		if s := m.Status(); s.Starts != 3 || s.StartFailures != 0 {
			t.Errorf("got %+v", s)
		}
		stop()
	})
}

// countedLedger has a number of devices that nobody else wants.
type countedLedger struct {
	mu   sync.Mutex
	left int
	fakeLedger
}

func (c *countedLedger) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left += n
}

func (c *countedLedger) Reserve(ctx context.Context, model string, id uint64, because func(string)) error {
	return c.ReserveNow(model, id)
}

func (c *countedLedger) ReserveNow(string, uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		return ErrNoRoom
	}
	c.left--
	return nil
}

func (c *countedLedger) Room(_ string, atMost int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(atMost, c.left)
}

func (c *countedLedger) Release(string, uint64) { c.add(1) }

// One more that fails is tried again, later and later, and is no reason to give up the model.
func TestAFailureOfOneMoreIsNotThatOfTheModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second, err: func(n int) error {
			if n > 1 {
				return permanentError{errTest}
			}
			return nil
		}}
		m := newTestModel(t, scaledConfig(), l)
		defer closeModel(t, m)
		stop := crowd(t, m, 6)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		f := m.Status().LastFailure
		if f == nil || f.Permanent || f.Count < 3 || l.count() > 20 {
			t.Errorf("got %+v after %d starts", f, l.count())
		}
		if replicasIn(m, Ready) != 1 {
			t.Errorf("got %+v", m.Status())
		}
		stop()
	})
}

// Min replicas are there from the start and stay, and load makes them more.
func TestMinIsKeptAndReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scaledConfig()
		c.Min = 2
		l := &fakeLauncher{takes: time.Second}
		m := newTestModel(t, c, l, learning)
		defer closeModel(t, m)
		waitFor(t, m, 2, 10*time.Second)
		time.Sleep(time.Hour)
		for range 5 {
			acquire(t, m).Release()
			acquire(t, m).Release()
			for i := range l.count() {
				l.instance(i).end(errTest)
			}
			synctest.Wait()
			waitFor(t, m, 2, 30*time.Second)
		}
		stop := crowd(t, m, 8)
		waitFor(t, m, 4, 5*time.Minute)
		stop()
		waitFor(t, m, 2, 10*time.Minute)
		time.Sleep(time.Hour)
		if n := replicasIn(m, Ready); n != 2 {
			t.Errorf("%d replicas after an hour", n)
		}
	})
}

// A reload changes the bounds, and what was learned of the load stays.
func TestBoundsMayChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second}
		m := newTestModel(t, scaledConfig(), l, learning)
		defer closeModel(t, m)
		set := func(least, most int) {
			c := scaledConfig()
			c.Min, c.Max = least, most
			if err := m.Update(c, l, "spec1"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		stop := crowd(t, m, 8)
		waitFor(t, m, 4, 5*time.Minute)
		set(0, 6)
		time.Sleep(30 * time.Second)
		if n := replicasIn(m, Ready); n < 4 {
			t.Errorf("%d replicas after the bound was raised", n)
		}
		set(0, 1)
		waitFor(t, m, 1, time.Minute)
		if m.Scaling() != nil {
			t.Errorf("got %+v for a replica on demand", m.Scaling())
		}
		set(3, 6)
		waitFor(t, m, 4, 5*time.Minute)
		stop()
		waitFor(t, m, 3, 10*time.Minute)
	})
}

func TestRateOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scaledConfig()
		c.Concurrency, c.RequestRate = 0, 2.5
		m := newTestModel(t, c, &fakeLauncher{takes: time.Second})
		defer closeModel(t, m)
		stop := crowd(t, m, 7) // 7 in a second
		waitFor(t, m, 3, 5*time.Minute)
		time.Sleep(5 * time.Minute)
		if s := m.Scaling(); s.Want != 3 || !s.ByRate || s.Target != 2.5 || s.Load < 6.5 || s.Load > 7.5 {
			t.Errorf("got %+v for 7 requests in a second", s)
		}
		stop()
	})
}

// A gateway that finds several replicas keeps them for as long as if it had started them.
func TestAdoptedReplicasAreNotSurplusAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var found []Adopted
		for id := range uint64(3) {
			found = append(found, Adopted{ID: id + 1, Instance: &fakeInstance{id: id + 1, exited: make(chan struct{})}})
		}
		m := newTestModel(t, scaledConfig(), &fakeLauncher{takes: time.Second}, func(o *Options) { o.Adopted = found })
		defer closeModel(t, m)
		time.Sleep(55 * time.Second)
		synctest.Wait()
		if n := replicasIn(m, Ready); n != 3 {
			t.Errorf("%d of 3 replicas after 55 s", n)
		}
		waitFor(t, m, 0, 10*time.Minute)
	})
}
