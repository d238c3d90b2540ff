package activator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestColdRequestsShareOneStartAndLeaveAtThePaceOfTheReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: 20 * time.Second, concurrency: 8}
		m := newTestModel(t, testConfig(), l)
		defer closeModel(t, m)
		if _, ok := m.TryAcquire(); ok {
			t.Fatal("a cold model has a warm path")
		}
		tickets := make([]*Ticket, 100)
		for i := range tickets {
			tickets[i] = enqueue(t, m, Request{Bytes: 10})
		}
		synctest.Wait()
		wantState(t, m, Starting)
		if s := m.Status(); s.QueuedRequests != 100 || s.QueuedBytes != 1000 {
			t.Errorf("queue is %d requests, %d bytes", s.QueuedRequests, s.QueuedBytes)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		wantState(t, m, Ready)
		for served := 0; served < 100; {
			var open []*Lease
			for _, k := range tickets[served:] {
				select {
				case <-k.Done():
					open = append(open, wait(t, k))
				default:
				}
			}
			if want := min(8, 100-served); len(open) != want {
				t.Fatalf("%d at once after %d, want %d", len(open), served, want)
			}
			if _, ok := m.TryAcquire(); ok && served+len(open) < 100 {
				t.Fatal("the warm path overtook waiters")
			}
			for _, lease := range open {
				if !lease.Cold() || lease.Waited() != 20*time.Second {
					t.Fatalf("cold %v, waited %v", lease.Cold(), lease.Waited())
				}
				lease.Release()
				lease.Release() // does nothing
			}
			served += len(open)
			synctest.Wait()
		}
		if n := l.count(); n != 1 {
			t.Errorf("%d starts", n)
		}
		lease := acquire(t, m)
		if lease.Cold() || lease.ReplicaID() != 1 || lease.Instance() != l.instance(0) {
			t.Errorf("warm lease: %+v", lease)
		}
		lease.Release()
	})
}

// Of two tenants that both wait, none is ever more than one dispatch behind the other, however many they queue.
func TestThousandWaitersOfTwentyTenantsAreServedInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second, concurrency: 3}
		m := newTestModel(t, testConfig(), l)
		defer closeModel(t, m)
		random := rand.New(rand.NewPCG(1, 2))
		var tickets []*Ticket
		left := map[string]int{}
		for range 1000 {
			tenant := fmt.Sprint("tenant", random.IntN(20)*random.IntN(20)%20) // uneven
			left[tenant]++
			tickets = append(tickets, enqueue(t, m, Request{Tenant: tenant}))
		}
		served, last := map[string]int{}, map[string]int{}
		var open []*Lease
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i, k := range tickets {
			wg.Go(func() {
				lease := wait(t, k)
				mu.Lock()
				defer mu.Unlock()
				tenant := k.request.Tenant
				if i < last[tenant] {
					t.Errorf("%s: request %d after %d", tenant, i, last[tenant])
				}
				last[tenant] = i
				served[tenant]++
				left[tenant]--
				open = append(open, lease)
			})
		}
		for done := 0; done < 1000; {
			if done == 0 {
				time.Sleep(time.Second)
			}
			synctest.Wait()
			mu.Lock()
			// Those waiting now have waited all the time, so their counts may differ by one.
			least, most := 1<<30, 0
			for tenant, n := range left {
				if n > 0 {
					least, most = min(least, served[tenant]), max(most, served[tenant])
				}
			}
			if most > least+1 {
				t.Fatalf("after %d, served between %d and %d", done, least, most)
			}
			if len(open) == 0 || len(open) > 3 {
				t.Fatalf("%d in flight after %d", len(open), done)
			}
			lease := open[0]
			open = open[1:]
			mu.Unlock()
			lease.Release()
			done++
		}
		wg.Wait()
		if n := l.count(); n != 1 {
			t.Errorf("%d starts", n)
		}
	})
}

func TestCancelledWaiterLeavesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLauncher{takes: time.Second, concurrency: 1}
		m := newTestModel(t, testConfig(), l)
		defer closeModel(t, m)
		k := enqueue(t, m, Request{Bytes: 100})
		if !k.Cancel() || !k.Cancel() {
			t.Error("cancel: want true, and true again")
		}
		<-k.Done()
		if _, err := k.Lease(); !errors.Is(err, ErrCancelled) {
			t.Errorf("lease: %v", err)
		}
		if s := m.Status(); s.QueuedRequests != 0 || s.QueuedBytes != 0 {
			t.Errorf("still counted: %+v", s)
		}
		// The start goes on without anybody waiting, and the replica idles out by and by.
		time.Sleep(time.Second)
		synctest.Wait()
		wantState(t, m, Ready)

		// Granted, but not taken over: the lease goes back.
		first := acquire(t, m)
		k = enqueue(t, m, Request{})
		synctest.Wait()
		first.Release()
		<-k.Done()
		if k.Cancel() || k.Cancel() {
			t.Error("cancel after the grant: want false")
		}
		if _, err := k.Lease(); !errors.Is(err, ErrCancelled) {
			t.Errorf("lease after cancel: %v", err)
		}
		acquire(t, m).Release()

		// Taken over: cancel leaves it alone.
		first = acquire(t, m)
		k = enqueue(t, m, Request{})
		synctest.Wait()
		first.Release()
		lease := wait(t, k)
		if k.Cancel() {
			t.Error("cancel after the lease was taken: want false")
		}
		if _, ok := m.TryAcquire(); ok {
			t.Error("cancel released a lease that was not its own")
		}
		lease.Release()
	})
}

// Found by the explorer ("an arrival does not unblock" among the mutants).
func TestArrivalBehindACancellationFindsTheFreePlace(t *testing.T) {
	c := newMachine(testConfig(), false, 1)
	first, second := &Ticket{}, &Ticket{}
	step := func(e event) (granted bool) {
		for _, f := range c.step(e, 1) {
			granted = granted || f.kind == effGrant
		}
		return granted
	}
	step(event{kind: evArrive, ticket: first})
	if !step(event{kind: evStarted, id: 1}) {
		t.Fatal("no grant at ready")
	}
	step(event{kind: evGranted, ticket: first, grant: grantFull})
	// first cancels; a lease is given back with nobody counted as waiting, hence without a poke; second
	// is counted and sends its arrival before the cancellation is sent.
	if !step(event{kind: evArrive, ticket: second}) {
		t.Fatal("no grant was tried for the arrival")
	}
}

func TestQueueBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		totals := NewTotals(5, 1000)
		c := testConfig()
		c.MaxQueuedRequests, c.MaxQueuedBytes = 3, 100
		l := &fakeLauncher{takes: time.Second}
		m := newTestModel(t, c, l, func(o *Options) { o.Totals = totals })
		other := newTestModel(t, testConfig(), l, func(o *Options) { o.Totals = totals })
		defer closeModel(t, other)
		defer closeModel(t, m)
		full := func(m *Model, bytes int64) {
			t.Helper()
			if _, err := m.Enqueue(Request{Bytes: bytes}); !errors.Is(err, ErrQueueFull) {
				t.Errorf("got %v, want a full queue", err)
			}
		}
		a := enqueue(t, m, Request{Bytes: 60})
		full(m, 41)
		enqueue(t, m, Request{Bytes: 40})
		enqueue(t, m, Request{})
		full(m, 0)
		enqueue(t, other, Request{Bytes: 899})
		full(other, 2)
		enqueue(t, other, Request{Tenant: "b", Bytes: 1}) // the last of it is not for who has the rest
		full(other, 0)                                    // five in all
		a.Cancel()
		enqueue(t, other, Request{Bytes: 60})
		full(m, 0)
		time.Sleep(time.Second)
		synctest.Wait()
		if r, b := totals.Queued(); r != 0 || b != 0 {
			t.Errorf("in all queues: %d requests, %d bytes", r, b)
		}
	})
}

func TestMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTestModel(t, testConfig(), &fakeLauncher{takes: time.Minute})
		defer closeModel(t, m)
		began := time.Now()
		k := enqueue(t, m, Request{MaxWait: 5 * time.Second, Bytes: 7})
		<-k.Done()
		if _, err := k.Lease(); !errors.Is(err, ErrWaitTimeout) || time.Since(began) != 5*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if !k.Cancel() {
			t.Error("cancel: it had not been given a replica")
		}
		// One that is served in time stops its timer.
		k = enqueue(t, m, Request{MaxWait: time.Hour})
		lease := wait(t, k)
		time.Sleep(time.Hour)
		lease.Release()
	})
}

func TestPositionAndETA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := OpenDurations("", nil)
		if err != nil {
			t.Fatal(err)
		}
		l := &fakeLauncher{takes: 40 * time.Second, concurrency: 1, phases: []string{"weights", "graphs", "warmup"}}
		c := testConfig()
		m := newTestModel(t, c, l, func(o *Options) { o.Durations = d })
		defer closeModel(t, m)
		near := func(what string, got, want time.Duration) {
			t.Helper()
			if got < want*8/10 || got > want*12/10 {
				t.Errorf("%s: %v, want %v ± 20 %%", what, got, want)
			}
		}
		for range 3 {
			if eta := m.Status().ETA; l.count() == 0 && eta != 0 {
				t.Errorf("eta %v of a model that never started", eta)
			} else if l.count() > 0 {
				near("eta of a cold model", eta, 40*time.Second)
			}
			lease := wait(t, enqueue(t, m, Request{}))
			lease.Release()
			time.Sleep(c.ScaledownAfter + time.Second)
			wantState(t, m, Cold)
		}
		// This time it is twice as slow: what the phases took tells the rest.
		l.takes = 80 * time.Second
		a1, a2 := enqueue(t, m, Request{Tenant: "a"}), enqueue(t, m, Request{Tenant: "a"})
		time.Sleep(time.Second) // positions are counted every half a second, when something happens
		b1 := enqueue(t, m, Request{Tenant: "b"})
		synctest.Wait()
		for i, k := range []*Ticket{a1, b1, a2} {
			if s := k.Status(); s.Position != i+1 || s.Queue != 3 || s.State != Starting {
				t.Errorf("ticket %d: %+v", i, s)
			}
		}
		time.Sleep(3 * time.Second)
		if s := a1.Status(); s.Percent < 8 || s.Percent > 12 || s.Waited != 4*time.Second {
			t.Errorf("after a tenth: %+v", s)
		}
		near("eta after a tenth", a1.Status().ETA, 36*time.Second)
		time.Sleep(17 * time.Second) // weights begin at 20 s: 30 s before the end, as learned
		if s := a1.Status(); s.Phase != "weights" {
			t.Errorf("phase %q", s.Phase)
		}
		near("eta at weights", a1.Status().ETA, 30*time.Second)
		for _, k := range []*Ticket{a1, b1, a2} {
			wait(t, k).Release()
		}
		if s := a1.Status(); s.Position != 0 || s.State != Ready || s.ETA != 0 {
			t.Errorf("after the wait: %+v", s)
		}
	})
}

func TestObserverHearsOfWaitsStartsAndTransitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		note := func(s string) { mu.Lock(); got = append(got, s); mu.Unlock() }
		m := newTestModel(t, testConfig(), &fakeLauncher{takes: time.Second}, func(o *Options) {
			o.Observer = Observer{
				Transition: func(x Transition) { note(fmt.Sprint(x.From, "→", x.To)) },
				ColdStart:  func(s ColdStart) { note(fmt.Sprintf("start %v %v", s.Duration, s.Err)) },
				Wait:       func(w Wait) { note(fmt.Sprintf("wait %v %v %v", w.Outcome, w.Duration, w.Cold)) },
			}
		})
		wait(t, enqueue(t, m, Request{})).Release()
		k := enqueue(t, m, Request{})
		<-k.Done()
		k.Cancel()
		time.Sleep(2 * time.Minute)
		closeModel(t, m)
		want := "[cold→starting start 1s <nil> starting→ready wait granted 1s true wait granted 0s false ready→stopping stopping→cold]"
		if fmt.Sprint(got) != want {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
}
