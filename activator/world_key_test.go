package activator

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"slices"
)

var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// key identifies what can happen from here on: times count from now, replicas are named by their slot, and of a
// remembered word only whether it is still the present one.
func (w *world) key(buf []byte) ([2]uint64, []byte) {
	b := buf[:0]
	u8 := func(v uint8) { b = append(b, v) }
	bit := func(vs ...bool) {
		var x uint8
		for i, v := range vs {
			if v {
				x |= 1 << i
			}
		}
		u8(x)
	}
	due := func(t moment) { // a deadline: passed ones are alike
		if t == 0 {
			b = append(b, 0xff)
			return
		}
		b = binary.AppendVarint(b, int64(max(t-w.now, -1)))
	}
	old := w.sc.config.ScaledownAfter + 1
	past := func(t moment) { // what lies long back is alike
		if t == 0 {
			b = append(b, 0xff)
			return
		}
		b = binary.AppendVarint(b, int64(min(w.now-t, old)))
	}
	label := func(id uint64) {
		for i := range w.core.slots {
			if w.core.slots[i].id == id {
				u8(uint8(i + 1))
				return
			}
		}
		u8(0)
	}
	fresh := func(g int, seen word) { bit(g < len(w.gates) && w.gates[g].word == seen) }
	rank := w.ranks()
	ticket := func(t *Ticket) {
		if t != nil {
			u8(rank[w.ticketIndex(t)])
		}
	}

	c := &w.core
	for i := range c.slots {
		s := &c.slots[i]
		u8(uint8(s.state)<<4 | uint8(s.work))
		u8(uint8(s.look)<<4 | s.tries)
		bit(s.spec == c.spec, s.held, s.cancelled, s.exited, s.unknown, s.watched, s.preempt, s.id != 0)
		bit(s.outlived, s.extra)
		u8(uint8(s.spec))
		label(s.heir)
		due(s.check)
		due(s.drainBy)
		if s.state == Asleep || s.look == lookFence {
			past(s.idleSince)
		}
	}
	u8(uint8(c.spec)<<4 | uint8(c.fallback))
	bit(c.worked, c.refused.cause != nil, w.fallback)
	u8(c.sleepless<<4 | uint8(w.badSleeps))
	due(c.failure.retryAt)
	bit(c.failure.permanent, c.final, c.asking, c.blocked, c.done, w.poked, w.over, c.crowded)
	bit(c.tight, c.surveying)
	due(c.leaveBy)
	u8(uint8(c.leaving)<<4 | uint8(c.scale+1))
	if c.config.BackoffMin != c.config.BackoffMax {
		u8(uint8(c.failure.count))
	}
	w.lines(func(f *line, ahead int64) {
		u8(f.name.tenant[0])
		bit(f.fresh && f.at != none && w.sc.lines > 1)
		u8(uint8(f.name.priority))
		b = binary.AppendVarint(b, ahead)
		if f.turn != none { // nobody has two keys here
			for ni := c.queue.strands[f.turn].head; ni != none; ni = c.queue.nodes[ni].next {
				ticket(c.queue.nodes[ni].ticket)
			}
		}
		u8(0xfe)
	})
	u8(uint8(w.queued))
	for _, g := range w.open {
		u8(uint8(g))
	}
	u8(0xfd)
	for i := range w.gates {
		g := &w.gates[i]
		label(g.id)
		u8(uint8(g.word.inFlight()))
		bit(g.word.fenced(), g.word&wordUnknown != 0, g.word&wordWatched != 0, g.ended)
		bit(g.last != 0)
		if !g.word.fenced() {
			past(max(g.readyAt, g.last))
			past(max(g.readyAt, g.trueLast))
		}
	}
	u8(0xfd)
	ev := func(e *event) {
		u8(uint8(e.kind))
		label(e.id)
		bit(e.ok, e.err != nil)
		if e.change != nil {
			u8(uint8(e.change.spec))
		}
		u8(uint8(e.grant))
		ticket(e.ticket)
		if e.kind == evObserved || e.kind == evClosed {
			u8(uint8(e.word.inFlight()))
			bit(e.word&wordUnknown != 0)
			past(e.since)
			fresh(w.gateOf(e.id), e.word)
		}
	}
	for i := range w.mail {
		ev(&w.mail[i])
	}
	u8(0xfc)
	for i := range w.results {
		ev(&w.results[i])
	}
	u8(0xfc)
	for i := range w.effs {
		f := &w.effs[i]
		u8(uint8(f.kind))
		label(f.id)
		bit(f.idle, f.held, f.beside)
		ticket(f.ticket)
		if f.kind == effFence {
			fresh(w.gateOf(f.id), f.word)
		}
	}
	u8(0xfb)
	u8(w.asking.stage<<4 | w.looking.stage)
	if w.asking.stage != 0 {
		u8(rank[w.asking.t])
		u8(uint8(w.asking.gate))
		fresh(w.asking.gate, w.asking.seen)
	}
	if w.looking.stage == 2 {
		label(w.looking.id)
		u8(uint8(w.looking.word.inFlight()))
		fresh(w.gateOf(w.looking.id), w.looking.word)
		past(w.looking.since)
	}
	for i := range w.procs {
		p := &w.procs[i]
		label(p.id)
		u8(uint8(p.op))
		bit(p.cancelled, p.alive, p.exited, p.asleep, p.broken, p.foreign, p.devices, p.spec == c.spec)
		bit(p.beside)
		u8(uint8(p.spec))
	}
	u8(0xfa)
	for r := range w.threads {
		b = binary.AppendUvarint(b, w.local(slices.Index(rank[:len(w.threads)], uint8(r))))
	}
	l := w.left
	b = append(b, byte(l.cancel), byte(l.crash), byte(l.startFail), byte(l.stopFail), byte(l.sleepFail), byte(l.wakeFail), byte(l.deny),
		byte(l.update), byte(l.unload), byte(l.close), byte(l.hurry), byte(l.preempt), byte(l.scale), byte(l.adopt), byte(l.retry), byte(l.yield))
	return [2]uint64{maphash.Bytes(seeds[0], b), maphash.Bytes(seeds[1], b)}, b
}

// lines visits the queue's tenants in an order that does not depend on when they came, with how far each is ahead of the last one, or of
// those who have not come yet. Times are too short here for anybody to be overdue or forgotten.
func (w *world) lines(visit func(f *line, ahead int64)) {
	q := &w.core.queue
	start := func(f *line) int64 {
		if f.at != none {
			return f.tag
		}
		return max(f.tag, q.levels[f.level].virtual)
	}
	known := make([]*line, 0, len(q.lines))
	for i := range q.lines {
		known = append(known, &q.lines[i])
	}
	slices.SortFunc(known, func(a, b *line) int {
		order := cmp.Or(-cmp.Compare(a.name.priority, b.name.priority), cmp.Compare(start(a), start(b)))
		switch {
		case order != 0:
			return order
		case a.at != none && b.at != none && a.fresh != b.fresh:
			return cmp.Compare(b.at, a.at) // one of them is on top
		case a.at != none && b.at != none:
			return cmp.Compare(a.entry, b.entry)
		case a.at != none || b.at != none: // those who wait first
			return cmp.Compare(b.at, a.at)
		}
		return cmp.Compare(a.name.tenant, b.name.tenant)
	})
	for i, f := range known {
		base := q.levels[f.level].virtual
		if len(known) == w.sc.lines {
			for base = start(f); i > 0 && known[i-1].level == f.level; i-- {
				base = start(known[i-1])
			}
		}
		visit(f, (start(f)-base)/tagScale)
	}
}

// tidy drops words that nothing points to any more, so that they do not tell equal worlds apart.
func (w *world) tidy() {
	used := make([]bool, len(w.gates))
	for _, g := range w.open {
		used[g] = true
	}
	for i := range w.threads {
		t := &w.threads[i]
		switch t.pc {
		case pcLoad, pcSwap, pcServed, pcGiveUp, pcTouch:
			used[t.gate] = true
		default:
			t.gate = 0
		}
	}
	if w.asking.stage > 1 {
		used[w.asking.gate] = true
	}
	for i := range w.procs {
		if g := w.gateOf(w.procs[i].id); g >= 0 {
			used[g] = true
		}
	}
	if !slices.Contains(used, false) {
		return
	}
	to := make([]int, len(w.gates))
	n := 0
	for g, u := range used {
		to[g] = n
		if u {
			w.gates[n] = w.gates[g]
			n++
		}
	}
	w.gates = w.gates[:n]
	for i := range w.open {
		w.open[i] = to[w.open[i]]
	}
	for i := range w.threads {
		if t := &w.threads[i]; t.gate < len(to) {
			t.gate = to[t.gate]
		}
	}
	w.asking.gate = min(w.asking.gate, len(to)-1)
	if len(to) > 0 && w.asking.stage > 1 {
		w.asking.gate = to[w.asking.gate]
	} else {
		w.asking.gate = 0
	}
}

// local is what distinguishes a request from the others, but for its place in lists.
func (w *world) local(i int) uint64 {
	t := &w.threads[i]
	if t.pc == pcDone {
		return uint64(t.outcomes)<<4 | uint64(pcDone)
	}
	v := uint64(t.ticket)<<8 | uint64(t.outcomes)<<4 | uint64(t.pc)
	switch t.pc {
	case pcLoad, pcSwap, pcServed, pcGiveUp, pcTouch:
		v |= uint64(t.gate+1) << 12
	}
	if t.pc == pcSwap && w.gates[t.gate].word == t.seen {
		v |= 1 << 16
	}
	if t.skipped {
		v |= 1 << 17
	}
	if i >= len(w.threads)-w.sc.hung {
		v |= 1 << 18
	}
	return v | uint64(w.sc.tenants[i][0])<<20
}

// ranks orders the requests in a way that does not depend on their numbers: requests of one tenant are alike,
// and worlds that only swap two of them are the same.
func (w *world) ranks() (rank [8]uint8) {
	var keys [8]uint64
	n := len(w.threads)
	for i := range n {
		keys[i] = w.local(i) << 24
	}
	place := func(t *Ticket, at, shift int) {
		if t != nil {
			keys[w.ticketIndex(t)] |= uint64(at+1) << shift
		}
	}
	q := &w.core.queue
	for i := range q.lines {
		at := 0
		if q.lines[i].turn == none {
			continue
		}
		for ni := q.strands[q.lines[i].turn].head; ni != none; ni = q.nodes[ni].next {
			place(q.nodes[ni].ticket, at, 0)
			at++
		}
	}
	for i := range w.mail {
		if w.mail[i].kind == evCancel {
			place(w.mail[i].ticket, i, 4)
		} else {
			place(w.mail[i].ticket, i, 9)
		}
	}
	for i := range w.results {
		place(w.results[i].ticket, i, 14)
	}
	for i := range w.effs {
		place(w.effs[i].ticket, i, 17)
	}
	if w.asking.stage != 0 {
		keys[w.asking.t] |= 1 << 23
	}
	for i := range n {
		for j := range n {
			if keys[j] < keys[i] || keys[j] == keys[i] && j < i {
				rank[i]++
			}
		}
	}
	return rank
}
