package jwt

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	gojwt "github.com/golang-jwt/jwt/v5"
)

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// Every row differs from a good token, which is accepted first, in what its name says.
func TestAttacks(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good, other, foreign := newEC(t), newEC(t), newEC(t)
	der, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	synctest.Test(t, func(t *testing.T) {
		v := verifier(t, newWeb(t, public("good", good), public("other", other), public("rsa", rsaKey), public("ed", edKey)))
		defer v.Close()
		now := time.Now()
		ec := gojwt.SigningMethodES256
		check := func(token []byte) (Caller, error) { return v.Verify(context.Background(), token, now) }
		for name, fine := range map[string][]byte{
			"ES256":                     token(t, ec, "good", good, now, nil),
			"RS256":                     token(t, gojwt.SigningMethodRS256, "rsa", rsaKey, now, nil),
			"EdDSA":                     token(t, gojwt.SigningMethodEdDSA, "ed", edKey, now, nil),
			"expired within the leeway": token(t, ec, "good", good, now, gojwt.MapClaims{"exp": now.Add(-29 * time.Second).Unix()}),
			"early within the leeway":   token(t, ec, "good", good, now, gojwt.MapClaims{"nbf": now.Add(29 * time.Second).Unix()}),
			"one of many audiences":     token(t, ec, "good", good, now, gojwt.MapClaims{"aud": []string{"x", "other"}}),
		} {
			if got, err := check(fine); err != nil || got.Tenant != "team-a" {
				t.Errorf("%s: got %+v, %v, want team-a", name, got, err)
			}
		}
		change := func(claims gojwt.MapClaims) []byte { return token(t, ec, "good", good, now, claims) }
		embedded := func() []byte {
			unsigned := gojwt.NewWithClaims(ec, gojwt.MapClaims{"iss": issuerURL, "aud": "pilotlight", "sub": "team-a", "exp": now.Add(time.Hour).Unix()})
			unsigned.Header["kid"], unsigned.Header["jwk"], unsigned.Header["jku"] = "good", jose.JSONWebKey{Key: foreign.Public()}, "https://evil.example/keys"
			signed, err := unsigned.SignedString(foreign)
			if err != nil {
				t.Fatal(err)
			}
			return []byte(signed)
		}
		raw := func(header, claims string) []byte { // signed by the good key
			text := encode(header) + "." + encode(claims)
			signature, err := ec.Sign(text, good)
			if err != nil {
				t.Fatal(err)
			}
			return []byte(text + "." + base64.RawURLEncoding.EncodeToString(signature))
		}
		const header, claims = `{"alg":"ES256","kid":"good"}`, `{"iss":"https://issuer.example","aud":"pilotlight","sub":"team-a","exp":99999999999}`
		if _, err := check(raw(header, claims)); err != nil {
			t.Errorf("a raw token that is good: %v", err)
		}
		split := strings.Split(string(change(nil)), ".")
		for _, tt := range []struct {
			name  string
			token []byte
			want  error
		}{
			{"nothing", nil, ErrInvalid},
			{"no token", []byte("pl-abc"), ErrInvalid},
			{"alg none", token(t, gojwt.SigningMethodNone, "good", gojwt.UnsafeAllowNoneSignatureType, now, nil), ErrInvalid},
			{"alg nOnE", []byte(encode(`{"alg":"nOnE","kid":"good"}`) + "." + split[1] + "."), ErrInvalid},
			{"no alg", raw(`{"kid":"good"}`, claims), ErrInvalid},
			{"HS256 with the public key", token(t, gojwt.SigningMethodHS256, "rsa", publicPEM, now, nil), ErrInvalid},
			{"HS256 with the public key's DER", token(t, gojwt.SigningMethodHS256, "rsa", der, now, nil), ErrInvalid},
			{"another algorithm of the same key", token(t, gojwt.SigningMethodPS256, "rsa", rsaKey, now, nil), ErrInvalid},
			{"another hash of the same key", token(t, gojwt.SigningMethodRS512, "rsa", rsaKey, now, nil), ErrInvalid},
			{"unknown kid", token(t, ec, "unknown", good, now, nil), ErrInvalid},
			{"another key's kid", token(t, ec, "other", good, now, nil), ErrInvalid},
			{"no kid among many keys", token(t, ec, "", good, now, nil), ErrInvalid},
			{"kid is no string", raw(`{"alg":"ES256","kid":["good"]}`, claims), ErrInvalid},
			{"somebody else's key", token(t, ec, "good", foreign, now, nil), ErrInvalid},
			{"embedded key", embedded(), ErrInvalid},
			{"critical extension", raw(`{"alg":"ES256","kid":"good","crit":["b64"],"b64":false}`, claims), ErrInvalid},
			{"expired", change(gojwt.MapClaims{"exp": now.Add(-31 * time.Second).Unix()}), ErrExpired},
			{"never expires", change(gojwt.MapClaims{"exp": nil}), ErrInvalid},
			{"expires at no time", change(gojwt.MapClaims{"exp": "tomorrow"}), ErrInvalid},
			{"expires beyond all numbers", raw(header, strings.Replace(claims, "99999999999", "1e400", 1)), ErrInvalid},
			{"not yet valid", change(gojwt.MapClaims{"nbf": now.Add(31 * time.Second).Unix()}), ErrInvalid},
			{"wrong audience", change(gojwt.MapClaims{"aud": "somebody"}), ErrInvalid},
			{"no audience", change(gojwt.MapClaims{"aud": nil}), ErrInvalid},
			{"wrong issuer", change(gojwt.MapClaims{"iss": "https://evil.example"}), ErrInvalid},
			{"issuer but for a slash", change(gojwt.MapClaims{"iss": issuerURL + "/"}), ErrInvalid},
			{"no issuer", change(gojwt.MapClaims{"iss": nil}), ErrInvalid},
			{"no tenant", change(gojwt.MapClaims{"sub": nil}), ErrInvalid},
			{"a tenant that is no name", change(gojwt.MapClaims{"sub": "a b"}), ErrInvalid},
			{"the tenant of those without a key", change(gojwt.MapClaims{"sub": "anonymous"}), ErrInvalid},
			{"scopes of another type", change(gojwt.MapClaims{"scope": 5}), ErrInvalid},
			{"models of another type", change(gojwt.MapClaims{"https://x.example/models": []any{"a", 1}}), ErrInvalid},
			{"duplicate claim", raw(header, strings.Replace(claims, `"sub"`, `"sub":"team-b","sub"`, 1)), ErrInvalid},
			{"duplicate claim, escaped", raw(header, strings.Replace(claims, `"sub"`, `"s\u0075b":"team-b","sub"`, 1)), ErrInvalid},
			{"duplicate header", raw(`{"alg":"none","alg":"ES256","kid":"good"}`, claims), ErrInvalid},
			{"two values", raw(header, claims+claims), ErrInvalid},
			{"too deep", raw(header, strings.Replace(claims, "}", `,"x":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+"}", 1)), ErrInvalid},
			{"oversized", change(gojwt.MapClaims{"x": strings.Repeat("x", MaxToken)}), ErrInvalid},
			{"claims exchanged", []byte(split[0] + "." + encode(claims) + "." + split[2]), ErrInvalid},
			{"signature cut", []byte(split[0] + "." + split[1] + "." + split[2][:40]), ErrInvalid},
			{"signature left out", []byte(split[0] + "." + split[1] + "."), ErrInvalid},
			{"four parts", []byte(strings.Join(split, ".") + ".x"), ErrInvalid},
			{"padded", []byte(split[0] + "=." + split[1] + "." + split[2]), ErrInvalid},
		} {
			for _, again := range []string{"", ", again"} {
				if got, err := check(tt.token); !errors.Is(err, tt.want) || !errors.Is(err, ErrInvalid) {
					t.Errorf("%s%s: got %+v, %v, want %v", tt.name, again, got, err, tt.want)
				}
			}
		}
	})
}
