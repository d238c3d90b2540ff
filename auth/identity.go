// Package auth says who is asking. A caller proves a tenant with an API key; keys live in one file of hashes
// that operators change with KeyFile while gateways read it through Keys.
//
// It does not read HTTP headers (the gateway finds the key in them), nor decide what a tenant may do. Keys and
// KeyFile are safe for concurrent use, KeyFile among several processes too.
package auth

import (
	"errors"
	"fmt"

	"pilotlight/auth/limits"
)

// Identity is who a request comes from, whichever way it was proven. It is the unit of limits and fairness.
type Identity struct {
	Tenant string // never empty
	KeyID  string // the key's public part, fit for logs; empty for Anonymous, and for tokens of an issuer
	// Grant is what the key or token says beyond its tenant; nil: nothing. It is shared and must not be changed.
	Grant *Grant
}

// Grant narrows what a tenant may do, for one key or token. The zero value does not.
type Grant struct {
	// Models are names, or patterns in which * stands for any text, of those that may be used. nil: all of the tenant's; empty: none.
	Models []string `yaml:"models,omitempty"`
	// Limits are the key's own, beside the tenant's.
	Limits limits.Limits `yaml:"limits,omitempty"`
	// MaxTokens is the most tokens that one answer may have. 0: the tenant's word counts.
	MaxTokens int64 `yaml:"max_tokens,omitempty"`
}

// anonymousTenant may not be given to a key.
const anonymousTenant = "anonymous"

// Anonymous is a caller without a key, of a model that asks for none.
var Anonymous = Identity{Tenant: anonymousTenant}

var (
	// ErrNoKey means that the caller presented nothing.
	ErrNoKey = errors.New("no API key")
	// ErrInvalidKey means that the key is malformed, unknown, revoked or expired. Which of them is nobody's
	// business but the log's, so every such error matches this one.
	ErrInvalidKey = errors.New("invalid API key")
	// ErrRevokedKey and ErrExpiredKey match ErrInvalidKey as well.
	ErrRevokedKey = fmt.Errorf("%w: revoked", ErrInvalidKey)
	ErrExpiredKey = fmt.Errorf("%w: expired", ErrInvalidKey)
	// ErrUnavailable means that nobody can say now whether a token is valid: its issuer's keys were never fetched, or are too old.
	ErrUnavailable = errors.New("the issuer's keys are not at hand")
)
