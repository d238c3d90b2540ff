package activator

import "errors"

// How replicas of an old spec are replaced: one at a time. With Config.Surge each one goes on serving until another of the new spec, its heir, is
// ready, and there is one slot beyond Max for that; else, and where no devices are free for one more, one leaves first, its successor is started
// if it is wanted, and serves before the next one leaves. A new spec of which none becomes ready is given up: the one of before is in force again.

// ErrNoRoom is a Ledger's answer to ReserveNow: no devices are free.
var ErrNoRoom = errors.New("no devices are free")

// room is how many slots there are.
func (m *machine) room() int {
	if m.config.Surge {
		return m.config.Max + 1
	}
	return m.config.Max
}

// stays: a replica of an old spec serves on until it may go.
func (m *machine) stays(s *slot) bool {
	return s.spec != m.spec && s.state == Ready && !s.outlived && !m.final
}

// beside: there may be room for a new replica while the old one serves.
func (m *machine) beside() bool { return m.config.Surge && !m.crowded }

// rolling: replicas of an old spec wait for their turn to be replaced.
func (m *machine) rolling() bool {
	for i := range m.slots {
		if m.stays(&m.slots[i]) {
			return true
		}
	}
	return false
}

// surplus: there are Max others before it that serve the same spec, or will. They do not all fit any more.
func (m *machine) surplus(s *slot) bool {
	n := 0
	for i := range m.slots {
		o := &m.slots[i]
		if o == s {
			break
		}
		if (o.spec == m.spec) == (s.spec == m.spec) && (o.state == Starting && !o.cancelled || o.state == Ready || o.state == Asleep) {
			n++
		}
	}
	return n >= m.config.Max
}

// heir: the replica is started in the place of another, which still serves.
func (m *machine) heir(s *slot) bool { return s.state == Starting && m.before(s.id) != nil }

// before is the replica whose heir has this id; nil if there is none.
func (m *machine) before(id uint64) *slot {
	for i := range m.slots {
		if s := &m.slots[i]; id != 0 && s.heir == id {
			return s
		}
	}
	return nil
}

// succeed replaces the next of those that stay, if none is being replaced.
func (m *machine) succeed(now moment) {
	ready, coming, heirs, parting := 0, 0, 0, 0
	for i := range m.slots {
		switch s := &m.slots[i]; {
		case s.spec != m.spec:
			if s.state == Draining || s.state == Stopping || s.state == Failed && s.id != 0 || s.state == Ready && !m.stays(s) {
				parting++
			}
		case s.state == Ready || s.state == Asleep:
			ready++
		case s.state == Starting && !s.cancelled:
			coming++
			if m.heir(s) {
				heirs++
			}
		}
	}
	for i := range m.slots {
		s := &m.slots[i]
		if !m.stays(s) || s.heir != 0 {
			continue
		}
		switch {
		case ready >= m.config.Max:
			s.outlived = true
		case !m.beside():
			if parting == 0 && coming == 0 && m.missing() <= 0 {
				s.outlived = true
				parting++
			}
		case m.claim(s):
			heirs++
		case heirs == 0 && m.leaving == staying && ready+coming < m.config.Max && !m.failure.forbids(now):
			free := m.slotWithin(m.room())
			if free < 0 {
				return
			}
			s.heir = m.nextID
			m.start(free, true, now)
			coming++
			heirs++
		}
	}
}

// claim makes a start that is under way anyhow the heir of s.
func (m *machine) claim(s *slot) bool {
	for i := range m.slots {
		o := &m.slots[i]
		if o.state == Starting && !o.cancelled && o.spec == m.spec && m.before(o.id) == nil {
			s.heir = o.id
			return true
		}
	}
	return false
}

// inherit: s serves, and whoever it replaces need not.
func (m *machine) inherit(s *slot) {
	if o := m.before(s.id); o != nil {
		o.outlived = true
	}
}

// disinherit: s is gone. Whoever it was to replace stays, and gets another heir.
func (m *machine) disinherit(s *slot) {
	if o := m.before(s.id); o != nil && !o.outlived {
		o.heir = 0
	}
}

// renew has another spec in force from now on. Replicas that are of it, because it was in force before, stay as they are.
func (m *machine) renew(spec uint64) {
	if m.worked && m.serving(m.spec) {
		m.fallback = m.spec
	}
	if m.fallback == spec {
		m.fallback = 0
	}
	m.spec, m.worked = spec, m.serving(spec)
	m.failure, m.refused, m.sleepless = failure{}, failure{}, 0
	m.reassign()
}

// serving: some replica of the spec takes requests, or would.
func (m *machine) serving(spec uint64) bool {
	for i := range m.slots {
		if s := &m.slots[i]; s.spec == spec && (s.state == Ready || s.state == Asleep) {
			return true
		}
	}
	return false
}

// reassign forgets who was to follow whom.
func (m *machine) reassign() {
	m.crowded = false
	for i := range m.slots {
		s := &m.slots[i]
		s.heir = 0
		s.outlived = s.outlived && s.spec != m.spec
		if s.state == Draining && s.spec == m.spec { // there is no way back for it, and no hurry any more
			s.drainBy = 0
		}
	}
}

// rollTries is how many starts of a new spec may fail in a row, while replicas of the one before serve, until it is given up. What is
// permanent needs no second try, and where nobody serves none is waited for.
const rollTries = 3

// rolledBack gives a new spec up of which a start has failed, if it is time and there is one to go back to.
func (m *machine) rolledBack(spec uint64, err error) bool {
	if spec != m.spec || m.fallback == 0 || m.worked || m.leaving != staying {
		return false
	}
	if !m.failure.permanent && m.failure.count < rollTries && m.live() {
		return false
	}
	m.counters.RollBacks++
	m.refused, m.failure = m.failure, failure{}
	m.spec, m.fallback, m.worked = m.fallback, 0, true
	m.reassign()
	m.emit(effect{kind: effRollBack, err: err})
	return true
}
