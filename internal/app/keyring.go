package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"pilotlight/auth"
	"pilotlight/auth/jwt"
	"pilotlight/auth/limits"
)

// keyring identifies callers by a keys file and by the tokens of issuers; a reload may replace either.
type keyring struct {
	log    *slog.Logger
	keys   atomic.Pointer[auth.Keys]
	tokens atomic.Pointer[jwt.Verifier] // nil: no issuer
}

func (k *keyring) Identify(presented []byte, now time.Time) (auth.Identity, error) {
	if tokens := k.tokens.Load(); tokens != nil && isToken(presented) {
		return identifyToken(tokens, presented, now)
	}
	return k.keys.Load().Identify(presented, now)
}

func (k *keyring) IdentifyAgain(presented []byte, now time.Time, known *auth.Known) (auth.Identity, error) {
	if tokens := k.tokens.Load(); tokens != nil && isToken(presented) {
		return identifyToken(tokens, presented, now)
	}
	return k.keys.Load().IdentifyAgain(presented, now, known)
}

// isToken tells JSON Web Tokens from keys: their header is an object in base64, so they begin like this.
func isToken(presented []byte) bool { return bytes.HasPrefix(presented, []byte("ey")) }

func identifyToken(tokens *jwt.Verifier, presented []byte, now time.Time) (auth.Identity, error) {
	// Only a token with a key that is not known waits, for two seconds at most.
	caller, err := tokens.Verify(context.Background(), presented, now)
	switch {
	case errors.Is(err, jwt.ErrNoKeys):
		return auth.Identity{}, fmt.Errorf("%w: %w", auth.ErrUnavailable, err)
	case err != nil:
		return auth.Identity{}, fmt.Errorf("%w: %w", auth.ErrInvalidKey, err)
	}
	meaning, ok := caller.Meaning.(*auth.Identity)
	if !ok {
		panic("BUG: a verified token that means nobody")
	}
	return *meaning, nil
}

// meaningOf is who a token stands for. Its key id tells one subject of one issuer from others in logs and limits, and does not name it.
func meaningOf(c jwt.Caller) (any, error) {
	own, err := limits.FromNames(c.Limits)
	if err != nil {
		return nil, err
	}
	for _, model := range c.Models {
		if model == "" {
			return nil, errors.New("one of its models has no name")
		}
	}
	sum := sha256.Sum256([]byte(c.Issuer + "\x00" + c.Subject))
	id := "jwt-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:12])
	identity := &auth.Identity{Tenant: c.Tenant, KeyID: id}
	if c.Models != nil || own != (limits.Limits{}) {
		identity.Grant = &auth.Grant{Models: c.Models, Limits: own}
	}
	return identity, nil
}

// open reads the file at path, for follow.
func (k *keyring) open(path string) (*auth.Keys, error) {
	keys, err := auth.Open(path, k.log)
	if err != nil {
		return nil, fmt.Errorf("auth.keys_file: %w", err)
	}
	return keys, nil
}

// trust makes a verifier of issuers' tokens, for accept; nil without issuers.
func (k *keyring) trust(issuers []jwt.Issuer) (*jwt.Verifier, error) {
	if len(issuers) == 0 {
		return nil, nil
	}
	tokens, err := jwt.New(issuers, jwt.Options{Log: k.log, Mean: meaningOf})
	if err != nil {
		return nil, fmt.Errorf("auth.jwt: %w", err)
	}
	return tokens, nil
}

// follow puts keys in the place of those before.
func (k *keyring) follow(keys *auth.Keys) {
	if old := k.keys.Swap(keys); old != nil {
		old.Close()
	}
}

// accept puts tokens' verifier in the place of the one before; nil: none are accepted.
func (k *keyring) accept(tokens *jwt.Verifier) {
	if old := k.tokens.Swap(tokens); old != nil {
		old.Close()
	}
}

func (k *keyring) close() {
	k.keys.Load().Close()
	k.accept(nil)
}
