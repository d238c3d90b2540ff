package auth

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// noon is the time of all tests here.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// generate makes a key of the tenant, and changes the stored half by mutate.
func generate(t testing.TB, tenant string, mutate ...func(*Key)) (string, Key) {
	t.Helper()
	secret, key, err := Generate(rand.Reader, noon, tenant, "test", time.Time{})
	if err != nil {
		t.Fatalf("Generate: %v", err)
	}
	for _, m := range mutate {
		m(&key)
	}
	return secret, key
}

func static(t testing.TB, keys ...Key) *Keys {
	t.Helper()
	k, err := Static(keys...)
	if err != nil {
		t.Fatalf("Static: %v", err)
	}
	return k
}

func TestGenerateIsTheRandomBytesInKeyForm(t *testing.T) {
	random := append(bytes.Repeat([]byte{0x00}, 8), bytes.Repeat([]byte{0xff}, 32)...)
	secret, key, err := Generate(bytes.NewReader(random), noon, "team-a", "laptop", noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if want := "pl-aaaaaaaaaaaa-" + strings.Repeat("_", 42) + "8"; secret != want {
		t.Errorf("secret: got %s, want %s", secret, want)
	}
	if key.ID != "aaaaaaaaaaaa" || key.Tenant != "team-a" || key.Name != "laptop" || !key.Created.Equal(noon) ||
		!key.Expires.Equal(noon.Add(time.Hour)) || !key.Revoked.IsZero() {
		t.Errorf("got %+v", key)
	}
	if strings.Contains(fmt.Sprintf("%+v", key), secret[16:]) {
		t.Error("the stored half holds the secret")
	}
	got, err := static(t, key).Identify([]byte(secret), noon)
	if want := (Identity{Tenant: "team-a", KeyID: "aaaaaaaaaaaa"}); err != nil || got != want {
		t.Errorf("Identify: got %v, %v, want %v", got, err, want)
	}
}

func TestGenerateRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, tenant, label string
		expires             time.Time
		random              []byte
		want                string
	}{
		{"no randomness left", "a", "", time.Time{}, make([]byte, 39), "drawing a key"},
		{"no tenant", "", "", time.Time{}, make([]byte, 40), "tenant"},
		{"tenant with a space", "a b", "", time.Time{}, make([]byte, 40), "tenant"},
		{"tenant with a newline", "a\nb", "", time.Time{}, make([]byte, 40), "tenant"},
		{"the anonymous tenant", "anonymous", "", time.Time{}, make([]byte, 40), "kept for callers without a key"},
		{"a name that breaks lines", "a", "x\ny", time.Time{}, make([]byte, 40), "printable"},
		{"a long name", "a", strings.Repeat("x", 129), time.Time{}, make([]byte, 40), "printable"},
		{"expiry in the past", "a", "", noon.Add(-time.Second), make([]byte, 40), "past"},
		{"expiry now", "a", "", noon, make([]byte, 40), "past"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			secret, key, err := Generate(bytes.NewReader(tt.random), noon, tt.tenant, tt.label, tt.expires)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
			if secret != "" || !reflect.DeepEqual(key, Key{}) {
				t.Errorf("got %q, %+v beside an error", secret, key)
			}
		})
	}
}

func TestIdentify(t *testing.T) {
	secret, key := generate(t, "team-a")
	other, otherKey := generate(t, "team-b")
	k := static(t, key, otherKey)
	flipped := func(i int) string {
		b := []byte(secret)
		b[i] ^= 1
		return string(b)
	}
	for _, tt := range []struct {
		name, presented string
		want            Identity
		err             error
	}{
		{"right", secret, Identity{Tenant: "team-a", KeyID: key.ID}, nil},
		{"another right one", other, Identity{Tenant: "team-b", KeyID: otherKey.ID}, nil},
		{"nothing", "", Identity{}, ErrNoKey},
		{"a space", " ", Identity{}, ErrInvalidKey},
		{"the id alone", secret[:15], Identity{}, ErrInvalidKey},
		{"shorter", secret[:len(secret)-1], Identity{}, ErrInvalidKey},
		{"longer", secret + "A", Identity{}, ErrInvalidKey},
		{"decorated", "Bearer " + secret, Identity{}, ErrInvalidKey},
		{"first byte of the prefix", flipped(0), Identity{}, ErrInvalidKey},
		{"id", flipped(3), Identity{}, ErrInvalidKey},
		{"second dash", flipped(15), Identity{}, ErrInvalidKey},
		{"first byte of the secret", flipped(16), Identity{}, ErrInvalidKey},
		{"last byte of the secret", flipped(58), Identity{}, ErrInvalidKey},
		{"one key's id with another's secret", secret[:16] + other[16:], Identity{}, ErrInvalidKey},
		{"upper case", strings.ToUpper(secret), Identity{}, ErrInvalidKey},
		{"another scheme", "sk-" + strings.Repeat("a", 56), Identity{}, ErrInvalidKey},
		{"the stored hash", key.Hash[:59], Identity{}, ErrInvalidKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := k.Identify([]byte(tt.presented), noon)
			if got != tt.want || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Errorf("got %v, %v, want %v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestExpiryAndRevocation(t *testing.T) {
	for _, tt := range []struct {
		name   string
		mutate func(*Key)
		at     time.Time
		want   error
	}{
		{"never expires", func(*Key) {}, noon.AddDate(100, 0, 0), nil},
		{"a moment before its end", func(k *Key) { k.Expires = noon }, noon.Add(-1), nil},
		{"at its end", func(k *Key) { k.Expires = noon }, noon, ErrExpiredKey},
		{"after its end", func(k *Key) { k.Expires = noon }, noon.Add(1), ErrExpiredKey},
		{"revoked", func(k *Key) { k.Revoked = noon }, noon.Add(1), ErrRevokedKey},
		{"revoked by a clock that runs ahead", func(k *Key) { k.Revoked = noon }, noon.Add(-time.Hour), ErrRevokedKey},
		{"revoked and expired", func(k *Key) { k.Revoked, k.Expires = noon, noon }, noon, ErrRevokedKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			secret, key := generate(t, "a", tt.mutate)
			got, err := static(t, key).Identify([]byte(secret), tt.at)
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatalf("got error %v, want %v", err, tt.want)
			}
			if err != nil && (!errors.Is(err, ErrInvalidKey) || got != (Identity{})) {
				t.Errorf("got %v, %v: every refusal of a presented key matches ErrInvalidKey and names nobody", got, err)
			}
			if key.Active(tt.at) != (tt.want == nil) {
				t.Errorf("Active: got %v beside error %v", key.Active(tt.at), err)
			}
			// Who does not hold the secret learns nothing about the key.
			wrong := secret[:len(secret)-1] + "-"
			if _, err := static(t, key).Identify([]byte(wrong), tt.at); err != ErrInvalidKey {
				t.Errorf("wrong secret: got %v, want ErrInvalidKey itself", err)
			}
		})
	}
}

func TestStaticRefusesRepeatedIDsAndBadHashes(t *testing.T) {
	_, key := generate(t, "a")
	if _, err := Static(key, key); !errors.Is(err, errRepeated) {
		t.Errorf("got %v, want errRepeated", err)
	}
	for _, hash := range []string{"", "sha256:", "md5:" + strings.Repeat("0", 64), strings.ToUpper(key.Hash)} {
		bad := key
		bad.Hash = hash
		if _, err := Static(bad); err == nil {
			t.Errorf("hash %q accepted", hash)
		}
	}
}

func TestAnonymousIsNoKey(t *testing.T) {
	if Anonymous.KeyID != "" || Anonymous.Tenant == "" {
		t.Errorf("got %+v", Anonymous)
	}
}

func FuzzIdentify(f *testing.F) {
	secret, key := generate(f, "a")
	k := static(f, key)
	f.Add([]byte(secret))
	f.Add([]byte("pl-"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, presented []byte) {
		got, err := k.Identify(presented, noon)
		if (err == nil) != (string(presented) == secret) || (err == nil) != (got != Identity{}) {
			t.Errorf("%q: got %v, %v", presented, got, err)
		}
	})
}
