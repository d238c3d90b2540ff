package gateway

import (
	"errors"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"pilotlight/activator"
	"pilotlight/backends/transport"
	"pilotlight/gateway/jsonbody"
	"pilotlight/gateway/sse"
	"pilotlight/router"
)

// exchange is one request on its way: lease, upstream call and cancellation. It belongs to the connection's
// goroutine (the handler, then the body stream that fasthttp reads); only clientLeft comes from elsewhere. It is used again for
// other requests: between newExchange and release it is one request's, and nobody may keep it.
type exchange struct {
	g      *Gateway
	rec    record
	body   stream
	taken  bool // body lives on after the handler, and releases the exchange
	model  *Model
	route  *route
	asked  string // the model's name as the client wrote it
	stream bool
	fields jsonbody.Fields
	patch  jsonbody.Patch

	admission admission
	claimed   activator.Work // as the queue was told
	weighed   bool           // it was

	deadline  time.Time // timeouts.request
	waitUntil time.Time // end of the wait for a replica
	lastIO    time.Time // request sent, or engine heard

	step     step
	attempts int
	ticket   *activator.Ticket
	choice   *choice // nil: there is none to make
	lease    activator.Lease
	target   Target
	rid      []byte // told to the engine; empty when it takes none
	request  transport.Request
	timer    *time.Timer

	status   int // the engine's
	splitter sse.Splitter
	fragment *[]byte // what the engine sent last, while the splitter refers to it
	sequence int     // events of the Responses API so far

	space   transport.Call // what call points to
	idSpace [maxRequestID]byte

	sessionID  []byte       // of the session header; part of the request's head
	usage      router.Usage // of the answer
	sentAt     time.Time    // the last attempt
	origin     *Model       // whose fallbacks count
	fallen     int          // fallbacks that were tried
	fallbackAt time.Time    // when to look for one
	via        string       // why another model answers; empty: none does
	stays      bool         // silence does not move it to another replica any more

	// For the log: of the last lease.
	queued  time.Duration
	cold    bool
	replica uint64
	reason  router.Reason // empty: there was no choice
	matched float64
	told    []byte // scratch for headers

	mu   sync.Mutex // guards the fields below
	gone bool
	left chan struct{} // closed when the client leaves; nil until somebody waits for that
	call *transport.Call
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

func (g *Gateway) newExchange(ctx *fasthttp.RequestCtx) *exchange {
	x, _ := exchanges.Get().(*exchange)
	x.g = g
	x.rec.start = time.Now()
	x.rec.id = appendRequestID(x.idSpace[:0], ctx.Request.Header.Peek(headerRequestID))
	x.rec.conn = watched(ctx)
	return x
}

// handled is called when the handler returns.
func (x *exchange) handled() {
	if !x.taken {
		x.release()
	}
}

// keptText is the largest buffer in bytes that an exchange keeps for the next request.
const keptText = 16 << 10

// release forgets the request and keeps the memory. Everything was given back before (finish), and the connection tells nothing
// more (clientConn.end).
func (x *exchange) release() {
	x.dropFragment()
	x.splitter.Reset()
	x.forget()
	x.g, x.rec = nil, record{}
	x.body.reset()
	x.taken, x.model, x.route, x.asked, x.stream = false, nil, nil, "", false
	x.deadline, x.waitUntil, x.lastIO = time.Time{}, time.Time{}, time.Time{}
	if x.metered() {
		x.admission, x.claimed, x.weighed = admission{}, activator.Work{}, false
	}
	x.step, x.attempts, x.ticket, x.lease, x.target = stepAcquire, 0, nil, activator.Lease{}, nil
	x.rid = x.rid[:0]
	x.request = transport.Request{Extra: x.request.Extra[:0], Body: x.request.Body[:0]}
	x.status, x.sequence, x.queued, x.cold, x.replica = 0, 0, 0, false, 0
	x.dropChoice()
	x.origin, x.fallen, x.fallbackAt, x.via = nil, 0, time.Time{}, ""
	x.sessionID, x.usage, x.sentAt, x.stays, x.reason, x.matched = nil, router.Usage{}, time.Time{}, false, "", 0
	x.mu.Lock()
	x.gone, x.left, x.call = false, nil, nil
	x.mu.Unlock()
	exchanges.Put(x)
}

// forget lets go of the client's body.
func (x *exchange) forget() {
	x.patch.Reset(nil)
	x.fields = jsonbody.Fields{}
	clear(x.request.Body)
	x.request.Body = x.request.Body[:0]
}

// leaving is closed when the client leaves.
func (x *exchange) leaving() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.left == nil {
		x.left = make(chan struct{})
		if x.gone {
			close(x.left)
		}
	}
	return x.left
}

// step is what the exchange does next.
type step uint8

const (
	stepAcquire step = iota // ask for a place on a replica
	stepWait                // queued
	stepKeeper              // wait for a place on the one replica that can answer
	stepSend
	stepHead  // wait for the engine's status
	stepEvent // wait for the first event of a stream, which may be an error that deserves a status
	stepReady // the answer may be passed on
)

// errNotYet says that the time given to advance is over, and the request is not.
var errNotYet = errors.New("not yet")

// clientLeft cancels whatever the exchange is doing. Called once, by the connection's watcher.
func (x *exchange) clientLeft() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.gone {
		return
	}
	x.gone = true
	if x.left != nil {
		close(x.left)
	}
	if x.call != nil {
		x.call.Cancel()
	}
}

func (x *exchange) clientGone() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.gone
}

// advance carries the request on until its answer may be passed on (nil), it has failed (*apiError), or the time is over (errNotYet).
func (x *exchange) advance(until time.Time) error {
	for {
		var err error
		switch x.step {
		case stepAcquire:
			err = x.acquire()
		case stepWait:
			err = x.wait(until)
		case stepKeeper:
			err = x.awaitKeeper(until)
		case stepSend:
			err = x.send()
		case stepHead:
			err = x.head(until)
		case stepEvent:
			err = x.firstEvent(until)
		case stepReady:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (x *exchange) acquire() error {
	if x.chooses() {
		if err := x.describe(); err != nil {
			return err
		}
	}
	if x.choice != nil && x.choice.keeper != 0 {
		x.step = stepKeeper
		return nil
	}
	if lease, ok := x.model.Activator.TryAcquireFor(x.hint()); ok {
		return x.granted(lease)
	}
	if refused := x.mayWait(); refused != nil {
		return refused
	}
	if x.choice == nil && x.model.Balancer != nil {
		if err := x.describe(); err != nil { // by the time that it is its turn there may be a choice
			return err
		}
	}
	if x.choice != nil {
		x.choice.shared = true
	}
	ticket, err := x.model.Activator.Enqueue(x.place())
	if err != nil {
		return activatorError(err, x.model.Activator.Status().ETA)
	}
	x.ticket, x.step = ticket, stepWait
	x.rec.trace.enqueued()
	return nil
}

func (x *exchange) wait(until time.Time) error {
	end := until
	if x.waitUntil.Before(end) {
		end = x.waitUntil
	}
	if x.deadline.Before(end) {
		end = x.deadline
	}
	fallback := x.fallsBackAt()
	if !fallback.IsZero() && fallback.Before(end) {
		end = fallback
	}
	select { // a granted ticket wins over a time that is over already
	case <-x.ticket.Done():
		return x.waited()
	default:
	}
	if x.timer == nil {
		x.timer = time.NewTimer(time.Until(end))
	} else {
		x.timer.Reset(time.Until(end))
	}
	select {
	case <-x.ticket.Done():
		return x.waited()
	case <-x.leaving():
		x.ticket.Cancel()
		return errClientLeft
	case now := <-x.timer.C:
		switch {
		case !now.Before(x.deadline):
			x.ticket.Cancel()
			return errRequestTimeout
		case !now.Before(x.waitUntil):
			status := x.ticket.Status()
			x.ticket.Cancel()
			return coldError(status, status.ETA)
		case !fallback.IsZero() && !now.Before(fallback):
			x.outwaited(now)
			return nil
		}
		return errNotYet
	}
}

// keeperPause is how often a place is asked for on the one replica that can answer, while it is full.
const keeperPause = 20 * time.Millisecond

// awaitKeeper takes a place on the replica that keeps the previous response.
func (x *exchange) awaitKeeper(until time.Time) error {
	for {
		lease, there := x.model.Activator.TryAcquireOn(x.choice.keeper, x.choice)
		switch now := time.Now(); {
		case lease.Held():
			return x.granted(lease)
		case !there:
			return errPreviousResponse
		case !now.Before(x.deadline):
			return errRequestTimeout
		case !now.Before(x.waitUntil):
			return coldError(activator.WaitStatus{State: activator.Ready}, 0)
		case !now.Before(until):
			return errNotYet
		}
		t := time.NewTimer(keeperPause)
		select {
		case <-t.C:
		case <-x.leaving():
			t.Stop()
			return errClientLeft
		}
	}
}

func (x *exchange) waited() error {
	lease, err := x.ticket.Lease()
	if err != nil {
		return activatorError(err, x.ticket.Status().ETA)
	}
	return x.granted(lease)
}

func (x *exchange) granted(lease activator.Lease) error {
	target, ok := lease.Instance().(Target)
	if !ok {
		lease.Release()
		return internalError(errors.New("BUG: an instance without a transport"))
	}
	x.lease, x.target, x.step = lease, target, stepSend
	x.admission.reservation.Woken()
	x.queued += lease.Waited()
	x.cold = x.cold || lease.Cold()
	x.replica = lease.ReplicaID()
	if x.choice != nil {
		x.reason, x.matched = x.choice.asked.Reason(), x.choice.asked.Matched()
	}
	x.rec.trace.granted(x.model, &lease)
	return nil
}

// finish gives everything back. answered: the engine's answer was read to its end, so there is nothing to abort.
func (x *exchange) finish(answered bool, now time.Time) {
	if x.ticket != nil {
		x.ticket.Cancel()
	}
	if x.timer != nil {
		x.timer.Stop()
	}
	if x.choice != nil && x.usage != (router.Usage{}) && x.lease.Held() {
		x.choice.balancer.Learn(&x.choice.asked, x.usage)
	}
	x.settle(answered, now)
	x.settleWork(answered)
	abort := !answered && x.call != nil && len(x.rid) > 0 && x.target != nil
	x.dropCall(now)
	if abort {
		// Without it SGLang generates for two seconds more (facts/sglang.md §13). The lease is held until the engine has
		// confirmed, so that the replica is neither overfilled nor put to rest under a request that still runs.
		if x.choice != nil {
			x.choice.shared = true
		}
		x.g.abort(x.target.Transport(), string(x.rid), x.lease)
		x.lease = activator.Lease{}
		return
	}
	x.lease.ReleaseAt(now)
}
