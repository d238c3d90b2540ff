package limits

import (
	"fmt"
	"testing"
	"time"
)

func benchBook(keys int) (*Book, []Payers) {
	b := NewBook(time.Now())
	wide := Limits{RequestsPerMinute: 1 << 40, TokensPerMinute: 1 << 50, TokensPerDay: 1 << 60, TokensPerMonth: 1 << 60, Concurrent: 1 << 30}
	payers := make([]Payers, keys)
	for i := range payers {
		payers[i] = Payers{Total: b.Account(Total, ""), Model: b.Account(Model, "m"), Tenant: b.Account(Tenant, fmt.Sprint(i%50)), Key: b.Account(Key, fmt.Sprint(i))}
		for _, a := range []*Account{payers[i].Total, payers[i].Model, payers[i].Tenant, payers[i].Key} {
			a.SetLimits(wide)
		}
		var r Reservation
		b.Admit(&r, payers[i], 1, time.Now()) // makes the windows
		r.Settle(1, time.Now())
	}
	return b, payers
}

// Admission and settlement with all five limits in all four scopes.
func BenchmarkAdmitSettle(b *testing.B) {
	for _, keys := range []int{1, 100_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			book, payers := benchBook(keys)
			b.ReportAllocs()
			var r Reservation
			now := time.Now()
			i := 0
			for b.Loop() {
				i++
				now = now.Add(20 * time.Microsecond)
				if refusal, ok := book.Admit(&r, payers[i*7919%keys], 1000, now); !ok {
					b.Fatal(refusal)
				}
				r.Settle(400, now)
			}
		})
	}
}

func BenchmarkAdmitSettleParallel(b *testing.B) {
	book, payers := benchBook(1000)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var r Reservation
		now := time.Now()
		for i := 0; pb.Next(); i++ {
			if refusal, ok := book.Admit(&r, payers[i%len(payers)], 1000, now); !ok {
				b.Error(refusal)
				return
			}
			r.Settle(400, now)
		}
	})
}

func BenchmarkRefuse(b *testing.B) {
	book, payers := benchBook(1)
	payers[0].Key.SetLimits(Limits{}) // forgets what making the book used
	payers[0].Key.SetLimits(Limits{TokensPerMinute: 100})
	now := time.Now()
	if refusal, ok := book.Admit(new(Reservation), payers[0], 100, now); !ok {
		b.Fatal(refusal)
	}
	b.ReportAllocs()
	var r Reservation
	for b.Loop() {
		if _, ok := book.Admit(&r, payers[0], 1, now); ok {
			b.Fatal("admitted")
		}
	}
}
