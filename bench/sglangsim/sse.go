package sglangsim

import (
	"net/http"
)

// eventStream writes frames. Its headers go out with the first frame, as SGLang's do: a client sees nothing before the first token.
type eventStream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	buf  []byte
	open bool
}

func newEventStream(w http.ResponseWriter) *eventStream {
	return &eventStream{w: w, rc: http.NewResponseController(w)}
}

// send writes what buf holds and flushes it. An error means that the client is gone.
func (e *eventStream) send() error {
	if !e.open {
		e.open = true
		e.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		e.w.WriteHeader(http.StatusOK)
	}
	if len(e.buf) == 0 {
		return nil
	}
	_, err := e.w.Write(e.buf)
	e.buf = e.buf[:0]
	if err != nil {
		return err
	}
	return e.rc.Flush()
}

// data adds one frame with the JSON form of v.
func (e *eventStream) data(v any) {
	e.buf = append(e.buf, "data: "...)
	e.buf = append(e.buf, marshal(v)...)
	e.buf = append(e.buf, "\n\n"...)
}

// event adds one named frame.
func (e *eventStream) event(name string, v any) {
	e.buf = append(e.buf, "event: "+name+"\n"...)
	e.data(v)
}

// fail sends an error chunk: the nested form with an integer code.
func (e *eventStream) fail(code int, kind, message string) {
	e.data(map[string]any{"error": &apiError{Object: "error", Message: message, Type: kind, Code: code}})
}

// done adds the end marker and sends everything. Whether the client still reads is of no interest at the end.
func (e *eventStream) done() {
	e.buf = append(e.buf, "data: [DONE]\n\n"...)
	_ = e.send()
}

// appendString adds the JSON form of s; most tokens need no escapes.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return append(b, marshal(s)...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// finish ends a stream whose generation came to out, and tells whether the usual last chunks follow.
func (e *eventStream) finish(out outcome, faults streamFaults) bool {
	switch out {
	case outcomeDead:
		panic(http.ErrAbortHandler)
	case outcomeCut:
		if faults.cut == "clean" {
			return false
		}
		_ = e.send()
		cut(e.w, faults.cut)
		return false
	case outcomeError:
		e.fail(http.StatusInternalServerError, "INTERNAL_SERVER_ERROR", "simulated error in mid-stream")
		e.done()
		return false
	case outcomeLeft:
		return false
	}
	return true
}
