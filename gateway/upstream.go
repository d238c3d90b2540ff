package gateway

import (
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
	end, reason := x.earliest(until, x.lastIO.Add(x.model.Timeouts.FirstByte), errFirstByte)
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
	if reason == nil {
		return errNotYet
	}
	return reason
}

// firstEvent waits until one whole event lies in the splitter's reach. An error in its place becomes the answer's status
// if none is sent yet: SGLang reports a full queue in this way (facts/sglang.md §6.4).
func (x *exchange) firstEvent(until time.Time) error {
	end, reason := x.earliest(until, x.lastIO.Add(x.model.Timeouts.FirstByte), errFirstByte)
	n, err := x.read(end)
	if n > 0 {
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
	mayRetry := x.attempts < router.MaxAttempts && router.MayRetry(err, true) && router.MayRetry(err, x.replicaDies())
	x.rec.trace.attemptFailed(err, mayRetry)
	x.dropCall(time.Now())
	x.lease.Release()
	if !mayRetry {
		return callError(err)
	}
	x.g.metrics.retried(x.model)
	x.step = stepAcquire
	return nil
}

// replicaDies waits a moment for the news that the replica's process has ended.
func (x *exchange) replicaDies() bool {
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

func (x *exchange) dropCall(now time.Time) {
	x.mu.Lock()
	call := x.call
	x.call = nil
	x.mu.Unlock()
	if call != nil {
		call.CloseAt(now)
	}
}
