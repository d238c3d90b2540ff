package activator

// strand is what waits with one key of a tenant, as it came. A tenant's strands take turns, one request each: keys are of one house, and need
// less protection from one another than tenants do. Nothing is remembered of one that has nobody waiting.
type strand struct {
	name       strandName
	head, tail int32
	prev, next int32 // in the line's ring; of unused ones next is a chain
}

type strandName struct {
	line int32
	key  string
}

// strandFor finds the strand of a line's key, or makes it: it comes last in the present round.
func (q *queue) strandFor(li int32, key string) int32 {
	l := &q.lines[li]
	if l.turn != none && q.strands[l.turn].name.key == key { // most tenants have one that waits
		return l.turn
	}
	name := strandName{li, key}
	if si, ok := q.keys[name]; ok {
		return si
	}
	si := q.spare
	if si == none {
		si = int32(len(q.strands))
		q.strands = append(q.strands, strand{})
	} else {
		q.spare = q.strands[si].next
	}
	q.strands[si] = strand{name: name, head: none, tail: none, prev: si, next: si}
	q.keys[name] = si
	if l.turn == none {
		l.turn = si
		return si
	}
	last := q.strands[l.turn].prev
	q.strands[si].prev, q.strands[si].next = last, l.turn
	q.strands[last].next, q.strands[l.turn].prev = si, si
	return si
}

// dropStrand forgets one that has nobody waiting any more.
func (q *queue) dropStrand(si int32) {
	s := q.strands[si]
	l := &q.lines[s.name.line]
	delete(q.keys, s.name)
	switch {
	case s.next == si:
		l.turn = none
	default:
		q.strands[s.prev].next, q.strands[s.next].prev = s.next, s.prev
		if l.turn == si {
			l.turn = s.next
		}
	}
	q.strands[si] = strand{head: none, tail: none, next: q.spare}
	q.spare = si
}
