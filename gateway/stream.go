package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"

	"github.com/valyala/fasthttp"

	"pilotlight/activator"
	"pilotlight/gateway/sse"
)

// errCut makes fasthttp end the connection without the final chunk, so that no client takes a broken answer for a whole one.
var errCut = errors.New("the answer was cut short")

// stream is the body of a response that is sent as it comes. fasthttp lets it write on the connection's goroutine, and flushes what
// each write gives. Until the engine answers it goes on with the exchange, and sends heartbeats meanwhile.
type stream struct {
	x *exchange

	out  []byte // for the client
	mode mode
	end  error // modeEnd: how the body ends

	beatAt    time.Time
	early     bool // the status was sent before the engine's
	passed    bool // the engine's events can be passed on as they are
	finished  bool // the last event was seen
	answered  bool // and the engine's response was read to its end
	firstByte bool
	waiting   bool   // for the engine, since x.lastIO
	scratch   []byte // holds one event while it is changed
	total     int
}

// mode is what makes more of the body.
type mode uint8

const (
	modeWait  mode = iota // the exchange goes on
	modeRelay             // the engine's events
	modeWhole             // an answer in one piece, after white space
	modeDrain             // the end of the engine's response
	modeEnd
)

func (x *exchange) newStream(early bool) *stream {
	s := &x.body
	s.x, s.early = x, early
	s.beatAt = time.Now().Add(x.model.Cold.Heartbeat)
	if !early {
		s.mode = modeRelay
		s.learn()
	}
	return s
}

func (s *stream) reset() {
	out, scratch := s.out[:0], s.scratch[:0]
	if cap(out) > keptText {
		out = nil
	}
	if cap(scratch) > keptText {
		scratch = nil
	}
	*s = stream{out: out, scratch: scratch}
}

// next makes more of the body, or returns how it ends.
func (s *stream) next() error {
	switch s.mode {
	case modeWait:
		return s.wait()
	case modeRelay:
		return s.relay()
	case modeWhole:
		return s.whole()
	case modeDrain:
		return s.drain()
	default:
		return s.end
	}
}

// learn looks at who answers, once that is known: SGLang's frames have the form that clients need.
func (s *stream) learn() { s.passed = s.x.echoes() && s.x.route.api == apiOpenAI }

// peekError looks at the first event before the status is sent: an error there still gets a true status.
func (s *stream) peekError() *apiError {
	if s.early {
		return nil
	}
	err := s.relay()
	if err == nil {
		return nil
	}
	if failure := new(apiError); errors.As(err, &failure) && s.total == 0 && len(s.out) == 0 {
		return failure
	}
	s.resume(err)
	return nil
}

// resume makes the next Read continue where a relay that returned err stopped.
func (s *stream) resume(err error) {
	if err != nil {
		s.mode, s.end = modeEnd, err
	}
}

// commit sends the status and makes s the body.
func (s *stream) commit(ctx *fasthttp.RequestCtx) {
	h := &ctx.Response.Header
	ctx.SetStatusCode(fasthttp.StatusOK)
	if s.x.stream {
		h.SetContentType("text/event-stream")
		h.Set("Cache-Control", "no-cache, no-transform")
		h.Set("X-Accel-Buffering", "no")
	} else {
		h.SetContentType("application/json")
	}
	s.x.explain(h)
	if s.early {
		s.beat()
	} else {
		// It is not sent again, and a stream may last for minutes.
		s.x.forget()
		ctx.Request.ResetBody()
	}
	if !ctx.Request.Header.IsHTTP11() {
		s.plain(ctx)
		return
	}
	ctx.SetBodyStream(s, -1)
}

// plain sends the stream to a client of HTTP/1.0 (nginx's default towards its upstreams). fasthttp would send it in chunks, which
// such a client takes for content; here the end of the connection ends the body, and the last event tells whether it is whole.
func (s *stream) plain(ctx *fasthttp.RequestCtx) {
	g := s.x.g
	h := &ctx.Response.Header
	head := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nDate: %s\r\nConnection: close\r\n", time.Now().UTC().Format(http.TimeFormat))
	for key, value := range h.All() {
		if k := string(key); k != fasthttp.HeaderContentLength && k != fasthttp.HeaderConnection {
			head = fmt.Appendf(head, "%s: %s\r\n", key, value)
		}
	}
	head = append(head, "\r\n"...)
	g.plain.Add(1)
	ctx.HijackSetNoResponse(true)
	ctx.Hijack(func(net.Conn) {
		defer g.plain.Done()
		conn := s.x.rec.conn
		stop := context.AfterFunc(g.life, conn.left)
		defer stop()
		defer s.Close() //nolint:errcheck // it gives none
		if _, err := conn.Write(head); err != nil {
			return
		}
		// How it ends is told by the end of the connection, and by the last event.
		_, _ = s.WriteTo(conn)
	})
}

// fill makes out hold something, or returns how the body ends: io.EOF or errCut.
func (s *stream) fill() error {
	for len(s.out) == 0 {
		err := s.next()
		switch {
		case err == nil:
		case len(s.out) > 0:
			s.resume(err) // what came before the end goes out first
		case errors.Is(err, io.EOF):
			return io.EOF
		default:
			s.fail(err)
			if len(s.out) == 0 {
				return errCut
			}
			s.resume(errCut)
		}
	}
	return nil
}

// WriteTo gives w the whole body, each time as much as there is. An error of its own ends the body without its regular end.
func (s *stream) WriteTo(w io.Writer) (int64, error) {
	written := int64(0)
	for {
		if err := s.fill(); err == io.EOF {
			return written, nil
		} else if err != nil {
			return written, err
		}
		n, err := w.Write(s.out)
		written += int64(n)
		s.total += n
		if s.out = s.out[:0]; cap(s.out) > keptText {
			s.out = nil
		}
		if err != nil {
			return written, err
		}
	}
}

// SupportsBodyWriteTo tells fasthttp that WriteTo does what reading would, and that each write is to be flushed. So the body needs
// no buffer of fasthttp's.
func (s *stream) SupportsBodyWriteTo() bool { return true }

var errUnread = errors.New("BUG: the body of a stream is written, not read")

// Read is there because fasthttp asks for a reader.
func (s *stream) Read([]byte) (int, error) { return 0, errUnread }

// fail ends the answer with an error in the API's own form, if there is one that its clients understand.
func (s *stream) fail(err error) {
	if errors.Is(err, errCut) {
		return
	}
	failure := asAPIError(err)
	s.x.rec.failure = failure
	s.x.rec.conn.linger.Store(true) // a reset could overtake what is told here
	if !s.x.stream || failure.Status == errClientLeft.Status {
		return // nobody to tell, or no form to tell it in: JSON white space went out, only a broken connection can follow
	}
	told := sse.Failure{Message: failure.Message, Type: failure.Type, Param: failure.Param, Code: failure.Code}
	if s.x.route.api == apiResponses {
		s.out = sse.AppendResponsesError(s.out, told, s.x.sequence)
	} else {
		s.out = sse.AppendOpenAIError(s.out, told)
	}
}

// wait goes on with the exchange after the status was sent.
func (s *stream) wait() error {
	err := s.x.advance(s.beatAt)
	switch {
	case err == errNotYet:
		s.beat()
		return nil
	case err != nil && s.x.fallBack(err):
		return nil
	case err != nil:
		return err
	}
	if !s.x.stream {
		s.mode = modeWhole
		return nil
	}
	if !s.x.isStream() {
		body, err := s.x.readAnswer(nil)
		if err == errAgain {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.x.refusal(body); err != nil {
			return err
		}
		return errNotStream
	}
	s.learn()
	s.beatAt = time.Now().Add(s.x.model.Cold.Heartbeat)
	s.mode = modeRelay
	return nil
}

// whole passes on an answer in one piece after white space has gone out.
func (s *stream) whole() error {
	body, err := s.x.readAnswer(nil)
	if err == errAgain {
		s.mode = modeWait
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.x.refusal(body); err != nil {
		return err
	}
	s.x.rec.trace.answer(body)
	s.x.learn(body, false)
	s.x.meterAnswer(body)
	s.out = append(s.out, s.x.restoreModel(body)...)
	s.answered = true
	s.mode, s.end = modeEnd, io.EOF
	return nil
}

// beat tells the waiting client what it waits for: a comment line in a stream, white space in JSON.
func (s *stream) beat() {
	s.beatAt = time.Now().Add(s.x.model.Cold.Heartbeat)
	s.x.g.metrics.beat(s.x.model)
	if !s.x.stream {
		s.out = append(s.out, ' ')
		return
	}
	s.out = sse.Heartbeat(s.out, s.x.progress())
}

// progress is the text of a heartbeat.
func (x *exchange) progress() string {
	if x.step != stepWait || x.ticket == nil {
		return "pilotlight: the model is working on the request"
	}
	status := x.ticket.Status()
	if status.State == activator.Ready {
		return fmt.Sprintf("pilotlight: waiting for a free place, position %d of %d", status.Position, status.Queue)
	}
	if status.Reason != "" {
		return fmt.Sprintf("pilotlight: %s, position %d of %d", status.Reason, status.Position, status.Queue)
	}
	text := "pilotlight: the model is starting"
	if status.State == activator.Asleep {
		text = "pilotlight: the model is waking up"
	} else if status.Phase != "" {
		text += ", phase " + status.Phase
	}
	if status.Percent > 0 {
		text += fmt.Sprintf(", %d %%", int(status.Percent))
	}
	if status.Detail != "" {
		text += ", " + status.Detail
	}
	if status.ETA > 0 {
		text += fmt.Sprintf(", ready in about %d s", int(math.Ceil(status.ETA.Seconds())))
	}
	return fmt.Sprintf("%s, position %d of %d", text, status.Position, status.Queue)
}

// Close is called once by fasthttp, when the last byte is written or the client could not be written to.
func (s *stream) Close() error {
	x := s.x
	conn := s.x.rec.conn
	if s.x.rec.failure == nil && !s.finished && !s.answered {
		s.x.rec.failure = errClientLeft
	}
	conn.end()
	now := time.Now()
	x.report(outcome(x.rec.failure), now)
	x.finish(s.answered || s.finished && x.route.api == apiOpenAI, now)
	x.rec.close(x, fasthttp.StatusOK, s.total, now)
	x.g.log(&x.rec)
	x.release()
	return nil
}
