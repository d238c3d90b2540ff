package tenants

import (
	"math"
	"sync/atomic"
	"time"

	"pilotlight/auth/limits"
)

// Usage counts what one tenant has done since the gateway was started.
type Usage struct {
	requests, prompt, completion atomic.Int64
	answers                      atomic.Uint64                       // an expectation; 0: none was seen
	refusals                     [limits.ColdStarts + 1]atomic.Int64 // by kind
}

// expectation is what answers have been lately: their mean and their mean deviation in tokens, as in RFC 6298 §2 for round trips.
type expectation struct{ mean, deviation float32 }

func (e expectation) pack() uint64 {
	return uint64(math.Float32bits(e.mean))<<32 | uint64(math.Float32bits(e.deviation))
}

func unpack(v uint64) expectation {
	return expectation{math.Float32frombits(uint32(v >> 32)), math.Float32frombits(uint32(v))}
}

// learn takes one answer's length into account.
func (u *Usage) learn(tokens int64) {
	const meanShare, deviationShare = 8, 4
	x := float32(max(tokens, 1))
	for {
		before := u.answers.Load()
		e := expectation{x, x / 2}
		if before != 0 {
			e = unpack(before)
			e.deviation += (float32(math.Abs(float64(x-e.mean))) - e.deviation) / deviationShare
			e.mean += (x - e.mean) / meanShare
		}
		if u.answers.CompareAndSwap(before, e.pack()) {
			return
		}
	}
}

// expected is a length that few answers exceed; 0: nothing is known.
func (u *Usage) expected() int64 {
	e := unpack(u.answers.Load())
	return int64(math.Ceil(float64(e.mean + 4*e.deviation)))
}

func (u *Usage) refused(kind limits.Kind) { u.refusals[kind].Add(1) }

func (r *Registry) usageOf(tenant string) *Usage {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.usage[tenant]
	if u == nil {
		u = &Usage{}
		r.usage[tenant] = u
	}
	return u
}

// Spent is what an account has used of the calendar, reservations of running requests included. The zero value is that of one that nobody has
// asked for.
func (r *Registry) Spent(scope limits.Scope, name string, now time.Time) limits.Spent {
	return r.book.Account(scope, name).Spent(now)
}

// Count is one tenant's use since the gateway was started.
type Count struct {
	Tenant             string
	Requests           int64 // admitted
	Prompt, Completion int64 // tokens
	Running            int64 // requests that hold a reservation now
	Refused            map[limits.Kind]int64
}

// Counts are those of all tenants that were seen, in no order.
func (r *Registry) Counts() []Count {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Count, 0, len(r.usage))
	for name, u := range r.usage {
		c := Count{Tenant: name, Requests: u.requests.Load(), Prompt: u.prompt.Load(), Completion: u.completion.Load(),
			Running: r.book.Account(limits.Tenant, name).Running(), Refused: map[limits.Kind]int64{}}
		for kind := limits.RequestsPerMinute; kind <= limits.ColdStarts; kind++ {
			if n := u.refusals[kind].Load(); n > 0 {
				c.Refused[kind] = n
			}
		}
		all = append(all, c)
	}
	return all
}
