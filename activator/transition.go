package activator

import "errors"

// What each event does to a slot. Every handler of one replica's event reports whether the event made sense.

func (m *machine) onPoke() {
	m.blocked = false
	for i := range m.slots {
		if s := &m.slots[i]; s.state == Draining || s.state == Ready && s.watched {
			m.observe(s)
		}
	}
}

func (m *machine) observe(s *slot) {
	if s.look == lookNone {
		s.look = lookObserve
		m.emit(effect{kind: effObserve, id: s.id})
	}
}

func (m *machine) onUpdate(c *change, now moment) {
	if m.leaving != staying {
		m.counters.Ignored++
		return
	}
	m.config = c.config
	m.blocked = false
	if c.spec != m.spec {
		m.renew(c.spec)
	} else {
		m.refused = failure{} // what serves is what is wanted
	}
	m.lookAgain(now)
	m.emit(effect{kind: effPublish}) // limits may have changed
}

// lookAgain has idle replicas judged anew, whose time may be over sooner now.
func (m *machine) lookAgain(now moment) {
	for i := range m.slots {
		if s := &m.slots[i]; s.check != 0 && (s.state == Ready || s.state == Asleep) {
			s.check = now
		}
	}
}

func (m *machine) leave(how leaving, now moment) {
	if how <= m.leaving {
		return
	}
	if m.leaving == staying {
		m.leaveBy = now + m.config.DrainTimeout
	}
	m.leaving = how
}

func (m *machine) onHurry(now moment) {
	if m.leaving == staying {
		m.counters.Ignored++
		return
	}
	m.leaveBy = now
	for i := range m.slots {
		if s := &m.slots[i]; s.state == Draining {
			s.drainBy = now
		}
	}
}

func (m *machine) leavingError() error {
	if m.leaving == unloading {
		return ErrUnloaded
	}
	return ErrShuttingDown
}

func (m *machine) onGranted(e event, now moment) {
	m.asking = false
	switch e.grant {
	case grantFull:
		m.blocked = true
	case grantGone:
		m.queue.remove(e.ticket, now)
	case grantOK:
		m.queue.dispatched(e.ticket, e.cost, now)
	}
}

// start begins a start in a free slot; beside: of one more than there must be, for which nobody else has to go.
func (m *machine) start(i int, beside bool, now moment) {
	s := &m.slots[i]
	*s = slot{state: s.state, id: m.nextID, spec: m.spec}
	m.nextID++
	m.counters.Starts++
	m.become(s, Starting, now, "wanted")
	if m.needLedger {
		s.work, s.phase = workReserve, phaseQueued
		m.emit(effect{kind: effReserve, id: s.id, slot: i, beside: beside})
		return
	}
	m.launch(s)
}

// phaseQueued is that of a start which waits for devices.
const phaseQueued = "queued"

func (m *machine) launch(s *slot) {
	s.work, s.phase, s.percent = workLaunch, "", 0 // what was said before is of the preparation
	m.emit(effect{kind: effLaunch, id: s.id, slot: m.indexOf(s)})
}

func (m *machine) onReserved(s *slot, e event, now moment) bool {
	if s.work != workReserve {
		return false
	}
	s.work = workNone
	s.held = e.err == nil
	switch {
	case s.cancelled:
		m.vacate(s, now, "cancelled")
	case errors.Is(e.err, ErrNoRoom):
		reason := "no room for one more"
		if m.heir(s) {
			m.crowded, reason = true, "no room beside the old one"
		} else {
			m.tight = true
		}
		m.vacate(s, now, reason)
	case errors.Is(e.err, ErrUnwanted):
		m.vacate(s, now, "not wanted any more")
	case e.err != nil:
		m.startFailed(s, e, now)
	default:
		m.launch(s)
	}
	return true
}

func (m *machine) onStarted(s *slot, e event, now moment) bool {
	if s.work != workLaunch {
		return false
	}
	s.work = workNone
	s.limit = e.limit
	if s.cancelled { // it became ready while it was told to end
		m.stop(s, true, now, "cancelled")
		return true
	}
	m.opened(s, now, "started")
	return true
}

// opened makes a replica Ready, with a new admission word.
func (m *machine) opened(s *slot, now moment, reason string) {
	m.emit(effect{kind: effOpen, id: s.id, slot: m.indexOf(s), idle: !s.unknown})
	m.become(s, Ready, now, reason)
	m.inherit(s)
	if s.spec == m.spec {
		m.worked, m.fallback = true, 0
	}
	s.check = now + m.idleAfter()
}

func (m *machine) onFailed(s *slot, e event, now moment) bool {
	if s.work != workLaunch {
		return false
	}
	s.work = workNone
	if s.cancelled {
		m.vacate(s, now, "cancelled")
		return true
	}
	m.startFailed(s, e, now)
	return true
}

// startFailed: those who wait hear it at once, unless another replica may still serve them.
func (m *machine) startFailed(s *slot, e event, now moment) {
	m.counters.StartFailures++
	m.fail(e, isPermanent(e.err) && !m.proven(s), now)
	m.becomeFor(s, Failed, now, "start failed", e.err)
	spec := s.spec
	m.forget(s)
	if !m.rolledBack(spec, e.err) && !m.live() {
		m.giveUpAll(now)
	}
}

// proven: another replica of the same spec serves. What keeps one more from it may pass, and is no reason never to start one again.
func (m *machine) proven(s *slot) bool {
	for i := range m.slots {
		if o := &m.slots[i]; o != s && o.spec == s.spec && (o.state == Ready || o.state == Asleep) {
			return true
		}
	}
	return false
}

// fail counts a failure and sets the pause after it.
func (m *machine) fail(e event, permanent bool, now moment) {
	m.failure.count++
	m.failure.cause, m.failure.at, m.failure.permanent = e.err, now, permanent
	m.failure.retryAt = now + m.backoff(m.failure.count, e.jitter)
}

func (m *machine) giveUpAll(now moment) {
	for t := m.queue.next(now); t != nil; t = m.queue.next(now) {
		m.queue.remove(t, now)
		// The owner, who knows the model's name, makes a *StartFailedError of the nil.
		m.emit(effect{kind: effGiveUp, ticket: t})
	}
}

func (m *machine) onProgress(s *slot, e event) bool {
	if s.state != Starting {
		return false
	}
	s.phase = e.phase
	if s.work == workReserve {
		s.percent = e.percent // of the phase alone
		return true
	}
	s.percent = max(s.percent, e.percent)
	return true
}

func (m *machine) onExited(s *slot, e event, now moment) bool {
	s.exited = true
	switch s.state {
	case Stopping, Failed: // as it should be
		return true
	case Ready, Asleep, Draining:
	default:
		return false
	}
	m.counters.Crashes++
	wanted := !m.mustLeave(s)
	switch s.state {
	case Ready:
		m.emit(effect{kind: effClose, id: s.id}) // nobody needs the answer
	case Asleep:
		m.sleptBadly(s)
	}
	switch {
	case !wanted:
	case e.ok || s.state == Asleep: // waking is not at fault either: a cold start comes at once
		m.failure = failure{cause: e.err, at: now}
	default: // it never served: as good as a failed start
		m.fail(e, false, now)
	}
	m.becomeFor(s, Failed, now, "exited", e.err)
	m.answerPreemptor(s, nil)
	if s.work == workNone {
		m.sweep(s, true)
	}
	return true
}

// sweep runs Stop, also on a replica that is gone: its remains are cleared away, and its memory is checked.
func (m *machine) sweep(s *slot, idle bool) {
	s.work = workStop
	m.emit(effect{kind: effStop, id: s.id, idle: idle})
}

// stop ends a replica that nobody uses any more, or that has to go all the same.
func (m *machine) stop(s *slot, idle bool, now moment, reason string) {
	m.stopFor(s, idle, now, reason, nil)
}

func (m *machine) stopFor(s *slot, idle bool, now moment, reason string, err error) {
	m.becomeFor(s, Stopping, now, reason, err)
	m.sweep(s, idle)
}

func (m *machine) onStopped(s *slot, e event, now moment) bool {
	if s.work != workStop {
		return false
	}
	s.work = workNone
	if s.tries++; e.err != nil && s.tries < stopTries {
		s.check = now + stopPause
		return true
	}
	if s.state == Failed {
		m.forget(s)
		return true
	}
	m.vacate(s, now, "stopped")
	return true
}

// vacate makes a slot free.
func (m *machine) vacate(s *slot, now moment, reason string) {
	m.become(s, Cold, now, reason)
	m.forget(s)
}

// forget lets go of a slot's replica, and of its devices.
func (m *machine) forget(s *slot) {
	m.emit(effect{kind: effGone, id: s.id, held: s.held})
	m.disinherit(s)
	*s = slot{state: s.state, since: s.since}
}
