package activator

// How replicas are given up that load does not ask for any more. When, is decided outside of the machine (autoscale.go), which has waited
// for Config.ScaledownAfter already, so they go at once: who is not ready yet, then who is the cheapest to lose. The last one, and
// what sleeps, goes by idleness instead.

// ending: the replica takes no more requests, or is about to.
func (s *slot) ending() bool { return s.look == lookFence || s.look == lookClose }

// unneeded is how many starts, and how many replicas that serve, are more than are to stay. None are while somebody waits, or while some are
// replaced and it is open which.
func (m *machine) unneeded() (starts, serving int) {
	if m.leaving != staying || m.scale < 0 || m.queue.len() > 0 {
		return 0, 0
	}
	for i := range m.slots {
		switch s := &m.slots[i]; {
		case m.heir(s):
			return 0, 0
		case !m.alive(s) || s.ending():
		case s.state == Starting:
			starts++
		case s.state == Ready:
			serving++
		}
	}
	keep := max(1, m.floor())
	return min(starts, max(0, starts+serving-keep)), max(0, serving-keep)
}

// trim begins the end of what is not needed.
func (m *machine) trim() {
	starts, serving := m.unneeded()
	for ; starts > 0; starts-- {
		var last *slot
		for i := range m.slots {
			if s := &m.slots[i]; s.state == Starting && m.alive(s) && (last == nil || s.id > last.id) {
				last = s
			}
		}
		last.cancelled = true
		m.emit(effect{kind: effCancel, id: last.id})
	}
	if serving > 0 && !m.surveying && m.candidate() {
		m.surveying = true
		m.emit(effect{kind: effSurvey})
	}
}

// expendable: it serves, and nothing is under way with it.
func (m *machine) expendable(s *slot) bool {
	return s.state == Ready && s.look == lookNone && m.alive(s)
}

func (m *machine) candidate() bool {
	for i := range m.slots {
		if m.expendable(&m.slots[i]) {
			return true
		}
	}
	return false
}

// cheapest is the replica that is the cheapest to lose: of an old spec, which has to be replaced otherwise; else with the fewest requests in
// flight, and of those with as many the one that was used the longest ago. load tells both. 0: there is none.
func (m *machine) cheapest(load func(id uint64) (inFlight int, last moment)) uint64 {
	var best *slot
	var least int
	var coldest moment
	for i := range m.slots {
		s := &m.slots[i]
		if !m.expendable(s) {
			continue
		}
		n, last := load(s.id)
		switch {
		case best == nil:
		case (s.spec == m.spec) != (best.spec == m.spec):
			if s.spec == m.spec {
				continue
			}
		case n > least, n == least && last >= coldest:
			continue
		}
		best, least, coldest = s, n, last
	}
	if best == nil {
		return 0
	}
	return best.id
}

func (m *machine) onSurveyed(e event) {
	m.surveying = false
	s := m.byID(e.id)
	if _, serving := m.unneeded(); s == nil || serving == 0 || !m.expendable(s) {
		return // somebody has come, or others went
	}
	s.look, s.extra = lookClose, true
	m.emit(effect{kind: effClose, id: s.id})
}
