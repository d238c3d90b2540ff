package gateway

import (
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

// The headers that say which replica answered and why, and how long the parts of the request took: in canonical form, so that
// fasthttp need not make it of them for each answer.
var (
	headerReplica = []byte("X-Pilotlight-Replica")
	headerReason  = []byte("X-Pilotlight-Reason")
	headerStart   = []byte("X-Pilotlight-Start")
	headerModel   = []byte("X-Pilotlight-Model")
	headerTiming  = []byte("Server-Timing")

	startCold, startWarm = []byte("cold"), []byte("warm")
)

// explain writes what is known when the status is sent. A request that never had a replica, or whose status went out while it waited for
// one, is told nothing.
func (x *exchange) explain(h *fasthttp.ResponseHeader) {
	if x.replica == 0 {
		return
	}
	b := strconv.AppendUint(x.told[:0], x.replica, 10)
	h.SetCanonical(headerReplica, b)
	if x.cold {
		h.SetCanonical(headerStart, startCold)
	} else {
		h.SetCanonical(headerStart, startWarm)
	}
	if x.reason != "" {
		b = append(b[:0], x.reason...)
		b = appendShare(append(b, "; matched="...), x.matched)
		if x.attempts > 1 {
			b = strconv.AppendInt(append(b, "; attempts="...), int64(x.attempts), 10)
		}
		h.SetCanonical(headerReason, b)
	}
	x.explainModel(h)
	b = x.told
	// https://www.w3.org/TR/server-timing/: dur is in milliseconds.
	b = appendMillis(append(b[:0], "queue;dur="...), x.queued)
	if !x.sentAt.IsZero() {
		b = appendMillis(append(b, ", engine;dur="...), time.Since(x.sentAt))
	}
	h.SetCanonical(headerTiming, b)
	x.told = b
}

// appendMillis writes d in milliseconds, exact to the microsecond.
func appendMillis(b []byte, d time.Duration) []byte {
	us := max(0, d.Microseconds())
	b = strconv.AppendInt(b, us/1000, 10)
	if us %= 1000; us != 0 {
		b = append(b, '.', byte('0'+us/100), byte('0'+us/10%10), byte('0'+us%10))
	}
	return b
}

// appendShare writes a share from 0 to 1 in hundredths.
func appendShare(b []byte, share float64) []byte {
	n := int(min(1, max(0, share))*100 + 0.5)
	return append(b, byte('0'+n/100), '.', byte('0'+n/10%10), byte('0'+n%10))
}
