//go:build !race

package limits

import (
	"testing"
	"time"
)

func TestHotPathAllocatesNothing(t *testing.T) {
	book, payers := benchBook(1)
	narrow, by := one(Limits{TokensPerMinute: 10})
	if _, ok := narrow.Admit(new(Reservation), by, 10, noon); !ok {
		t.Fatal("refused")
	}
	var r, unused Reservation
	now, header := time.Now(), make([]byte, 0, 32)
	for name, f := range map[string]func(){
		"admit and settle":    func() { book.Admit(&r, payers[0], 10, now); r.Settle(5, now) },
		"admit and give back": func() { book.Admit(&r, payers[0], 10, now); r.GiveBack(now) },
		"refuse":              func() { narrow.Admit(&unused, by, 1, noon) },
		"find an account":     func() { book.Account(Key, "0") },
		"write a header":      func() { header = AppendReset(header[:0], 61*time.Second+5*time.Millisecond) },
	} {
		if got := testing.AllocsPerRun(1000, f); got != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, got)
		}
	}
}
