package gateway

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/trace/noop"
)

func TestReadTraceparent(t *testing.T) {
	const good = clientHeader
	for _, tt := range []struct {
		header      string
		sampled, ok bool
	}{
		{good, true, true},
		{strings.TrimSuffix(good, "01") + "00", false, true},
		{strings.TrimSuffix(good, "01") + "03", true, true}, // other flags are to be ignored
		{strings.TrimSuffix(good, "01") + "fe", false, true},
		{"01" + good[2:], true, true},                // a later version of the same length
		{"cc" + good[2:] + "-what-ever", true, true}, // and one that says more
		{"cc" + good[2:] + ".what", false, false},
		{good + "-more", false, false}, // version 0 has no more
		{good + " ", false, false},
		{"ff" + good[2:], false, false},
		{"0g" + good[2:], false, false},
		{"", false, false},
		{good[:54], false, false},
		{strings.ToUpper(good), false, false},
		{strings.Replace(good, clientTrace, strings.Repeat("0", 32), 1), false, false},
		{strings.Replace(good, clientSpan, strings.Repeat("0", 16), 1), false, false},
		{strings.Replace(good, clientTrace, clientTrace[:31]+"x", 1), false, false},
		{strings.Replace(good, clientSpan, "B"+clientSpan[1:], 1), false, false},
		{strings.TrimSuffix(good, "1") + "x", false, false},
		{strings.Replace(good, "-", "_", 1), false, false},
		{good[:35] + "_" + good[36:], false, false},
		{good[:52] + "_" + good[53:], false, false},
	} {
		if sampled, ok := readTraceparent([]byte(tt.header)); sampled != tt.sampled || ok != tt.ok {
			t.Errorf("%q: got %v, %v, want %v, %v", tt.header, sampled, ok, tt.sampled, tt.ok)
		}
	}
}

func FuzzReadTraceparent(f *testing.F) {
	f.Add([]byte(clientHeader))
	f.Add([]byte("cc" + clientHeader[2:] + "-x"))
	f.Fuzz(func(t *testing.T, header []byte) {
		sampled, ok := readTraceparent(header)
		if !ok {
			if sampled {
				t.Error("malformed, and sampled")
			}
			return
		}
		sc := parentOf(header, nil)
		if !sc.IsValid() || !sc.IsRemote() || !strings.HasPrefix(string(header[3:]), sc.TraceID().String()+"-"+sc.SpanID().String()+"-") {
			t.Errorf("%q became %v", header, sc)
		}
		// What goes out is read as what came in.
		line, found := strings.CutSuffix(strings.TrimPrefix(string(appendTraceHeaders(nil, sc)), "Traceparent: "), "\r\n")
		if again, ok := readTraceparent([]byte(line)); !found || !ok || !again || line[3:52] != string(header[3:52]) {
			t.Errorf("%q went out as %q", header, line)
		}
	})
}

func header(lines ...string) *fasthttp.RequestHeader {
	h := &fasthttp.RequestHeader{}
	for i := 0; i+1 < len(lines); i += 2 {
		h.Add(lines[i], lines[i+1])
	}
	return h
}

// The draw stands for both ends of chance: 0 is sampled by any share but 0, the largest by none but 1.
func TestSamplingDecision(t *testing.T) {
	unsampled := strings.TrimSuffix(clientHeader, "1") + "0"
	for _, tt := range []struct {
		name           string
		share          float64
		trust          bool
		draw           uint64
		lines          []string
		traced, parent bool
	}{
		{"no header, lucky", .01, true, 0, nil, true, false},
		{"no header, unlucky", .99, true, math.MaxUint64, nil, false, false},
		{"everything", 1, true, math.MaxUint64, nil, true, false},
		{"nothing", 0, true, 0, nil, false, false},
		{"the client says yes", 0, true, math.MaxUint64, []string{"traceparent", clientHeader}, true, true},
		{"the client says no", 1, true, 0, []string{"traceparent", unsampled}, false, false},
		{"distrusted yes", .01, false, math.MaxUint64, []string{"traceparent", clientHeader}, false, false},
		{"distrusted yes, lucky", .01, false, 0, []string{"traceparent", clientHeader}, true, true},
		{"distrusted no, lucky", .01, false, 0, []string{"traceparent", unsampled}, true, true},
		{"malformed, unlucky", .01, true, math.MaxUint64, []string{"traceparent", clientHeader + "x"}, false, false},
		{"malformed, lucky", .01, true, 0, []string{"traceparent", clientHeader + "x"}, true, false},
		{"two headers, lucky", .01, true, 0, []string{"traceparent", clientHeader, "traceparent", clientHeader}, true, false},
		{"two headers, unlucky", .01, true, math.MaxUint64, []string{"traceparent", clientHeader, "traceparent", clientHeader}, false, false},
		{"bad state", 0, true, 0, []string{"traceparent", clientHeader, "tracestate", "=,="}, true, true},
	} {
		s := newSampler(Tracing{Tracer: noop.Tracer{}, Sample: tt.share, TrustClient: tt.trust})
		s.draw = func() uint64 { return tt.draw }
		parent, traced := s.decide(header(tt.lines...))
		if traced != tt.traced || parent.IsValid() != tt.parent {
			t.Errorf("%s: got %v, %v", tt.name, parent, traced)
		}
		if parent.IsValid() && (parent.TraceID().String() != clientTrace || parent.SpanID().String() != clientSpan || !parent.IsSampled()) {
			t.Errorf("%s: the parent is %v", tt.name, parent)
		}
	}
}

func TestSamplingRatioIsHonest(t *testing.T) {
	const n = 100_000
	for _, share := range []float64{0, .001, .01, .25, .5, 1} {
		s := newSampler(Tracing{Tracer: noop.Tracer{}, Sample: share, TrustClient: true})
		s.draw = rand.New(rand.NewPCG(1, uint64(share*1000))).Uint64
		h, traced := header("Host", "h"), 0.0
		for range n {
			if _, ok := s.decide(h); ok {
				traced++
			}
		}
		// Five standard deviations of a binomial distribution.
		if off := math.Abs(traced - n*share); off > 5*math.Sqrt(n*share*(1-share)) {
			t.Errorf("%g: %g of %d are traced", share, traced, n)
		}
	}
}

// chatHeader is what an SDK sends.
func chatHeader(more ...string) *fasthttp.RequestHeader {
	return header(append([]string{"Host", "gateway:8000", "Authorization", "Bearer pl-abc-def", "Content-Type", "application/json", "Accept", "application/json",
		"User-Agent", "OpenAI/Python 2.1.0", "X-Stainless-Lang", "python", "X-Stainless-Package-Version", "2.1.0", "X-Stainless-Os", "Linux",
		"X-Stainless-Arch", "x64", "X-Stainless-Runtime", "CPython", "X-Stainless-Retry-Count", "0", "Accept-Encoding", "gzip"}, more...)...)
}

var unsampledHeader = strings.TrimSuffix(clientHeader, "1") + "0"

func BenchmarkNotSampled(b *testing.B) {
	g := &Gateway{}
	for _, bb := range []struct {
		name    string
		tracing Tracing
		header  *fasthttp.RequestHeader
	}{
		{"off", Tracing{}, chatHeader()},
		{"one percent", Tracing{Tracer: noop.Tracer{}, Sample: 0.01, TrustClient: true}, chatHeader()},
		{"the client says no", Tracing{Tracer: noop.Tracer{}, Sample: 0.01, TrustClient: true}, chatHeader("Traceparent", unsampledHeader)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			g.SetTracing(bb.tracing)
			if s := g.tracing.Load(); s != nil {
				draw := s.draw
				s.draw = func() uint64 { return draw() | 1<<63 } // never sampled, at the same price
			}
			ctx := &fasthttp.RequestCtx{}
			bb.header.CopyTo(&ctx.Request.Header)
			r := &record{}
			b.ReportAllocs()
			for b.Loop() {
				t := g.trace(ctx, r)
				t.enqueued()
				t.granted(nil, nil)
				r.request(t)
			}
		})
	}
}

// request makes the calls of a warm request's trace that the benchmark does not spell out.
func (r *record) request(t *requestTrace) {
	t.firstByte(200)
	t.event(nil)
	t.answer(nil)
	t.ended(r, "")
}
