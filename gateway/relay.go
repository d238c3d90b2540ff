package gateway

import (
	"errors"
	"io"
	"time"

	"github.com/valyala/fasthttp"

	"pilotlight/backends/transport"
	"pilotlight/gateway/jsonbody"
	"pilotlight/gateway/sse"
)

// drainTime is how long the engine has to end its response after its last event, so that the connection can be used again.
// The client has all its data by then.
const drainTime = 50 * time.Millisecond

// relay passes on the events that have arrived, or waits for the next ones.
func (s *stream) relay() error {
	for {
		event, ok, err := s.x.splitter.Next()
		if err != nil {
			return errEngineGone.withCause(err)
		}
		if !ok {
			break
		}
		if err := s.pass(event); err != nil {
			return err
		}
		if s.finished && s.x.route.api == apiOpenAI {
			s.mode = modeDrain
			return nil
		}
	}
	if len(s.out) > 0 {
		return nil
	}
	return s.receive()
}

// receive waits for more from the engine. Silence is filled with heartbeats, between events only.
func (s *stream) receive() error {
	x := s.x
	x.rec.conn.heard(time.Time{}) // what was heard before may not have been written, and grows old now
	if !s.waiting {
		// Time that the client took to read is not the engine's.
		s.waiting, x.lastIO = true, time.Now()
	}
	stalled := x.lastIO.Add(x.model.Timeouts.IdleStream)
	end, reason := x.earliest(s.beatAt, stalled, errStalled)
	_, err := x.read(end)
	if err == nil {
		s.waiting = false
		x.rec.conn.heard(x.lastIO)
		return nil
	}
	now := time.Now()
	switch {
	case err == io.EOF:
		return s.ended()
	case err == transport.ErrNotYet:
		if reason != nil {
			return reason
		}
		if quiet := x.lastIO.Add(x.model.Cold.Heartbeat); now.Before(quiet) {
			s.beatAt = quiet
			return nil
		}
		s.beatAt = now.Add(x.model.Cold.Heartbeat)
		if len(x.splitter.Rest()) == 0 {
			s.beat()
		}
		return nil
	case x.clientGone():
		return errClientLeft
	default:
		return callError(err)
	}
}

// ended decides what the end of the engine's response means: without the last event the answer is not whole.
func (s *stream) ended() error {
	if !s.finished || len(s.x.splitter.Rest()) > 0 {
		return errEngineGone.withCause(errors.New("the engine ended the stream before its last event"))
	}
	s.answered = true
	return io.EOF
}

// pass appends one event in the form that every client accepts.
func (s *stream) pass(event []byte) error {
	data, ok := sse.Data(event)
	if !ok {
		return nil // a comment, or an event that would tell nobody anything
	}
	if !s.firstByte {
		s.firstByte = true
		s.x.rec.firstByte = s.x.lastIO
	}
	s.x.rec.trace.event(data)
	s.x.learn(data, true)
	named := s.x.route.api == apiResponses
	if !named && sse.IsDone(data) {
		s.finished = true
		s.out = append(s.out, sse.Done...)
		return nil
	}
	if engine, bad := sse.ErrorOf(data); bad {
		status := engine.Status
		if status == 0 {
			status = fasthttp.StatusInternalServerError
		}
		return engineError(*engine, status)
	}
	if s.x.metered() && s.x.meter(data) {
		return nil
	}
	if named {
		s.x.sequence++
		if name := sse.Name(event); isLastResponsesEvent(name, data) {
			s.finished = true
		}
	}
	if s.passed {
		s.out = append(s.out, event...)
		return nil
	}
	// Nearly all events have the form already, and are given back as they are.
	event, ok = sse.Normalize(nil, event, named)
	if !ok {
		return nil
	}
	if !named { // an event of the Responses API may hold such a member for its own reasons
		s.scratch = sse.StripNullError(s.scratch[:0], event)
		event = s.scratch
	}
	s.out = sse.RewriteModel(s.out, event, s.x.asked)
	return nil
}

// isLastResponsesEvent: a stream of the Responses API ends with one of three events, named in the event line or in type.
func isLastResponsesEvent(name, data []byte) bool {
	if name == nil {
		if start, end, ok := jsonbody.TopLevelString(data, "type"); ok {
			name = jsonbody.StringValue(data[start:end])
		}
	}
	switch string(name) {
	case "response.completed", "response.failed", "response.incomplete":
		return true
	}
	return false
}

// drain reads the end of the engine's response after [DONE]; the client waits for nothing but the end of the body.
func (s *stream) drain() error {
	end := time.Now().Add(drainTime)
	scrap, _ := fragments.Get().(*[]byte)
	defer fragments.Put(scrap)
	for {
		_, err := s.x.call.Read(*scrap, end)
		if err == io.EOF {
			s.answered = true
			return io.EOF
		}
		if err != nil {
			// The answer is whole for the client; only the connection upstream is not reused.
			return io.EOF
		}
	}
}
