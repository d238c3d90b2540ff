package activator

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
)

// action is one thing that may happen next.
type action struct {
	what actionKind
	i    int8
	how  int8
}

type actionKind uint8

const (
	// Progress: happens by itself, sooner or later.
	doOwner  actionKind = iota
	doWork              // the work of proc i ends; how: 0 well, 1 badly, 2 cancelled
	doThread            // thread i goes on; how: chosen replica where it chooses
	doSettle            // the foreign requests of proc i end
	doTick              // time passes until the machine's next deadline
	// The surroundings: may happen or not.
	doCancel
	doCrash
	doUpdate
	doUnload
	doClose
	doHurry
	doPreempt
	doScale
	doAdopt
	doRetry
)

func (a action) progress() bool { return a.what <= doTick && a.how != 1 }

func (a action) String() string {
	names := [...]string{"owner", "work", "request", "settle", "tick", "cancel", "crash", "update", "unload", "close", "hurry", "preempt", "scale", "adopt", "retry"}
	return fmt.Sprintf("%s(%d,%d)", names[a.what], a.i, a.how)
}

// actions lists what may happen next. The first one, if it is progress, is what happens if nothing gets in the way.
func (w *world) actions(list []action) []action {
	add := func(what actionKind, i, how int) { list = append(list, action{what, int8(i), int8(how)}) }
	if !w.ownerIdle() || len(w.mail) > 0 {
		add(doOwner, 0, 0)
	}
	for i := range w.procs {
		p := &w.procs[i]
		switch p.op {
		case workReserve, workLaunch:
			if p.cancelled {
				add(doWork, i, 2)
			}
			if !p.cancelled || p.op == workLaunch {
				add(doWork, i, 0)
			}
		case workSleep, workWake, workStop:
			add(doWork, i, 0)
		}
	}
	for i := range w.threads {
		t := &w.threads[i]
		switch t.pc {
		case pcDone, pcWait:
		case pcSnap:
			n := 0
			for how, g := range w.open {
				if _, ok := w.room(g); ok {
					add(doThread, i, how*2) // even, so as not to look like a failure
					n++
				}
			}
			if n == 0 {
				add(doThread, i, 0)
			}
		case pcServed:
			if i < len(w.threads)-w.sc.hung || w.gates[t.gate].ended || w.proc(w.gates[t.gate].id) == nil || w.proc(w.gates[t.gate].id).exited {
				add(doThread, i, 0)
			}
		default:
			add(doThread, i, 0)
		}
	}
	for i := range w.procs {
		if w.procs[i].foreign {
			add(doSettle, i, 0)
		}
	}
	if w.ownerIdle() && w.deadline() != 0 {
		add(doTick, 0, 0)
	}
	return w.surroundings(list)
}

func (w *world) deadline() moment {
	if w.mut.deadline != nil {
		return w.mut.deadline(w)
	}
	return w.core.nextDeadline(w.now)
}

func (w *world) surroundings(list []action) []action {
	add := func(what actionKind, i, how int) { list = append(list, action{what, int8(i), int8(how)}) }
	for i := range w.procs {
		p := &w.procs[i]
		switch p.op {
		case workReserve:
			if w.left.deny > 0 && !p.cancelled {
				add(doWork, i, 1)
			}
		case workLaunch:
			if w.left.startFail > 0 && !p.cancelled {
				add(doWork, i, 1)
			}
		case workSleep:
			if w.left.sleepFail > 0 {
				add(doWork, i, 1)
			}
		case workWake:
			if w.left.wakeFail > 0 {
				add(doWork, i, 1)
			}
		case workStop:
			if w.left.stopFail > 0 {
				add(doWork, i, 1)
			}
		}
		if p.alive && !p.exited && w.left.crash > 0 {
			add(doCrash, i, 0)
		}
		if w.left.preempt > 0 {
			add(doPreempt, i, 0)
		}
	}
	for i := range w.threads {
		if w.left.cancel > 0 && w.threads[i].pc == pcWait {
			add(doCancel, i, 0)
		}
	}
	simple := [...]struct {
		what actionKind
		left int8
	}{
		{doUpdate, w.left.update}, {doUnload, w.left.unload}, {doClose, w.left.close}, {doScale, w.left.scale},
		{doAdopt, w.left.adopt}, {doRetry, w.left.retry}, {doHurry, w.left.hurry},
	}
	for _, s := range simple {
		if s.left > 0 && (s.what != doHurry || w.core.leaving == closing) {
			add(s.what, 0, 0)
		}
	}
	return list
}

// apply does one action and checks what must hold after every one.
func (w *world) apply(a action) {
	i := int(a.i)
	switch a.what {
	case doOwner:
		w.owner()
	case doWork:
		w.endWork(&w.procs[i], a.how)
	case doThread:
		w.thread(i, int(a.how)/2)
	case doSettle:
		w.procs[i].foreign = false
		w.send(event{kind: evSettled, id: w.procs[i].id})
	case doTick:
		w.now = max(w.now, w.deadline())
		w.stepOn(event{kind: evTick})
		w.private()
	case doCancel:
		w.left.cancel--
		w.threads[i].ticket = ticketCancelled
		w.threads[i].pc = pcLeave
	case doCrash:
		w.left.crash--
		w.procs[i].exited = true
		w.send(event{kind: evExited, id: w.procs[i].id, err: errCrash})
	case doUpdate:
		w.left.update--
		w.send(event{kind: evUpdate, change: &change{config: w.sc.config, newSpec: true}})
	case doUnload:
		w.left.unload--
		w.send(event{kind: evUnload})
	case doClose:
		w.left.close--
		w.send(event{kind: evClose})
	case doHurry:
		w.left.hurry--
		w.send(event{kind: evHurry})
	case doPreempt:
		w.left.preempt--
		w.send(event{kind: evPreempt, id: w.procs[i].id})
	case doScale:
		w.left.scale--
		w.send(event{kind: evScale, n: w.sc.scaleTo})
	case doAdopt:
		w.left.adopt--
		// As owner.prepare: only what will be taken becomes an instance.
		if id := w.core.nextID; w.core.freeSlot() >= 0 && w.core.leaving == staying && w.ownerIdle() && len(w.mail) == 0 {
			w.procs = append(w.procs, proc{id: id, spec: w.core.spec, slot: w.core.freeSlot(), alive: true, foreign: true, devices: w.sc.ledger})
			w.stepOn(event{kind: evAdopt, id: id})
			w.private()
		}
	case doRetry:
		w.left.retry--
		w.send(event{kind: evRetry})
	}
	w.check()
}

// endWork reports how a replica's work ended.
func (w *world) endWork(p *proc, how int8) {
	op := p.op
	p.op = workNone
	failed := how != 0
	pick := func(err error) error {
		if failed {
			return err
		}
		return nil
	}
	switch op {
	case workReserve:
		if how == 1 {
			w.left.deny--
		}
		p.devices = !failed
		w.send(event{kind: evReserved, id: p.id, err: pick(errDenied)})
	case workLaunch:
		if how == 1 {
			w.left.startFail--
		}
		p.alive = !failed
		switch {
		case !failed:
			w.send(event{kind: evStarted, id: p.id})
		case w.sc.permanent:
			w.send(event{kind: evFailed, id: p.id, err: errLaunchEnd})
		default:
			w.send(event{kind: evFailed, id: p.id, err: errLaunch})
		}
	case workSleep:
		if failed {
			w.left.sleepFail--
		}
		failed = failed || p.exited
		p.asleep = !failed
		w.send(event{kind: evSlept, id: p.id, err: pick(errSleep)})
	case workWake:
		if failed {
			w.left.wakeFail--
		}
		failed = failed || p.exited
		p.asleep = failed
		w.send(event{kind: evWoken, id: p.id, err: pick(errWake)})
	case workStop:
		if failed {
			w.left.stopFail--
		} else {
			p.alive = false
		}
		w.send(event{kind: evStopped, id: p.id, err: pick(errStop)})
	}
}

// thread takes one request one access further; in a coarse scenario, over the accesses that only postpone
// what others could do as well: the load behind the snapshot (the swap fails if either is stale), the
// send behind the count, the poke behind the look.
func (w *world) thread(i, choice int) {
	before := w.threads[i].pc
	w.access(i, choice)
	if !w.sc.coarse {
		return
	}
	switch now := w.threads[i].pc; {
	case now == pcLoad && before == pcSnap, now == pcSend, now == pcTell:
		w.access(i, 0)
	case now == pcLook:
		w.access(i, 0)
		if w.threads[i].pc == pcPoke {
			w.access(i, 0)
		}
	case now == pcPoke:
		w.access(i, 0)
	}
}

func (w *world) access(i, choice int) {
	t := &w.threads[i]
	switch t.pc {
	case pcNew:
		t.pc = pcSnap
		if w.queued != 0 {
			t.pc = pcTake
			if w.mut.overtakes {
				t.pc, t.skipped = pcSnap, true
			}
		}
	case pcSnap:
		t.pc = pcTake
		if choice < len(w.open) {
			t.gate, t.pc = w.open[choice], pcLoad
		}
	case pcLoad:
		t.seen = w.gates[t.gate].word
		var ok bool
		if t.next, ok = w.room(t.gate); ok {
			t.pc = pcSwap
		} else {
			t.pc = pcTake
		}
	case pcSwap:
		if w.gates[t.gate].word != t.seen && !w.mut.storesBlindly {
			t.pc = pcLoad
			return
		}
		w.enter(t.gate, t.next)
		if t.skipped {
			w.fail("order: a request overtook those in the queue")
		}
		t.pc = pcServed
		t.outcomes++
		t.outcome = OutcomeGranted
	case pcTake:
		if w.mut.countsLate {
			w.threadSend(t, i)
			t.pc = pcSend
			return
		}
		if w.queued >= w.sc.bound && w.sc.bound > 0 && !w.mut.ignoresBound {
			t.outcomes++
			t.outcome, t.pc = OutcomeFailed, pcDone
			return
		}
		w.queued++
		t.pc = pcSend
	case pcSend:
		if w.mut.countsLate {
			w.queued++
			if t.ticket == ticketWaiting {
				t.pc = pcWait
			}
			return
		}
		w.threadSend(t, i)
	case pcLeave:
		if !w.mut.leaksRoom {
			w.queued--
		}
		t.pc = pcTell
	case pcTell:
		w.conclude(t, OutcomeCancelled)
		w.send(event{kind: evCancel, ticket: w.sc.tickets[i]})
	case pcServed:
		t.pc = pcGiveUp
		g := &w.gates[t.gate]
		g.trueLast = w.now
		if !w.mut.touchesLate {
			g.last = w.now
		}
	case pcGiveUp:
		g := &w.gates[t.gate]
		g.word = g.word.leave()
		zero := g.word.reportsZero() && !w.mut.silentAtZero
		switch {
		case w.mut.touchesLate:
			t.pc = pcTouch
		case zero:
			t.pc = pcPoke
		default:
			t.pc = pcLook
		}
	case pcTouch:
		w.gates[t.gate].last = w.now
		t.pc = pcPoke
	case pcLook:
		t.pc = pcDone
		if w.queued != 0 && !w.mut.silentToQueue {
			t.pc = pcPoke
		}
	case pcPoke:
		w.poke()
		t.pc = pcDone
	}
}

func (w *world) threadSend(t *thread, i int) {
	if w.over { // the mailbox is closed
		w.queued--
		t.ticket = ticketFailed
		w.conclude(t, OutcomeFailed)
		return
	}
	t.pc = pcWait
	w.send(event{kind: evArrive, ticket: w.sc.tickets[i]})
}

// check is what must hold after every action, whatever is under way.
func (w *world) check() {
	for g := range w.gates {
		gt := &w.gates[g]
		n := 0
		for i := range w.threads {
			if t := &w.threads[i]; t.gate == g && (t.pc == pcServed || t.pc == pcGiveUp) {
				n++
			}
		}
		if w.asking.stage == 3 && w.asking.gate == g {
			n++
		}
		if n != gt.word.inFlight() {
			w.fail("count: %d requests on replica %d, the word says %d", n, gt.id, gt.word.inFlight())
		}
		if n > gt.limit {
			w.fail("I4: %d in flight on replica %d, limit %d", n, gt.id, gt.limit)
		}
	}
	if w.queued < 0 || w.sc.bound > 0 && w.queued > w.sc.bound {
		w.fail("I5: %d in the queue, bound %d", w.queued, w.sc.bound)
	}
	if len(w.mail) == 0 && w.ownerIdle() && w.quietThreads() {
		w.checkQuiet()
	}
}

// quietThreads: nobody is just about to tell the owner something.
func (w *world) quietThreads() bool {
	for i := range w.threads {
		switch w.threads[i].pc {
		case pcSend, pcLeave, pcTell, pcGiveUp, pcLook, pcPoke, pcTouch:
			return false
		}
	}
	return true
}

// checkQuiet is what must hold while the owner has nothing to do: it has not overlooked anything.
func (w *world) checkQuiet() {
	waiting := 0
	for i := range w.threads {
		if w.threads[i].pc == pcWait && w.threads[i].ticket == ticketWaiting {
			waiting++
		}
	}
	if waiting != w.queued || waiting != w.core.queue.len() {
		w.fail("I5: %d requests wait, %d are counted, %d queued", waiting, w.queued, w.core.queue.len())
	}
	for i := range w.procs {
		p := &w.procs[i]
		s := w.core.byID(p.id)
		switch {
		case s == nil:
			w.fail("I11: replica %d is nobody's", p.id)
		case p.exited && (s.state == Ready || s.state == Draining):
			w.fail("crash: that of replica %d was overlooked", p.id)
		case s.state == Ready && p.spec != w.core.spec:
			w.fail("update: replica %d of the old spec is open", p.id)
		case s.cancelled && p.op != workNone && !p.cancelled && p.op != workStop:
			w.fail("cancel: the start of replica %d was not told to end", p.id)
		}
	}
	if waiting == 0 {
		return
	}
	coming := false
	for i := range w.core.slots {
		s := &w.core.slots[i]
		coming = coming || s.work != workNone || s.state == Ready || s.state == Draining
		if g := w.gateOf(s.id); s.state == Ready && g >= 0 {
			if _, ok := w.gates[g].word.enter(w.gates[g].limit); ok {
				w.fail("I9: a request waits while replica %d has room", s.id)
			}
		}
	}
	if !coming && w.deadline() == 0 {
		w.fail("I9: a request waits and nothing is under way")
	}
}

// checkEnd is what must hold when nothing happens any more.
func (w *world) checkEnd() {
	hung := 0
	for i := range w.threads {
		t := &w.threads[i]
		if t.pc == pcServed && i >= len(w.threads)-w.sc.hung {
			hung++
		}
	}
	for i := range w.threads {
		t := &w.threads[i]
		if hung > 0 && (t.pc == pcServed || t.pc == pcWait && w.core.leaving == staying) {
			continue
		}
		if t.outcomes != 1 || t.pc != pcDone {
			w.fail("I2: request %d ends with %d outcomes in step %d", i, t.outcomes, t.pc)
		}
	}
	leaving := w.core.leaving != staying
	if leaving && !w.over {
		w.fail("leaving: the model never ended")
	}
	keep := w.core.floor()
	if w.core.failure.permanent {
		keep = 0
	}
	alive := 0
	for i := range w.procs {
		if w.procs[i].alive && !w.procs[i].asleep {
			alive++
		}
	}
	if hung == 0 && (!leaving && alive < keep || alive > keep) {
		w.fail("I8, I12: %d replicas in the end, %d wanted", alive, keep)
	}
	if len(w.procs) > alive {
		w.fail("I8: %d replicas asleep or forgotten in the end", len(w.procs)-alive)
	}
}

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
		due(s.check)
		due(s.drainBy)
		if s.state == Asleep || s.look == lookFence {
			past(s.idleSince)
		}
	}
	due(c.failure.retryAt)
	bit(c.failure.permanent, c.final, c.asking, c.blocked, c.done, w.poked, w.over)
	due(c.leaveBy)
	u8(uint8(c.leaving)<<4 | uint8(c.scale))
	if c.config.BackoffMin != c.config.BackoffMax {
		u8(uint8(c.failure.count))
	}
	for ti, first := c.queue.turn, true; ti != none && (first || ti != c.queue.turn); ti, first = c.queue.tenants[ti].next, false {
		for ni := c.queue.tenants[ti].head; ni != none; ni = c.queue.nodes[ni].next {
			ticket(c.queue.nodes[ni].ticket)
		}
		u8(0xfe)
	}
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
		bit(f.idle, f.held)
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
		bit(p.cancelled, p.alive, p.exited, p.asleep, p.foreign, p.devices, p.spec == c.spec)
	}
	u8(0xfa)
	for r := range w.threads {
		b = binary.AppendUvarint(b, w.local(slices.Index(rank[:len(w.threads)], uint8(r))))
	}
	l := w.left
	b = append(b, byte(l.cancel), byte(l.crash), byte(l.startFail), byte(l.stopFail), byte(l.sleepFail), byte(l.wakeFail), byte(l.deny),
		byte(l.update), byte(l.unload), byte(l.close), byte(l.hurry), byte(l.preempt), byte(l.scale), byte(l.adopt), byte(l.retry))
	return [2]uint64{maphash.Bytes(seeds[0], b), maphash.Bytes(seeds[1], b)}, b
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
	for ti, first := q.turn, true; ti != none && (first || ti != q.turn); ti, first = q.tenants[ti].next, false {
		at := 0
		for ni := q.tenants[ti].head; ni != none; ni = q.nodes[ni].next {
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
