package activator

import "time"

// positionsEvery is how fresh a waiter's position is. Counting all plays all dispatches.
const positionsEvery = 500 * time.Millisecond

// publish shows everybody else what the machine has come to.
func (o *owner) publish() {
	now := o.model.now()
	if o.moved && (o.counted == 0 || now-o.counted >= positionsEvery) {
		o.counted, o.moved = now, false
		o.core.queue.inOrder(now, func(t *Ticket, position int) { t.position.Store(int32(position)) })
	}
	if !o.changed && o.model.view.Load() != nil {
		return
	}
	o.changed = false
	o.noteSleepless()
	c := &o.core
	v := &view{live: c.live(), failure: c.failure, refused: c.refused, sleepless: c.sleepless >= sleepTries, counters: c.counters, subject: o.subject}
	if c.leaving != staying {
		v.leaving = c.leavingError()
	}
	for i := range c.slots {
		s := &c.slots[i]
		v.state = further(v.state, s.state)
		if s.state == Cold {
			continue
		}
		r := replicaView{since: s.since, gate: o.gates[s.id], eta: o.forecast(s), ReplicaStatus: ReplicaStatus{
			ID: s.id, Slot: i, State: s.state, Phase: s.phase, Percent: s.percent, Unknown: s.unknown, Instance: o.instances[s.id],
		}}
		if run := o.starts[s.id]; run != nil {
			r.Detail = run.detail()
			if s.work == workReserve {
				r.Reason = run.waitsFor()
			}
		}
		if r.gate != nil {
			r.Limit = c.limitOf(s)
		}
		v.replicas = append(v.replicas, r)
		if v.reason == "" {
			v.reason = r.Reason
		}
		if s.phase != "" && (v.phase == "" || s.percent > v.percent) {
			v.phase, v.percent, v.detail = s.phase, s.percent, r.Detail
		}
	}
	v.eta = o.eta(v, now)
	o.model.view.Store(v)
}

// further is the state that says more about what a request meets.
func further(a, b State) State {
	if rank[b] > rank[a] {
		return b
	}
	return a
}

var rank = [...]int{Cold: 0, Stopping: 1, Draining: 2, Failed: 3, Asleep: 4, Starting: 5, Ready: 6}

// forecast is the estimate of a slot's start; empty if none is in progress, or nothing is known.
func (o *owner) forecast(s *slot) etaView {
	m := o.model
	if s.state == Asleep {
		return o.wakeETA(s)
	}
	run := o.starts[s.id]
	if m.durations == nil || s.state != Starting || run == nil {
		return etaView{}
	}
	if s.work == workReserve {
		whole, known := m.durations.Estimate(run.of)
		left, at, ok := run.preparing()
		if !ok || !known {
			return etaView{} // nobody knows how long others keep their devices
		}
		return etaView{whole: left + whole, since: at}
	}
	f := m.durations.forecast(run.of, run.progress())
	if f == nil {
		return etaView{}
	}
	return etaView{start: run, forecast: f}
}

// eta estimates when the next replica is ready: the soonest of the starts in progress, or a whole start from
// when one may begin.
func (o *owner) eta(v *view, now moment) etaView {
	m := o.model
	if m.durations == nil || v.state == Ready {
		return etaView{}
	}
	var best etaView
	for i := range v.replicas {
		if e := v.replicas[i].eta; e.known() && (!best.known() || e.left(now) < best.left(now)) {
			best = e
		}
	}
	if best.known() {
		return best
	}
	if o.core.sleeper() {
		return etaView{} // a wake that was never seen, and is much shorter than a start
	}
	whole, _ := m.durations.Estimate(o.subject)
	return etaView{whole: whole, notBefore: o.core.failure.retryAt}
}

// wakeETA estimates when a sleeper serves: the rest of its wake, or a whole one if that has not begun.
func (o *owner) wakeETA(s *slot) etaView {
	if o.model.durations == nil || !o.core.alive(s) {
		return etaView{}
	}
	e := etaView{whole: o.model.durations.EstimateWake(o.subject)}
	if s.work == workWake {
		e.since = s.movedAt
	}
	return e
}

// sleeper tells whether a replica sleeps that requests would wake.
func (m *machine) sleeper() bool {
	for i := range m.slots {
		if s := &m.slots[i]; s.state == Asleep && m.alive(s) {
			return true
		}
	}
	return false
}
