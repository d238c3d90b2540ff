package ledger

import (
	"time"

	"pilotlight/activator"
)

// How long a replica stays when others want its devices. S is what a start of its model takes.
//
//	starting            until it is ready
//	idle                S from when it was ready: what it cost is used for at least as long as it took
//	busy                3 S, or S where the newcomer's priority is higher; then it takes no more requests and ends those in flight
//	asleep              as idle, from when its start was over at a guess; while it falls asleep or wakes, until it has
//	pinned or kept      for ever
//	higher priority     an idle one as above; a busy one as long as the difference is not made up by waiting
//
// So between two starts on a device lie S of service at least, whatever the load: two models on one device swap at most once in
// 2 S, and under steady load once in 4 S. Who waits is behind a fixed number of others, each of which has its turn once, since
// those who come later stand behind, and those who were served come later. The wait is therefore at most the sum of the others'
// turns, the requests in flight at their ends, and starts: with n models on a device, n·4 S and the drains.
const (
	idleStay = 1
	busyTurn = 3
	// pointWorth is the time of waiting that a point of priority stands for.
	pointWorth = 30 * time.Second
	// linger is how long a place in the queue is kept for a model that no request waits for: as long as clients may
	// take to come again (Retry-After is 59 s at the most).
	linger = 60 * time.Second
	// askPause is between two questions to a replica that turned out busy.
	askPause = 100 * time.Millisecond
)

// look is what is seen of a replica that holds devices.
type look struct {
	state     activator.State
	since     time.Time // of the state
	idleSince time.Time
	inFlight  int
	unknown   bool // somebody else's requests may be in flight
	queued    int  // requests that wait for its model
	moving    bool // asleep: on the way into or out of that
	startTime time.Duration
}

// standing is how near a holder is to giving up its devices; the order matters.
type standing uint8

const (
	isFree     standing = iota // nobody holds it
	isSettling                 // nobody holds it, and the memory is not back yet
	isLeaving                  // on its way out, or asked to be
	isBeside                   // there is room beside a replica that starts, once it has
	isIdle                     // may be asked to leave now
	isDue                      // busy, and its turn is over
	isStaying                  // idle, and has not stayed long enough
	isStarting                 // it, or one beside it
	isBusy                     // in its turn
	isFixed                    // pinned, kept, missing, or out of order
)

// standingOf is how a holder stands against a newcomer.
func (c *core) standingOf(h *hold, n *want, now time.Time) standing {
	switch {
	case h.gives():
		return isLeaving
	case !h.seen, h.look.state == activator.Starting: // not seen: its model has not shown it yet
		return isStarting
	}
	terms := c.terms[h.who.Model]
	if h.who.Model == n.who.Model || terms.Pinned || c.kept(h, terms) {
		return isFixed
	}
	if now.Before(h.askAgain) {
		return isBusy // it was asked and turned out to be busy
	}
	if h.look.state == activator.Asleep {
		if h.look.moving {
			return isStarting // awake in a moment, or idle
		}
		if now.Before(h.since.Add((1 + idleStay) * h.startTime())) {
			return isStaying // it has served less than its start took, and slept since
		}
		return isIdle
	}
	cost := h.startTime()
	if h.idle() {
		if now.Before(h.look.since.Add(idleStay * cost)) {
			return isStaying
		}
		return isIdle
	}
	turn := busyTurn * cost
	higher := c.terms[n.who.Model].Priority - terms.Priority
	if higher > 0 {
		turn = idleStay * cost
	}
	if now.Before(h.look.since.Add(turn)) || now.Sub(n.since)+time.Duration(higher)*pointWorth < 0 {
		return isBusy
	}
	return isDue
}

// kept: the model would have fewer replicas than it always has.
func (c *core) kept(h *hold, terms Terms) bool {
	n := 0
	for _, other := range c.holds {
		if other != h && other.who.Model == h.who.Model && !other.gives() {
			n++
		}
	}
	return n < terms.Keep
}

// gives: it is on its way out. One that was asked counts until it answers, or the next look might choose another, too.
func (h *hold) gives() bool {
	if h.leaving || h.asked {
		return true
	}
	switch h.look.state {
	case activator.Stopping, activator.Draining, activator.Failed, activator.Cold:
		return h.seen
	}
	return false
}

func (h *hold) idle() bool { return h.look.inFlight == 0 && h.look.queued == 0 && !h.look.unknown }

// startTime is what was learned of the model's starts, else what this one took.
func (h *hold) startTime() time.Duration {
	if h.look.startTime > 0 {
		return h.look.startTime
	}
	return max(0, h.look.since.Sub(h.since))
}

// cost of losing an idle replica: what a start takes, times how likely it is wanted soon. One that was last used a time ago is taken to be
// wanted at the rate of one in that time.
func (h *hold) cost(now time.Time) float64 {
	idle := now.Sub(h.look.idleSince)
	return h.startTime().Seconds() / max(1, idle.Seconds())
}

// before orders those who wait: first what models always have (it holds its devices for good once it has them), then who waits longest.
func (c *core) before(a, b *want) int {
	if x, y := c.missing(a), c.missing(b); x != y {
		if x {
			return -1
		}
		return 1
	}
	priority := func(w *want) time.Duration { return time.Duration(c.terms[w.who.Model].Priority) * pointWorth }
	// Both have waited until now, so now cancels out.
	switch x, y := a.since.Add(-priority(a)), b.since.Add(-priority(b)); {
	case x.Before(y):
		return -1
	case y.Before(x):
		return 1
	}
	return 0
}
