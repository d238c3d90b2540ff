package tenants

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"time"

	"pilotlight/auth"
	"pilotlight/auth/limits"
)

// Caller is what one key, token or anonymous caller may do. It is shared and does not change; after a change of rules or keys there is
// another one.
type Caller struct {
	registry  *Registry
	rules     *accepted
	name      string
	rights    *Rights
	grant     *auth.Grant
	payers    limits.Payers
	addresses *limits.Addresses // nil: no account for the address
	salt      string
	usage     *Usage
}

// MayUse tells whether the model with this id may be asked for by this name.
func (c *Caller) MayUse(name, id string) bool {
	return allows(c.rights.Models, name, id) && allows(c.grant.Models, name, id)
}

func allows(patterns []string, name, id string) bool {
	return patterns == nil || matchAny(patterns, id) || name != id && matchAny(patterns, name)
}

// MayCall tells whether a route may be called; see Rights.Routes.
func (c *Caller) MayCall(route string) bool {
	return c.rights.Routes == nil || slices.Contains(c.rights.Routes, route)
}

// MayWake tells whether a model may be started for the caller.
func (c *Caller) MayWake() bool { return !c.rights.NoWake }

// MaxTokens is the most tokens that one answer may have; 0: nobody says.
func (c *Caller) MaxTokens() int64 {
	own, all := c.grant.MaxTokens, c.rights.MaxTokens
	if own == 0 || all != 0 && all < own {
		return all
	}
	return own
}

// MaxContext is Rights.MaxContext.
func (c *Caller) MaxContext() int64 { return c.rights.MaxContext }

// Answer is how many tokens are reserved for an answer whose request names no limit; see Rules.Answer.
func (c *Caller) Answer() int64 {
	if c.rules.rules.Answer != 0 {
		return c.rules.rules.Answer
	}
	if learned := c.usage.expected(); learned != 0 {
		return learned
	}
	return DefaultAnswer
}

// Priority and Weight are those of Rights.
func (c *Caller) Priority() int { return c.rights.Priority }

// Weight is that of Rights.
func (c *Caller) Weight() int { return c.rights.Weight }

// CacheSalt is what the engine's prefix cache is to tell the tenant's prompts by; empty: nothing.
func (c *Caller) CacheSalt() string { return c.salt }

// PerAddress tells whether Admit needs the caller's address.
func (c *Caller) PerAddress() bool { return c.addresses != nil }

// Admit reserves a request for model (nil: without limits of its own) and so many tokens, of all that the caller and the gateway may use.
// It is limits.Book.Admit: either r is held, or the refusal says why not.
func (c *Caller) Admit(r *limits.Reservation, model *limits.Account, from netip.Addr, tokens int64, now time.Time) (limits.Refusal, bool) {
	payers := c.payers
	payers.Model = model
	if c.addresses != nil {
		payers.Address = c.addresses.Account(from)
	}
	refusal, ok := c.registry.book.Admit(r, payers, tokens, now)
	if ok {
		c.usage.requests.Add(1)
	} else {
		c.usage.refused(refusal.Kind)
	}
	return refusal, ok
}

// Refused counts a request that Reservation.Wake refused.
func (c *Caller) Refused(kind limits.Kind) { c.usage.refused(kind) }

// Learn takes the length of an answer into account for what the tenant's next ones are expected to be.
func (c *Caller) Learn(tokens int64) { c.usage.learn(tokens) }

// Used counts the tokens of a request that was served.
func (c *Caller) Used(prompt, completion int64) {
	c.usage.prompt.Add(prompt)
	c.usage.completion.Add(completion)
}

// saltOf cannot be guessed from the tenant's name, so that no other tenant can send it as its own.
func (r *Registry) saltOf(tenant string) string {
	r.mu.Lock()
	mac := hmac.New(sha256.New, r.salt[:])
	r.mu.Unlock()
	mac.Write([]byte(tenant))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
