package limits

import "time"

// Reservation is what one admitted request holds. It belongs to one goroutine at a time; the zero value holds nothing.
type Reservation struct {
	book     *Book
	tokens   int64
	held     bool
	cold     bool   // counted in the accounts' waking
	model    string // that it waits for
	standing Standing
	charges  [scopes]charge
}

// charge is what one account gave, and when.
type charge struct {
	account *Account // nil: not charged
	// Where it was counted; nil: the account had no such limit. A limit that was taken away and set again has another window, from which
	// nothing of this may be taken.
	requests, tokens       *window
	requestSlot, tokenSlot int64
	day, month             int64
}

// Standing is how the limits stood right after the admission.
func (r *Reservation) Standing() Standing { return r.standing }

// Tokens are how many were reserved.
func (r *Reservation) Tokens() int64 { return r.tokens }

// Settle gives back what the request did not use. used are the tokens of prompt and completion as the engine counted them, or
// the caller where the engine told nothing, as after a broken stream. More than was reserved is charged at now. It does nothing
// if the reservation was settled or given back before.
func (r *Reservation) Settle(used int64, now time.Time) {
	r.end(min(max(used, 0), maxTokens), false, now)
}

// GiveBack is for a request that no engine was asked to serve: it does not count as a request either. It does nothing if the
// reservation was settled or given back before.
func (r *Reservation) GiveBack(now time.Time) { r.end(0, true, now) }

func (r *Reservation) end(used int64, unserved bool, now time.Time) {
	if !r.held {
		return
	}
	r.held = false
	since := now.Sub(r.book.epoch)
	for i := range r.charges {
		c := &r.charges[i]
		if c.account == nil {
			continue
		}
		c.account.mu.Lock()
		c.account.advanceLocked(since, now)
		c.account.endLocked(c, r.tokens, used, unserved)
		if r.cold {
			c.account.wokenLocked(r.model)
		}
		c.account.mu.Unlock()
		*c = charge{} // keeps no account alive
	}
	r.cold, r.model = false, ""
}

func (a *Account) endLocked(c *charge, reserved, used int64, unserved bool) {
	a.running--
	if unserved && c.requests != nil {
		c.requests.giveBack(c.requestSlot, 1)
	}
	switch over := used - reserved; {
	case over > 0:
		if a.tokens != nil {
			a.tokens.add(over)
		}
		a.dayTokens += over
		a.monTokens += over
	case over < 0: // to when it was taken from: a new day has no part in it
		if c.tokens != nil {
			c.tokens.giveBack(c.tokenSlot, -over)
		}
		if c.day == a.day {
			a.dayTokens += over
		}
		if c.month == a.month {
			a.monTokens += over
		}
	}
}

// Wake asks every account whether the request may wait for a cold model, before it starts it or joins its start. Requests of one
// account that wait for the same model count once. Once woken, call Woken. It is not for the hot path.
func (r *Reservation) Wake(model string) (refusal Refusal, admitted bool) {
	if !r.held {
		panic("BUG: a request that was not admitted wakes a model")
	}
	if r.cold {
		panic("BUG: a request wakes a model twice")
	}
	for _, c := range r.charges {
		if c.account != nil {
			c.account.mu.Lock()
			c.account.checkWakeLocked(model, &refusal)
		}
	}
	admitted = refusal.Kind == 0
	for _, c := range r.charges {
		if c.account == nil {
			continue
		}
		if admitted {
			if c.account.waking == nil {
				c.account.waking = map[string]int{}
			}
			c.account.waking[model]++
		}
		c.account.mu.Unlock()
	}
	if admitted {
		r.cold, r.model = true, model
	}
	return refusal, admitted
}

func (a *Account) checkWakeLocked(model string, worst *Refusal) {
	if a.limits.ColdStarts == 0 || a.waking[model] > 0 || int64(len(a.waking)) < a.limits.ColdStarts {
		return
	}
	a.refuse(worst, Refusal{Kind: ColdStarts, Limit: a.limits.ColdStarts})
}

// Woken says that the request no longer waits for a start: it was granted a replica, or the start failed. Settle and GiveBack
// imply it.
func (r *Reservation) Woken() {
	if !r.cold {
		return
	}
	for _, c := range r.charges {
		if c.account != nil {
			c.account.mu.Lock()
			c.account.wokenLocked(r.model)
			c.account.mu.Unlock()
		}
	}
	r.cold, r.model = false, ""
}

func (a *Account) wokenLocked(model string) {
	if a.waking[model]--; a.waking[model] <= 0 {
		delete(a.waking, model)
	}
}
