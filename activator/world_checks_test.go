package activator

// checkClosing: what serves an old spec is not told to leave before another serves in its place, or, where that cannot be, before the last one
// who left has a successor that serves. What is of the present spec does not leave because of another.
func (w *world) checkClosing(id, newest uint64) {
	c := &w.core
	s := c.byID(id)
	if s == nil || s.state != Ready || s.extra || c.leaving != staying || w.sc.budget.yield > 0 {
		return
	}
	if s.spec == c.spec {
		if p := w.proc(id); c.indexOf(s) < c.config.Max && p != nil && p.spec == c.spec && !c.surplus(s) {
			w.fail("update: replica %d leaves, which is of the present spec", id)
		}
		return
	}
	if c.config.Surge && !c.crowded {
		if !c.serving(c.spec) {
			w.fail("update: replica %d leaves, and none serves in its place", id)
		}
		return
	}
	for i := range c.slots {
		o := &c.slots[i]
		if old := o.spec != c.spec; o != s && (old && (o.state == Draining || o.state == Stopping || o.look == lookClose) || !old && o.state == Starting && !o.cancelled && o.id < newest) {
			w.fail("update: replica %d leaves beside replica %d, which is %v", id, o.id, o.state)
		}
	}
}

// checkSurplus: what is more than needed goes when nobody waits, and leaves as many as are needed to serve.
func (w *world) checkSurplus(id uint64) {
	c := &w.core
	if s := c.byID(id); s == nil || !s.extra || s.state != Ready {
		return
	}
	serving := 0
	for i := range c.slots {
		if o := &c.slots[i]; o.state == Ready && o.id != id && !o.ending() {
			serving++
		}
	}
	if keep := max(1, c.floor()); serving < keep || c.queue.len() > 0 {
		w.fail("I14: surplus replica %d leaves, and %d stay of %d wanted while %d wait", id, serving, keep, c.queue.len())
	}
}

// countBadSleeps counts on its own what speaks against putting replicas to sleep.
func (w *world) countBadSleeps(e *event) {
	s := w.core.byID(e.id)
	switch {
	case e.kind == evRetry, e.kind == evUpdate && w.core.leaving == staying:
		w.badSleeps = 0
	case s == nil || s.spec != w.core.spec || s.state != Asleep:
	case e.kind == evExited, (e.kind == evSlept || e.kind == evWoken) && e.err != nil:
		w.badSleeps = min(w.badSleeps+1, sleepTries)
	case e.kind == evWoken && !w.core.mustLeave(s):
		w.badSleeps = 0
	}
}

// check is what must hold after every action, whatever is under way.
func (w *world) check() {
	for i := range w.procs {
		if p := &w.procs[i]; (p.asleep || p.broken || p.op == workSleep || p.op == workWake) && !p.exited && w.holders(p.id) > 0 {
			w.fail("I1: a request is on replica %d, which sleeps", p.id)
		}
	}
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
		case s.state == Ready && p.spec != w.core.spec && (w.core.final || !w.core.beside() && !w.replacing()):
			w.fail("update: replica %d of the old spec is open", p.id)
		case s.cancelled && p.op != workNone && !p.cancelled && p.op != workStop:
			w.fail("cancel: the start of replica %d was not told to end", p.id)
		}
	}
	if _, surplus := w.core.unneeded(); surplus > 0 && w.core.candidate() {
		w.fail("I14: %d replicas stay that nobody needs", surplus)
	}
	if len(w.open) > w.core.config.Max {
		w.fail("I12: %d replicas are open, at most %d allowed", len(w.open), w.core.config.Max)
	}
	for _, g := range w.open {
		s := w.core.byID(w.gates[g].id)
		if s == nil || s.state != Ready {
			w.fail("publish: replica %d is shown to requests, and does not serve", w.gates[g].id)
		} else if s.unknown != (w.gates[g].word&wordUnknown != 0) && !w.mut.knowsUnknown {
			w.fail("I7: the machine and the word of replica %d disagree on what is known", s.id)
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

// replacing: one replica of an old spec is on its way out, or its successor on the way in, or it is not time for that.
func (w *world) replacing() bool {
	c := &w.core
	for i := range c.slots {
		s := &c.slots[i]
		if s.spec != c.spec && (s.state == Draining || s.state == Stopping || s.state == Failed) || s.spec == c.spec && s.state == Starting {
			return true
		}
	}
	return c.failure.forbids(w.now) || c.missing() > 0
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
	least := keep
	if w.core.failure.permanent { // what is there stays, what is not cannot be started
		least = 0
	}
	if w.core.tight { // for more than there must be there were no devices
		least = min(least, max(w.core.config.Min, 1))
	}
	alive := 0
	for i := range w.procs {
		if w.procs[i].alive && !w.procs[i].asleep {
			alive++
		}
	}
	if hung == 0 && (!leaving && alive < least || alive > keep) {
		w.fail("I8, I12: %d replicas in the end, %d wanted", alive, keep)
	}
	for i := range w.procs {
		if p := &w.procs[i]; hung == 0 && p.spec != w.core.spec && !w.core.failure.permanent {
			w.fail("update: replica %d is of the old spec in the end", p.id)
		}
	}
	if len(w.procs) > alive {
		w.fail("I8: %d replicas asleep or forgotten in the end", len(w.procs)-alive)
	}
}
