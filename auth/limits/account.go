package limits

import (
	"sync"
	"time"
)

// Account is what one scope has used, and its limits. Get one from a Book.
type Account struct {
	scope Scope
	name  string

	mu     sync.Mutex // guards the fields below
	limits Limits
	// Half a kilobyte each, so they are made when the first request asks: most keys of a large file are never used.
	requests, tokens *window // nil while there is no such limit, too
	// Calendar use, reservations included. It counts without a limit too, so that one set later holds for what was used before.
	day, month           int64 // days since 1970-01-01 UTC; months since year 0
	dayTokens, monTokens int64
	running              int64
	waking               map[string]int // by model: requests that wait for its start; nil until there is one
}

// Name is what the account was made for.
func (a *Account) Name() string { return a.name }

// SetLimits puts other limits in force. What was used stays counted, and what runs goes on; a limit per minute that was
// not there before counts from now.
func (a *Account) SetLimits(l Limits) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limits = l
	if l.RequestsPerMinute == 0 {
		a.requests = nil
	}
	if l.TokensPerMinute == 0 {
		a.tokens = nil
	}
}

// Spent is the calendar use of an account, reservations of running requests included.
type Spent struct {
	Day         time.Time `json:"day"` // when it began, in UTC
	Month       time.Time `json:"month"`
	DayTokens   int64     `json:"day_tokens"`
	MonthTokens int64     `json:"month_tokens"`
}

// Spent tells the use of the day and the month of now.
func (a *Account) Spent(now time.Time) Spent {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turnLocked(now)
	return Spent{Day: dayStart(a.day), Month: monthStart(a.month), DayTokens: a.dayTokens, MonthTokens: a.monTokens}
}

// Restore adds what was spent before a restart. Of a day or month that is over by now, nothing counts.
func (a *Account) Restore(s Spent, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turnLocked(now)
	if dayOf(s.Day) == a.day {
		a.dayTokens += s.DayTokens
	}
	if monthOf(s.Month) == a.month {
		a.monTokens += s.MonthTokens
	}
}

// Running is how many requests hold a reservation.
func (a *Account) Running() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.running
}

// turnLocked begins the day and month of now. A clock that was set back does not bring an old day's budget back.
func (a *Account) turnLocked(now time.Time) {
	day := dayOf(now)
	if day <= a.day {
		return
	}
	a.day, a.dayTokens = day, 0
	if month := monthOf(now); month > a.month {
		a.month, a.monTokens = month, 0
	}
}

// checkLocked puts into worst the limit that stands most in the way of a request.
func (a *Account) checkLocked(tokens int64, since time.Duration, now time.Time, worst *Refusal) {
	l := &a.limits
	if a.requests != nil && a.requests.sum >= l.RequestsPerMinute {
		a.refuse(worst, Refusal{Kind: RequestsPerMinute, Limit: l.RequestsPerMinute,
			RetryAfter: max(a.requests.room(1, l.RequestsPerMinute)-since, 0)})
	}
	if a.tokens != nil {
		switch {
		case tokens > l.TokensPerMinute:
			a.refuse(worst, Refusal{Kind: TokensPerMinute, Limit: l.TokensPerMinute, TooLarge: true})
		case a.tokens.sum+tokens > l.TokensPerMinute:
			a.refuse(worst, Refusal{Kind: TokensPerMinute, Limit: l.TokensPerMinute,
				RetryAfter: max(a.tokens.room(tokens, l.TokensPerMinute)-since, 0)})
		}
	}
	if l.TokensPerDay != 0 && a.dayTokens+tokens > l.TokensPerDay {
		a.refuse(worst, Refusal{Kind: TokensPerDay, Limit: l.TokensPerDay, TooLarge: tokens > l.TokensPerDay,
			RetryAfter: dayStart(a.day + 1).Sub(now)})
	}
	if l.TokensPerMonth != 0 && a.monTokens+tokens > l.TokensPerMonth {
		a.refuse(worst, Refusal{Kind: TokensPerMonth, Limit: l.TokensPerMonth, TooLarge: tokens > l.TokensPerMonth,
			RetryAfter: monthStart(a.month + 1).Sub(now)})
	}
	if l.Concurrent != 0 && a.running >= l.Concurrent {
		a.refuse(worst, Refusal{Kind: Concurrent, Limit: l.Concurrent})
	}
}

func (a *Account) refuse(worst *Refusal, r Refusal) {
	r.Scope = a.scope
	if r.TooLarge {
		r.RetryAfter = 0
	}
	if r.worse(worst) {
		*worst = r
	}
}

const secondsPerDay = 24 * 60 * 60

func dayOf(t time.Time) int64 { return t.Unix() / secondsPerDay } // nobody's clock shows a time before 1970

func dayStart(day int64) time.Time { return time.Unix(day*secondsPerDay, 0).UTC() }

func monthOf(t time.Time) int64 {
	year, month, _ := t.UTC().Date()
	return int64(year)*12 + int64(month) - 1
}

func monthStart(month int64) time.Time {
	return time.Date(int(month/12), time.Month(month%12+1), 1, 0, 0, 0, 0, time.UTC)
}
