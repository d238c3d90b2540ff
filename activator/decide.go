package activator

import "time"

// decide runs at the end of every step: it compares what is with what is wanted, and begins what is missing.
// Each part is harmless when nothing is to be done, so an event's handler only has to record what happened.
func (m *machine) decide(now moment) {
	m.concludeLeaving(now)
	m.recover(now)
	m.resize()
	m.succeed(now)
	m.retire(now)
	m.trim()
	m.endIdle(now)
	m.activate(now)
	m.dispatch(now)
	if m.final && m.occupied() == 0 && !m.done {
		m.done = true
		m.emit(effect{kind: effDone})
	}
}

// concludeLeaving turns away those who will not be served any more.
func (m *machine) concludeLeaving(now moment) {
	if m.leaving == staying {
		return
	}
	if m.leaving == closing || now >= m.leaveBy {
		for t := m.queue.next(now); t != nil; t = m.queue.next(now) {
			m.queue.remove(t, now)
			m.emit(effect{kind: effGiveUp, ticket: t, err: m.leavingError()})
		}
	}
	m.final = m.final || m.queue.len() == 0
}

// recover ends backoffs, repeats failed stops, and gives up waiters when there is no hope left for them.
func (m *machine) recover(now moment) {
	for i := range m.slots {
		s := &m.slots[i]
		if s.state != Failed && s.state != Stopping || s.work != workNone {
			continue
		}
		if s.id != 0 { // a stop reported an error
			if s.check <= now {
				m.sweep(s, true)
			}
			continue
		}
		if m.final || !m.failure.forbids(now) {
			m.become(s, Cold, now, "backoff over")
		}
	}
	if m.failure.hopeless(now) && !m.live() {
		m.giveUpAll(now)
	}
}

// retire begins the end of every replica that must not stay, and carries on with those that drain.
func (m *machine) retire(now moment) {
	for i := range m.slots {
		s := &m.slots[i]
		if s.state == Draining && s.drainBy == 0 && m.mustLeave(s) { // it drained for another model's sake until now
			s.drainBy = m.drainLimit(now)
		}
		switch {
		case s.state == Draining && s.drainBy != 0 && s.drainBy <= now:
			m.stop(s, false, now, "drain time is up")
		case !m.mustLeave(s):
		case s.state == Starting && !s.cancelled:
			s.cancelled = true
			m.emit(effect{kind: effCancel, id: s.id})
		case s.state == Ready && s.look == lookNone:
			s.look = lookClose
			m.emit(effect{kind: effClose, id: s.id})
		case s.state == Asleep && s.work == workNone:
			m.stop(s, true, now, "leaving")
		}
	}
}

// mustLeave: the replica cannot stay, however busy it is.
func (m *machine) mustLeave(s *slot) bool {
	return m.final || s.spec != m.spec && !m.stays(s) || m.indexOf(s) >= m.room() || m.surplus(s)
}

// resize makes room for Config.Max replicas, and one more to replace another. Slots above it disappear once they are free.
func (m *machine) resize() {
	for len(m.slots) > m.room() && m.slots[len(m.slots)-1].state == Cold {
		m.slots = m.slots[:len(m.slots)-1]
	}
	for len(m.slots) < m.room() {
		m.slots = append(m.slots, slot{})
	}
}

// endIdle looks after replicas whose idle time may be over.
func (m *machine) endIdle(now moment) {
	for i := range m.slots {
		s := &m.slots[i]
		if s.check == 0 || s.check > now || s.work != workNone || !m.mayLeave(s) {
			continue
		}
		switch s.state {
		case Ready:
			m.observe(s)
		case Asleep:
			if due := s.idleSince + m.config.ScaledownAfter; due > now {
				s.check = due
				continue
			}
			m.counters.Evictions++
			m.stop(s, true, now, "idle")
		}
	}
}

// mayLeave: nobody waits, and enough replicas stay without this one, whether it is to sleep or to stop.
func (m *machine) mayLeave(s *slot) bool {
	return m.queue.len() == 0 && m.awakeWithout(s) >= m.floor()
}

// awakeWithout counts the replicas beside s that serve, or will without being told again.
func (m *machine) awakeWithout(s *slot) int {
	n := 0
	for i := range m.slots {
		o := &m.slots[i]
		if o != s && m.alive(o) && !m.heir(o) && !o.ending() && (o.state != Asleep || o.work == workWake) {
			n++
		}
	}
	return n
}

// alive: the replica serves, will, or can be woken up to.
func (m *machine) alive(s *slot) bool {
	switch s.state {
	case Starting:
		return !s.cancelled
	case Ready, Asleep:
		return !m.mustLeave(s)
	}
	return false
}

// live tells whether some replica gives waiters hope.
func (m *machine) live() bool {
	for i := range m.slots {
		if m.alive(&m.slots[i]) {
			return true
		}
	}
	return false
}

// floor is the number of replicas that stay without demand. For load that one replica takes that is none: it goes when it idles.
func (m *machine) floor() int {
	switch {
	case m.leaving != staying:
		return 0
	case m.scale > 1:
		return min(m.config.Max, max(m.config.Min, m.scale))
	}
	return m.config.Min
}

// want is the number of replicas that should be awake.
func (m *machine) want() int {
	if m.queue.len() > 0 {
		return max(1, m.floor())
	}
	return m.floor()
}

// occupied counts the slots that are not free: what is drained, stopped or swept still has its devices.
func (m *machine) occupied() int {
	n := 0
	for i := range m.slots {
		if s := &m.slots[i]; s.state != Cold && !(s.state == Failed && s.id == 0) {
			n++
		}
	}
	return n
}

// freeSlot is one for a replica that replaces none; −1 if there is none.
func (m *machine) freeSlot() int { return m.slotWithin(m.config.Max) }

// slotWithin is a free slot if fewer than limit are occupied, else −1.
func (m *machine) slotWithin(limit int) int {
	if m.occupied() >= limit {
		return -1
	}
	for i := range m.slots[:min(len(m.slots), m.room())] {
		if m.slots[i].state == Cold {
			return i
		}
	}
	return -1
}

// awake counts the replicas that serve or will, heirs aside. One that is just falling asleep will, as nobody else is woken meanwhile.
func (m *machine) awake() int {
	n := 0
	for i := range m.slots {
		s := &m.slots[i]
		if m.alive(s) && !m.heir(s) && (s.state != Asleep || s.work != workNone) {
			n++
		}
	}
	return n
}

// missing is how many more should be awake.
func (m *machine) missing() int { return m.want() - m.awake() }

// activate wakes or starts what is missing. A sleeper is cheaper than a start; one that is just falling asleep
// is waited for.
func (m *machine) activate(now moment) {
	have := m.awake()
	missing := m.want() - have
	for i := range m.slots {
		s := &m.slots[i]
		if missing > 0 && m.alive(s) && s.state == Asleep && s.work == workNone {
			s.work, s.phase, s.movedAt = workWake, phaseWaking, now
			s.check = 0
			m.emit(effect{kind: effWake, id: s.id})
			missing--
			have++
		}
	}
	for ; missing > 0 && !m.failure.forbids(now); missing-- {
		free, extra := m.freeSlot(), have >= max(1, m.config.Min) && !m.rolling()
		if free < 0 || extra && m.tight {
			return
		}
		m.start(free, extra, now)
		have++
	}
}

// dispatch tries to give the next waiter a place. One at a time: the result decides about the one after it.
func (m *machine) dispatch(now moment) {
	if m.asking || m.blocked {
		return
	}
	t := m.queue.next(now)
	if t == nil {
		return
	}
	for i := range m.slots {
		if m.slots[i].state == Ready {
			m.asking = true
			m.emit(effect{kind: effGrant, ticket: t, cost: m.queue.cost(t)})
			return
		}
	}
}

// sleeps: idle replicas go to sleep before they go altogether.
func (m *machine) sleeps() bool {
	return m.config.SleepAfter > 0 && m.config.SleepAfter < m.config.ScaledownAfter && m.sleepless < sleepTries
}

// idleAfter is how long a replica stays Ready without a request.
func (m *machine) idleAfter() time.Duration {
	if m.sleeps() {
		return m.config.SleepAfter
	}
	return m.config.ScaledownAfter
}
