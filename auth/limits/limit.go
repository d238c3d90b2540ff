package limits

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Limits are what an account may use. Zero is no limit. The names are those of the configuration and of the keys file.
type Limits struct {
	RequestsPerMinute int64 `yaml:"requests_per_minute,omitempty"`
	TokensPerMinute   int64 `yaml:"tokens_per_minute,omitempty"`      // prompt and completion
	TokensPerDay      int64 `yaml:"tokens_per_day,omitempty"`         // prompt and completion; days begin at 00:00 UTC
	TokensPerMonth    int64 `yaml:"tokens_per_month,omitempty"`       // prompt and completion; months begin at 00:00 UTC of their first day
	Concurrent        int64 `yaml:"concurrent_requests,omitempty"`    // requests at the same time, those that wait included
	ColdStarts        int64 `yaml:"concurrent_cold_starts,omitempty"` // different models that the account waits for to start, at the same time
}

// String names them one after the other; it is empty if there are none.
func (l Limits) String() string {
	var parts []string
	for _, limit := range l.list() {
		if limit.value != 0 {
			parts = append(parts, fmt.Sprintf("%d %s", limit.value, limit.kind))
		}
	}
	return strings.Join(parts, ", ")
}

type amount struct {
	kind  Kind
	value int64
}

func (l *Limits) list() []amount {
	return []amount{
		{RequestsPerMinute, l.RequestsPerMinute}, {TokensPerMinute, l.TokensPerMinute}, {TokensPerDay, l.TokensPerDay},
		{TokensPerMonth, l.TokensPerMonth}, {Concurrent, l.Concurrent}, {ColdStarts, l.ColdStarts},
	}
}

// Or takes what is no limit in l from other.
func (l Limits) Or(other Limits) Limits {
	for _, f := range [...]struct{ own, other *int64 }{
		{&l.RequestsPerMinute, &other.RequestsPerMinute}, {&l.TokensPerMinute, &other.TokensPerMinute},
		{&l.TokensPerDay, &other.TokensPerDay}, {&l.TokensPerMonth, &other.TokensPerMonth},
		{&l.Concurrent, &other.Concurrent}, {&l.ColdStarts, &other.ColdStarts},
	} {
		if *f.own == 0 {
			*f.own = *f.other
		}
	}
	return l
}

// Validate names every limit that is negative.
func (l Limits) Validate() error {
	var errs []error
	for _, limit := range l.list() {
		if limit.value < 0 {
			errs = append(errs, fmt.Errorf("%d %s: no limit is below 0; 0 is none", limit.value, limit.kind))
		}
	}
	return errors.Join(errs...)
}

// Scope is whose limits an account holds.
type Scope uint8

// The order is that in which accounts are locked.
const (
	Total Scope = iota // the gateway as a whole
	Model
	Tenant
	Key
	Address // where a caller comes from; see Addresses
	scopes
)

func (s Scope) String() string {
	switch s {
	case Total:
		return "total"
	case Model:
		return "model"
	case Tenant:
		return "tenant"
	case Key:
		return "key"
	case Address:
		return "address"
	}
	return fmt.Sprintf("scope %d", uint8(s))
}

// Kind is one of Limits' fields.
type Kind uint8

const (
	RequestsPerMinute Kind = iota + 1
	TokensPerMinute
	TokensPerDay
	TokensPerMonth
	Concurrent
	ColdStarts
)

func (k Kind) String() string {
	switch k {
	case RequestsPerMinute:
		return "requests per minute"
	case TokensPerMinute:
		return "tokens per minute"
	case TokensPerDay:
		return "tokens per day"
	case TokensPerMonth:
		return "tokens per month"
	case Concurrent:
		return "concurrent requests"
	case ColdStarts:
		return "concurrent cold starts"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Quota tells whether the limit is a budget: what is spent does not come back soon enough for a client to try again.
func (k Kind) Quota() bool { return k == TokensPerDay || k == TokensPerMonth }

// Refusal is why a request was not admitted: of the limits in its way the one that it would have to wait for longest. It
// is an error.
type Refusal struct {
	Scope Scope
	Kind  Kind
	Limit int64
	// RetryAfter is how long until there is room, if nothing is given back earlier. It is zero where that is unknown
	// (Concurrent and ColdStarts) or never comes (TooLarge). Not rounded: headers take whole seconds (facts/clients.md §1.3).
	RetryAfter time.Duration
	// TooLarge: the request alone is above the limit, so trying again is in vain.
	TooLarge bool
	Standing Standing // as it was when the request was refused
}

func (r Refusal) Error() string {
	if r.TooLarge {
		return fmt.Sprintf("one request is above the %s's limit of %d %s", r.Scope, r.Limit, r.Kind)
	}
	return fmt.Sprintf("the %s's limit of %d %s is reached", r.Scope, r.Limit, r.Kind)
}

// worse tells whether r keeps the request waiting longer than other does. The zero Refusal is no refusal.
func (r *Refusal) worse(other *Refusal) bool {
	switch {
	case other.Kind == 0:
		return true
	case r.TooLarge != other.TooLarge:
		return r.TooLarge
	}
	return r.RetryAfter > other.RetryAfter
}

// Rate is how one limit per minute stands. The zero value is no limit.
type Rate struct {
	Limit     int64
	Remaining int64         // never negative
	Reset     time.Duration // until Remaining is Limit again if nothing more comes
}

// Standing is what the x-ratelimit-* headers tell: of all accounts the rate with the least remaining. Which account that
// is, is not told.
type Standing struct {
	Requests, Tokens Rate
}

func (r *Rate) tighten(w *window, limit int64, since time.Duration) {
	if w == nil || limit == 0 {
		return
	}
	remaining := max(limit-w.sum, 0)
	if r.Limit != 0 && (remaining > r.Remaining || remaining == r.Remaining && limit >= r.Limit) {
		return
	}
	*r = Rate{Limit: limit, Remaining: remaining, Reset: max(w.empty()-since, 0)}
}

// FromNames makes limits of numbers by the names of the configuration. A name that is none is an error: what is misread must not be taken
// for no limit.
func FromNames(numbers map[string]int64) (l Limits, err error) {
	fields := map[string]*int64{
		"requests_per_minute": &l.RequestsPerMinute, "tokens_per_minute": &l.TokensPerMinute, "tokens_per_day": &l.TokensPerDay,
		"tokens_per_month": &l.TokensPerMonth, "concurrent_requests": &l.Concurrent, "concurrent_cold_starts": &l.ColdStarts,
	}
	for name, n := range numbers {
		field := fields[name]
		if field == nil {
			return Limits{}, fmt.Errorf("%.40q is no limit", name)
		}
		*field = n
	}
	return l, l.Validate()
}
