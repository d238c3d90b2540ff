package activator

import (
	"sync"
	"sync/atomic"
)

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

// bounds counts what waits and refuses what would not fit. It is never above its limits, not even for an instant, because room is taken before the
// request exists for anybody else. A tenant gets as long as it has less than shareOfFree times what is free: who fills a queue leaves
// a seventeenth to others, n of them 1/(1+16n), so that nobody else finds it full. (A. Choudhury, E. Hahne, "Dynamic queue length
// thresholds for shared-memory packet switches", 1998.) A queue of 17 places or fewer can be one tenant's.
type bounds struct {
	requests, bytes atomic.Int64 // changed under mu

	mu                    sync.Mutex // guards the fields below
	maxRequests, maxBytes int64      // 0: no bound
	held                  map[string]holding
}

// holding is what one tenant has waiting.
type holding struct{ requests, bytes int64 }

const shareOfFree = 16

func (b *bounds) setLimits(requests int, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.maxRequests, b.maxBytes = int64(requests), bytes
}

func (b *bounds) take(tenant string, bytes int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.held[tenant]
	if !fits(h.requests, b.requests.Load(), 1, b.maxRequests) || !fits(h.bytes, b.bytes.Load(), bytes, b.maxBytes) {
		return false
	}
	if b.held == nil {
		b.held = map[string]holding{}
	}
	b.held[tenant] = holding{h.requests + 1, h.bytes + bytes}
	b.requests.Add(1)
	b.bytes.Add(bytes)
	return true
}

// fits tells whether who holds held of all that is taken may take n more.
func fits(held, taken, n, limit int64) bool {
	return limit <= 0 || taken+n <= limit && (n == 0 || held/shareOfFree <= limit-taken)
}

func (b *bounds) give(tenant string, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.held[tenant]
	if h.requests--; h.requests == 0 {
		delete(b.held, tenant)
	} else {
		b.held[tenant] = holding{h.requests, h.bytes - bytes}
	}
	b.bytes.Add(-bytes)
	b.requests.Add(-1)
}
