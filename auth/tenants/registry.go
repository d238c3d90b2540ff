package tenants

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"pilotlight/auth"
	"pilotlight/auth/limits"
)

// rememberedAddresses is how many addresses are told apart, for anonymous callers and for wrong keys each: some 15 MB if so many come.
const rememberedAddresses = 10_000

// Registry knows the rules in force and what everybody has used.
type Registry struct {
	book     *limits.Book
	total    *limits.Account
	strange  *limits.Book // of wrong keys
	accepted atomic.Pointer[accepted]

	mu    sync.Mutex // guards the fields below
	usage map[string]*Usage
	salt  [32]byte
}

// accepted are the rules in force, made ready. Immutable.
type accepted struct {
	rules     Rules
	tenants   map[string]*Policy
	everybody *Policy           // never nil
	total     *limits.Account   // nil: no limits
	anonymous *limits.Addresses // nil: no limits
	wrong     *limits.Addresses
}

// New makes a registry with rules. now is when its minutes begin to be measured; see limits.NewBook. salt is secret and keeps the cache
// salts from being guessed; gateways that share replicas share it.
func New(rules Rules, now time.Time, salt [32]byte) (*Registry, error) {
	r := &Registry{book: limits.NewBook(now), strange: limits.NewBook(now), usage: map[string]*Usage{}, salt: salt}
	r.total = r.book.Account(limits.Total, "")
	return r, r.Adjust(rules)
}

// Adjust puts other rules in force. What was used stays counted, and requests in progress go on. An error says what is wrong with
// the rules, and nothing has changed then.
func (r *Registry) Adjust(rules Rules) error {
	if err := rules.validate(); err != nil {
		return err
	}
	a := &accepted{rules: rules, tenants: map[string]*Policy{}, everybody: &Policy{Name: Everybody}}
	for i := range rules.Tenants {
		p := &rules.Tenants[i]
		if p.Name == Everybody {
			a.everybody = p
		} else {
			a.tenants[p.Name] = p
		}
	}
	wrong := rules.WrongKeys
	if wrong == 0 {
		wrong = DefaultWrongKeys
	}
	before := r.accepted.Load()
	var err error
	switch { // addresses keep what they have used while their limits stay
	case before != nil && before.rules.WrongKeys == rules.WrongKeys:
		a.wrong = before.wrong
	default:
		if a.wrong, err = limits.NewAddresses(limits.Limits{RequestsPerMinute: wrong}, rememberedAddresses); err != nil {
			return err
		}
	}
	switch {
	case rules.Anonymous == (limits.Limits{}):
	case before != nil && before.rules.Anonymous == rules.Anonymous:
		a.anonymous = before.anonymous
	default:
		if a.anonymous, err = limits.NewAddresses(rules.Anonymous, rememberedAddresses); err != nil {
			return err
		}
	}
	r.total.SetLimits(rules.Total)
	if rules.Total != (limits.Limits{}) {
		a.total = r.total
	}
	r.accepted.Store(a)
	return nil
}

// Model is the account of all requests for a model; nil if the rules limit it not. What it has used outlives changes of its limits. Callers
// on the hot path keep it until rules change.
func (r *Registry) Model(id string) *limits.Account {
	l := r.accepted.Load().rules.Models[id]
	account := r.book.Account(limits.Model, id)
	account.SetLimits(l)
	if l == (limits.Limits{}) {
		return nil
	}
	return account
}

// WrongKey counts a wrong key from an address. It returns how long the address should wait if it has presented too many within a
// minute, and 0 otherwise.
func (r *Registry) WrongKey(from netip.Addr, now time.Time) time.Duration {
	var held limits.Reservation
	refusal, ok := r.strange.Admit(&held, limits.Payers{Address: r.accepted.Load().wrong.Account(from)}, 0, now)
	if ok {
		held.Settle(0, now)
		return 0
	}
	return max(refusal.RetryAfter, time.Second)
}

// Memory is what one connection remembers of its caller, which is mostly the same again and again. The zero value remembers nobody. It
// is for one goroutine.
type Memory struct {
	rules    *accepted
	identity auth.Identity
	caller   *Caller
}

// Caller tells what an identity may do. It is nil if nothing is limited and nobody restricted, neither by rules nor by the key. Whom
// memory knows is found without allocating.
func (r *Registry) Caller(identity auth.Identity, memory *Memory) *Caller {
	a := r.accepted.Load()
	if memory.rules == a && memory.identity == identity {
		return memory.caller
	}
	c := r.caller(a, identity)
	*memory = Memory{rules: a, identity: identity, caller: c}
	return c
}

func (r *Registry) caller(a *accepted, identity auth.Identity) *Caller {
	if identity.Grant == nil && a.rules.silent() {
		return nil
	}
	p := a.tenants[identity.Tenant]
	if p == nil {
		p = a.everybody
	}
	grant := identity.Grant
	if grant == nil {
		grant = &auth.Grant{}
	}
	c := &Caller{registry: r, rules: a, name: identity.Tenant, rights: &p.Rights, grant: grant}
	c.payers.Total = a.total
	c.payers.Tenant = r.book.Account(limits.Tenant, identity.Tenant)
	c.payers.Tenant.SetLimits(p.Limits)
	own := grant.Limits.Or(p.KeyLimits)
	if identity.KeyID != "" && own != (limits.Limits{}) {
		c.payers.Key = r.book.Account(limits.Key, identity.KeyID)
		c.payers.Key.SetLimits(own)
	}
	if identity.Tenant == auth.Anonymous.Tenant {
		c.addresses = a.anonymous
	}
	if p.CacheSalt {
		c.salt = r.saltOf(identity.Tenant)
	}
	c.usage = r.usageOf(identity.Tenant)
	return c
}
