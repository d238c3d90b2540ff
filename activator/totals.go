package activator

import "sync/atomic"

// Totals bounds the queues of all models together. Share one among them.
type Totals struct{ bounds }

// NewTotals bounds all queues together; 0 means no bound.
func NewTotals(maxRequests int, maxBytes int64) *Totals {
	t := &Totals{}
	t.setLimits(maxRequests, maxBytes)
	return t
}

// Queued is how much waits in all queues now.
func (t *Totals) Queued() (requests int, bytes int64) {
	return int(t.requests.Load()), t.bytes.Load()
}

// SetLimits changes the bounds. What waits already is not thrown out.
func (t *Totals) SetLimits(maxRequests int, maxBytes int64) { t.setLimits(maxRequests, maxBytes) }

// bounds counts what waits and refuses what would not fit. It is never above its limits, not even for an
// instant, because room is taken by compare-and-swap before the request exists for anybody else.
type bounds struct {
	requests, bytes       atomic.Int64
	maxRequests, maxBytes atomic.Int64 // 0: no bound
}

func (b *bounds) setLimits(requests int, bytes int64) {
	b.maxRequests.Store(int64(requests))
	b.maxBytes.Store(bytes)
}

func (b *bounds) take(bytes int64) bool {
	if !takeUpTo(&b.requests, 1, b.maxRequests.Load()) {
		return false
	}
	if !takeUpTo(&b.bytes, bytes, b.maxBytes.Load()) {
		b.requests.Add(-1)
		return false
	}
	return true
}

func (b *bounds) give(bytes int64) {
	b.bytes.Add(-bytes)
	b.requests.Add(-1)
}

func takeUpTo(v *atomic.Int64, n, limit int64) bool {
	for {
		have := v.Load()
		if limit > 0 && have+n > limit {
			return false
		}
		if v.CompareAndSwap(have, have+n) {
			return true
		}
	}
}
