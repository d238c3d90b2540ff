package gateway

import (
	"math/rand/v2"
	"time"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/trace"
)

// Tracing says which requests are traced.
type Tracing struct {
	// Tracer makes the spans. It must sample whatever it is given, since the decision has been made by then. nil: nothing is traced.
	Tracer trace.Tracer
	// Sample is the share of requests that are traced, 0 to 1, where the client does not decide.
	Sample float64
	// TrustClient lets the sampled flag of a client's traceparent decide instead. Whether or not it does, a request that is traced
	// belongs to its client's trace.
	TrustClient bool
}

// sampler decides about one request at a time, before anything is made for its sake.
type sampler struct {
	tracer trace.Tracer
	trust  bool
	// threshold is the share of 2^63 below which a draw is sampled. The draw is our own rather than the trace id's bits, which a
	// client chooses.
	threshold uint64
	draw      func() uint64
}

// SetTracing begins, changes or ends tracing. Requests in progress keep what they began with. Safe for concurrent use.
func (g *Gateway) SetTracing(t Tracing) {
	if t.Tracer == nil {
		g.tracing.Store(nil)
		return
	}
	g.tracing.Store(newSampler(t))
}

func newSampler(t Tracing) *sampler {
	return &sampler{tracer: t.Tracer, trust: t.TrustClient, threshold: uint64(min(max(t.Sample, 0), 1) * (1 << 63)), draw: rand.Uint64}
}

func (s *sampler) ratio() bool { return s.draw()>>1 < s.threshold }

// decide gives a traced request's parent (the zero SpanContext: none).
func (s *sampler) decide(h *fasthttp.RequestHeader) (parent trace.SpanContext, traced bool) {
	traceparent := h.Peek(headerTraceparent)
	sampled, ok := false, false
	if len(traceparent) > 0 {
		sampled, ok = readTraceparent(traceparent)
	}
	if !ok || !s.trust {
		sampled = s.ratio()
	}
	if !sampled {
		return trace.SpanContext{}, false
	}
	if !ok {
		return trace.SpanContext{}, true
	}
	if len(h.PeekAll(headerTraceparent)) > 1 { // which of them is meant nobody can tell
		return trace.SpanContext{}, !s.trust || s.ratio()
	}
	return parentOf(traceparent, h.Peek(headerTracestate)), true
}

// trace begins the trace of a request, if it is to have one.
func (g *Gateway) trace(ctx *fasthttp.RequestCtx, r *record) *requestTrace {
	s := g.tracing.Load()
	if s == nil {
		return nil
	}
	parent, traced := s.decide(&ctx.Request.Header)
	if !traced {
		return nil
	}
	scheme := "http"
	if g.tls != nil {
		scheme = "https"
	}
	return newRequestTrace(s.tracer, parent, r, ctx.LocalAddr(), scheme)
}

// StartTrace is the trace of one start of a replica, as far as it has come.
type StartTrace struct {
	Span trace.SpanContext
	// Ended is the zero time while the start goes on.
	Ended  time.Time
	Phases []StartPhase // in order
}

// StartPhase is a phase of a start and when it was entered.
type StartPhase struct {
	Phase string
	At    time.Time
}
