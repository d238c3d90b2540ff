package gateway

import (
	"encoding/hex"

	"go.opentelemetry.io/otel/trace"
)

// Names of the W3C Trace Context headers, in the spelling in which fasthttp keeps them.
const (
	headerTraceparent = "Traceparent"
	headerTracestate  = "Tracestate"
)

// Layout of a traceparent: version, trace id, parent id and flags, in lowercase hex with dashes between
// (https://www.w3.org/TR/trace-context/#traceparent-header).
const (
	traceIDAt         = 3
	parentIDAt        = 36
	flagsAt           = 53
	traceparentLength = 55
	flagSampled       = 1
)

// hexDigits maps lowercase hexadecimal digits to their value + 1, and everything else, capitals included, to 0.
var hexDigits = func() (digits [256]byte) {
	for i, c := range []byte("0123456789abcdef") {
		digits[c] = byte(i) + 1
	}
	return digits
}()

// readTraceparent tells whether a header is well formed and whether its trace is sampled. What is malformed counts as absent, as the
// recommendation asks. It runs for each request that has the header, so it allocates nothing and decodes no id.
func readTraceparent(h []byte) (sampled, ok bool) {
	if len(h) < traceparentLength || h[traceIDAt-1] != '-' || h[parentIDAt-1] != '-' || h[flagsAt-1] != '-' {
		return false, false
	}
	if h[0] == 'f' && h[1] == 'f' { // the one version that is none
		return false, false
	}
	if len(h) > traceparentLength && (h[0] == '0' && h[1] == '0' || h[traceparentLength] != '-') {
		return false, false // only later versions may say more
	}
	if !isHex(h[:2]) || !isID(h[traceIDAt:parentIDAt-1]) || !isID(h[parentIDAt:flagsAt-1]) || !isHex(h[flagsAt:traceparentLength]) {
		return false, false
	}
	return (hexDigits[h[flagsAt+1]]-1)&flagSampled != 0, true
}

func isHex(s []byte) bool {
	for _, c := range s {
		if hexDigits[c] == 0 {
			return false
		}
	}
	return true
}

// isID wants hexadecimal digits that are not all zero.
func isID(s []byte) bool {
	var any byte
	for _, c := range s {
		d := hexDigits[c]
		if d == 0 {
			return false
		}
		any |= d - 1
	}
	return any != 0
}

// parentOf decodes a header that readTraceparent has found well formed. The state is dropped if it is malformed, and the flag is set:
// whoever asks has decided to sample.
func parentOf(traceparent, tracestate []byte) trace.SpanContext {
	c := trace.SpanContextConfig{TraceFlags: trace.FlagsSampled, Remote: true}
	// Well formed, so these have no errors.
	_, _ = hex.Decode(c.TraceID[:], traceparent[traceIDAt:parentIDAt-1])
	_, _ = hex.Decode(c.SpanID[:], traceparent[parentIDAt:flagsAt-1])
	if len(tracestate) > 0 {
		if state, err := trace.ParseTraceState(string(tracestate)); err == nil {
			c.TraceState = state
		}
	}
	return trace.NewSpanContext(c)
}

// appendTraceHeaders appends the header lines that make what the engine does a part of the span's trace.
func appendTraceHeaders(dst []byte, sc trace.SpanContext) []byte {
	id, span := sc.TraceID(), sc.SpanID()
	dst = append(dst, headerTraceparent+": 00-"...)
	dst = hex.AppendEncode(dst, id[:])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, span[:])
	dst = append(dst, "-01\r\n"...)
	if state := sc.TraceState().String(); state != "" {
		dst = append(dst, headerTracestate+": "...)
		dst = append(dst, state...)
		dst = append(dst, "\r\n"...)
	}
	return dst
}
