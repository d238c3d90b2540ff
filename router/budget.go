package router

import (
	"sync"
	"sync/atomic"
)

const (
	// retryShare of the requests may be sent again, so that those who retry never become a storm of their own.
	retryShare = 0.1
	// retryReserve is what may be sent again when there was little traffic yet, and retryMost what can be saved up.
	retryReserve = 10
	retryMost    = 100
)

// Budget bounds how many requests are sent to another replica. The zero value is a full reserve. Safe for concurrent use.
type Budget struct {
	sent atomic.Int64 // since it was last asked

	mu    sync.Mutex // guards the field below
	spent float64    // from retryReserve − retryMost to retryReserve
}

// Earn counts a request that was sent for the first time.
func (b *Budget) Earn() { b.sent.Add(1) }

// Spend takes one retry out of the budget; false: it is used up.
func (b *Budget) Spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(b.spent-retryShare*float64(b.sent.Swap(0)), retryReserve-retryMost)
	if b.spent > retryReserve-1 {
		return false
	}
	b.spent++
	return true
}
