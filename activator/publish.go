package activator

import "time"

// positionsEvery is how fresh a waiter's position is. Counting all is linear in the queue: 0.2 ms for 10,000.
const positionsEvery = 500 * time.Millisecond

// publish shows everybody else what the machine has come to.
func (o *owner) publish() {
	now := o.model.now()
	if o.core.queue.len() > 0 && (o.counted == 0 || now-o.counted >= positionsEvery) {
		o.counted = now
		o.core.queue.inOrder(func(t *Ticket, position int) { t.position.Store(int32(position)) })
	}
	if !o.changed && o.model.view.Load() != nil {
		return
	}
	o.changed = false
	c := &o.core
	v := &view{live: c.live(), failure: c.failure, counters: c.counters, eta: o.eta(now)}
	if c.leaving != staying {
		v.leaving = c.leavingError()
	}
	for i := range c.slots {
		s := &c.slots[i]
		v.state = further(v.state, s.state)
		if s.state == Cold {
			continue
		}
		r := replicaView{since: s.since, gate: o.gates[s.id], ReplicaStatus: ReplicaStatus{
			ID: s.id, Slot: i, State: s.state, Phase: s.phase, Percent: s.percent, Unknown: s.unknown, Instance: o.instances[s.id],
		}}
		if run := o.starts[s.id]; run != nil && s.work == workReserve {
			r.Reason = run.waitsFor()
		}
		if r.gate != nil {
			r.Limit = c.limitOf(s)
		}
		v.replicas = append(v.replicas, r)
		if v.reason == "" {
			v.reason = r.Reason
		}
		if s.phase != "" && (v.phase == "" || s.percent > v.percent) {
			v.phase, v.percent = s.phase, s.percent
		}
	}
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

// eta estimates when the next replica is ready: the soonest of the starts in progress, or a whole start from
// when one may begin.
func (o *owner) eta(now moment) etaView {
	m := o.model
	if m.durations == nil {
		return etaView{}
	}
	var best etaView
	for i := range o.core.slots {
		s := &o.core.slots[i]
		switch s.state {
		case Ready:
			return etaView{}
		case Starting:
		default:
			continue
		}
		run := o.starts[s.id]
		if run == nil || s.work == workReserve { // nobody knows how long others keep their devices
			continue
		}
		e := etaView{at: run.began, began: run.began, ages: true}
		remaining, fromPhase, ok := m.durations.Estimate(m.name, run.hash, s.phase)
		if fromPhase {
			e.at = s.phaseSince
		}
		e.known, e.remaining = ok, remaining
		if ok && (!best.known || e.left(now) < best.left(now)) {
			best = e
		}
	}
	if best.known {
		return best
	}
	whole, _, ok := m.durations.Estimate(m.name, o.specHash, "")
	return etaView{known: ok, at: now, began: now, remaining: whole, notBefore: o.core.failure.retryAt}
}
