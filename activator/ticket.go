package activator

import (
	"math"
	"sync/atomic"
	"time"
)

// Request is what the queue needs to know of a request.
type Request struct {
	// Tenant is whose turn it takes. Empty is a tenant like any other.
	Tenant string
	// Key tells apart who asks for the tenant; they take turns. Empty is a key like any other.
	Key string
	// Priority: what waits with a higher one goes first, but see ageAfter. From −9 to 9; what lies outside counts as the nearest.
	Priority int
	// Weight is the tenant's share among those of the same priority, from 1 to 1000. 0 means 1.
	Weight int
	// Work is what it asks of a replica.
	Work Work
	// Bytes is what it occupies while it waits. Negative counts as 0.
	Bytes int64
	// MaxWait ends the wait with ErrWaitTimeout. 0: no limit here.
	MaxWait time.Duration
	// Hint chooses among replicas; nil: the least loaded.
	Hint Hint
}

// A ticket has exactly one outcome: the first to swap its state away from waiting decides it.
const (
	ticketWaiting uint32 = iota
	ticketDeciding
	ticketGranted // the lease lies in the ticket
	ticketTaken   // the lease is the caller's
	ticketFailed
	ticketCancelled // left before a replica was found
	ticketReturned  // cancelled after one was found; the lease was released
)

// Ticket is a request's place in the queue.
type Ticket struct {
	model    *Model
	request  Request
	enqueued moment

	state    atomic.Uint32
	position atomic.Int32 // as last counted; 1 is next
	lease    Lease        // written before ticketGranted
	err      error        // written before ticketFailed
	done     chan struct{}
	timer    *time.Timer // nil without MaxWait
}

// Done is closed when the wait is over: Lease then tells how.
func (t *Ticket) Done() <-chan struct{} { return t.done }

// Lease hands the lease over, once. The error is why there is none: a *StartFailedError, ErrUnloaded,
// ErrShuttingDown, ErrWaitTimeout, or ErrCancelled (cancelled, not done yet, or handed over before).
func (t *Ticket) Lease() (Lease, error) {
	if t.state.CompareAndSwap(ticketGranted, ticketTaken) {
		return t.lease, nil
	}
	if t.state.Load() == ticketFailed {
		return Lease{}, t.err
	}
	return Lease{}, ErrCancelled
}

// Cancel leaves the queue and frees the place and the bytes before it returns. It reports true if the
// request had not been given a replica. If it had, and Lease was not called yet, the lease is released;
// after Lease it belongs to the caller and is left alone. Cancel may be called any number of times.
func (t *Ticket) Cancel() bool {
	if t.settle(ticketCancelled, nil) {
		t.model.mail.send(event{kind: evCancel, ticket: t})
		return true
	}
	for t.state.Load() == ticketDeciding {
		<-t.done // a few instructions away
	}
	if t.state.CompareAndSwap(ticketGranted, ticketReturned) {
		t.lease.Release()
	}
	s := t.state.Load()
	return s == ticketCancelled || s == ticketFailed
}

// settle decides the outcome, unless somebody else has. It frees the place in the queue and closes done.
func (t *Ticket) settle(state uint32, err error) bool {
	if !t.state.CompareAndSwap(ticketWaiting, ticketDeciding) {
		return false
	}
	t.conclude(state, err)
	return true
}

// conclude ends what a swap to ticketDeciding began.
func (t *Ticket) conclude(state uint32, err error) {
	t.err = err
	t.state.Store(state)
	t.model.queued.give(t.request.Tenant, t.request.Bytes)
	t.model.totals.give(t.request.Tenant, t.request.Bytes)
	if t.timer != nil {
		t.timer.Stop()
	}
	close(t.done)
	t.model.observeWait(t, state)
}

// expire is what the MaxWait timer calls.
func (t *Ticket) expire() {
	if t.settle(ticketFailed, ErrWaitTimeout) {
		t.model.mail.send(event{kind: evCancel, ticket: t})
	}
}

// WaitStatus is what a waiting client may be told.
type WaitStatus struct {
	// State is the state of the model: that of its most advanced replica.
	State State
	// Phase and Percent are of the start that the request waits for; empty and 0 when unknown.
	Phase   string
	Percent float64
	// Detail is more about the phase, in words for clients; usually empty.
	Detail string
	// Reason is why the start waits for devices; empty if it does not.
	Reason string
	// ETA is the time until a replica is ready, as learned from earlier starts; 0: unknown.
	ETA time.Duration
	// Position is the place in the order of dispatch, 1 being next, at most half a second old.
	// 0: no longer waiting.
	Position int
	// Queue is the number of requests that wait for this model.
	Queue int
	// Waited is the time since Enqueue.
	Waited time.Duration
}

// Status may be called at any time, also after the wait is over.
func (t *Ticket) Status() WaitStatus {
	now := t.model.now()
	s := t.model.view.Load().waitStatus(now)
	s.Queue = int(t.model.queued.requests.Load())
	s.Waited = now - t.enqueued
	if t.state.Load() == ticketWaiting {
		s.Position = int(t.position.Load())
	}
	return s
}

// Enqueue puts a request in the queue and, if nothing else has, makes the model start a replica. It does not
// wait. ErrQueueFull, ErrShuttingDown, ErrUnloaded and *StartFailedError (the model has failed, and the
// next try is far away or pointless) come at once. The caller waits for Done, or calls Cancel.
func (m *Model) Enqueue(req Request) (*Ticket, error) {
	if err := m.view.Load().refusal(m.name, m.now()); err != nil {
		return nil, err
	}
	req.Bytes = max(0, req.Bytes)
	if !m.totals.take(req.Tenant, req.Bytes) {
		return nil, ErrQueueFull
	}
	if !m.queued.take(req.Tenant, req.Bytes) {
		m.totals.give(req.Tenant, req.Bytes)
		return nil, ErrQueueFull
	}
	t := &Ticket{model: m, request: req, enqueued: m.now(), done: make(chan struct{})}
	t.position.Store(int32(m.queued.requests.Load()))
	if req.MaxWait > 0 {
		// Armed only once the field is set: expire reads it.
		t.timer = time.AfterFunc(math.MaxInt64, t.expire)
		t.timer.Reset(req.MaxWait)
	}
	if !m.mail.send(event{kind: evArrive, ticket: t}) {
		t.settle(ticketFailed, m.ended())
		_, err := t.Lease()
		return nil, err
	}
	return t, nil
}
