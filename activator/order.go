package activator

// inOrder calls visit with every ticket in the order of dispatch, counting from 1, as it would be if nobody came or left, no answer
// taught anything, and time stood still.
func (q *queue) inOrder(now moment, visit func(t *Ticket, position int)) {
	f := foresight{q: q, passed: q.passed}
	heads := make([]int32, 0, len(q.keys)) // enough, so that it stays where it is
	for i := range q.levels {
		l := &q.levels[i]
		order := make([]claim, len(l.heap)) // in the heap's order, which is right for them too
		for j, fi := range l.heap {
			li, from := &q.lines[fi], len(heads)
			heads = append(heads, q.strands[li.turn].head)
			for si := q.strands[li.turn].next; si != li.turn; si = q.strands[si].next {
				heads = append(heads, q.strands[si].head)
			}
			order[j] = claim{tag: li.tag, entry: li.entry, fresh: li.fresh, line: fi, heads: heads[from:]}
		}
		overdue := 0
		for ni := l.oldest; ni != none && q.nodes[ni].at <= now-ageAfter; ni = q.nodes[ni].newer {
			overdue++
		}
		f.levels = append(f.levels, foreseen{priority: l.priority, order: order, oldest: l.oldest, overdue: overdue})
	}
	f.gone = make([]bool, len(q.nodes))
	for position := 1; position <= q.len(); position++ {
		visit(f.next(), position)
	}
}

// foresight plays the queue's dispatches on a copy of what they change.
type foresight struct {
	q      *queue
	levels []foreseen
	gone   []bool // by node
	passed uint8
}

type foreseen struct {
	priority int8
	order    []claim // a heap
	oldest   int32   // the oldest ticket that is not gone
	overdue  int     // how many have waited too long, gone ones included until oldest has passed them
}

type claim struct {
	tag   int64
	entry uint64
	fresh bool
	line  int32
	turn  int     // of heads
	heads []int32 // the next ticket of each strand
}

func (f *foresight) next() *Ticket {
	top, aged := -1, -1
	for i := range f.levels {
		if l := &f.levels[i]; len(l.order) > 0 && (top < 0 || l.priority > f.levels[top].priority) {
			top = i
		}
	}
	for i := range f.levels {
		l := &f.levels[i]
		if i == top || l.overdue == 0 {
			continue
		}
		if aged < 0 || older(f.q.nodes[l.oldest].at, l.priority, f.q.nodes[f.levels[aged].oldest].at, f.levels[aged].priority) {
			aged = i
		}
	}
	li := top
	switch {
	case aged < 0:
	case f.passed >= agedEvery-1:
		li, f.passed = aged, 0
	default:
		f.passed++
	}
	return f.take(&f.levels[li])
}

// take takes a level's next ticket.
func (f *foresight) take(l *foreseen) *Ticket {
	c := &l.order[0]
	ni := c.heads[c.turn]
	node := &f.q.nodes[ni]
	t, fl := node.ticket, &f.q.lines[c.line]
	f.gone[ni] = true
	for l.oldest != none && f.gone[l.oldest] {
		l.oldest = f.q.nodes[l.oldest].newer
		l.overdue = max(0, l.overdue-1)
	}
	if c.heads[c.turn] = node.next; node.next == none {
		c.heads = append(c.heads[:c.turn], c.heads[c.turn+1:]...)
	} else {
		c.turn++
	}
	if c.turn == len(c.heads) {
		c.turn = 0
	}
	if len(c.heads) == 0 {
		end := len(l.order) - 1
		l.order[0] = l.order[end]
		l.order = l.order[:end]
	} else {
		c.fresh = false
		c.tag += f.q.expect(fl, t.request.Work) * tagScale / int64(fl.weight)
	}
	for i := 0; ; {
		least := 2*i + 1
		if least >= len(l.order) {
			return t
		}
		if right := least + 1; right < len(l.order) && l.order[right].before(&l.order[least]) {
			least = right
		}
		if !l.order[least].before(&l.order[i]) {
			return t
		}
		l.order[i], l.order[least] = l.order[least], l.order[i]
		i = least
	}
}

func (c *claim) before(o *claim) bool {
	switch {
	case c.fresh != o.fresh:
		return c.fresh
	case c.tag != o.tag && !c.fresh:
		return c.tag < o.tag
	}
	return c.entry < o.entry
}
