package gateway

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"pilotlight/auth"
	"pilotlight/gateway/jsonbody"
	"pilotlight/gateway/sse"
	"pilotlight/router"
)

// record is what the access log and the metrics say of one request: never a body, a key or a header's value.
type record struct {
	start     time.Time
	id        []byte // x-request-id
	route     *route
	conn      *clientConn
	model     *Model // nil until resolved
	identity  auth.Identity
	stream    bool
	failure   *apiError
	status    int
	bytesIn   int
	bytesOut  int
	firstByte time.Time
	duration  time.Duration
	waited    time.Duration
	cold      bool
	replica   uint64
	reason    router.Reason // why this replica; empty: there was no other
	via       string        // why another model than the one that was asked for answers; empty: none does
	asked     string        // the name that the client used
	matched   float64       // share of the prompt that it is thought to have cached
	attempts  int
	used      sse.Usage     // tokens; as the engine told, or estimated
	metered   bool          // used is known
	attempted bool          // counted as active
	trace     *requestTrace // nil: not traced
}

// close fills in what is known at the end. The lease may be given back already.
func (r *record) close(x *exchange, status, bytesOut int, now time.Time) {
	r.status, r.bytesOut = status, bytesOut
	r.duration = now.Sub(r.start)
	if a := &x.admission; a.caller != nil {
		r.used, r.metered = a.used, a.used != (sse.Usage{})
	}
	r.waited, r.cold, r.replica, r.attempts = x.queued, x.cold, x.replica, x.attempts
	r.reason, r.matched, r.via, r.asked = x.reason, x.matched, x.via, x.asked
}

// log writes the access log line and the request's metrics.
func (g *Gateway) log(r *record) {
	code := ""
	if r.failure != nil {
		code = r.failure.label()
	}
	if r.model != nil {
		g.metrics.ended(r, code)
	}
	r.trace.ended(r, code)
	if g.accessLog == nil || !g.logging.Load() {
		return
	}
	buffer, _ := logLines.Get().(*[]byte)
	*buffer = r.appendLine((*buffer)[:0], code)
	// A log that cannot be written must not stop the gateway; whoever made the writer knows of its errors.
	_, _ = g.accessLog.Write(*buffer)
	logLines.Put(buffer)
}

var logLines = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// appendLine appends the request as a line of JSON. It has the form that slog's JSON handler gives the other log, and is written by
// hand because the handler takes two microseconds and this one of each request's few.
func (r *record) appendLine(b []byte, code string) []byte {
	b = append(b, `{"time":"`...)
	b = appendTime(b, r.start.Add(r.duration))
	b = append(b, `","level":"INFO","msg":"request","request_id":"`...)
	b = append(b, r.id...) // fit by construction
	b = append(b, `","route":"`...)
	b = append(b, r.route.metric...)
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(r.status), 10)
	b = appendSeconds(append(b, `,"duration":`...), r.duration)
	b = strconv.AppendInt(append(b, `,"bytes_in":`...), int64(r.bytesIn), 10)
	b = strconv.AppendInt(append(b, `,"bytes_out":`...), int64(r.bytesOut), 10)
	if r.trace != nil {
		b = append(r.trace.appendID(append(b, `,"trace_id":"`...)), '"')
	}
	if r.model != nil {
		b = jsonbody.AppendString(append(b, `,"model":`...), r.model.ID)
		b = jsonbody.AppendString(append(b, `,"tenant":`...), r.identity.Tenant)
		b = strconv.AppendBool(append(b, `,"stream":`...), r.stream)
	}
	if r.via != "" {
		b = jsonbody.AppendString(append(b, `,"asked":`...), r.asked)
		b = append(append(append(b, `,"via":"`...), r.via...), '"')
	}
	if r.identity.KeyID != "" {
		b = jsonbody.AppendString(append(b, `,"key_id":`...), r.identity.KeyID)
	}
	if r.replica != 0 {
		b = strconv.AppendUint(append(b, `,"replica":`...), r.replica, 10)
		b = strconv.AppendInt(append(b, `,"attempts":`...), int64(r.attempts), 10)
		b = appendSeconds(append(b, `,"queued":`...), r.waited)
		b = strconv.AppendBool(append(b, `,"cold":`...), r.cold)
		if r.reason != "" {
			b = append(append(append(b, `,"reason":"`...), r.reason...), '"')
			b = appendShare(append(b, `,"matched":`...), r.matched)
		}
	}
	if r.metered {
		b = strconv.AppendInt(append(b, `,"prompt_tokens":`...), r.used.Prompt, 10)
		b = strconv.AppendInt(append(b, `,"completion_tokens":`...), r.used.Completion, 10)
	}
	if !r.firstByte.IsZero() {
		b = appendSeconds(append(b, `,"first_byte":`...), r.firstByte.Sub(r.start))
	}
	if r.failure != nil {
		b = jsonbody.AppendString(append(b, `,"error":`...), code)
		if r.failure.Cause != nil {
			b = jsonbody.AppendString(append(b, `,"cause":`...), r.failure.Cause.Error())
		}
	}
	return append(b, "}\n"...)
}

// second is how the log writes one second of time, but for its fraction. Formatting it anew for each line would be most of the line.
type second struct {
	unix         int64
	before, zone []byte
}

var lastSecond atomic.Pointer[second]

func appendTime(b []byte, t time.Time) []byte {
	unix, s := t.Unix(), lastSecond.Load()
	if s == nil || s.unix != unix {
		s = &second{unix: unix, before: t.AppendFormat(nil, "2006-01-02T15:04:05."), zone: t.AppendFormat(nil, "Z07:00")}
		lastSecond.Store(s)
	}
	b = append(b, s.before...)
	us := t.Nanosecond() / 1000
	for unit := 100_000; unit > 0; unit /= 10 {
		b = append(b, byte('0'+us/unit%10))
	}
	return append(b, s.zone...)
}

// appendSeconds writes d in seconds, exact to the microsecond.
func appendSeconds(b []byte, d time.Duration) []byte {
	us := d.Microseconds()
	if us < 0 {
		b, us = append(b, '-'), -us
	}
	b = strconv.AppendInt(b, us/1e6, 10)
	if us %= 1e6; us != 0 {
		b = append(b, '.')
		for unit := int64(1e5); us > 0; unit /= 10 {
			b = append(b, byte('0'+us/unit))
			us %= unit
		}
	}
	return b
}
