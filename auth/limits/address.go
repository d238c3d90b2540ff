package limits

import (
	"net/netip"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Addresses are accounts of callers who prove nothing, by where they come from. It remembers those that came last: a caller who is
// pushed out by many others begins anew, and what runs of him is not counted against his new requests.
type Addresses struct {
	limits   Limits
	accounts *lru.Cache[netip.Prefix, *Account]
}

// NewAddresses gives each address the same limits, and remembers at most so many addresses, each at most some 1,500 bytes. An error says that
// most is not positive.
func NewAddresses(limits Limits, most int) (*Addresses, error) {
	accounts, err := lru.New[netip.Prefix, *Account](most)
	if err != nil {
		return nil, err
	}
	return &Addresses{limits: limits, accounts: accounts}, nil
}

// Account returns the account of an address. IPv6 addresses share one per /64, which is what one subscriber gets and may
// draw addresses from at will (RFC 7421); IPv4 written as IPv6 is IPv4.
func (a *Addresses) Account(address netip.Addr) *Account {
	address = address.Unmap().WithZone("")
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	prefix, err := address.Prefix(bits)
	if err != nil { // only the zero Addr: all of unknown origin share one account
		prefix = netip.Prefix{}
	}
	if known, ok := a.accounts.Get(prefix); ok {
		return known
	}
	return a.add(prefix)
}

// add makes an account, unless somebody else has made it since: two first requests of one address must not get one each.
func (a *Addresses) add(prefix netip.Prefix) *Account {
	fresh := &Account{scope: Address}
	fresh.SetLimits(a.limits)
	if known, ok, _ := a.accounts.PeekOrAdd(prefix, fresh); ok {
		return known
	}
	return fresh
}
