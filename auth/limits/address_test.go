package limits

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
)

func TestWhoSharesAnAddress(t *testing.T) {
	addresses, err := NewAddresses(Limits{RequestsPerMinute: 1}, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff::2", true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
	} {
		a, b := addresses.Account(netip.MustParseAddr(tt.a)), addresses.Account(netip.MustParseAddr(tt.b))
		if (a == b) != tt.same {
			t.Errorf("%s and %s: got the same account: %v, want %v", tt.a, tt.b, a == b, tt.same)
		}
	}
	if a, b := addresses.Account(netip.Addr{}), addresses.Account(netip.Addr{}); a != b || a == nil {
		t.Error("unknown origins do not share one account")
	}
}

func TestAddressesAreLimitedAndBounded(t *testing.T) {
	b := NewBook(noon)
	addresses, err := NewAddresses(Limits{RequestsPerMinute: 3}, 10)
	if err != nil {
		t.Fatal(err)
	}
	caller := netip.MustParseAddr("192.0.2.1")
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, ok := b.Admit(new(Reservation), Payers{Address: addresses.Account(caller)}, 1, noon); ok {
				admitted.Add(1)
			}
		})
	}
	wg.Wait()
	if got := admitted.Load(); got != 3 {
		t.Errorf("got %d admitted, want 3", got)
	}
	if got := refuse(t, b, Payers{Address: addresses.Account(caller)}, 1, noon); got.Scope != Address {
		t.Errorf("got %v, want the address's limit", got)
	}
	for next := caller; addresses.accounts.Contains(netip.PrefixFrom(caller, 32)); next = next.Next() {
		addresses.Account(next.Next())
	}
	if n := addresses.accounts.Len(); n != 10 {
		t.Errorf("got %d remembered, want 10", n)
	}
	if _, err := NewAddresses(Limits{}, 0); err == nil {
		t.Error("room for none: accepted")
	}
}

func TestFirstRequestsOfAnAddressShareItsAccount(t *testing.T) {
	addresses, err := NewAddresses(Limits{RequestsPerMinute: 1}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	prefix := netip.MustParsePrefix("192.0.2.1/32")
	if first, second := addresses.add(prefix), addresses.add(prefix); first != second || addresses.Account(prefix.Addr()) != first {
		t.Error("two that both found no account got one each")
	}
}
