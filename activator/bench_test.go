package activator

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

func readyModel(b testing.TB, replicas int) *Model {
	c := testConfig()
	c.Min, c.Max, c.Concurrency, c.MaxQueuedRequests = replicas, replicas, 1<<20, 0
	m := newTestModel(b, c, &fakeLauncher{})
	for len(m.open.Load().replicas) < replicas {
		time.Sleep(time.Millisecond)
	}
	return m
}

func BenchmarkAcquireRelease(b *testing.B) {
	for _, replicas := range []int{1, 4, 32} {
		m := readyModel(b, replicas)
		b.Run(fmt.Sprintf("replicas=%d", replicas), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				lease, _ := m.TryAcquire()
				lease.Release()
			}
		})
		b.Run(fmt.Sprintf("replicas=%d/parallel", replicas), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					lease, _ := m.TryAcquire()
					lease.Release()
				}
			})
		})
		closeModel(b, m)
	}
}

// BenchmarkEnqueueGrant is a request's way through the owner when there is room.
func BenchmarkEnqueueGrant(b *testing.B) {
	m := readyModel(b, 1)
	defer closeModel(b, m)
	b.ReportAllocs()
	for b.Loop() {
		k, err := m.Enqueue(Request{Tenant: "a", Bytes: 1})
		if err != nil {
			b.Fatal(err)
		}
		<-k.Done()
		lease, err := k.Lease()
		if err != nil {
			b.Fatal(err)
		}
		lease.Release()
	}
}

// BenchmarkQueue is the queue alone, with 10,000 tickets of 1,000 tenants in it.
func BenchmarkQueue(b *testing.B) {
	const tickets, tenants = 10_000, 1_000
	filled := func(priorities int) (*queue, []*Ticket) {
		q := newQueue()
		all := make([]*Ticket, tickets)
		for i := range all {
			all[i] = &Ticket{request: Request{
				Tenant: fmt.Sprint("tenant", i%tenants), Priority: i % tenants % priorities, Weight: 1 + i%7, Work: Work{Prompt: int64(i * 7919 % 5000)},
			}}
			q.push(all[i], 1)
		}
		return &q, all
	}
	b.Run("dispatch and push", func(b *testing.B) {
		q, _ := filled(1)
		b.ReportAllocs()
		for b.Loop() {
			k := q.next(1)
			q.dispatched(k, q.cost(k), 1)
			q.push(k, 1)
		}
	})
	b.Run("dispatch and push, three priorities, overdue", func(b *testing.B) {
		q, _ := filled(3)
		now := 2 * ageAfter
		b.ReportAllocs()
		for b.Loop() {
			k := q.next(now)
			q.dispatched(k, q.cost(k), now)
			q.push(k, now)
		}
	})
	b.Run("cancel and push", func(b *testing.B) {
		q, all := filled(1)
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			k := all[i*7919%tickets]
			q.remove(k, 1)
			q.push(k, 1)
			i++
		}
	})
	b.Run("charge", func(b *testing.B) {
		q, all := filled(1)
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			q.charge(&all[i%tickets].request, int64(i%1000)-500, 100)
			i++
		}
	})
	b.Run("positions of all", func(b *testing.B) {
		q, _ := filled(1)
		b.ReportAllocs()
		for b.Loop() {
			q.inOrder(1, func(*Ticket, int) {})
		}
	})
}

// TestTenThousandWaitersAreCheap: a waiter costs less than 500 bytes beside its channel, and all of them are
// cancelled or counted quickly.
func TestTenThousandWaitersAreCheap(t *testing.T) {
	c := testConfig()
	c.MaxQueuedRequests = 0
	m := newTestModel(t, c, &fakeLauncher{takes: time.Hour})
	const n = 10_000
	tickets := make([]*Ticket, 0, n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	for i := range n {
		tickets = append(tickets, enqueue(t, m, Request{Tenant: "abcdefghijklmnopqrst"[i%20 : i%20+1], Bytes: 4096}))
	}
	for tickets[n-1].Status().Position != n { // the owner has seen all, and counted
		if time.Since(began) > 10*time.Second {
			t.Fatalf("the last one is told position %d", tickets[n-1].Status().Position)
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n
	const channel = 112 // of Done
	t.Logf("%d bytes each, queued within %v", each, took)
	if !raceEnabled && each > 500+channel {
		t.Errorf("a waiter takes %d bytes", each)
	}
	for _, k := range tickets {
		k.Cancel()
	}
	closeModel(t, m)
}

// BenchmarkColdCycle is the activator's own share of a cold request: from Enqueue over an instant start to the
// lease, and the eviction after it.
func BenchmarkColdCycle(b *testing.B) {
	c := testConfig()
	c.ScaledownAfter = 0
	m := newTestModel(b, c, &fakeLauncher{})
	defer closeModel(b, m)
	b.ReportAllocs()
	for b.Loop() {
		k, err := m.Enqueue(Request{Tenant: "a", Bytes: 1})
		if err != nil {
			b.Fatal(err)
		}
		wait(b, k).Release()
	}
}
