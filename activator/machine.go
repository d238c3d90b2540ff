package activator

import (
	"math"
	"time"
)

const (
	// patience is how long a backoff may still last for a request to wait for its end rather than be refused.
	patience = 10 * time.Second
	// stopTries bounds how often a Stop that reports an error is repeated, stopPause apart. After the last
	// one the replica counts as gone: a slot that is blocked for ever would be worse.
	stopTries = 3
	stopPause = time.Second
	// sleepTries is how often in a row falling asleep or waking up may go wrong until the model is not put to sleep any more: each
	// time costs a stop and a cold start, and what went wrong twice is the engine's way. A new spec or a Retry forgets it.
	sleepTries = 2
)

// machine decides for one model. It does no I/O, reads no clock and starts no goroutine; step is all there is.
// It knows replicas by id, and what is in flight on them only from what it is told.
type machine struct {
	config     Config
	needLedger bool   // a start asks before it launches: for devices, or to be prepared
	spec       uint64 // what replicas shall be of
	fallback   uint64 // the spec of before, until one of spec serves; 0: none to go back to
	worked     bool   // one of spec has served, or did when it was found
	slots      []slot
	queue      queue
	nextID     uint64
	scale      int // replicas that load asks for; below 0: nobody says

	tight     bool // there were no devices for one more than there must be; until the next evScale
	surveying bool // the cheapest to lose is being looked for

	crowded bool // there were no devices for one more, so those of an old spec leave first; until the next Update

	failure   failure
	refused   failure // why the newest spec was given up for the one before; its cause is nil if it was not
	sleepless uint8   // sleeps and wakes that went wrong in a row, up to sleepTries
	leaving   leaving
	leaveBy   moment // while leaving: when patience ends
	final     bool   // leaving, and nobody is left to be served first

	asking  bool // a grant was tried and its result is not in
	blocked bool // the last grant found no room; a poke or one more replica ends that
	done    bool

	counters Counters
	out      []effect // of the present step
}

// leaving is how a model goes out of service.
type leaving uint8

const (
	staying   leaving = iota
	unloading         // what waits is served first
	closing           // what waits is turned away
)

// slot is one place for a replica.
type slot struct {
	state State
	work  work // what takes time and will report
	look  look // what was asked about the word
	id    uint64
	spec  uint64

	since     moment // of the state
	check     moment // Ready, Asleep: when to see whether it idles; Stopping: when to try again
	drainBy   moment // Draining: when to stop it all the same; 0: never
	idleSince moment // Asleep: since when nobody used it
	movedAt   moment // Asleep: when it began to fall asleep or to wake up, whichever came last

	limit     int // the engine's own; 0: not known
	tries     uint8
	heir      uint64 // Ready, of an old spec: the replica that is started in its place; 0: none yet
	outlived  bool   // the heir serves
	held      bool   // devices are reserved for it
	cancelled bool   // Starting: the start was told to end
	exited    bool
	extra     bool // it is closed because there are more than needed
	unknown   bool // adopted, in flight not known; also while it still starts
	watched   bool // a poke comes when its in flight is zero

	preempt   bool // the look is for a preemption
	preemptor chan error
	phase     string
	percent   float64
}

// work is the effect that runs for a slot. There is at most one.
type work uint8

const (
	workNone work = iota
	workReserve
	workLaunch
	workSleep
	workWake
	workStop
)

// look is the question about a slot's word that is open. There is at most one.
type look uint8

const (
	lookNone look = iota
	lookObserve
	lookFence
	lookClose
)

// failure is the model's last failure and its consequences.
type failure struct {
	cause     error
	permanent bool
	at        moment
	retryAt   moment // no start before
	count     int    // in a row
}

func (f failure) forbids(now moment) bool { return f.permanent || f.retryAt > now }

// hopeless: a request that comes now is better told than kept.
func (f failure) hopeless(now moment) bool { return f.permanent || f.retryAt > now+patience }

func (f failure) refusal(model string, now moment) error {
	if !f.hopeless(now) {
		return nil
	}
	return f.asError(model, now)
}

func (f failure) asError(model string, now moment) error {
	e := &StartFailedError{Model: model, Cause: f.cause, Permanent: f.permanent}
	if !f.permanent {
		e.RetryAfter = max(0, f.retryAt-now)
	}
	return e
}

func newMachine(c Config, needLedger bool, firstID uint64) machine {
	m := machine{config: c, needLedger: needLedger, queue: newQueue(), nextID: max(1, firstID), spec: 1, scale: -1}
	m.resize()
	return m
}

// step takes one event and returns what is to be done, in order. The effects are valid until the next step.
func (m *machine) step(e event, now moment) []effect {
	clear(m.out)
	m.out = m.out[:0]
	if m.done {
		m.afterTheEnd(e)
		return m.out
	}
	m.handle(e, now)
	if e.kind == evAdopt && e.n > 0 {
		return m.out // or what is found next would be started beside it
	}
	m.decide(now)
	return m.out
}

func (m *machine) handle(e event, now moment) {
	switch e.kind {
	case evTick:
	case evArrive:
		if m.leaving != staying {
			m.emit(effect{kind: effGiveUp, ticket: e.ticket, err: m.leavingError()})
			return
		}
		m.queue.push(e.ticket, now)
		// Whoever gave a place up while the queue was counted empty has not poked. It can have been empty
		// since the last try, though never seen so here: its last ticket left before this one came, and
		// that news is still on its way.
		m.blocked = false
	case evCancel:
		m.queue.remove(e.ticket, now)
	case evCharge:
		m.queue.charge(&e.ticket.request, e.cost, e.output)
	case evPoke:
		m.onPoke()
	case evUpdate:
		m.onUpdate(e.change, now)
	case evScale:
		m.scale, m.tight = e.n, false
	case evRetry:
		m.failure, m.sleepless = failure{}, 0
		m.lookAgain(now)
	case evPreempt:
		m.onPreempt(e, now)
	case evAdopt:
		m.onAdopt(e, now)
	case evUnload:
		m.leave(unloading, now)
	case evClose:
		m.leave(closing, now)
	case evHurry:
		m.onHurry(now)
	case evGranted:
		m.onGranted(e, now)
	case evSurveyed:
		m.onSurveyed(e)
	default:
		m.handleReplica(e, now)
	}
}

// handleReplica takes the events that speak of one replica. One that is not there any more, or not in the
// state that the event belongs to, is left alone.
func (m *machine) handleReplica(e event, now moment) {
	s := m.byID(e.id)
	if s == nil {
		if e.kind != evExited { // usually comes after Stop has said the same
			m.counters.Ignored++
		}
		return
	}
	understood := true
	switch e.kind {
	case evReserved:
		understood = m.onReserved(s, e, now)
	case evStarted:
		understood = m.onStarted(s, e, now)
	case evFailed:
		understood = m.onFailed(s, e, now)
	case evProgress:
		understood = m.onProgress(s, e)
	case evExited:
		understood = m.onExited(s, e, now)
	case evSlept:
		understood = m.onSlept(s, e, now)
	case evWoken:
		understood = m.onWoken(s, e, now)
	case evStopped:
		understood = m.onStopped(s, e, now)
	case evSettled:
		understood = m.onSettled(s, now)
	case evObserved:
		understood = m.onObserved(s, e, now)
	case evFenced:
		understood = m.onFenced(s, e, now)
	case evClosed:
		understood = m.onClosed(s, e, now)
	default:
		understood = false
	}
	if !understood {
		m.counters.Ignored++
	}
}

// afterTheEnd answers those who are still waiting for one.
func (m *machine) afterTheEnd(e event) {
	switch {
	case e.kind == evArrive:
		m.emit(effect{kind: effGiveUp, ticket: e.ticket, err: m.leavingError()})
	case e.reply != nil:
		m.emit(effect{kind: effReply, reply: e.reply, err: ErrNoReplica})
	}
}

func (m *machine) emit(e effect) { m.out = append(m.out, e) }

// byID finds a replica; 0 is nobody's id.
func (m *machine) byID(id uint64) *slot {
	for i := range m.slots {
		if s := &m.slots[i]; id != 0 && s.id == id {
			return s
		}
	}
	return nil
}

func (m *machine) indexOf(s *slot) int {
	for i := range m.slots {
		if &m.slots[i] == s {
			return i
		}
	}
	return -1
}

// become is the only place where a state changes.
func (m *machine) become(s *slot, to State, now moment, reason string) {
	m.becomeFor(s, to, now, reason, nil)
}

// becomeFor is become with an error as the cause.
func (m *machine) becomeFor(s *slot, to State, now moment, reason string, err error) {
	m.emit(effect{kind: effChanged, slot: m.indexOf(s), id: s.id, from: s.state, to: to, reason: reason, err: err})
	if s.state == Ready {
		m.emit(effect{kind: effPublish})
	}
	s.state, s.since = to, now
	s.check, s.drainBy, s.watched = 0, 0, false
	s.phase, s.percent = "", 0
	if to == Ready {
		m.blocked = false
		m.emit(effect{kind: effPublish})
	}
}

// nextDeadline is when to step with evTick, if nothing happens before; 0: not needed.
func (m *machine) nextDeadline(now moment) moment {
	if m.done {
		return 0
	}
	next := moment(math.MaxInt64)
	sooner := func(t moment) {
		if t != 0 {
			next = min(next, t)
		}
	}
	for i := range m.slots {
		s := &m.slots[i]
		switch s.state {
		case Ready, Asleep:
			if s.work == workNone && m.mayLeave(s) {
				sooner(s.check)
			}
		case Draining:
			sooner(s.drainBy)
		case Stopping, Failed:
			if s.work == workNone {
				sooner(s.check)
			}
		}
	}
	if !m.failure.permanent && m.failure.retryAt > now {
		sooner(m.failure.retryAt)
	}
	if m.leaving == unloading && !m.final {
		sooner(m.leaveBy)
	}
	if next == math.MaxInt64 {
		return 0
	}
	return next
}

// backoff is the pause after the n-th failure in a row: doubling from BackoffMin to BackoffMax, then shortened by up
// to a fifth, so that models that failed together do not come back together.
func (m *machine) backoff(n int, jitter float64) time.Duration {
	d := m.config.BackoffMin
	for i := 1; i < n && d < m.config.BackoffMax; i++ {
		d *= 2
	}
	d = min(d, m.config.BackoffMax)
	return d - time.Duration(float64(d)/5*jitter)
}
