//go:build !race

package auth

import "testing"

func TestIdentifyAllocatesNothing(t *testing.T) {
	secret, keys := manyKeys(t, 1000)
	k := static(t, keys...)
	revokedSecret, revoked := generate(t, "a", func(k *Key) { k.Revoked = noon })
	refused := static(t, revoked)
	for _, tt := range []struct {
		name      string
		keys      *Keys
		presented []byte
	}{
		{"known", k, []byte(secret)},
		{"unknown", k, []byte(revokedSecret)},
		{"revoked", refused, []byte(revokedSecret)},
		{"malformed", k, []byte("x")},
		{"none", k, nil},
	} {
		if got := testing.AllocsPerRun(1000, func() { tt.keys.Identify(tt.presented, noon) }); got != 0 {
			t.Errorf("%s: got %v allocations, want 0", tt.name, got)
		}
	}
}
