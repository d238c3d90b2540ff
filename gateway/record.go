package gateway

import (
	"context"
	"log/slog"
	"time"

	"pilotlight/auth"
)

// record is what the access log and the metrics say of one request: never a body, a key or a header's value.
type record struct {
	start     time.Time
	id        string
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
	attempts  int
	attempted bool // counted as active
}

// close fills in what is known at the end. The lease may be given back already.
func (r *record) close(x *exchange, status, bytesOut int) {
	r.status, r.bytesOut = status, bytesOut
	r.duration = time.Since(r.start)
	r.waited, r.cold, r.replica, r.attempts = x.queued, x.cold, x.replica, x.attempts
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
	if !g.logging.Load() {
		return
	}
	attrs := make([]slog.Attr, 0, 18)
	attrs = append(attrs,
		slog.String("request_id", r.id),
		slog.String("route", r.route.metric),
		slog.Int("status", r.status),
		slog.Duration("duration", r.duration),
		slog.Int("bytes_in", r.bytesIn),
		slog.Int("bytes_out", r.bytesOut))
	if r.model != nil {
		attrs = append(attrs, slog.String("model", r.model.ID), slog.String("tenant", r.identity.Tenant), slog.Bool("stream", r.stream))
	}
	if r.identity.KeyID != "" {
		attrs = append(attrs, slog.String("key_id", r.identity.KeyID))
	}
	if r.replica != 0 {
		attrs = append(attrs, slog.Uint64("replica", r.replica), slog.Int("attempts", r.attempts), slog.Duration("queued", r.waited), slog.Bool("cold", r.cold))
	}
	if !r.firstByte.IsZero() {
		attrs = append(attrs, slog.Duration("first_byte", r.firstByte.Sub(r.start)))
	}
	if r.failure != nil {
		attrs = append(attrs, slog.String("error", code))
		if r.failure.Cause != nil {
			attrs = append(attrs, slog.String("cause", r.failure.Cause.Error()))
		}
	}
	g.accessLog.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}
