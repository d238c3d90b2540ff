package gateway

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"pilotlight/backends"
	"pilotlight/backends/transport"
	"pilotlight/gateway/jsonbody"
	"pilotlight/router"
)

const (
	fragmentSize = 8 << 10
	// deadGrace is how long a broken connection may be ahead of the news that its process is dead (pidfd, ≤ 100 ms).
	deadGrace = 150 * time.Millisecond
)

// send writes the request to the replica that was granted.
func (x *exchange) send() error {
	x.attempts++
	if x.attempts == 1 && x.via != viaCold && x.via != viaFull && x.via != viaFailed && x.origin.Shadow.Model != nil {
		x.shadow()
	}
	pool := x.target.Transport()
	x.rec.trace.sending(x, pool.Endpoint())
	x.prepare(pool.Endpoint())
	call := &x.space
	call.Reuse(pool)
	x.mu.Lock()
	x.call = call
	gone := x.gone
	x.mu.Unlock()
	if gone {
		return errClientLeft
	}
	x.lastIO = x.rec.start // a moment ago, unless something was waited for
	if x.ticket != nil || x.attempts > 1 {
		x.lastIO = time.Now()
	}
	x.sentAt = x.lastIO
	if err := call.Send(&x.request, x.lastIO); err != nil {
		return x.callFailed(err)
	}
	x.step = stepHead
	return nil
}

// prepare makes the upstream request: the client's bytes, with splices for what the replica must see otherwise.
func (x *exchange) prepare(e backends.Endpoint) {
	x.patch.Reset(&x.fields)
	x.rid = x.rid[:0]
	if e.Engine == backends.EngineSGLang {
		x.patch.DeleteReserved()
		if x.route.rid {
			// Our own id, new for each attempt: SGLang refuses one that is still alive, and aborts by prefix (facts/sglang.md §6.6).
			x.rid = appendHexID(x.rid)
			x.patch.SetBytes(jsonbody.RID, x.rid)
		}
	}
	if e.ServedName != "" && e.ServedName != x.asked {
		x.patch.SetString(jsonbody.Model, e.ServedName)
	}
	x.amend(e)
	if x.route.stream && len(x.model.Parameters) > 0 { // the routes that generate text
		x.patch.Parameters(x.model.Parameters)
	}
	accept := "application/json"
	if x.stream {
		accept = "text/event-stream"
	}
	x.request = transport.Request{
		Method: fasthttp.MethodPost, Path: x.route.upstream, ContentType: "application/json", Accept: accept,
		Extra: append(append(append(x.request.Extra[:0], "X-Request-Id: "...), x.rec.id...), "\r\n"...),
		Body:  jsonbody.Pieces(x.request.Body[:0], x.fields.Body(), x.patch.Edits()),
	}
	x.request.Extra = x.rec.trace.propagate(x.request.Extra)
}

func (x *exchange) head(until time.Time) error {
	end, reason := x.firstByteLimit(until)
	err := x.call.AwaitHead(end)
	switch {
	case err == nil:
	case err == transport.ErrNotYet:
		return x.overdue(reason)
	default:
		return x.callFailed(err)
	}
	x.status = x.call.Header.StatusCode()
	x.rec.trace.firstByte(x.status)
	if x.status == fasthttp.StatusOK && x.stream && isEventStream(x.call.Header.ContentType()) {
		x.step = stepEvent
		return nil
	}
	x.step = stepReady
	return nil
}

// earliest picks which limit ends a wait upstream; reason is nil when it is the caller's own.
func (x *exchange) earliest(until, limit time.Time, limitReason *apiError) (time.Time, *apiError) {
	end, reason := until, (*apiError)(nil)
	if limit.Before(end) {
		end, reason = limit, limitReason
	}
	if x.deadline.Before(end) {
		end, reason = x.deadline, errRequestTimeout
	}
	return end, reason
}

func (x *exchange) overdue(reason *apiError) error {
	switch reason {
	case nil:
		return errNotYet
	case errSilent:
		return x.move()
	}
	return reason
}

// firstEvent waits until one whole event lies in the splitter's reach. An error in its place becomes the answer's status
// if none is sent yet: SGLang reports a full queue in this way (facts/sglang.md §6.4).
func (x *exchange) firstEvent(until time.Time) error {
	end, reason := x.firstByteLimit(until)
	n, err := x.read(end)
	if n > 0 {
		if x.choice != nil {
			x.choice.balancer.FirstToken(&x.choice.asked)
		}
		x.step = stepReady
		return nil
	}
	switch {
	case err == transport.ErrNotYet:
		return x.overdue(reason)
	case err == io.EOF:
		x.step = stepReady
		return nil
	default:
		return x.callFailed(err)
	}
}

// read takes what the engine has sent into the splitter.
func (x *exchange) read(until time.Time) (int, error) {
	x.dropFragment()
	// A buffer is taken only for what has arrived: with thousands of slow streams, buffers that wait would be most of the memory.
	if err := x.call.Await(until); err != nil {
		return 0, err
	}
	x.fragment, _ = fragments.Get().(*[]byte)
	n, err := x.call.Read(*x.fragment, until)
	if n > 0 {
		x.lastIO = time.Now()
		x.splitter.Push((*x.fragment)[:n])
	}
	return n, err
}

var fragments = sync.Pool{New: func() any { b := make([]byte, fragmentSize); return &b }}

// dropFragment gives back the buffer whose events have all been taken.
func (x *exchange) dropFragment() {
	if x.fragment != nil {
		fragments.Put(x.fragment)
		x.fragment = nil
	}
}

// callFailed applies the retry rule: it returns nil when the request is to be tried on another replica.
func (x *exchange) callFailed(err error) error {
	if x.clientGone() {
		return errClientLeft
	}
	// Asked in this order: the news of a death is worth waiting for, even where a refusal alone would do, because only then does
	// the next attempt meet another replica.
	mayRetry, dead := x.attempts < router.MaxAttempts && router.MayRetry(err, true), false
	if mayRetry {
		dead = x.replicaDies(err)
		mayRetry = router.MayRetry(err, dead)
	}
	// What a death has cost is made up for once, whatever the budget: the dead are replaced, so it cannot go on.
	// So is a refusal by one that turns out to be dead: between its death and the news of it whoever comes is refused, which may be more
	// than a tenth of all.
	first := x.attempts == 1
	mayRetry = mayRetry && (dead && first || x.model.metrics.budget.Spend() || first && isRefused(err) && x.exits())
	x.rec.trace.attemptFailed(err, mayRetry)
	now := time.Now()
	x.dropCall(now)
	outcome := router.Failed
	if dead || isRefused(err) {
		outcome = router.Refused
	}
	x.report(outcome, now)
	x.lease.Settle(0, 0, false)
	x.lease.Release()
	if !mayRetry {
		return callError(err)
	}
	x.g.metrics.retried(x.model)
	if x.choice != nil {
		x.choice.asked.Avoid = x.replica
	}
	x.step = stepAcquire
	return nil
}

func isRefused(err error) bool {
	var te *transport.Error
	return errors.As(err, &te) && te.Refused
}

// replicaDies waits a moment for the news that the replica's process has ended. Where there are others it is enough that nobody listens any
// more: nobody has to wait for a replacement, and servers that somebody else runs send no news.
func (x *exchange) replicaDies(err error) bool {
	if x.choice != nil {
		if isRefused(err) {
			return false // nothing was lost, and the next attempt is made elsewhere
		}
		if x.target.Transport().Refuses(deadGrace) {
			return true
		}
	}
	return x.exits()
}

// exits waits a moment for the news that the replica's process has ended.
func (x *exchange) exits() bool {
	t := time.NewTimer(deadGrace)
	defer t.Stop()
	select {
	case <-x.target.Exited():
		return true
	case <-t.C:
		return false
	case <-x.leaving():
		return false
	}
}

// firstByteLimit is when the engine's silence ends the wait for its first byte, and with what.
func (x *exchange) firstByteLimit(until time.Time) (time.Time, *apiError) {
	limit, reason := x.lastIO.Add(x.model.Timeouts.FirstByte), errFirstByte
	if d := x.model.Timeouts.FirstToken; d > 0 && x.choice != nil && !x.stays && x.choice.keeper == 0 {
		if at := x.lastIO.Add(d); at.Before(limit) {
			limit, reason = at, errSilent
		}
	}
	return x.earliest(until, limit, reason)
}

// errSilent says that a replica has been silent for so long that another one is to be tried.
var errSilent = &apiError{Status: 504, Type: typeServer, Code: "first_byte_timeout"}

// move sends the request to another replica, if one has room, because nothing has come from this one for Timeouts.FirstToken. What this one does for
// the request is ended. Otherwise the request stays where it is.
func (x *exchange) move() error {
	x.stays = true
	if x.attempts >= router.MaxAttempts || x.model.Activator.Open() < 2 {
		return nil
	}
	old := x.choice
	next, _ := choices.Get().(*choice)
	next.balancer, next.keeper, next.shared = old.balancer, 0, false
	old.balancer.Again(&next.asked, &old.asked)
	lease, ok := x.model.Activator.TryAcquireFor(next)
	if !ok {
		return nil
	}
	if lease.ReplicaID() == x.replica || !x.model.metrics.budget.Spend() {
		lease.Release()
		return nil
	}
	x.rec.trace.attemptFailed(errSilent, true)
	x.quit(router.Failed, time.Now())
	x.dropFragment()
	x.splitter.Reset()
	x.dropChoice()
	x.choice, x.stays = next, false
	x.g.metrics.retried(x.model)
	return x.granted(lease)
}

func (x *exchange) dropCall(now time.Time) {
	x.mu.Lock()
	call := x.call
	x.call = nil
	x.mu.Unlock()
	if call != nil {
		call.CloseAt(now)
	}
}
