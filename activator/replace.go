package activator

import "errors"

// How replicas of an old spec are replaced. With Config.Surge each one goes on serving until another of the new spec, its heir, is ready, and
// there is one slot beyond Max for that; else, and where no devices are free for one more, it leaves first and
// the next is started when it is wanted.

// ErrNoRoom is a Ledger's answer to ReserveNow: no devices are free.
var ErrNoRoom = errors.New("no devices are free")

// room is how many slots there are.
func (m *machine) room() int {
	if m.config.Surge {
		return m.config.Max + 1
	}
	return m.config.Max
}

// stays: a replica of an old spec serves on until its heir does.
func (m *machine) stays(s *slot) bool {
	return s.spec != m.spec && s.state == Ready && m.config.Surge && !m.crowded && !s.outlived && !m.final
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

// succeed gives every replica that stays an heir, or lets it go if enough others serve.
func (m *machine) succeed(now moment) {
	if !m.config.Surge {
		return
	}
	ready, coming := 0, 0
	for i := range m.slots {
		switch s := &m.slots[i]; {
		case s.spec != m.spec:
		case s.state == Ready || s.state == Asleep:
			ready++
		case s.state == Starting && !s.cancelled:
			coming++
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
		case m.claim(s):
		case m.leaving == staying && ready+coming < m.config.Max && !m.failure.forbids(now):
			free := m.slotWithin(m.room())
			if free < 0 {
				return
			}
			s.heir = m.nextID
			m.start(free, true, now)
			coming++
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
