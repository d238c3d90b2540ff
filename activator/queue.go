package activator

// queue holds the waiting tickets: FIFO inside a tenant, the tenants in turns, so that of two tenants that
// both wait none is ever more than one dispatch behind the other. push, remove and next take constant time.
// Tickets are only identities here. The zero value is not ready; see newQueue.
type queue struct {
	nodes   []queueNode
	tenants []tenantQueue
	where   map[*Ticket]int32 // index into nodes
	names   map[string]int32  // index into tenants
	free    int32             // chain of unused nodes, through next
	idle    int32             // chain of unused tenants, through next
	turn    int32             // the tenant that is next; the others follow in a ring
	_       [0]func()         // not comparable
}

type queueNode struct {
	ticket     *Ticket
	prev, next int32
	tenant     int32
}

type tenantQueue struct {
	name       string
	head, tail int32
	prev, next int32
	n          int
}

const none = int32(-1)

func newQueue() queue {
	return queue{where: map[*Ticket]int32{}, names: map[string]int32{}, free: none, idle: none, turn: none}
}

func (q *queue) len() int { return len(q.where) }

// push puts a ticket behind its tenant's others. A tenant that had none comes last in the present round.
func (q *queue) push(t *Ticket, tenant string) {
	if _, twice := q.where[t]; twice {
		return
	}
	ti := q.tenantFor(tenant)
	ni := q.free
	if ni == none {
		ni = int32(len(q.nodes))
		q.nodes = append(q.nodes, queueNode{})
	} else {
		q.free = q.nodes[ni].next
	}
	tq := &q.tenants[ti]
	q.nodes[ni] = queueNode{ticket: t, prev: tq.tail, next: none, tenant: ti}
	if tq.tail == none {
		tq.head = ni
	} else {
		q.nodes[tq.tail].next = ni
	}
	tq.tail = ni
	tq.n++
	q.where[t] = ni
}

func (q *queue) tenantFor(name string) int32 {
	if ti, ok := q.names[name]; ok {
		return ti
	}
	ti := q.idle
	if ti == none {
		ti = int32(len(q.tenants))
		q.tenants = append(q.tenants, tenantQueue{})
	} else {
		q.idle = q.tenants[ti].next
	}
	q.tenants[ti] = tenantQueue{name: name, head: none, tail: none, prev: ti, next: ti}
	q.names[name] = ti
	if q.turn == none {
		q.turn = ti
	} else { // just before the one whose turn it is
		last := q.tenants[q.turn].prev
		q.tenants[ti].prev, q.tenants[ti].next = last, q.turn
		q.tenants[last].next, q.tenants[q.turn].prev = ti, ti
	}
	return ti
}

// next is the ticket to be dispatched next; nil if none waits.
func (q *queue) next() *Ticket {
	if q.turn == none {
		return nil
	}
	return q.nodes[q.tenants[q.turn].head].ticket
}

// dispatched takes a ticket out and gives the turn to the tenant after its own. It reports whether the
// ticket was there.
func (q *queue) dispatched(t *Ticket) bool {
	ni, ok := q.where[t]
	if !ok {
		return false
	}
	if ti := q.nodes[ni].tenant; ti == q.turn {
		q.turn = q.tenants[ti].next
	}
	return q.remove(t)
}

// remove takes a ticket out and leaves the turn alone. It reports whether the ticket was there.
func (q *queue) remove(t *Ticket) bool {
	ni, ok := q.where[t]
	if !ok {
		return false
	}
	delete(q.where, t)
	n := q.nodes[ni]
	tq := &q.tenants[n.tenant]
	if n.prev == none {
		tq.head = n.next
	} else {
		q.nodes[n.prev].next = n.next
	}
	if n.next == none {
		tq.tail = n.prev
	} else {
		q.nodes[n.next].prev = n.prev
	}
	q.nodes[ni] = queueNode{next: q.free, prev: none}
	q.free = ni
	if tq.n--; tq.n == 0 {
		q.dropTenant(n.tenant)
	}
	if len(q.where) == 0 && cap(q.nodes) > 1024 { // a long queue's memory is not kept for ever
		*q = newQueue()
	}
	return true
}

func (q *queue) dropTenant(ti int32) {
	tq := q.tenants[ti]
	delete(q.names, tq.name)
	if tq.next == ti {
		q.turn = none
	} else {
		q.tenants[tq.prev].next, q.tenants[tq.next].prev = tq.next, tq.prev
		if q.turn == ti {
			q.turn = tq.next
		}
	}
	q.tenants[ti] = tenantQueue{next: q.idle}
	q.idle = ti
}

// inOrder calls visit with every ticket in the order of dispatch, counting from 1, as it would be if nobody
// came or left.
func (q *queue) inOrder(visit func(t *Ticket, position int)) {
	if q.turn == none {
		return
	}
	heads := make([]int32, 0, len(q.names))
	for ti := q.turn; ; {
		heads = append(heads, q.tenants[ti].head)
		if ti = q.tenants[ti].next; ti == q.turn {
			break
		}
	}
	for position := 1; len(heads) > 0; {
		kept := heads[:0]
		for _, ni := range heads {
			visit(q.nodes[ni].ticket, position)
			position++
			if next := q.nodes[ni].next; next != none {
				kept = append(kept, next)
			}
		}
		heads = kept
	}
}
