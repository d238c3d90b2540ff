package activator

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// owner is the part of a Model that only its goroutine touches: the machine, and what its effects work on.
type owner struct {
	model    *Model
	launcher Launcher
	subject  Subject            // what is started
	versions map[uint64]version // specs that replicas are of, or may be again, by the machine's numbers
	refused  *change            // what was given up for the version before
	core     machine
	auto     *autoscale // nil: the number of replicas is no matter of load, or there was none yet

	starts    map[uint64]*startRun // in progress, by replica id
	instances map[uint64]Instance  // started and not gone
	gates     map[uint64]*replica  // the latest admission word of each instance

	results   []event // of immediate effects, not stepped yet
	changed   bool    // the view is out of date
	sleepless bool    // it was told that the model is not put to sleep any more
	counted   moment  // when positions were counted last
	moved     bool    // they have changed since
	detached  context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
}

func (o *owner) init(m *Model, opts Options) {
	o.model, o.launcher, o.subject = m, opts.Launcher, Subject{Model: opts.Name, Spec: opts.SpecHash, Kin: opts.Config.Kin}
	_, prepares := opts.Launcher.(Preparer)
	o.core = newMachine(opts.Config, opts.Ledger != nil || prepares, opts.FirstID)
	o.versions = map[uint64]version{o.core.spec: {o.launcher, o.subject}}
	o.starts, o.instances, o.gates = map[uint64]*startRun{}, map[uint64]Instance{}, map[uint64]*replica{}
	o.detached, o.cancel = context.WithCancel(context.Background())
}

// run is the owner's goroutine. It ends once the model has left and every effect has ended.
func (o *owner) run() {
	m := o.model
	timer := time.NewTimer(0) // Config.Min is started by the first tick
	defer timer.Stop()
	var batch []event
	for !o.core.done {
		select {
		case <-m.mail.ready:
		case <-timer.C:
			o.handle(event{kind: evTick})
		}
		batch = m.mail.take(batch)
		for i := range batch {
			o.handle(batch[i])
			batch[i] = event{}
		}
		o.autoscale()
		o.publish()
		if next := o.nextDeadline(); next != 0 {
			timer.Reset(max(0, next-m.now()))
		} else {
			timer.Stop()
		}
	}
	o.cancel()
	o.wg.Wait()
	for _, e := range m.mail.close() {
		o.handle(e)
	}
	o.publish()
	close(m.gone)
}

// nextDeadline is when to look although nothing happens; 0: not needed.
func (o *owner) nextDeadline() moment {
	next := o.core.nextDeadline(o.model.now())
	if o.auto != nil && o.auto.next != 0 && (next == 0 || o.auto.next < next) {
		next = o.auto.next
	}
	// Positions that have changed are counted again even if nothing else happens: what came last was told the length of the queue.
	if recount := o.counted + positionsEvery; o.moved && o.core.queue.len() > 0 && (next == 0 || recount < next) {
		next = recount
	}
	return next
}

// handle steps one event, and then the results of its immediate effects, before the next one is read.
func (o *owner) handle(e event) {
	o.prepare(&e)
	o.results = append(o.results[:0], e)
	for i := 0; i < len(o.results); i++ {
		now := o.model.now()
		for _, f := range o.core.step(o.results[i], now) {
			o.do(f, now)
		}
	}
	clear(o.results)
}

// prepare completes an event with what the machine may know and the sender could not.
func (o *owner) prepare(e *event) {
	m := o.model
	switch e.kind {
	case evPoke:
		m.poked.Store(false) // before the machine looks: whoever frees a place from now on pokes again
		return
	case evArrive:
		o.moved = true
		if o.auto != nil {
			o.auto.flow.enqueued++
		}
		return
	case evCancel, evCharge:
		o.moved = true
		return
	case evScale: // every second; what comes of it is seen in the effects
		return
	case evUpdate:
		if o.core.leaving != staying {
			break
		}
		o.take(e.change)
	case evRetry:
		if o.refused != nil && o.core.leaving == staying {
			*e = event{kind: evUpdate, change: o.refused}
			o.take(e.change)
		}
	case evStarted:
		o.instances[e.id] = e.instance
		o.endStart(e.id, nil)
		o.watch(e.id, e.instance)
	case evReserved, evFailed:
		e.jitter = m.jitter()
		if e.err != nil {
			o.endStart(e.id, e.err)
		}
	case evExited:
		e.jitter = m.jitter()
		if g := o.gates[e.id]; g != nil {
			e.ok = g.lastActivity.Load() != 0
		}
	case evSlept, evWoken:
		o.noteSleep(e)
	case evProgress:
		if s := o.starts[e.id]; s != nil {
			e.phase, e.percent = s.read()
		}
	}
	o.changed = true
}

// do carries out one effect.
func (o *owner) do(f effect, now moment) {
	m := o.model
	switch f.kind {
	case effGrant:
		o.grant(f.ticket, f.cost, now)
		if o.auto != nil && o.results[len(o.results)-1].grant == grantOK {
			o.auto.flow.granted++
		}
		return
	case effGiveUp:
		err := f.err
		if err == nil {
			err = o.core.failure.asError(m.name, now)
		}
		f.ticket.settle(ticketFailed, err)
		return
	case effPublish:
		o.publishOpen()
	case effOpen:
		instance := o.instances[f.id]
		g := &replica{id: f.id, slot: f.slot, readyAt: now, instance: instance, exited: instance.Exited()}
		if !f.idle {
			g.word.Store(uint64(wordUnknown))
			o.settle(f.id, instance)
		}
		o.auto.end(f.id, o.gates[f.id])
		o.auto.begin(f.id)
		o.gates[f.id] = g
	case effObserve:
		o.observe(f.id)
		return
	case effFence:
		g := o.gates[f.id]
		to, ok := f.word.fenceIdle()
		o.result(event{kind: evFenced, id: f.id, ok: ok && g.swap(f.word, to)})
	case effKnown:
		g := o.gates[f.id]
		g.touch(now) // nobody knows when the last of them ended, so it was now
		g.word.And(^uint64(wordUnknown))
	case effClose:
		g := o.gates[f.id]
		was := word(g.word.Or(uint64(wordFenced)))
		o.result(event{kind: evClosed, id: f.id, word: was.fence()})
	case effGone:
		o.endStart(f.id, context.Canceled) // if devices came although the start was cancelled
		delete(o.instances, f.id)
		o.auto.end(f.id, o.gates[f.id])
		delete(o.gates, f.id)
		if f.held && m.ledger != nil {
			m.ledger.Release(m.name, f.id)
		}
	case effSurvey:
		o.result(event{kind: evSurveyed, id: o.core.cheapest(func(id uint64) (int, moment) {
			g := o.gates[id]
			return g.load().inFlight(), g.idleSince()
		})})
		return
	case effReply:
		if f.reply != nil {
			f.reply <- f.err
		}
	case effChanged:
		o.noteTransition(f)
	case effRollBack:
		o.rollBack(f.err)
	case effDone:
	default:
		o.begin(f, now)
	}
	o.changed = true
}

func (o *owner) result(e event) { o.results = append(o.results, e) }

// grant tries to give a waiter a place on an open replica, and the place back if the waiter has left.
func (o *owner) grant(t *Ticket, cost int64, now moment) {
	m := o.model
	o.moved = true
	if t.state.Load() != ticketWaiting {
		o.result(event{kind: evGranted, ticket: t, grant: grantGone})
		return
	}
	hint := t.request.Hint
	r := m.open.Load().enter(hint)
	if r == nil {
		o.result(event{kind: evGranted, ticket: t, grant: grantFull})
		return
	}
	if !t.state.CompareAndSwap(ticketWaiting, ticketDeciding) {
		if hint != nil {
			hint.Left()
		}
		m.afterLeave(r.leave())
		o.result(event{kind: evGranted, ticket: t, grant: grantGone})
		return
	}
	t.lease = Lease{model: m, replica: r, hint: hint, waited: now - t.enqueued, cold: r.readyAt > t.enqueued, ticket: t, cost: cost}
	t.conclude(ticketGranted, nil)
	o.result(event{kind: evGranted, ticket: t, grant: grantOK, cost: cost})
}

// observe reads a replica's word, and asks for a poke at zero if it is busy.
func (o *owner) observe(id uint64) {
	g := o.gates[id]
	for {
		w := g.load()
		next, _ := w.watch()
		if next == w || g.swap(w, next) {
			// The word first, then the time: each lease wrote the time before it gave up its place.
			o.result(event{kind: evObserved, id: id, word: next, since: g.idleSince()})
			return
		}
	}
}

// publishOpen shows the warm path what may be entered.
func (o *owner) publishOpen() {
	set := &openSet{version: o.model.open.Load().version + 1}
	for i := range o.core.slots {
		s := &o.core.slots[i]
		if g := o.gates[s.id]; s.state == Ready && g != nil {
			set.replicas = append(set.replicas, g)
			set.limits = append(set.limits, o.core.limitOf(s))
		}
	}
	o.model.open.Store(set)
}

// limitOf is how many requests a replica gets at once.
func (m *machine) limitOf(s *slot) int {
	switch {
	case m.config.Concurrency > 0:
		return m.config.Concurrency
	case s.limit > 0:
		return s.limit
	}
	return DefaultConcurrency
}

// begin runs an effect that takes time beside the owner. It reports by an event.
func (o *owner) begin(f effect, now moment) {
	m := o.model
	instance := o.instances[f.id]
	switch f.kind {
	case effReserve:
		run, launcher := o.newStart(f.id, now), o.launcher
		o.wg.Go(func() { o.reserve(run, launcher, Start{ID: f.id, Slot: f.slot}, f.beside) })
	case effLaunch:
		run, launcher := o.newStart(f.id, now), o.launcher
		o.wg.Go(func() { o.launch(run, launcher, Start{ID: f.id, Slot: f.slot}) })
	case effCancel:
		if run := o.starts[f.id]; run != nil {
			run.cancel()
		}
	case effSleep:
		o.bounded(evSlept, f.id, instance.Sleep)
	case effWake:
		o.bounded(evWoken, f.id, instance.Wake)
	case effStop:
		o.wg.Go(func() {
			err := instance.Stop(o.detached, f.idle)
			if err != nil {
				m.log.Warn("replica stopped with an error", slog.String("model", m.name), slog.Uint64("replica", f.id), slog.Any("error", err))
			}
			m.mail.send(event{kind: evStopped, id: f.id, err: err})
		})
	}
}

func (o *owner) noteTransition(f effect) {
	m := o.model
	attrs := []slog.Attr{
		slog.String("model", m.name), slog.Uint64("replica", f.id),
		slog.String("from", f.from.String()), slog.String("to", f.to.String()), slog.String("reason", f.reason),
	}
	level := slog.LevelInfo
	if f.err != nil {
		level = slog.LevelWarn
		attrs = append(attrs, slog.Any("error", f.err))
	}
	m.log.LogAttrs(context.Background(), level, "replica changed state", attrs...)
	if m.observer.Transition != nil {
		m.observer.Transition(Transition{Model: m.name, Replica: f.id, From: f.from, To: f.to, Reason: f.reason, Err: f.err, At: time.Now()})
	}
}
