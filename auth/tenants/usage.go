package tenants

import (
	"sync/atomic"
	"time"

	"pilotlight/auth/limits"
)

// Usage counts what one tenant has done since the gateway was started.
type Usage struct {
	requests, prompt, completion atomic.Int64
	refusals                     [limits.ColdStarts + 1]atomic.Int64 // by kind
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
