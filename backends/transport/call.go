package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

// Request is what a call sends. Its fields must not hold line breaks; they stay untouched until the head of the
// response has arrived, because a request that met a closed idle connection is sent again.
type Request struct {
	Method      string
	Path        string
	ContentType string   // empty: no body is announced
	Accept      string   // empty: none
	Extra       []byte   // more header lines, each ended by CRLF
	Body        [][]byte // written one after the other
}

func (r *Request) bodyLen() (n int) {
	for _, part := range r.Body {
		n += len(part)
	}
	return n
}

// Call is one exchange. Its order is Send, AwaitHead (again while it says ErrNotYet), Read to io.EOF, Close.
type Call struct {
	// Header is the response's, valid after AwaitHead.
	Header fasthttp.ResponseHeader

	pool *Pool
	req  *Request

	mu         sync.Mutex // guards the fields below, which Cancel reads from other goroutines
	cancelled  bool
	conn       *conn
	cancelDial context.CancelFunc

	body     body
	complete bool      // the response was read to its end
	ended    time.Time // when that was, if the body was chunked: a slow client may take long to be given it
	broken   error     // found behind bytes that were given out first
}

// NewCall begins an exchange; nothing is sent yet.
func (p *Pool) NewCall() *Call { return &Call{pool: p} }

// Reuse makes a call that was closed into a new one, as NewCall does, and keeps its memory. Nobody else may hold it any more.
func (c *Call) Reuse(p *Pool) {
	if c.conn != nil {
		panic("BUG: a call is begun again before it was closed")
	}
	c.pool, c.req, c.cancelled, c.cancelDial, c.complete, c.ended, c.broken = p, nil, false, nil, false, time.Time{}, nil
	c.body = body{line: c.body.line[:0]}
}

// Cancel ends the call from any goroutine, in any phase: the connection is closed, blocked calls return ErrCancelled.
// Calling it again, or after Close, does nothing.
func (c *Call) Cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancelled {
		return
	}
	c.cancelled = true
	if c.cancelDial != nil {
		c.cancelDial()
	}
	if c.conn != nil {
		_ = c.conn.Close()
	}
}

// Send writes the request on an idle connection, or else on a new one; now is the present time. Where that saves a system call, the
// writing is left to AwaitHead.
func (c *Call) Send(req *Request, now time.Time) error {
	c.req = req
	if idle := c.pool.take(now); idle != nil {
		if err := c.adopt(idle); err != nil {
			return err
		}
		if idle.schedule(c.pool, req) {
			return nil // AwaitHead sends it
		}
		if idle.silent() && idle.send(c.pool, req, now) == nil {
			return nil
		}
		// Closed by the engine while idle: what was written has reached nobody that could act on it.
		c.drop()
	}
	return c.sendFresh()
}

func (c *Call) sendFresh() error {
	ctx, cancel := context.WithTimeout(context.Background(), c.pool.dialFor)
	defer cancel()
	c.mu.Lock()
	if c.cancelled {
		c.mu.Unlock()
		return ErrCancelled
	}
	c.cancelDial = cancel
	c.mu.Unlock()

	nc, err := c.pool.dial(ctx, c.pool.endpoint.Addr)
	c.mu.Lock()
	c.cancelDial = nil
	c.mu.Unlock()
	if err != nil {
		return c.fail(PhaseDial, err)
	}
	conn := newConn(nc)
	if err := c.adopt(conn); err != nil {
		return err
	}
	if err := conn.send(c.pool, c.req, time.Now()); err != nil {
		return c.fail(PhaseSend, err)
	}
	return nil
}

// adopt makes the connection the call's own, or closes it if the call was cancelled meanwhile.
func (c *Call) adopt(conn *conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancelled {
		_ = conn.Close()
		return ErrCancelled
	}
	c.conn = conn
	return nil
}

// drop closes the call's connection and forgets it.
func (c *Call) drop() {
	c.mu.Lock()
	conn := c.conn
	c.conn = nil
	c.mu.Unlock()
	if conn != nil {
		conn.dropOutgoing()
		conn.release()
		_ = conn.Close()
	}
}

// AwaitHead waits for the response's head until the given time and says ErrNotYet when none has come.
// If the request went out on a reused connection that turns out to have been closed, it is sent once more on a new one.
func (c *Call) AwaitHead(until time.Time) error {
	for {
		conn := c.conn
		if err := conn.until(until); err != nil {
			return c.fail(PhaseHead, err)
		}
		err := conn.await()
		if conn.stale {
			err = errStale
		}
		if err != nil {
			if isTimeout(err) && conn.outgoing == nil {
				return ErrNotYet
			}
			if conn.reused && !c.isCancelled() { // or what was written has reached nobody that could act on it
				c.drop()
				if err := c.sendFresh(); err != nil {
					return err
				}
				continue
			}
			return c.fail(PhaseHead, err)
		}
		if readPlainHead(conn.br, &c.Header) {
			c.body = newBody(c.req.Method, &c.Header)
			return nil
		}
		// The head has begun: it must now come whole, within the send timeout.
		if !conn.hasHead() {
			if err := conn.until(time.Now().Add(sendTimeout)); err != nil {
				return c.fail(PhaseBody, err)
			}
		}
		if err := c.Header.Read(conn.br); err != nil {
			return c.fail(PhaseBody, headProblem(err))
		}
		status := c.Header.StatusCode()
		if status >= 100 && status < 200 && status != fasthttp.StatusSwitchingProtocols {
			conn.reused = false // it has answered: it is alive
			continue
		}
		c.body = newBody(c.req.Method, &c.Header)
		return nil
	}
}

// Read reads the response's body, without its transfer coding: bytes, or an error, never both. It says ErrNotYet when nothing
// arrived before until, io.EOF at the end, and an *Error when the engine broke off.
func (c *Call) Read(p []byte, until time.Time) (int, error) {
	if c.complete {
		return 0, io.EOF
	}
	if c.broken != nil {
		return 0, c.broken
	}
	conn := c.conn
	if err := conn.until(until); err != nil {
		return 0, c.fail(PhaseBody, err)
	}
	var n int
	err := io.EOF
	if !c.body.ended() {
		if err = conn.await(); err == nil {
			n, err = c.body.read(conn.br, p)
		} else if err == io.EOF && c.body.framing != framedByClose {
			err = io.ErrUnexpectedEOF
		}
	}
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF:
		if c.complete = true; c.body.framing == framedByChunks {
			c.ended = time.Now()
		}
	case isTimeout(err):
		err = ErrNotYet
	default:
		err = c.fail(PhaseBody, err)
		c.broken = err
	}
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// Await returns once Read can give something, or the end; ErrNotYet, or the call's error.
func (c *Call) Await(until time.Time) error {
	if c.complete || c.broken != nil || c.body.ended() {
		return nil // Read tells
	}
	if err := c.conn.until(until); err != nil {
		return c.fail(PhaseBody, err)
	}
	switch err := c.conn.await(); {
	case err == nil, err == io.EOF:
		return nil
	case isTimeout(err):
		return ErrNotYet
	default:
		c.broken = c.fail(PhaseBody, err)
		return c.broken
	}
}

// Ready tells, after AwaitHead, whether Read gives something without waiting.
func (c *Call) Ready() bool {
	return c.complete || c.broken != nil || c.body.ended() || c.body.framing == framedByLength && c.conn.br != nil && c.conn.br.Buffered() > 0
}

// EndsWithConnection tells, after AwaitHead, that nothing but the end of the connection marks the end of the body, so that a
// whole body looks like one that was cut.
func (c *Call) EndsWithConnection() bool { return c.body.framing == framedByClose }

// Close ends the call. The connection is kept for another one if the response was read to its end.
func (c *Call) Close() { c.CloseAt(time.Now()) }

// CloseAt is Close for a caller that knows what time it is.
func (c *Call) CloseAt(now time.Time) {
	c.mu.Lock()
	conn := c.conn
	c.conn = nil
	cancelled := c.cancelled
	c.cancelled = true // a late Cancel must not touch a connection that serves somebody else
	c.mu.Unlock()
	if conn == nil {
		return
	}
	if cancelled || !c.complete || c.Header.ConnectionClose() || !c.body.reusable() {
		conn.dropOutgoing()
		conn.release()
		_ = conn.Close()
		return
	}
	if !c.ended.IsZero() {
		now = c.ended // the engine counts from there
	}
	c.pool.put(conn, now)
}

func (c *Call) isCancelled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cancelled
}

func (c *Call) fail(phase Phase, err error) error {
	if c.isCancelled() {
		return ErrCancelled
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &Error{Phase: phase, Refused: phase == PhaseDial && errors.Is(err, syscall.ECONNREFUSED), Err: err}
}

// Do is a whole small exchange, for control requests: it returns the status and at most limit bytes of the body.
func (p *Pool) Do(ctx context.Context, req *Request, limit int) (status int, bodyBytes []byte, err error) {
	call := p.NewCall()
	defer call.Close()
	stop := context.AfterFunc(ctx, call.Cancel)
	defer stop()
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0, nil, errors.New("BUG: a control request needs a deadline")
	}
	if err := call.Send(req, time.Now()); err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", req.Method, req.Path, err)
	}
	if err := call.AwaitHead(deadline); err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", req.Method, req.Path, err)
	}
	buf := make([]byte, 0, 512)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := call.Read(buf[len(buf):cap(buf)], deadline)
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return call.Header.StatusCode(), buf, nil
		}
		if err != nil {
			return 0, nil, fmt.Errorf("%s %s: %w", req.Method, req.Path, err)
		}
		if len(buf) > limit {
			return 0, nil, fmt.Errorf("%s %s: the answer is longer than %d bytes", req.Method, req.Path, limit)
		}
	}
}

// Ended tells whether the response was read to its end.
func (c *Call) Ended() bool { return c.complete }
