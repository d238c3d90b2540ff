//go:build !race

package jwt

import (
	"context"
	"testing"
	"time"

	gojwt "github.com/golang-jwt/jwt/v5"
)

func TestKnownTokensAllocateNothing(t *testing.T) {
	key := newEC(t)
	v := verifier(t, newWeb(t, public("a", key)))
	defer v.Close()
	now := time.Now()
	for name, presented := range map[string][]byte{
		"good":  token(t, gojwt.SigningMethodES256, "a", key, now, nil),
		"wrong": token(t, gojwt.SigningMethodES256, "a", key, now, gojwt.MapClaims{"aud": "somebody"}),
	} {
		if got := testing.AllocsPerRun(500, func() { v.Verify(context.Background(), presented, now) }); got != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, got)
		}
	}
}
