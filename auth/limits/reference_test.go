package limits

import (
	"math/rand/v2"
	"testing"
	"time"
)

// arrival is what the reference remembers of an admitted request.
type arrival struct {
	at       time.Time
	tokens   int64 // reserved, then used
	requests int64
	running  bool
	r        *Reservation
	key      int
}

// The reference keeps every request and counts anew each time. It may not find a limit passed in any 60 s, nor a refusal for which even
// the last 61 s give no reason: the second is the slack that the slots cost.
func TestAgainstAReferenceWithEveryRequestKept(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 7))
		b := NewBook(noon)
		total, keys := b.Account(Total, ""), []*Account{b.Account(Key, "a"), b.Account(Key, "b")}
		limits := []Limits{
			{RequestsPerMinute: 40, TokensPerMinute: 9000, TokensPerDay: 200_000, Concurrent: 12}, // total
			{RequestsPerMinute: 25, TokensPerMinute: 7000, TokensPerDay: 150_000, Concurrent: 8},
			{RequestsPerMinute: 30, TokensPerMinute: 5000, Concurrent: 9},
		}
		total.SetLimits(limits[0])
		keys[0].SetLimits(limits[1])
		keys[1].SetLimits(limits[2])
		var all []*arrival
		now, admitted, refused := noon, 0, 0
		count := func(owner int, window time.Duration) (requests, tokens, day, running int64) {
			for _, a := range all {
				if owner > 0 && a.key != owner-1 {
					continue
				}
				if now.Sub(a.at) < window {
					requests += a.requests
					tokens += a.tokens
				}
				if a.at.YearDay() == now.YearDay() {
					day += a.tokens
				}
				if a.running {
					running++
				}
			}
			return requests, tokens, day, running
		}
		for range 3000 {
			switch random.IntN(3) {
			case 0:
				now = now.Add(time.Duration(random.ExpFloat64() * float64(3*time.Second)))
			case 1:
				if len(all) == 0 {
					continue
				}
				a := all[random.IntN(len(all))]
				if !a.running {
					continue
				}
				a.running = false
				if random.IntN(8) == 0 {
					a.r.GiveBack(now)
					a.tokens, a.requests = 0, 0
				} else {
					a.tokens = random.Int64N(a.tokens + 1)
					a.r.Settle(a.tokens, now)
				}
			case 2:
				key, tokens, r := random.IntN(2), 1+random.Int64N(900), new(Reservation)
				refusal, ok := b.Admit(r, Payers{Total: total, Key: keys[key]}, tokens, now)
				if ok {
					all = append(all, &arrival{at: now, tokens: tokens, requests: 1, running: true, r: r, key: key})
					admitted++
				} else {
					refused++
				}
				reason := false
				for _, owner := range []int{0, key + 1} {
					l := limits[owner]
					requests, sum, day, running := count(owner, time.Minute)
					if ok && (requests > l.RequestsPerMinute || sum > l.TokensPerMinute || l.TokensPerDay > 0 && day > l.TokensPerDay || running > l.Concurrent) {
						t.Fatalf("seed %d: passed %+v: %d requests, %d tokens, %d today, %d running", seed, l, requests, sum, day, running)
					}
					requests, sum, _, _ = count(owner, time.Minute+slotLength)
					reason = reason || requests >= l.RequestsPerMinute || sum+tokens > l.TokensPerMinute ||
						l.TokensPerDay > 0 && day+tokens > l.TokensPerDay || running >= l.Concurrent
				}
				if !ok && !reason {
					t.Fatalf("seed %d: refused without reason: %v", seed, refusal)
				}
			}
		}
		if admitted < 100 || refused < 100 {
			t.Fatalf("seed %d: %d admitted and %d refused test little", seed, admitted, refused)
		}
	}
}
