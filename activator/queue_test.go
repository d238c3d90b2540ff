package activator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// plainQueue is the queue as one would write it without a thought for time.
type plainQueue struct {
	lines   map[lineName]*plainLine
	levels  map[int8]*plainLevel
	waiting []plainTicket // as they came
	mean    int64
	entries int
	passed  int
}

type plainTicket struct {
	ticket *Ticket
	line   *plainLine
	at     moment
}

type plainLine struct {
	name        lineName
	tag, weight int64
	entry       int
	mean        int64
	fresh       bool
	keys        []string // whose turns come
}

type plainLevel struct {
	virtual, highest int64
	last             moment
}

func newPlainQueue() *plainQueue {
	return &plainQueue{lines: map[lineName]*plainLine{}, levels: map[int8]*plainLevel{}, passed: agedEvery - 1}
}

func (p *plainQueue) lineOf(r *Request) *plainLine {
	name := lineName{r.Tenant, int8(r.Priority)}
	if p.levels[name.priority] == nil {
		p.levels[name.priority] = &plainLevel{}
	}
	f := p.lines[name]
	if f == nil {
		f = &plainLine{name: name}
		p.lines[name] = f
	}
	f.weight = int64(max(1, r.Weight))
	return f
}

func (p *plainQueue) level(f *plainLine) *plainLevel { return p.levels[f.name.priority] }

// heads are the first tickets of a level's tenants, of the key whose turn it is.
func (p *plainQueue) heads(priority int8) (heads []plainTicket) {
	for _, w := range p.waiting {
		if w.line.name.priority == priority && w.ticket.request.Key == w.line.keys[0] && !slices.ContainsFunc(heads, func(h plainTicket) bool { return h.line == w.line }) {
			heads = append(heads, w)
		}
	}
	return heads
}

func (p *plainQueue) push(t *Ticket, now moment) {
	f := p.lineOf(&t.request)
	if !slices.ContainsFunc(p.waiting, func(w plainTicket) bool { return w.line == f }) {
		l := p.level(f)
		start := l.virtual
		heads := p.heads(f.name.priority)
		if len(heads) > 0 {
			start = min(start, slices.MinFunc(heads, plainTicket.compare).line.tag)
		}
		if len(heads) == 0 && now-l.last >= forgetAfter {
			l.virtual = max(l.virtual, l.highest)
			start = l.virtual
		}
		f.fresh = f.tag <= start
		f.tag = max(f.tag, start)
		p.entries++
		f.entry = p.entries
	}
	if !slices.Contains(f.keys, t.request.Key) {
		f.keys = append(f.keys, t.request.Key)
	}
	p.waiting = append(p.waiting, plainTicket{t, f, now})
}

func (p *plainQueue) remove(t *Ticket, now moment) {
	i := slices.IndexFunc(p.waiting, func(w plainTicket) bool { return w.ticket == t })
	if i >= 0 {
		f := p.waiting[i].line
		p.level(f).last = now
		p.waiting = slices.Delete(p.waiting, i, i+1)
		if !slices.ContainsFunc(p.waiting, func(w plainTicket) bool { return w.line == f && w.ticket.request.Key == t.request.Key }) {
			f.keys = slices.DeleteFunc(f.keys, func(key string) bool { return key == t.request.Key })
		}
	}
}

func (a plainTicket) compare(b plainTicket) int {
	if a.line.fresh != b.line.fresh {
		if a.line.fresh {
			return -1
		}
		return 1
	}
	if a.line.tag != b.line.tag && !a.line.fresh {
		return int(a.line.tag - b.line.tag)
	}
	return a.line.entry - b.line.entry
}

// choose gives the next ticket, and whether it passes a higher priority, and whether an overdue one was passed.
func (p *plainQueue) choose(now moment) (next *plainTicket, passes, overdue bool) {
	if len(p.waiting) == 0 {
		return nil, false, false
	}
	top, aged := int8(minPriority), (*plainTicket)(nil)
	for _, w := range p.waiting {
		top = max(top, w.line.name.priority)
	}
	for i, w := range p.waiting {
		if w.line.name.priority != top && now-w.at >= ageAfter && (aged == nil || w.at == aged.at && w.line.name.priority > aged.line.name.priority) { // they are in the order of age
			aged = &p.waiting[i]
		}
	}
	priority := top
	if aged != nil && p.passed >= agedEvery-1 {
		priority = aged.line.name.priority
	}
	heads := p.heads(priority)
	best := slices.MinFunc(heads, plainTicket.compare)
	return &best, priority != top, aged != nil
}

func (p *plainQueue) dispatch(now moment) *Ticket {
	next, passes, overdue := p.choose(now)
	if next == nil {
		return nil
	}
	switch {
	case passes:
		p.passed = 0
	case overdue:
		p.passed = min(p.passed+1, agedEvery-1)
	}
	l := p.level(next.line)
	l.virtual = max(l.virtual, next.line.tag)
	next.line.fresh = false
	next.line.keys = append(slices.Clone(next.line.keys[1:]), next.line.keys[0])
	p.add(next.line, p.cost(next.line, next.ticket.request.Work))
	p.remove(next.ticket, now)
	return next.ticket
}

func (p *plainQueue) cost(f *plainLine, w Work) int64 {
	output := int64(firstOutput)
	if f.mean > 0 {
		output = f.mean / meanScale
	} else if p.mean > 0 {
		output = p.mean / meanScale
	}
	if w.MaxOutput > 0 {
		output = min(output, w.MaxOutput)
	}
	return max(1, w.Prompt+output)
}

func (p *plainQueue) add(f *plainLine, work int64) {
	f.tag = max(0, f.tag+work*tagScale/f.weight)
	f.fresh = f.fresh && f.tag <= p.level(f).virtual
	p.level(f).highest = max(p.level(f).highest, f.tag)
}

func (p *plainQueue) charge(r *Request, difference, output int64) {
	f := p.lineOf(r)
	if f.tag == 0 {
		f.tag = p.level(f).virtual
	}
	p.add(f, difference)
	if output > 0 {
		f.mean, p.mean = blend(f.mean, output*meanScale), blend(p.mean, output*meanScale)
	}
}

func TestQueueIsAsThePlainOne(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for round := range 200 {
		q, p := newQueue(), newPlainQueue()
		var all, served []*Ticket
		now := moment(1)
		for range 300 {
			switch r := random.IntN(12); {
			case r < 6:
				k := &Ticket{request: Request{
					Tenant: fmt.Sprint(random.IntN(1 + round%7)), Key: fmt.Sprint(random.IntN(1 + round%4)), Priority: random.IntN(1 + round%3), Weight: random.IntN(4),
					Work: Work{Prompt: random.Int64N(1000), MaxOutput: random.Int64N(3) * 200},
				}}
				q.push(k, now)
				q.push(k, now) // a second time does nothing
				p.push(k, now)
				all = append(all, k)
			case r < 9:
				got, want := q.next(now), p.dispatch(now)
				if got != want {
					t.Fatalf("round %d: another ticket is next", round)
				}
				if got != nil {
					if !q.dispatched(got, q.cost(got), now) {
						t.Fatal("the next ticket was not there")
					}
					served = append(served, got)
				}
			case r < 10 && len(served) > 0:
				k := served[random.IntN(len(served))]
				difference, output := random.Int64N(1000)-500, random.Int64N(2)*random.Int64N(1000)
				q.charge(&k.request, difference, output)
				p.charge(&k.request, difference, output)
			case r < 11 && len(all) > 0: // perhaps gone already
				k := all[random.IntN(len(all))]
				q.remove(k, now)
				p.remove(k, now)
			default:
				now += moment(random.Int64N(int64(ageAfter) / 8))
				if round%11 == 0 && random.IntN(20) == 0 {
					now += forgetAfter
				}
			}
			var order []*Ticket
			q.inOrder(now, func(k *Ticket, position int) {
				order = append(order, k)
				if position != len(order) {
					t.Fatalf("position %d, want %d", position, len(order))
				}
			})
			if n := len(p.waiting); q.len() != n || len(order) != n {
				t.Fatalf("%d in the queue, %d in order, want %d", q.len(), len(order), n)
			}
			if len(order) > 0 && order[0] != q.next(now) {
				t.Fatal("the first in order is not next")
			}
			checkLists(t, &q)
		}
		// inOrder foretold the rest.
		var order []*Ticket
		q.inOrder(now, func(k *Ticket, _ int) { order = append(order, k) })
		for i, want := range order {
			if got := p.dispatch(now); got != want || q.next(now) != want {
				t.Fatalf("position %d was foretold wrongly", i+1)
			}
			q.dispatched(want, q.cost(want), now)
		}
		if q.next(now) != nil || q.remove(&Ticket{}, now) || q.dispatched(&Ticket{}, 1, now) || q.cost(&Ticket{}) != 0 {
			t.Fatal("something is left")
		}
	}
}

// checkLists: every line is either in its level's heap, where the heap knows it, or among the idle.
func checkLists(t *testing.T, q *queue) {
	t.Helper()
	inHeaps := 0
	for _, l := range q.levels {
		for i, fi := range l.heap {
			inHeaps++
			f := &q.lines[fi]
			if f.at != int32(i) || f.turn == none || q.strands[f.turn].head == none || i > 0 && f.before(&q.lines[l.heap[(i-1)/2]]) {
				t.Fatalf("the heap is out of order at %d", i)
			}
		}
	}
	idle := 0
	for fi := q.idlest; fi != none; fi = q.lines[fi].next {
		idle++
		if q.lines[fi].at != none || q.lines[fi].turn != none {
			t.Fatal("an idle tenant has somebody waiting")
		}
	}
	if idle != q.idle || idle+inHeaps != len(q.names) || idle > keptLines {
		t.Fatalf("%d idle tenants, %d counted, %d waiting, %d known", idle, q.idle, inHeaps, len(q.names))
	}
}

func TestQueueGivesItsMemoryBack(t *testing.T) {
	q := newQueue()
	var all []*Ticket
	for i := range 50_000 {
		k := &Ticket{request: Request{Tenant: fmt.Sprint(i)}}
		all = append(all, k)
		q.push(k, 1)
	}
	for _, k := range all {
		q.remove(k, 1)
	}
	checkLists(t, &q)
	if cap(q.nodes) != 0 || q.len() != 0 || len(q.names) != keptLines || cap(q.levels[0].heap) != 0 {
		t.Errorf("room for %d tickets and %d tenants is kept, %d tenants are remembered", cap(q.nodes), cap(q.levels[0].heap), len(q.names))
	}
	// Late news of a tenant that was forgotten is taken, and room is made for it.
	q.charge(&Request{Tenant: "0"}, 1000, 10)
	checkLists(t, &q)
	if f := q.lines[q.names[lineName{tenant: "0"}]]; f.tag != 1000*tagScale || f.mean != 10*meanScale {
		t.Errorf("the tenant has tag %d and mean %d", f.tag, f.mean)
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

func TestKeysOfATenantTakeTurns(t *testing.T) {
	q := newQueue()
	name := map[*Ticket]string{}
	for _, of := range []struct {
		tenant, key string
		n           int
	}{{"a", "busy", 50}, {"a", "other", 2}, {"b", "", 3}, {"a", "third", 1}} {
		for i := range of.n {
			k := &Ticket{request: Request{Tenant: of.tenant, Key: of.key}}
			name[k] = fmt.Sprint(of.tenant, of.key, i)
			q.push(k, 1)
		}
	}
	var order []string
	for range 10 {
		k := q.next(1)
		order = append(order, name[k])
		q.dispatched(k, q.cost(k), 1)
	}
	if got, want := fmt.Sprint(order), "[abusy0 b0 aother0 b1 athird0 b2 abusy1 aother1 abusy2 abusy3]"; got != want {
		t.Errorf("the order was %s, want %s", got, want)
	}
}
