package ledger

import (
	"testing"
	"time"
)

// Room is what ReserveNow would give, and asking for it takes nothing.
func TestRoom(t *testing.T) {
	now := time.Unix(0, 0)
	c := newCore([]Device{{ID: "0", Kind: "H100"}, {ID: "1", Kind: "H100"}, {ID: "2", Kind: "H100"}, {ID: "3", Kind: "L4"}}, now)
	c.setTerms("one", Terms{Count: 1, Kind: "H100"})
	c.setTerms("two", Terms{Count: 2, Kind: "H100"})
	c.setTerms("half", Terms{Count: 1, Kind: "L4", Share: 500})
	check := func(model string, atMost, want int) {
		t.Helper()
		if got := c.room(model, atMost, now); got != want {
			t.Errorf("%s: got room for %d, want %d", model, got, want)
		}
	}
	check("none", 7, 7)
	check("one", 7, 3)
	check("one", 2, 2)
	check("two", 7, 1)
	if err := c.reserveNow(Replica{"one", 1}, now); err != nil {
		t.Fatal(err)
	}
	check("one", 7, 2)
	check("two", 7, 1)
	if err := c.reserveNow(Replica{"two", 1}, now); err != nil {
		t.Fatal(err)
	}
	check("one", 7, 0)
	if n := c.room("half", 7, now); n < 1 {
		t.Errorf("got room for %d halves of a free device", n)
	}
	// Whoever waits comes first, for whatever it is.
	c.reserve(Replica{"two", 2}, now)
	check("half", 7, 0)
	check("none", 7, 7)
	if len(c.holds) != 2 || len(c.wants) != 1 {
		t.Errorf("asking has changed something: %d hold, %d wait", len(c.holds), len(c.wants))
	}
}
