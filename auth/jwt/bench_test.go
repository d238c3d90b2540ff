package jwt

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	gojwt "github.com/golang-jwt/jwt/v5"
)

func BenchmarkVerify(b *testing.B) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	sign := func(claims gojwt.MapClaims) []byte {
		unsigned := gojwt.NewWithClaims(gojwt.SigningMethodRS256, claims)
		unsigned.Header["kid"] = "a"
		signed, err := unsigned.SignedString(key)
		if err != nil {
			b.Fatal(err)
		}
		return []byte(signed)
	}
	claims := gojwt.MapClaims{"iss": issuerURL, "aud": "pilotlight", "sub": "team-a", "exp": now.Add(time.Hour).Unix(), "scope": "chat"}
	good := sign(claims)
	claims["aud"] = "somebody"
	wrong := sign(claims)
	set, err := (&jose.JSONWebKey{KeyID: "a", Key: &key.PublicKey}).MarshalJSON()
	if err != nil {
		b.Fatal(err)
	}
	w := &web{gets: map[string]int{}, pages: map[string]string{keysURL: fmt.Sprintf(`{"keys":[%s]}`, set)}}
	issuer := settings
	issuer.JWKSURL = keysURL
	v, err := New([]Issuer{issuer}, Options{Transport: w})
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	for _, tt := range []struct {
		name   string
		token  []byte
		want   error
		forget bool
	}{{"known", good, nil, false}, {"known wrong", wrong, ErrInvalid, false}, {"new", good, nil, true}, {"new wrong", wrong, ErrInvalid, true}} {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if tt.forget {
					v.good.Purge()
					v.bad.Purge()
				}
				if _, err := v.Verify(context.Background(), tt.token, now); !errors.Is(err, tt.want) {
					b.Fatal(err)
				}
			}
		})
	}
}
