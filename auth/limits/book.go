package limits

import (
	"sync"
	"time"
)

// Book holds accounts.
type Book struct {
	epoch time.Time

	mu       sync.RWMutex // guards the fields below
	accounts [scopes]map[string]*Account
}

// NewBook makes a book without accounts. Minutes are measured from now on, by the monotonic clock if now has its reading, so that
// setting the wall clock neither frees nor blocks anybody; days and months go by the wall clock.
func NewBook(now time.Time) *Book {
	b := &Book{epoch: now}
	for i := range b.accounts {
		b.accounts[i] = map[string]*Account{}
	}
	return b
}

// Account returns the account of that name, which is made without limits if it is new. Callers on the hot path keep it.
func (b *Book) Account(scope Scope, name string) *Account {
	b.mu.RLock()
	a := b.accounts[scope][name]
	b.mu.RUnlock()
	if a != nil {
		return a
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if a = b.accounts[scope][name]; a == nil {
		a = &Account{scope: scope, name: name}
		b.accounts[scope][name] = a
	}
	return a
}

// Forget drops an account: a later one of that name begins anew. Reservations that were made on it can still be settled.
func (b *Book) Forget(scope Scope, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.accounts[scope], name)
}

// Accounts are all accounts of a scope, in no order.
func (b *Book) Accounts(scope Scope) []*Account {
	b.mu.RLock()
	defer b.mu.RUnlock()
	all := make([]*Account, 0, len(b.accounts[scope]))
	for _, a := range b.accounts[scope] {
		all = append(all, a)
	}
	return all
}

// Payers are the accounts that one request is charged to. Each may be nil, and each is of the scope that it is named after.
type Payers struct {
	Total, Model, Tenant, Key, Address *Account
}

// maxTokens bounds what one request can reserve or use, so that no sum overflows; no model has as large a context.
const maxTokens = 1 << 32

// Admit asks every account for one request and tokens, which are the estimate of the prompt and the most that may be generated.
// Either all give them, and r holds them until Settle or GiveBack, or none does, and the refusal says why. A refused request
// counts nowhere. r must not hold a reservation. Admit allocates nothing but what an account needs once.
func (b *Book) Admit(r *Reservation, by Payers, tokens int64, now time.Time) (refusal Refusal, admitted bool) {
	if r.held {
		panic("BUG: a reservation is used for a second request before it was given back")
	}
	tokens = min(max(tokens, 0), maxTokens)
	since := now.Sub(b.epoch)
	payers := [scopes]*Account{Total: by.Total, Model: by.Model, Tenant: by.Tenant, Key: by.Key, Address: by.Address}
	// All are locked before any is asked: a request that the last one refuses must not have taken a place, however briefly, that
	// another request was then refused. Everybody locks in the order of scopes.
	for _, a := range payers {
		if a == nil {
			continue
		}
		a.mu.Lock()
		a.advanceLocked(since, now)
		a.checkLocked(tokens, since, now, &refusal)
	}
	admitted = refusal.Kind == 0
	standing := &refusal.Standing
	if admitted {
		*r = Reservation{book: b, tokens: tokens, held: true}
		standing = &r.standing
	}
	for i, a := range payers {
		if a == nil {
			continue
		}
		if admitted {
			r.charges[i] = a.chargeLocked(tokens)
		}
		standing.Requests.tighten(a.requests, a.limits.RequestsPerMinute, since)
		standing.Tokens.tighten(a.tokens, a.limits.TokensPerMinute, since)
		a.mu.Unlock()
	}
	return refusal, admitted
}

func (a *Account) advanceLocked(since time.Duration, now time.Time) {
	slot := int64(since / slotLength)
	if a.limits.RequestsPerMinute != 0 {
		if a.requests == nil {
			a.requests = new(window)
		}
		a.requests.advance(slot)
	}
	if a.limits.TokensPerMinute != 0 {
		if a.tokens == nil {
			a.tokens = new(window)
		}
		a.tokens.advance(slot)
	}
	a.turnLocked(now)
}

func (a *Account) chargeLocked(tokens int64) charge {
	c := charge{account: a, day: a.day, month: a.month, requests: a.requests, tokens: a.tokens}
	if a.requests != nil {
		c.requestSlot = a.requests.add(1)
	}
	if a.tokens != nil {
		c.tokenSlot = a.tokens.add(tokens)
	}
	a.dayTokens += tokens
	a.monTokens += tokens
	a.running++
	return c
}
