package limits

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// one is a book with one tenant.
func one(l Limits) (*Book, Payers) {
	b := NewBook(noon)
	a := b.Account(Tenant, "t")
	a.SetLimits(l)
	return b, Payers{Tenant: a}
}

func at(d time.Duration) time.Time { return noon.Add(d) }

func admit(t *testing.T, b *Book, by Payers, tokens int64, now time.Time) *Reservation {
	t.Helper()
	r := new(Reservation)
	if refusal, ok := b.Admit(r, by, tokens, now); !ok {
		t.Fatalf("refused: %v", refusal)
	}
	return r
}

func refuse(t *testing.T, b *Book, by Payers, tokens int64, now time.Time) Refusal {
	t.Helper()
	refusal, ok := b.Admit(new(Reservation), by, tokens, now)
	if ok {
		t.Fatal("admitted, want a refusal")
	}
	return refusal
}
