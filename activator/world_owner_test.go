package activator

import "slices"

// owner does one access to shared memory, and everything private that follows.
func (w *world) owner() {
	switch {
	case w.asking.stage != 0:
		w.grantStep()
	case w.looking.stage != 0:
		w.lookStep()
	case len(w.effs) > 0:
		e := w.effs[0]
		w.effs = slices.Delete(w.effs, 0, 1)
		w.shared(e)
	default:
		e := w.mail[0]
		w.mail = slices.Delete(w.mail, 0, 1)
		switch e.kind {
		case evPoke:
			if !w.mut.pokedStays {
				w.poked = false
			}
		case evExited:
			if g := w.gateOf(e.id); g >= 0 {
				e.ok = w.gates[g].last != 0
			}
		}
		w.stepOn(e)
	}
	w.private()
}

func (w *world) stepOn(e event) {
	if w.mut.event != nil && !w.mut.event(w, &e) {
		return
	}
	var due [4]uint64 // replicas whose drain time is up
	for i := range w.core.slots {
		if s := &w.core.slots[i]; s.state == Draining && s.drainBy != 0 && s.drainBy <= w.now && w.core.mustLeave(s) {
			due[i] = s.id
		}
	}
	w.countBadSleeps(&e)
	newest := w.core.nextID
	if e.kind == evUpdate && e.change.spec != w.core.spec {
		w.fallback = w.core.serving(w.core.spec)
	}
	late := e.kind == evHurry || w.core.leaving != staying && w.core.leaveBy <= w.now
	effs := w.core.step(e, w.now)
	if w.mut.after != nil {
		w.mut.after(w, e)
	}
	for _, f := range effs {
		if f.kind == effGrant && w.granting() {
			w.fail("I2: two grants at once")
		}
		if f.kind == effGrant {
			for t := range w.core.queue.where {
				if t.request.Priority > f.ticket.request.Priority {
					w.fail("order: a request of a lower priority is granted first")
				}
			}
		}
		if f.kind == effClose {
			w.checkClosing(f.id, newest)
			w.checkSurplus(f.id)
		}
		if f.kind == effGiveUp && f.err == nil && w.core.live() {
			w.fail("I10: a request was given up although another replica may serve it")
		}
		if f.kind == effStop && !f.idle {
			if !late && !slices.Contains(due[:], f.id) {
				w.fail("I1: replica %d stopped in mid-flight before its drain time", f.id)
			}
		}
		if w.mut.effect != nil {
			w.effs = append(w.effs, w.mut.effect(w, f)...)
		} else {
			w.effs = append(w.effs, f)
		}
	}
}

// granting: a grant has been asked for, and the machine does not know its result.
func (w *world) granting() bool {
	return w.asking.stage != 0 ||
		slices.ContainsFunc(w.effs, func(f effect) bool { return f.kind == effGrant }) ||
		slices.ContainsFunc(w.results, func(e event) bool { return e.kind == evGranted })
}

// private does what touches no shared memory, up to the next thing that does.
func (w *world) private() {
	for w.bad == "" && w.asking.stage == 0 && w.looking.stage == 0 {
		if len(w.effs) > 0 {
			f := w.effs[0]
			switch f.kind {
			case effPublish, effGrant, effObserve, effFence, effKnown, effClose, effSurvey, effGiveUp:
				return
			}
			w.effs = slices.Delete(w.effs, 0, 1)
			w.begin(f)
			continue
		}
		if len(w.results) == 0 {
			return
		}
		e := w.results[0]
		w.results = slices.Delete(w.results, 0, 1)
		w.stepOn(e)
	}
}

// shared does an immediate effect on shared memory, or the first part of one.
func (w *world) shared(f effect) {
	switch f.kind {
	case effPublish:
		w.open = w.open[:0]
		for i := range w.core.slots {
			s := &w.core.slots[i]
			if g := w.gateOf(s.id); s.state == Ready && g >= 0 {
				w.open = append(w.open, g)
				w.gates[g].limit = w.core.limitOf(s)
			}
		}
	case effGrant:
		w.asking = ownerGrant{stage: 1, t: w.ticketIndex(f.ticket), cost: f.cost}
		w.grantStep()
	case effObserve:
		w.looking = ownerLook{stage: 1, id: f.id}
		w.lookStep()
	case effFence:
		w.fence(f)
	case effKnown:
		g := &w.gates[w.gateOf(f.id)]
		g.last, g.trueLast = w.now, w.now
		g.word &^= wordUnknown
	case effClose:
		g := &w.gates[w.gateOf(f.id)]
		if !w.mut.closesNothing {
			g.word = g.word.fence()
		}
		result := g.word.fence()
		if w.mut.closeSeesZero {
			result &^= wordInFlightMask
		}
		w.results = append(w.results, event{kind: evClosed, id: f.id, word: result})
	case effSurvey:
		id := w.core.cheapest(func(id uint64) (int, moment) {
			g := &w.gates[w.gateOf(id)]
			return g.word.inFlight(), max(g.readyAt, g.last)
		})
		w.results = append(w.results, event{kind: evSurveyed, id: id})
	case effGiveUp:
		t := &w.threads[w.ticketIndex(f.ticket)]
		if t.ticket == ticketWaiting {
			t.ticket = ticketFailed
			w.queued--
			w.conclude(t, OutcomeFailed)
		}
	}
}

func (w *world) fence(f effect) {
	g := &w.gates[w.gateOf(f.id)]
	from := f.word
	if w.mut.fencesAnyWord {
		from = g.word
	}
	to, ok := from.fenceIdle()
	if w.mut.fencesBusy {
		to, ok = g.word.fence(), true
		from = g.word
	}
	ok = ok && g.word == from
	if ok {
		g.word = to
		s := w.core.byID(f.id)
		if since := max(g.readyAt, g.trueLast); s != nil && !s.preempt && w.now-since < w.core.idleAfter() {
			w.fail("I8: replica %d fenced after %d of idleness", f.id, w.now-since)
		}
		if s != nil && !s.preempt && w.staying() < w.core.floor() {
			w.fail("I12: replica %d was fenced, and %d stay of %d wanted", f.id, w.staying(), w.core.floor())
		}
	}
	if w.mut.fenceAlwaysOK {
		ok = true
	}
	w.results = append(w.results, event{kind: evFenced, id: f.id, ok: ok})
}

// grantStep is owner.grant, cut at its accesses.
func (w *world) grantStep() {
	a := &w.asking
	t := &w.threads[a.t]
	end := func(r grantResult) {
		w.results = append(w.results, event{kind: evGranted, ticket: w.sc.tickets[a.t], grant: r, cost: a.cost})
		*a = ownerGrant{}
	}
	switch a.stage {
	case 1:
		if t.ticket != ticketWaiting && !w.mut.grantsTheGone {
			end(grantGone)
			return
		}
		best := -1
		for _, g := range w.open {
			if next, ok := w.room(g); ok && (best < 0 || w.gates[g].word.inFlight() < w.gates[best].word.inFlight()) {
				best, a.gate, a.seen, a.next = g, g, w.gates[g].word, next
			}
		}
		if best < 0 {
			end(grantFull)
			return
		}
		a.stage = 2
	case 2:
		if w.gates[a.gate].word != a.seen {
			a.stage = 1
			return
		}
		w.enter(a.gate, a.next)
		a.stage = 3
	case 3:
		if t.ticket != ticketWaiting && !w.mut.grantsTheGone {
			w.gates[a.gate].word = w.gates[a.gate].word.leave()
			if w.gates[a.gate].word.reportsZero() || w.queued != 0 {
				w.poke()
			}
			end(grantGone)
			return
		}
		if t.pc != pcWait {
			w.fail("I6: a cancelled request was granted")
		}
		t.ticket = ticketGranted
		t.gate = a.gate
		t.pc = pcServed
		w.queued--
		w.conclude(t, OutcomeGranted)
		end(grantOK)
	}
}

// lookStep is owner.observe: the word, then the time.
func (w *world) lookStep() {
	l := &w.looking
	g := &w.gates[w.gateOf(l.id)]
	word1 := func() {
		next, _ := g.word.watch()
		if w.mut.neverWatches {
			next = g.word
		}
		g.word, l.word = next, next
	}
	time1 := func() { l.since = max(g.readyAt, g.last) }
	first, second := word1, time1
	if w.mut.timeBeforeWord {
		first, second = time1, word1
	}
	if l.stage == 1 {
		first()
		l.stage = 2
		return
	}
	second()
	e := event{kind: evObserved, id: l.id, word: l.word, since: l.since}
	*l = ownerLook{}
	w.results = append(w.results, e)
}

// begin does an effect that touches nothing shared: it sets something going.
func (w *world) begin(f effect) {
	p := w.proc(f.id)
	switch f.kind {
	case effChanged, effReply:
	case effDone:
		w.over = true
	case effOpen:
		if p == nil {
			w.fail("BUG: opened unknown replica %d", f.id)
			return
		}
		if p.cancelled {
			w.fail("cancel: replica %d was opened although its start was cancelled", f.id)
		}
		if !p.alive || p.op != workNone || p.asleep || p.broken {
			w.fail("I1: opened replica %d, which does not serve", f.id)
		}
		w.fallback = w.fallback && p.spec != w.core.spec
		if w.mut.reopensOldWord && w.gateOf(f.id) >= 0 {
			return
		}
		g := gate{id: f.id, readyAt: w.now, limit: DefaultConcurrency}
		if old := w.gateOf(f.id); old >= 0 {
			g.last, g.trueLast = w.gates[old].last, w.gates[old].trueLast
		}
		if !f.idle {
			g.last, g.trueLast = w.now, w.now
			if !w.mut.knowsUnknown {
				g.word = wordUnknown
			}
		}
		w.gates = append(w.gates, g)
	case effReserve, effLaunch:
		op := workLaunch
		if f.kind == effReserve {
			op = workReserve
		}
		if p == nil {
			for _, o := range w.procs {
				if o.slot == f.slot {
					w.fail("I3: slot %d starts replica %d beside %d", f.slot, f.id, o.id)
				}
			}
			if n := w.staying() + w.fallingAsleep(); n > w.core.want() && w.core.before(f.id) == nil {
				w.fail("I3: %d replicas serve or will with the start of replica %d, %d wanted", n, f.id, w.core.want())
			}
			w.procs = append(w.procs, proc{id: f.id, slot: f.slot})
			p = &w.procs[len(w.procs)-1]
		}
		if p.op != workNone || p.alive {
			w.fail("I3: replica %d started twice", f.id)
		}
		if !p.devices && w.core.failure.forbids(w.now) {
			w.fail("backoff: replica %d is started before its end", f.id)
		}
		if op == workLaunch && w.sc.ledger && !p.devices {
			w.fail("devices: replica %d launched without", f.id)
		}
		p.op, p.spec, p.beside = op, w.core.spec, f.beside
		most := w.sc.config.Max
		if w.sc.config.Surge && slices.ContainsFunc(w.procs, func(p proc) bool { return p.spec != w.core.spec }) {
			most++
		}
		if len(w.procs) > most {
			w.fail("I12: %d replicas, at most %d allowed", len(w.procs), most)
		}
	case effCancel:
		if p != nil {
			p.cancelled = true
		}
	case effSleep, effWake, effStop:
		w.beginWork(f, p)
	case effGone:
		if p == nil {
			w.fail("BUG: replica %d gone twice", f.id)
			return
		}
		if p.alive || p.op != workNone {
			w.fail("I1: replica %d forgotten while it is there", f.id)
		}
		if f.held != p.devices {
			w.fail("devices: replica %d gave back %v, held %v", f.id, f.held, p.devices)
		}
		w.procs = slices.DeleteFunc(w.procs, func(o proc) bool { return o.id == f.id })
	}
}

func (w *world) beginWork(f effect, p *proc) {
	if p == nil || p.op != workNone {
		w.fail("BUG: effect %d on replica %d, which is busy or gone", f.kind, f.id)
		return
	}
	if f.kind == effWake {
		if !p.asleep || p.broken {
			w.fail("wake: replica %d is not asleep", f.id)
		}
		p.op = workWake
		return
	}
	if g := w.gateOf(f.id); g >= 0 {
		w.gates[g].ended = true
	}
	n := w.holders(f.id)
	gentle := f.kind == effSleep || f.idle
	if gentle && !p.exited && (n > 0 || p.foreign) {
		w.fail("I1, I7: replica %d stopped or put to sleep as idle with %d in flight (unknown: %v)", f.id, n, p.foreign)
	}
	p.op = workStop
	if f.kind == effSleep {
		if p.asleep || p.broken {
			w.fail("sleep: replica %d is asleep", f.id)
		}
		if w.badSleeps >= sleepTries {
			w.fail("I13: replica %d is put to sleep, which went wrong before", f.id)
		}
		p.op = workSleep
	}
}
