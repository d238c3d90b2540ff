package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func TestKeysArePinnedToOneAlgorithm(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256 := newEC(t)
	short := &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 1023), big.NewInt(1)), E: 65537}
	for _, tt := range []struct {
		name string
		key  jose.JSONWebKey
		want string // empty: left out
	}{
		{"RSA", jose.JSONWebKey{Key: &rsaKey.PublicKey}, "RS256"},
		{"RSA, for signatures", jose.JSONWebKey{Key: &rsaKey.PublicKey, Use: "sig"}, "RS256"},
		{"RSA with alg", jose.JSONWebKey{Key: &rsaKey.PublicKey, Algorithm: "PS512"}, "PS512"},
		{"RSA for encryption", jose.JSONWebKey{Key: &rsaKey.PublicKey, Use: "enc"}, ""},
		{"RSA with an alg of HMAC", jose.JSONWebKey{Key: &rsaKey.PublicKey, Algorithm: "HS256"}, ""},
		{"RSA with an alg of encryption", jose.JSONWebKey{Key: &rsaKey.PublicKey, Algorithm: "RSA-OAEP"}, ""},
		{"RSA with alg none", jose.JSONWebKey{Key: &rsaKey.PublicKey, Algorithm: "none"}, ""},
		{"short RSA", jose.JSONWebKey{Key: short}, ""},
		{"private RSA", jose.JSONWebKey{Key: rsaKey}, ""},
		{"P-256", jose.JSONWebKey{Key: &p256.PublicKey}, "ES256"},
		{"P-384", jose.JSONWebKey{Key: &p384.PublicKey}, "ES384"},
		{"P-384 with another curve's alg", jose.JSONWebKey{Key: &p384.PublicKey, Algorithm: "ES256"}, ""},
		{"Ed25519", jose.JSONWebKey{Key: edPublic}, "EdDSA"},
		{"symmetric", jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef")}, ""},
		{"symmetric with an asymmetric alg", jose.JSONWebKey{Key: []byte("0123456789abcdef"), Algorithm: "RS256"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.key.KeyID = "k"
			anchor := public("anchor", p256) // so that the set is never empty
			keys, skipped, err := parseKeys([]byte(jwks(t, tt.key, anchor)))
			if err != nil {
				t.Fatal(err)
			}
			got := keys["k"].algorithm
			if got != tt.want || (len(skipped) == 1) != (tt.want == "") {
				t.Errorf("got %q, left out: %v; want %q", got, skipped, tt.want)
			}
		})
	}
}

func TestKeySetsThatAreReadInPart(t *testing.T) {
	key := newEC(t)
	good := strings.TrimSuffix(strings.TrimPrefix(jwks(t, public("a", key)), `{"keys":[`), `]}`)
	off := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	set := `{"keys":[{"kty":"new"},{"kty":"EC","crv":"P-256","kid":"off the curve","x":"` + off + `","y":"` + off + `"},7,` + good + `]}`
	keys, skipped, err := parseKeys([]byte(set))
	if err != nil || len(skipped) != 3 || len(keys) != 1 {
		t.Errorf("got %d keys, left out %v, %v; want 1, three, none", len(keys), skipped, err)
	}
	nameless := keySet{"": {key, "ES256"}, "a": {key, "ES256"}}
	if _, ok := nameless.find(""); ok {
		t.Error("a token without kid: found one of two keys")
	}
	many := `{"keys":[` + strings.Repeat(`{"kty":"new"},`, maxKeys) + good + `]}`
	if _, _, err := parseKeys([]byte(many)); err == nil {
		t.Errorf("%d keys: accepted", maxKeys+1)
	}
}
