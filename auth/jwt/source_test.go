package jwt

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gojwt "github.com/golang-jwt/jwt/v5"
)

func verify(v *Verifier, token []byte) error {
	_, err := v.Verify(context.Background(), token, time.Now())
	return err
}

func TestNewKeyIsFetchedForAllWhoWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := newEC(t), newEC(t)
		w := newWeb(t, public("old", old))
		v := verifier(t, w)
		defer v.Close()
		synctest.Wait()
		w.set(func() { w.pages[keysURL], w.delay = jwks(t, public("fresh", fresh)), 100*time.Millisecond })
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if err := verify(v, token(t, gojwt.SigningMethodES256, "fresh", fresh, time.Now(), gojwt.MapClaims{"jti": fmt.Sprint(i)})); err != nil {
					t.Errorf("got %v, want the new key to be found", err)
				}
			})
		}
		wg.Wait()
		if got := w.fetches(); got != 2 {
			t.Errorf("got %d fetches, want 2", got)
		}
		if err := verify(v, token(t, gojwt.SigningMethodES256, "old", old, time.Now(), nil)); !errors.Is(err, ErrInvalid) {
			t.Errorf("a withdrawn key: got %v, want ErrInvalid", err)
		}
	})
}

func TestUnknownKidsCauseFewFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newEC(t)
		w := newWeb(t, public("a", key))
		v := verifier(t, w)
		defer v.Close()
		begin := time.Now()
		for i := range 600 { // for ten minutes
			if err := verify(v, token(t, gojwt.SigningMethodES256, fmt.Sprint("unknown", i), key, time.Now(), nil)); !errors.Is(err, ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			time.Sleep(time.Second)
		}
		if got, most := w.fetches(), 1+int(time.Since(begin)/kidInterval); got > most || got < 10 {
			t.Errorf("got %d fetches, want 10 to %d", got, most)
		}
	})
}

func TestStaleKeysServeWhileTheIssuerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newEC(t)
		w := newWeb(t, public("a", key))
		v := verifier(t, w)
		defer v.Close()
		good := func() []byte { return token(t, gojwt.SigningMethodES256, "a", key, time.Now(), nil) }
		if err := verify(v, good()); err != nil {
			t.Fatal(err)
		}
		w.set(func() { w.down = true })
		before := w.fetches()
		time.Sleep(23 * time.Hour)
		start := time.Now()
		if err := verify(v, good()); err != nil {
			t.Errorf("after 23 hours: %v", err)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited %v for keys that are there", waited)
		}
		time.Sleep(2 * time.Hour)
		if err := verify(v, good()); err != ErrNoKeys {
			t.Errorf("after 25 hours: got %v, want ErrNoKeys", err)
		}
		w.set(func() { w.down = false })
		time.Sleep(lastRetry)
		synctest.Wait()
		if v.sources[issuerURL].fresh() == nil {
			t.Error("the issuer is back, and nobody fetched its keys")
		}
		if err := verify(v, good()); err != nil {
			t.Errorf("the issuer is back: %v", err)
		}
		if before != 1 {
			t.Errorf("got %d fetches at first, want 1", before)
		}
	})
}

func TestWithoutKeysYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newEC(t)
		w := newWeb(t, public("a", key))
		w.delay = 500 * time.Millisecond
		v := verifier(t, w)
		synctest.Wait() // the first fetch is under way
		start := time.Now()
		if err := verify(v, token(t, gojwt.SigningMethodES256, "a", key, time.Now(), nil)); err != nil {
			t.Errorf("got %v, want to wait for the first keys", err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited %v, want the second that discovery and keys take", waited)
		}
		time.Sleep(time.Minute)
		if got := w.fetches(); got != 1 {
			t.Errorf("got %d fetches, want 1: nobody had to wish for the first", got)
		}
		v.Close()

		w.down = true
		v = verifier(t, w)
		defer v.Close()
		start = time.Now()
		if err := verify(v, token(t, gojwt.SigningMethodES256, "a", key, time.Now(), gojwt.MapClaims{"jti": "2"})); err != ErrNoKeys {
			t.Errorf("got %v, want ErrNoKeys", err)
		}
		if waited := time.Since(start); waited > kidPatience {
			t.Errorf("waited %v, want at most %v", waited, kidPatience)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		start = time.Now()
		if _, err := v.Verify(ctx, token(t, gojwt.SigningMethodES256, "a", key, time.Now(), gojwt.MapClaims{"jti": "3"}), time.Now()); err != ErrNoKeys || time.Since(start) != 0 {
			t.Errorf("a caller who left: got %v after %v", err, time.Since(start))
		}
	})
}

func TestAnswersAreRememberedButNotForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newEC(t)
		w := newWeb(t, public("a", key))
		v := verifier(t, w)
		defer v.Close()
		brief := token(t, gojwt.SigningMethodES256, "a", key, time.Now(), gojwt.MapClaims{"exp": time.Now().Add(10 * time.Second).Unix()})
		early := token(t, gojwt.SigningMethodES256, "a", key, time.Now(), gojwt.MapClaims{"nbf": time.Now().Add(35 * time.Second).Unix()})
		long := token(t, gojwt.SigningMethodES256, "a", key, time.Now(), nil)
		if err := errors.Join(verify(v, brief), verify(v, long)); err != nil {
			t.Fatal(err)
		}
		if err := verify(v, early); !errors.Is(err, ErrInvalid) {
			t.Errorf("got %v, want not yet valid", err)
		}
		time.Sleep(6 * time.Second)
		if err := verify(v, early); err != nil {
			t.Errorf("valid by now: %v", err)
		}
		time.Sleep(35 * time.Second) // its expiry and the leeway are over, and the minute is not
		if err := verify(v, brief); !errors.Is(err, ErrExpired) {
			t.Errorf("got %v, want ErrExpired", err)
		}
		w.set(func() { w.pages[keysURL] = jwks(t, public("b", newEC(t))) })
		time.Sleep(refreshEvery) // the set is fetched anew, and no answer is as old as that
		if err := verify(v, token(t, gojwt.SigningMethodES256, "a", key, time.Now(), nil)); !errors.Is(err, ErrInvalid) {
			t.Errorf("a withdrawn key: got %v, want ErrInvalid", err)
		}
	})
}

func TestDocumentsThatAreNotTrusted(t *testing.T) {
	key := newEC(t)
	const discovery = issuerURL + "/.well-known/openid-configuration"
	for name, spoil := range map[string]func(w *web){
		"another issuer's discovery": func(w *web) { w.pages[discovery] = `{"issuer":"https://evil.example","jwks_uri":"` + keysURL + `"}` },
		"keys over http": func(w *web) {
			w.pages["http://issuer.example/keys"] = w.pages[keysURL]
			w.pages[discovery] = `{"issuer":"` + issuerURL + `","jwks_uri":"http://issuer.example/keys"}`
		},
		"no discovery":       func(w *web) { delete(w.pages, discovery) },
		"no JSON":            func(w *web) { w.pages[keysURL] = "<html>" },
		"no keys":            func(w *web) { w.pages[keysURL] = `{"keys":[]}` },
		"too large":          func(w *web) { w.pages[keysURL] += strings.Repeat(" ", maxDocument) },
		"two keys of one id": func(w *web) { w.pages[keysURL] = jwks(t, public("a", key), public("a", newEC(t))) },
	} {
		t.Run(name, func(t *testing.T) {
			good := token(t, gojwt.SigningMethodES256, "a", key, time.Now(), nil)
			for _, want := range []error{nil, ErrNoKeys} {
				w := newWeb(t, public("a", key))
				if want != nil {
					spoil(w)
				}
				v := verifier(t, w)
				if err := verify(v, good); err != want {
					t.Errorf("got %v, want %v", err, want)
				}
				v.Close()
			}
		})
	}
}

func TestRedirectsKeepToHTTPS(t *testing.T) {
	v := verifier(t, newWeb(t, public("a", newEC(t))))
	defer v.Close()
	follow := v.sources[issuerURL].client.CheckRedirect
	for address, want := range map[string]bool{"https://cdn.example/keys": true, "http://cdn.example/keys": false, "http://127.0.0.1/keys": true, "ftp://x/": false} {
		request, err := http.NewRequest(http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := follow(request, nil); (err == nil) != want {
			t.Errorf("%s: got %v, want followed: %v", address, err, want)
		}
	}
}

func TestClaimsAreMapped(t *testing.T) {
	key := newEC(t)
	for _, tt := range []struct {
		name    string
		mapping Mapping
		claims  gojwt.MapClaims
		want    Caller
	}{
		{"defaults", Mapping{}, nil, Caller{Tenant: "team-a", Scopes: []string{"chat", "embed"}}},
		{"path, prefix and lists", Mapping{Tenant: "org.name", TenantPrefix: "idp-", Scopes: "scp", Models: "https://x.example/models"},
			gojwt.MapClaims{"org": map[string]any{"name": "acme"}, "scp": []string{"a"}, "https://x.example/models": []string{"qwen3", "gemma*"}},
			Caller{Tenant: "idp-acme", Scopes: []string{"a"}, Models: []string{"qwen3", "gemma*"}}},
		{"no models allowed", Mapping{Models: "models"}, gojwt.MapClaims{"models": []string{}, "scope": nil}, Caller{Tenant: "team-a", Models: []string{}}},
		{"models not restricted", Mapping{Models: "models"}, gojwt.MapClaims{"scope": nil}, Caller{Tenant: "team-a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			issuer := settings
			issuer.Claims, issuer.JWKSURL = tt.mapping, keysURL
			v := verifier(t, newWeb(t, public("a", key)), issuer)
			defer v.Close()
			got, err := v.Verify(context.Background(), token(t, gojwt.SigningMethodES256, "", key, time.Now(), tt.claims), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if got.Tenant != tt.want.Tenant || !slices.Equal(got.Scopes, tt.want.Scopes) || !slices.Equal(got.Models, tt.want.Models) ||
				(got.Models == nil) != (tt.want.Models == nil) || got.Issuer != issuerURL || got.Subject != "team-a" {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	for name, issuers := range map[string][]Issuer{
		"no audience":     {{URL: issuerURL}},
		"http":            {{URL: "http://issuer.example", Audience: []string{"a"}}},
		"keys over http":  {{URL: issuerURL, Audience: []string{"a"}, JWKSURL: "http://10.0.0.1/keys"}},
		"no URL":          {{Audience: []string{"a"}}},
		"the same issuer": {settings, settings},
	} {
		if v, err := New(issuers, Options{}); err == nil {
			v.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}
