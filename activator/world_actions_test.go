package activator

import (
	"fmt"
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
	doYield
)

func (a action) progress() bool { return a.what <= doTick && a.how != 1 }

func (a action) String() string {
	names := [...]string{"owner", "work", "request", "settle", "tick", "cancel", "crash", "update", "unload", "close", "hurry", "preempt", "scale", "adopt", "retry", "yield"}
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
		// It is asked once it serves, also if its start was taken over and nothing can be there.
		if s := w.core.byID(w.procs[i].id); w.procs[i].foreign || s != nil && s.unknown && w.gateOf(s.id) >= 0 && !w.settling(s.id) {
			add(doSettle, i, 0)
		}
	}
	if w.ownerIdle() && w.deadline() != 0 {
		add(doTick, 0, 0)
	}
	return w.surroundings(list)
}

// settling: the answer is on its way to the machine. There is one only.
func (w *world) settling(id uint64) bool {
	return slices.ContainsFunc(w.mail, func(e event) bool { return e.kind == evSettled && e.id == id })
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
			if w.left.startFail > 0 && !p.cancelled && (!w.sc.failNew || p.spec > 1) {
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
		if w.left.yield > 0 {
			add(doYield, i, 0)
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
	if w.left.adopt > 0 {
		add(doAdopt, 0, 1)
		if w.sc.config.Surge {
			add(doAdopt, 0, 2)
		}
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
		spec := 1 + uint64(w.sc.budget.update-w.left.update)
		if w.sc.back && spec > 2 {
			spec = 1
		}
		w.send(event{kind: evUpdate, change: &change{config: w.sc.config, spec: spec}})
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
	case doYield:
		w.left.yield--
		w.send(event{kind: evPreempt, id: w.procs[i].id, ok: true})
	case doScale:
		w.left.scale--
		n := w.sc.scaleTo // and back to none with the last one
		if w.left.scale == 0 && w.sc.budget.scale > 1 {
			n = 0
		}
		w.send(event{kind: evScale, n: n})
	case doAdopt:
		w.left.adopt--
		id, old, room, spec := w.core.nextID, a.how == 2, w.core.config.Max, w.core.spec
		if old {
			room, spec = w.core.room(), 0
		}
		if w.core.slotWithin(room) >= 0 && w.core.leaving == staying && w.ownerIdle() && len(w.mail) == 0 {
			ready := a.how != 1 // else it is starting
			w.procs = append(w.procs, proc{id: id, spec: spec, slot: w.core.slotWithin(room), alive: ready, foreign: ready, devices: w.sc.ledger})
			w.stepOn(event{kind: evAdopt, id: id, ok: ready, old: old})
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
		denied := errDenied
		if w.sc.unwanted {
			denied = ErrUnwanted
		}
		if p.beside {
			denied = ErrNoRoom
		}
		w.send(event{kind: evReserved, id: p.id, err: pick(denied)})
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
		p.asleep, p.broken = !failed, failed
		w.send(event{kind: evSlept, id: p.id, err: pick(errSleep)})
	case workWake:
		if failed {
			w.left.wakeFail--
		}
		failed = failed || p.exited
		p.asleep, p.broken = failed, failed
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
		if w.sc.charges && t.ticket == ticketGranted {
			w.send(event{kind: evCharge, ticket: w.sc.tickets[i], cost: 3 * firstOutput})
		}
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
