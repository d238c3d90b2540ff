package limits

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A hundred goroutines at the same moment get exactly what the limit has, whichever limit it is and whoever holds it.
func TestParallelBurstCannotPassALimit(t *testing.T) {
	for _, tt := range []struct {
		limits Limits
		want   int64
	}{
		{Limits{RequestsPerMinute: 37}, 37},
		{Limits{TokensPerMinute: 375}, 37},
		{Limits{TokensPerDay: 375}, 37},
		{Limits{TokensPerMonth: 375}, 37},
		{Limits{Concurrent: 37}, 37},
	} {
		for scope := range scopes {
			b := NewBook(noon)
			by := Payers{Total: b.Account(Total, ""), Model: b.Account(Model, "m"), Tenant: b.Account(Tenant, "t"), Key: b.Account(Key, "k"), Address: b.Account(Address, "a")}
			[]*Account{by.Total, by.Model, by.Tenant, by.Key, by.Address}[scope].SetLimits(tt.limits)
			var admitted atomic.Int64
			var wg sync.WaitGroup
			begin := make(chan struct{})
			for range 100 {
				wg.Go(func() {
					<-begin
					for range 5 {
						if _, ok := b.Admit(new(Reservation), by, 10, noon); ok {
							admitted.Add(1)
						}
					}
				})
			}
			close(begin)
			wg.Wait()
			if got := admitted.Load(); got != tt.want {
				t.Errorf("%v %+v: got %d admitted, want %d", scope, tt.limits, got, tt.want)
			}
		}
	}
}

// Requests of many keys that come, wait for models, and go in parallel neither pass a limit nor leave anything behind.
func TestNothingIsLeftBehind(t *testing.T) {
	b := NewBook(noon)
	total := b.Account(Total, "")
	total.SetLimits(Limits{Concurrent: 6, TokensPerMinute: 1 << 40, RequestsPerMinute: 1 << 40, ColdStarts: 2})
	var running, most atomic.Int64
	var wg sync.WaitGroup
	for g := range 12 {
		wg.Go(func() {
			by := Payers{Total: total, Tenant: b.Account(Tenant, fmt.Sprint(g%3)), Key: b.Account(Key, fmt.Sprint(g))}
			by.Tenant.SetLimits(Limits{Concurrent: 3})
			var r Reservation
			for i := range 2000 {
				now := at(time.Duration(i) * time.Millisecond)
				if _, ok := b.Admit(&r, by, 10, now); !ok {
					continue
				}
				if n := running.Add(1); n > most.Load() {
					most.Store(n)
				}
				_, woke := r.Wake(fmt.Sprint(i % 4))
				if woke && i%2 == 0 {
					r.Woken()
				}
				running.Add(-1)
				if i%3 == 0 {
					r.GiveBack(now)
				} else {
					r.Settle(int64(i%20), now)
				}
			}
		})
	}
	wg.Wait()
	if got := most.Load(); got > 6 || got < 1 {
		t.Errorf("got %d at the same time, want 1 to 6", got)
	}
	for scope := range scopes {
		for _, a := range b.Accounts(scope) {
			if a.Running() != 0 || len(a.waking) != 0 {
				t.Errorf("%v %s: %d running, %d waking, want none", a.scope, a.Name(), a.running, len(a.waking))
			}
		}
	}
}
