package activator

import "time"

// Observer hears what happens, for metrics and timelines. Nil funcs are skipped. They are called by the owner
// (Transition, ColdStart, Sleep) or by whoever ends a wait (Wait), so they must be quick, must not block and must
// not call back into the Model; Wait must be safe for concurrent use.
type Observer struct {
	Transition func(Transition)
	ColdStart  func(ColdStart)
	Wait       func(Wait)
	Sleep      func(Sleep)
	// RollBack hears of a spec that was given up for the one before, and why. It is called by the owner, too.
	RollBack func(model, spec string, err error)
	// SlowStart hears of a start twice: when it has taken twice as long as learned, and when it is over and was slow. It must be safe for
	// concurrent use, like Wait.
	SlowStart func(model string, replica uint64, s SlowStart)
}

// Transition is one change of a replica's state.
type Transition struct {
	Model    string
	Replica  uint64
	From, To State
	// Reason is a word or two, from a fixed set: fit for a label.
	Reason string
	// Err is the cause of a failure; nil otherwise. Its text is for operators only.
	Err error
	At  time.Time
}

// ColdStart is one start that ended: ready, failed, or cancelled.
type ColdStart struct {
	Model    string
	Replica  uint64
	Duration time.Duration
	Err      error // nil: ready
}

// Sleep is a replica that has fallen asleep or woken up, or has failed to.
type Sleep struct {
	Model    string
	Replica  uint64
	Wake     bool // false: it was to fall asleep
	Duration time.Duration
	Err      error // nil: it went well
}

// Outcome is how a wait in the queue ended.
type Outcome string

const (
	OutcomeGranted   Outcome = "granted"
	OutcomeFailed    Outcome = "failed" // no replica could be had, or the model went out of service
	OutcomeTimeout   Outcome = "timeout"
	OutcomeCancelled Outcome = "cancelled"
)

// Wait is one wait in the queue that ended.
type Wait struct {
	Model    string
	Duration time.Duration
	Outcome  Outcome
	Cold     bool // a start or a wake happened in between
}

func (m *Model) observeWait(t *Ticket, state uint32) {
	if m.observer.Wait == nil {
		return
	}
	w := Wait{Model: m.name, Duration: m.now() - t.enqueued, Cold: t.lease.cold}
	switch {
	case state == ticketGranted:
		w.Outcome = OutcomeGranted
	case state == ticketCancelled:
		w.Outcome = OutcomeCancelled
	case t.err == ErrWaitTimeout:
		w.Outcome = OutcomeTimeout
	default:
		w.Outcome = OutcomeFailed
	}
	m.observer.Wait(w)
}
