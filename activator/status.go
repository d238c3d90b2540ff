package activator

import "time"

// Status is what an operator may be told of a model. It is a copy; change it at will.
type Status struct {
	Name string
	// State is that of the most advanced replica.
	State State
	// Replicas are those that exist or failed last, by slot.
	Replicas []ReplicaStatus
	// QueuedRequests and QueuedBytes wait now.
	QueuedRequests int
	QueuedBytes    int64
	// ETA is the time until the next replica is ready; 0: unknown, or none is on its way.
	ETA time.Duration
	// Slow is set while a start in progress is slow, or if the latest one was.
	Slow *SlowStart
	// LastFailure is the last failed start or crash; nil if there was none since the configuration changed.
	LastFailure *FailureStatus
	// RolledBack is why the newest spec is not in force: its starts failed, and replicas are of the one before until the next Update or
	// Retry. nil: it is in force.
	RolledBack *FailureStatus
	// Leaving is set while the model is being unloaded or shut down.
	Leaving bool
	// Sleepless: sleeping went wrong so often that idle replicas stay awake until Config.ScaledownAfter; a new spec or a
	// Retry ends that.
	Sleepless bool
	Counters
}

// ReplicaStatus is one replica.
type ReplicaStatus struct {
	ID       uint64
	Slot     int
	State    State
	Since    time.Time // of the state
	InFlight int
	Limit    int // of requests at once; 0 before it is ready
	// IdleSince is the end of the last request, or when it became ready if none came; it means something while
	// InFlight is 0, and is zero before it is ready.
	IdleSince time.Time
	Phase     string
	Percent   float64
	// ETA is the time until it is ready; 0: unknown, or it is not on its way.
	ETA time.Duration
	// Detail is more about the phase, in words for clients; usually empty.
	Detail string
	// Reason is why it waits for devices; empty if it does not.
	Reason string
	// Unknown: adopted, and nobody has told yet whether requests of an earlier gateway are in flight.
	Unknown  bool
	Instance Instance // nil before it is ready
}

// FailureStatus is the last failure.
type FailureStatus struct {
	Cause     error
	At        time.Time
	Permanent bool
	// RetryAt is when the next start may happen; zero if Permanent, or if one may happen at once.
	RetryAt time.Time
	// Count is the number of failures in a row.
	Count int
}

// Counters only ever grow.
type Counters struct {
	Starts, StartFailures, Crashes uint64
	Evictions, Sleeps, Wakes       uint64
	// BadSleeps went wrong: falling asleep, waking up, or a death in between. Each ended in a stop.
	BadSleeps   uint64
	Preemptions uint64
	// Revoked evictions: a request came between the decision and the fence.
	Revoked uint64
	// RollBacks are new specs that were given up for the one before.
	RollBacks uint64
	// Ignored events made no sense in the state they met.
	Ignored uint64
}

// view is what the owner publishes for everyone else. Immutable.
type view struct {
	state     State
	replicas  []replicaView
	phase     string
	percent   float64
	detail    string
	reason    string
	eta       etaView
	failure   failure
	refused   failure
	subject   Subject
	sleepless bool  // Status.Sleepless
	live      bool  // some replica serves, or may soon
	leaving   error // why new requests are refused: ErrUnloaded, ErrShuttingDown
	counters  Counters
}

type replicaView struct {
	ReplicaStatus
	since moment
	gate  *replica // nil unless it has been entered
	eta   etaView  // of a start or wake
}

// etaView is an estimate that ages by itself: of one start or wake in progress, or of a whole one that has not begun, which does not
// age but waits for the end of the backoff.
type etaView struct {
	start     *startRun // in progress; nil: none is
	forecast  *forecast // of start
	whole     time.Duration
	since     moment // when the wake began, or the preparation said how long it takes, that whole is of; 0: it does not age
	notBefore moment
}

func (e etaView) known() bool { return e.forecast != nil || e.whole > 0 }

// overdue is what is said of a start that takes longer than learned: soon, but never now.
const overdue = time.Second

// left is the time to readiness; 0: not known.
func (e etaView) left(now moment) time.Duration {
	switch {
	case e.forecast != nil:
		return max(overdue, e.forecast.remaining(now-e.start.began))
	case e.whole > 0 && e.since != 0:
		return max(overdue, e.whole-(now-e.since))
	case e.whole > 0:
		return e.whole + max(0, e.notBefore-now)
	}
	return 0
}

// percent is how much of the start lies behind, by the estimate; 0 without one. It never falls.
func (e etaView) percent(now moment) float64 {
	if e.forecast == nil {
		return 0
	}
	elapsed := now - e.start.began
	return e.start.atLeast(min(99, 100*float64(elapsed)/float64(elapsed+e.left(now))))
}

func (v *view) waitStatus(now moment) WaitStatus {
	s := WaitStatus{State: v.state, Phase: v.phase, Percent: v.percent, Detail: v.detail, Reason: v.reason, ETA: v.eta.left(now)}
	if v.eta.forecast != nil {
		s.Percent = v.eta.percent(now)
	}
	return s
}

// refusal is why a request that comes now need not queue up at all; nil if it may.
func (v *view) refusal(name string, now moment) error {
	if v.leaving != nil {
		return v.leaving
	}
	if v.live {
		return nil
	}
	return v.failure.refusal(name, now)
}

// Status is a snapshot of the model.
func (m *Model) Status() Status {
	now, v := m.now(), m.view.Load()
	s := Status{
		Name: m.name, State: v.state,
		QueuedRequests: int(m.queued.requests.Load()), QueuedBytes: m.queued.bytes.Load(),
		ETA: v.eta.left(now), Leaving: v.leaving != nil, Sleepless: v.sleepless, Counters: v.counters,
	}
	if m.durations != nil {
		s.Slow = m.durations.Slow(v.subject)
	}
	for _, r := range v.replicas {
		status := r.ReplicaStatus
		status.Since = m.at(r.since)
		if r.gate != nil {
			status.InFlight = r.gate.load().inFlight()
			status.IdleSince = m.at(r.gate.idleSince())
		}
		if r.eta.known() {
			status.ETA = r.eta.left(now)
		}
		if r.eta.forecast != nil {
			status.Percent = r.eta.percent(now)
			if slow := r.eta.forecast.slow(now - r.eta.start.began); slow != nil {
				s.Slow = slow
			}
		}
		s.Replicas = append(s.Replicas, status)
	}
	if f := v.refused; f.cause != nil {
		s.RolledBack = &FailureStatus{Cause: f.cause, At: m.at(f.at), Permanent: f.permanent, Count: f.count}
	}
	if f := v.failure; f.cause != nil {
		s.LastFailure = &FailureStatus{Cause: f.cause, At: m.at(f.at), Permanent: f.permanent, Count: f.count}
		if f.retryAt > now && !f.permanent {
			s.LastFailure.RetryAt = m.at(f.retryAt)
		}
	}
	return s
}
