package activator

import "time"

// queue holds the waiting tickets and says which is next: by strict priority, then by weighted fair queueing over work between the tenants of
// a priority (line.go), then by turns of the tenant's keys (strand.go), first come, first served. A lower priority that has waited long gets
// a turn now and then (ageAfter). Tickets are only identities here: what the queue learns of them it keeps itself. push, remove, dispatched and charge take
// O(log t) time for t waiting tenants, next O(1). The zero value is not ready; see newQueue.
type queue struct {
	nodes   []queueNode
	strands []strand
	lines   []line
	levels  []level           // one for each priority that was seen, at most maxPriority−minPriority+1
	where   map[*Ticket]int32 // index into nodes
	keys    map[strandName]int32
	names   map[lineName]int32
	free    int32 // chain of unused nodes, through next
	spare   int32 // chain of unused strands, through next
	unused  int32 // chain of unused lines, through next

	idlest, latest int32 // the lines that have nobody waiting, the longest idle first
	idle           int   // how many

	mean    int64  // tokens of answers, of all tenants, times meanScale; 0: none was seen
	entries uint64 // lines that began to wait so far
	passed  uint8  // dispatches since an overdue level had its turn, up to agedEvery-1
	_       [0]func()
}

type queueNode struct {
	ticket       *Ticket
	prev, next   int32 // in the strand
	older, newer int32 // in the level
	strand       int32
	at           moment // when it was pushed
}

// level is one priority.
type level struct {
	priority       int8
	heap           []int32 // the lines that wait, the smallest tag on top
	oldest, newest int32   // all of its tickets, as they came
	virtual        int64   // the virtual time: the tag of the line that was served last
	highest        int64   // the highest tag so far
	last           moment  // when somebody waited here last
}

const none = int32(-1)

const (
	minPriority, maxPriority = -9, 9

	// ageAfter is how long a request waits behind higher priorities until its level gets one of agedEvery dispatches. The share is small
	// enough to leave a priority its worth, and large enough that a queue drains.
	ageAfter  = 30 * time.Second
	agedEvery = 8

	// keptLines is how many tenants are remembered that have nobody waiting, for each model: 100 KiB.
	keptLines = 1024
)

func newQueue() queue {
	return queue{
		where: map[*Ticket]int32{}, keys: map[strandName]int32{}, names: map[lineName]int32{},
		free: none, spare: none, unused: none, idlest: none, latest: none,
		passed: agedEvery - 1,
	}
}

func (q *queue) len() int { return len(q.where) }

// push puts a ticket behind the others of its tenant's key.
func (q *queue) push(t *Ticket, now moment) {
	if _, twice := q.where[t]; twice {
		return
	}
	fi := q.lineFor(&t.request)
	si := q.strandFor(fi, t.request.Key)
	ni := q.free
	if ni == none {
		ni = int32(len(q.nodes))
		q.nodes = append(q.nodes, queueNode{})
	} else {
		q.free = q.nodes[ni].next
	}
	f, s := &q.lines[fi], &q.strands[si]
	l := &q.levels[f.level]
	q.nodes[ni] = queueNode{ticket: t, prev: s.tail, next: none, older: l.newest, newer: none, strand: si, at: now}
	if l.newest == none {
		l.oldest = ni
	} else {
		q.nodes[l.newest].newer = ni
	}
	l.newest = ni
	if s.tail == none {
		s.head = ni
	} else {
		q.nodes[s.tail].next = ni
	}
	s.tail = ni
	q.where[t] = ni
	if f.at == none {
		q.enter(fi, now)
	}
}

// next is the ticket to be dispatched next; nil if none waits.
func (q *queue) next(now moment) *Ticket {
	li := q.turn(now)
	if li == none {
		return nil
	}
	return q.nodes[q.strands[q.lines[q.levels[li].heap[0]].turn].head].ticket
}

// turn is the level whose turn it is; none if nobody waits.
func (q *queue) turn(now moment) int32 {
	top := q.top()
	if q.passed >= agedEvery-1 {
		if aged := q.overdue(top, now); aged != none {
			return aged
		}
	}
	return top
}

// top is the highest level that somebody waits at.
func (q *queue) top() int32 {
	best := none
	for i := range q.levels {
		if l := &q.levels[i]; l.oldest != none && (best == none || l.priority > q.levels[best].priority) {
			best = int32(i)
		}
	}
	return best
}

// overdue is the level other than top that has kept somebody waiting for longest, if that is too long; the higher one of two.
func (q *queue) overdue(top int32, now moment) int32 {
	aged := none
	for i := range q.levels {
		l := &q.levels[i]
		if int32(i) == top || l.oldest == none || q.nodes[l.oldest].at > now-ageAfter {
			continue
		}
		if aged == none || older(q.nodes[l.oldest].at, l.priority, q.nodes[q.levels[aged].oldest].at, q.levels[aged].priority) {
			aged = int32(i)
		}
	}
	return aged
}

// older tells whether a level whose oldest ticket came at a has its turn before one whose oldest came at b.
func older(a moment, priority int8, b moment, than int8) bool {
	return a < b || a == b && priority > than
}

// lineOf is the line that a node is in.
func (q *queue) lineOf(ni int32) *line { return &q.lines[q.strands[q.nodes[ni].strand].name.line] }

// cost is the work that a waiting ticket is expected to be; see Work.
func (q *queue) cost(t *Ticket) int64 {
	if ni, ok := q.where[t]; ok {
		return q.expect(q.lineOf(ni), t.request.Work)
	}
	return 0
}

// dispatched takes a ticket out and charges its tenant. It reports whether the ticket was there.
func (q *queue) dispatched(t *Ticket, cost int64, now moment) bool {
	ni, ok := q.where[t]
	if !ok {
		return false
	}
	f := q.lineOf(ni)
	if f.turn == q.nodes[ni].strand {
		f.turn = q.strands[f.turn].next
	}
	top := q.top()
	switch {
	case f.level != top:
		q.passed = 0
	case q.passed < agedEvery-1 && q.overdue(top, now) != none:
		q.passed++
	}
	l := &q.levels[f.level]
	l.virtual = max(l.virtual, f.tag)
	f.fresh = false
	q.addTo(f, cost)
	return q.remove(t, now)
}

// remove takes a ticket out. It reports whether the ticket was there.
func (q *queue) remove(t *Ticket, now moment) bool {
	ni, ok := q.where[t]
	if !ok {
		return false
	}
	delete(q.where, t)
	n := q.nodes[ni]
	s := &q.strands[n.strand]
	li := s.name.line
	l := &q.levels[q.lines[li].level]
	if n.prev == none {
		s.head = n.next
	} else {
		q.nodes[n.prev].next = n.next
	}
	if n.next == none {
		s.tail = n.prev
	} else {
		q.nodes[n.next].prev = n.prev
	}
	if n.older == none {
		l.oldest = n.newer
	} else {
		q.nodes[n.older].newer = n.newer
	}
	if n.newer == none {
		l.newest = n.older
	} else {
		q.nodes[n.newer].older = n.older
	}
	q.nodes[ni] = queueNode{next: q.free, prev: none}
	q.free = ni
	l.last = now
	if s.head == none {
		q.dropStrand(n.strand)
	}
	if q.lines[li].turn == none {
		q.leave(li)
	}
	if len(q.where) == 0 && cap(q.nodes) > 1024 { // a long queue's memory is not kept for ever
		q.nodes, q.free, q.where = nil, none, map[*Ticket]int32{}
		q.strands, q.spare, q.keys = nil, none, map[strandName]int32{}
	}
	return true
}
