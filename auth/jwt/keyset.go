package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxKeys    = 64
	minRSABits = 2048 // RFC 7518 §3.3
)

// publicKey is one key and the one algorithm that it is used with.
type publicKey struct {
	key       any // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	algorithm string
}

// keySet is an immutable reading of a JWKS, by kid.
type keySet map[string]publicKey

// parseKeys reads a JWKS. Keys that cannot verify signatures here are left out, and skipped says why; none that can is an error.
func parseKeys(data []byte) (keys keySet, skipped []error, err error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, nil, fmt.Errorf("reading the key set: %w", err)
	}
	if len(document.Keys) > maxKeys {
		return nil, nil, fmt.Errorf("the key set holds %d keys, more than %d", len(document.Keys), maxKeys)
	}
	keys = keySet{}
	for i, raw := range document.Keys {
		var jwk jose.JSONWebKey
		if err := jwk.UnmarshalJSON(raw); err != nil {
			skipped = append(skipped, fmt.Errorf("key %d: %w", i, err))
			continue
		}
		key, err := pin(&jwk)
		if err != nil {
			skipped = append(skipped, fmt.Errorf("key %d (%q): %w", i, jwk.KeyID, err))
			continue
		}
		if _, twice := keys[jwk.KeyID]; twice {
			return nil, nil, fmt.Errorf("the key set holds two keys with the id %q", jwk.KeyID)
		}
		keys[jwk.KeyID] = key
	}
	if len(keys) == 0 {
		return nil, skipped, errors.Join(append([]error{errors.New("the key set holds no key that verifies signatures")}, skipped...)...)
	}
	return keys, skipped, nil
}

// pin says which algorithm a key is for: its alg, or else the one that its type has (RFC 7518 §3.4, RFC 8037 §3.1), for RSA RS256, which
// OpenID Connect takes for granted. Both must fit together.
func pin(jwk *jose.JSONWebKey) (publicKey, error) {
	if jwk.Use != "" && jwk.Use != "sig" {
		return publicKey{}, fmt.Errorf("its use is %q", jwk.Use)
	}
	var fit []string
	switch key := jwk.Key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits {
			return publicKey{}, fmt.Errorf("RSA with %d bits, fewer than %d", bits, minRSABits)
		}
		fit = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			fit = []string{"ES256"}
		case elliptic.P384():
			fit = []string{"ES384"}
		case elliptic.P521():
			fit = []string{"ES512"}
		}
	case ed25519.PublicKey:
		fit = []string{"EdDSA"}
	}
	if fit == nil {
		return publicKey{}, fmt.Errorf("a %T is no public key for signatures", jwk.Key)
	}
	if jwk.Algorithm == "" {
		return publicKey{jwk.Key, fit[0]}, nil
	}
	for _, algorithm := range fit {
		if algorithm == jwk.Algorithm {
			return publicKey{jwk.Key, algorithm}, nil
		}
	}
	return publicKey{}, fmt.Errorf("its alg %q does not fit its type", jwk.Algorithm)
}

// find returns the key of a token. Without a kid there must be only one, or nobody could say which was meant.
func (s keySet) find(kid string) (publicKey, bool) {
	if kid == "" && len(s) == 1 {
		for _, key := range s {
			return key, true
		}
	}
	key, ok := s[kid]
	return key, ok && kid != ""
}
