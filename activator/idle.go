package activator

// What becomes of a replica that may be idle, or has to be: looks, fences, sleep, preemption, adoption.

func (m *machine) onObserved(s *slot, e event, now moment) bool {
	if s.look != lookObserve {
		return false
	}
	s.look = lookNone
	switch s.state {
	case Draining:
		if e.word.idle() {
			m.stop(s, true, now, "drained")
		}
		return true
	case Ready:
	default:
		return false
	}
	s.watched = e.word.inFlight() != 0
	if !e.word.idle() {
		s.check = 0 // the poke at zero, or evSettled, leads back here
		m.answerPreemptor(s, ErrBusy)
		return true
	}
	s.check = e.since + m.idleAfter()
	if s.preempt || s.check <= now && m.mayLeave(s) {
		s.look, s.idleSince = lookFence, e.since
		m.emit(effect{kind: effFence, id: s.id, word: e.word})
	}
	return true
}

func (m *machine) onFenced(s *slot, e event, now moment) bool {
	if s.look != lookFence {
		return false
	}
	s.look = lookNone
	if s.state != Ready {
		return false
	}
	if !e.ok { // somebody came in between: the eviction is off, and endIdle looks again when it is time
		m.counters.Revoked++
		m.answerPreemptor(s, ErrBusy)
		return true
	}
	if s.preempt {
		m.preempted()
		m.answerPreemptor(s, nil)
		m.stop(s, true, now, "preempted")
		return true
	}
	if m.sleeps() && now < s.idleSince+m.config.ScaledownAfter {
		m.counters.Sleeps++
		m.failure.count = 0 // a replica that lived to be idle was no failure
		m.become(s, Asleep, now, "idle")
		s.work, s.phase, s.movedAt = workSleep, phaseFalling, now
		m.emit(effect{kind: effSleep, id: s.id})
		return true
	}
	m.counters.Evictions++
	m.failure.count = 0
	m.stop(s, true, now, "idle")
	return true
}

func (m *machine) onClosed(s *slot, e event, now moment) bool {
	if s.look != lookClose {
		return s.state == Failed // closed because it exited
	}
	s.look = lookNone
	if s.state != Ready {
		return false
	}
	m.answerPreemptor(s, ErrBusy)
	reason := "leaving"
	switch {
	case m.mustLeave(s):
	case s.extra:
		reason = "surplus"
		m.counters.Evictions++
		m.failure.count = 0
	default:
		reason = "preempted"
	}
	if e.word.idle() {
		m.stop(s, true, now, reason)
		return true
	}
	m.become(s, Draining, now, reason)
	if m.mustLeave(s) {
		s.drainBy = m.drainLimit(now)
	} // else it is surplus or makes room for another model, which is no reason to cut anybody
	return true
}

func (m *machine) drainLimit(now moment) moment {
	if m.leaving != staying {
		return min(now+m.config.DrainTimeout, m.leaveBy)
	}
	return now + m.config.DrainTimeout
}

func (m *machine) onSlept(s *slot, e event, now moment) bool {
	if s.work != workSleep {
		return false
	}
	s.work, s.phase = workNone, ""
	switch {
	case s.state == Failed: // exited meanwhile
		m.sweep(s, true)
	case e.err != nil:
		m.sleptBadly(s)
		m.stopFor(s, true, now, "sleep failed", e.err)
	default:
		s.check = s.idleSince + m.config.ScaledownAfter
	}
	return true
}

func (m *machine) onWoken(s *slot, e event, now moment) bool {
	if s.work != workWake {
		return false
	}
	s.work = workNone
	switch {
	case s.state == Failed:
		m.sweep(s, true)
	case e.err != nil:
		m.sleptBadly(s)
		m.stopFor(s, true, now, "wake failed", e.err)
	case m.mustLeave(s):
		m.stop(s, true, now, "leaving")
	default:
		m.counters.Wakes++
		m.sleepless = 0
		m.opened(s, now, "woken")
	}
	return true
}

// Phases of a replica that is Asleep, while it is on the way into or out of that.
const (
	phaseFalling = "falling asleep"
	phaseWaking  = "waking"
)

// sleptBadly counts what speaks against putting this model to sleep: a sleep or a wake that failed, or a death in between.
func (m *machine) sleptBadly(s *slot) {
	m.counters.BadSleeps++
	if s.spec == m.spec {
		m.sleepless = min(m.sleepless+1, sleepTries)
	}
}

func (m *machine) onSettled(s *slot, now moment) bool {
	if !s.unknown {
		return false
	}
	s.unknown = false
	m.emit(effect{kind: effKnown, id: s.id})
	m.observe(s)
	return true
}

// onPreempt: only a replica that is idle now, or asleep, goes, unless the event says that a busy one shall, too. Config.Min is
// kept, or the replica would be started again at once and ask for the same devices.
func (m *machine) onPreempt(e event, now moment) {
	s := m.byID(e.id)
	var err error
	switch {
	case s == nil:
		err = ErrNoReplica
	case s.state == Stopping, s.state == Failed: // on its way out already
	case m.awakeWithout(s) < m.config.Min || s.work != workNone || s.preempt || m.queue.len() > 0 && !e.ok:
		err = ErrBusy
	case s.state == Asleep:
		m.preempted()
		m.stop(s, true, now, "preempted")
	case s.state == Ready && s.look == lookNone && e.ok:
		m.preempted()
		s.look = lookClose
		m.emit(effect{kind: effClose, id: s.id})
	case s.state == Ready && s.look == lookNone:
		s.preempt, s.preemptor = true, e.reply
		m.observe(s)
		return
	default:
		err = ErrBusy
	}
	m.emit(effect{kind: effReply, reply: e.reply, err: err})
}

// preempted: somebody else gets the devices. It is known that there are none for one more than there must be.
func (m *machine) preempted() {
	m.counters.Preemptions++
	m.tight = true
}

func (m *machine) answerPreemptor(s *slot, err error) {
	if s.preempt {
		m.emit(effect{kind: effReply, reply: s.preemptor, err: err})
		s.preempt, s.preemptor = false, nil
	}
}

// onAdopt puts a replica that an earlier gateway has left into a free slot. What is in flight on it is unknown.
func (m *machine) onAdopt(e event, now moment) {
	free := m.slotWithin(m.room())
	if free < 0 || m.leaving != staying || m.byID(e.id) != nil {
		m.counters.Ignored++
		return
	}
	s := &m.slots[free]
	*s = slot{state: s.state, id: e.id, spec: m.spec, limit: e.limit, unknown: true, held: m.needLedger}
	if e.old {
		s.spec = 0
	}
	m.nextID = max(m.nextID, e.id+1)
	if !e.ok {
		m.become(s, Starting, now, "adopted")
		m.launch(s)
		return
	}
	m.opened(s, now, "adopted")
}
