//go:build !race

package gateway

import (
	"math"
	"testing"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/trace/noop"
)

// A request that is not traced must not pay for those that are.
func TestNotSampledAllocatesNothing(t *testing.T) {
	g := &Gateway{}
	g.SetTracing(Tracing{Tracer: noop.Tracer{}, Sample: .01, TrustClient: true})
	g.tracing.Load().draw = func() uint64 { return math.MaxUint64 }
	for _, h := range []*fasthttp.RequestHeader{chatHeader(), chatHeader("Traceparent", unsampledHeader), chatHeader("Traceparent", "nonsense")} {
		ctx, r := &fasthttp.RequestCtx{}, &record{}
		h.CopyTo(&ctx.Request.Header)
		if n := testing.AllocsPerRun(1000, func() {
			if trace := g.trace(ctx, r); trace != nil {
				t.Fatal("traced")
			}
		}); n != 0 {
			t.Errorf("%g allocations", n)
		}
	}
}
