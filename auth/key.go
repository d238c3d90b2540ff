package auth

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"pilotlight/auth/limits"
)

// A key reads pl-IIIIIIIIIIII-SSS…S: a prefix that secret scanners can look for, the public id that logs and
// operators name it by, and the secret. The secret may hold '-' and '_', so keys are cut by position.
const (
	keyPrefix    = "pl-"
	idLength     = 12 // base32 of 60 random bits: among a million keys, two draw the same id once in two million files
	secretLength = 43 // base64url of 256 random bits
	idEnd        = len(keyPrefix) + idLength
	keyLength    = idEnd + 1 + secretLength
)

var (
	idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	idPattern  = regexp.MustCompile(`^[a-z2-7]{12}$`)

	tenantPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`) // fit for metric labels
	hashPattern   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// Key is one key as the file keeps it: without its secret.
type Key struct {
	ID     string `yaml:"id"`     // the public part
	Tenant string `yaml:"tenant"` // who it belongs to
	Name   string `yaml:"name,omitempty"`
	// Hash is "sha256:" and 64 hex digits, of the whole key. A slow hash would protect guessable secrets; this
	// one has 256 random bits, and the hash is computed for each request.
	Hash    string    `yaml:"hash"`
	Created time.Time `yaml:"created,omitempty"`
	Expires time.Time `yaml:"expires,omitempty"` // from then on refused; zero: never
	Revoked time.Time `yaml:"revoked,omitempty"` // zero: not revoked
	// Grant narrows what the tenant may do; its fields stand beside the others.
	Grant `yaml:",inline"`
}

// narrows tells whether the key says anything of what it may do.
func (k *Key) narrows() bool {
	return k.Models != nil || k.MaxTokens != 0 || k.Limits != (limits.Limits{})
}

// Active tells whether the key is accepted at now.
func (k Key) Active(now time.Time) bool { return k.refusal(now) == nil }

func (k *Key) refusal(now time.Time) error {
	switch {
	case !k.Revoked.IsZero(): // revocation knows no clock: a wrong one must not revive a key
		return ErrRevokedKey
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return ErrExpiredKey
	}
	return nil
}

// Generate makes a key from random, which must be cryptographic (crypto/rand.Reader). The secret is returned
// here and never again. Zero expires means never.
func Generate(random io.Reader, now time.Time, tenant, name string, expires time.Time) (secret string, key Key, err error) {
	var drawn [8 + 32]byte
	if _, err := io.ReadFull(random, drawn[:]); err != nil {
		return "", Key{}, fmt.Errorf("drawing a key: %w", err)
	}
	id := idEncoding.EncodeToString(drawn[:8])[:idLength]
	secret = keyPrefix + id + "-" + base64.RawURLEncoding.EncodeToString(drawn[8:])
	sum := sha256.Sum256([]byte(secret))
	key = Key{
		ID: id, Tenant: tenant, Name: name,
		Hash:    "sha256:" + hex.EncodeToString(sum[:]),
		Created: now.UTC().Truncate(time.Second),
	}
	if !expires.IsZero() {
		key.Expires = expires.UTC().Truncate(time.Second)
		if !key.Expires.After(now) {
			return "", Key{}, fmt.Errorf("the key would expire in the past, at %s", key.Expires.Format(time.RFC3339))
		}
	}
	if err := key.validate(); err != nil {
		return "", Key{}, err
	}
	return secret, key, nil
}

const maxKeyName = 128

func (k *Key) validate() error {
	switch {
	case !idPattern.MatchString(k.ID):
		return fmt.Errorf("key id %q is not 12 lowercase base32 characters", k.ID)
	case !tenantPattern.MatchString(k.Tenant):
		return fmt.Errorf("key %s: tenant %q is not 1 to 64 letters, digits and . _ @ -", k.ID, k.Tenant)
	case k.Tenant == anonymousTenant:
		return fmt.Errorf("key %s: the tenant %q is kept for callers without a key", k.ID, anonymousTenant)
	case len(k.Name) > maxKeyName || !utf8.ValidString(k.Name) ||
		strings.ContainsFunc(k.Name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("key %s: its name is not at most %d printable bytes", k.ID, maxKeyName)
	case !hashPattern.MatchString(k.Hash):
		return fmt.Errorf("key %s: its hash is not sha256: and 64 hex digits", k.ID)
	case k.MaxTokens < 0:
		return fmt.Errorf("key %s: max_tokens is below 0", k.ID)
	case k.Models != nil && len(k.Models) == 0: // it would be lost when the file is written
		return fmt.Errorf("key %s: models is empty; leave it out, or revoke the key", k.ID)
	case slices.Contains(k.Models, ""):
		return fmt.Errorf("key %s: one of its models has no name", k.ID)
	}
	if err := k.Limits.Validate(); err != nil {
		return fmt.Errorf("key %s: %w", k.ID, err)
	}
	return nil
}

// errRepeated is wrapped with the id.
var errRepeated = errors.New("two keys have the same id")
