package activator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// plainQueue is the queue as one would write it without a thought for time.
type plainQueue struct {
	tenants []string // in turn
	waiting map[string][]*Ticket
}

func (p *plainQueue) push(t *Ticket, tenant string) {
	if len(p.waiting[tenant]) == 0 {
		p.tenants = append(p.tenants, tenant)
	}
	p.waiting[tenant] = append(p.waiting[tenant], t)
}

func (p *plainQueue) remove(t *Ticket) {
	for tenant, list := range p.waiting {
		if i := slices.Index(list, t); i >= 0 {
			if p.waiting[tenant] = slices.Delete(list, i, i+1); len(list) == 1 {
				p.tenants = slices.DeleteFunc(p.tenants, func(s string) bool { return s == tenant })
			}
		}
	}
}

func (p *plainQueue) dispatch() *Ticket {
	if len(p.tenants) == 0 {
		return nil
	}
	tenant := p.tenants[0]
	t := p.waiting[tenant][0]
	p.tenants = append(p.tenants[1:], tenant)
	p.remove(t)
	return t
}

func TestQueueIsAsThePlainOne(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for round := range 200 {
		q, p := newQueue(), &plainQueue{waiting: map[string][]*Ticket{}}
		var all []*Ticket
		for range 300 {
			switch r := random.IntN(10); {
			case r < 5:
				k := &Ticket{}
				tenant := fmt.Sprint(random.IntN(1 + round%7))
				q.push(k, tenant)
				q.push(k, tenant) // a second time does nothing
				p.push(k, tenant)
				all = append(all, k)
			case r < 8:
				got, want := q.next(), p.dispatch()
				if got != want {
					t.Fatalf("round %d: another ticket is next", round)
				}
				if got != nil && !q.dispatched(got) {
					t.Fatal("the next ticket was not there")
				}
			case len(all) > 0: // perhaps gone already
				k := all[random.IntN(len(all))]
				q.remove(k)
				p.remove(k)
			}
			var order []*Ticket
			q.inOrder(func(k *Ticket, position int) {
				order = append(order, k)
				if position != len(order) {
					t.Fatalf("position %d, want %d", position, len(order))
				}
			})
			n := 0
			for _, list := range p.waiting {
				n += len(list)
			}
			if q.len() != n || len(order) != n {
				t.Fatalf("%d in the queue, %d in order, want %d", q.len(), len(order), n)
			}
			if n > 0 && order[0] != q.next() {
				t.Fatal("the first in order is not next")
			}
		}
		// inOrder foretold the rest.
		var order []*Ticket
		q.inOrder(func(k *Ticket, _ int) { order = append(order, k) })
		for i, want := range order {
			if got := p.dispatch(); got != want || q.next() != want {
				t.Fatalf("position %d was foretold wrongly", i+1)
			}
			q.dispatched(want)
		}
		if q.next() != nil || q.remove(&Ticket{}) || q.dispatched(&Ticket{}) {
			t.Fatal("something is left")
		}
	}
}

func TestLongQueueGivesItsMemoryBack(t *testing.T) {
	q := newQueue()
	var all []*Ticket
	for i := range 5000 {
		k := &Ticket{}
		all = append(all, k)
		q.push(k, fmt.Sprint(i%100))
	}
	for _, k := range all {
		q.remove(k)
	}
	if cap(q.nodes) != 0 || q.len() != 0 {
		t.Errorf("room for %d tickets is kept", cap(q.nodes))
	}
}

func TestWord(t *testing.T) {
	full, ok := word(0).enter(1)
	if !ok || full.inFlight() != 1 || full.idle() {
		t.Fatalf("entering: %x, %v", full, ok)
	}
	if _, ok := full.enter(1); ok {
		t.Error("entered a full replica")
	}
	back := full.leave()
	if !back.idle() || back == 0 {
		t.Errorf("came and went: %x, want idle, but not the word from before", back)
	}
	// The count of admissions wraps within its bits.
	last := wordEntries | wordWatched
	if w, ok := last.enter(5); !ok || w != wordWatched|1 {
		t.Errorf("after the last entry: %x", w)
	}
	if watched, ok := full.watch(); !ok || watched.leave().reportsZero() != true || full.leave().reportsZero() {
		t.Error("zero is reported when watched, and not otherwise")
	}
	if w, ok := (back | wordWatched).watch(); ok || w != back {
		t.Errorf("watching an idle word: %x, %v", w, ok)
	}
	for name, w := range map[string]word{"busy": full, "unknown": wordUnknown, "fenced": back | wordFenced} {
		if _, ok := w.fenceIdle(); ok {
			t.Errorf("fenced a %s word", name)
		}
	}
	if w, ok := back.fenceIdle(); !ok || !w.fenced() || w.inFlight() != 0 {
		t.Errorf("fencing: %x, %v", w, ok)
	}
	if w := full.fence(); !w.fenced() || w.inFlight() != 1 || !w.leave().reportsZero() {
		t.Errorf("fencing a busy word: %x", w)
	}
}

func TestReleasingTwoCopiesPanics(t *testing.T) {
	m := newTestModel(t, testConfig(), &fakeLauncher{})
	defer closeModel(t, m)
	lease := wait(t, enqueue(t, m, Request{}))
	held := *lease
	lease.Release()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	held.Release()
}
