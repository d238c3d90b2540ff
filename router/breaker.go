package router

import (
	"math/bits"
	"time"
)

// Outcome is what a request says about the health of the replica that it was sent to.
type Outcome uint8

const (
	// Unknown: the client left, or time was up for reasons of its own. It counts for nothing.
	Unknown Outcome = iota
	// Answered: the replica gave an answer, be it that the request is wrong (4xx).
	Answered
	// Failed: a connection that broke or could not be made, a 5xx, or silence for longer than allowed.
	Failed
	// Refused: nobody listens there.
	Refused
)

const (
	// tripAfter failures in a row, or tripOf among the last tripAmong answers, take a replica out. Nobody listening does so at once.
	tripAfter = 5
	tripOf    = 10
	tripAmong = 20
	// A replica that was taken out is tried again with one request after leastPause; each trial that fails doubles the pause.
	leastPause = time.Second
	mostPause  = time.Minute
)

// breaker is the health of one replica as its requests tell it. The zero value is a healthy one.
//
//	closed ── failures ──▶ open ── pause over ──▶ half open: one trial ── answered ──▶ closed
//	                        ▲                              │
//	                        └─────────── failed ───────────┘
type breaker struct {
	last   uint32 // a bit per answer, the latest lowest: 1 is a failure
	seen   uint8  // answers in last
	row    uint8  // failures in a row
	good   uint8  // answers in a row since it was closed, up to tripAmong
	open   bool
	trial  bool // half open, and the one request is on its way
	until  time.Time
	pause  time.Duration
	trips  uint64
	failed uint64 // in all
}

// shut tells whether no request may go there now.
func (b *breaker) shut(now time.Time) bool {
	return b.open && (b.trial || now.Before(b.until))
}

// note counts an answer, and reports whether the replica should be taken out for it.
func (b *breaker) note(o Outcome) (trip bool) {
	failed := uint32(0)
	switch o {
	case Unknown:
		return false
	case Answered:
		b.row = 0
		if b.good < tripAmong {
			b.good++
		} else {
			b.pause = 0
		}
	case Failed, Refused:
		failed = 1
		b.failed++
		b.good = 0
		b.row = min(b.row+1, tripAfter)
	}
	b.last = (b.last<<1 | failed) & (1<<tripAmong - 1)
	b.seen = min(b.seen+1, tripAmong)
	return o == Refused || b.row >= tripAfter || failed == 1 && b.seen >= tripAmong && bits.OnesCount32(b.last) >= tripOf
}

// trip takes the replica out for a pause.
func (b *breaker) trip(now time.Time) {
	b.pause = min(mostPause, max(leastPause, 2*b.pause))
	b.open, b.trial, b.until = true, false, now.Add(b.pause)
	b.trips++
}

// close takes it back.
func (b *breaker) close() {
	b.open, b.trial, b.last, b.seen, b.row, b.good = false, false, 0, 0, 0, 0
}
