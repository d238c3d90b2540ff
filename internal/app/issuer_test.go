package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	gojwt "github.com/golang-jwt/jwt/v5"

	"pilotlight/auth"
)

// issuer is one with an address of its own, on this machine.
type issuer struct {
	url string
	key *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "1", Key: key.Public()}}})
			return
		}
		json.NewEncoder(w).Encode(map[string]string{"issuer": i.url, "jwks_uri": i.url + "/keys"})
	}))
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

func (i *issuer) token(t *testing.T, claims gojwt.MapClaims) string {
	t.Helper()
	all := gojwt.MapClaims{"iss": i.url, "aud": "pilotlight", "sub": "someone", "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range claims {
		all[name] = value
	}
	unsigned := gojwt.NewWithClaims(gojwt.SigningMethodES256, all)
	unsigned.Header["kid"] = "1"
	signed, err := unsigned.SignedString(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// A token proves the same tenant as a key does, with its limits and rights, and what it says itself narrows them.
func TestTokensOfIssuers(t *testing.T) {
	i := newIssuer(t)
	rest := fmt.Sprintf("tenants:\n  - {name: idp-search, limits: {requests_per_minute: 3}, key_limits: {requests_per_minute: 2}}\n"+
		"AUTH, jwt: {issuer: '%s', audience: [pilotlight], scope: inference, claims: {tenant: org.team, tenant_prefix: idp-, models: models, limits: limits}}}\n", i.url)
	config := strings.Replace(tenantConfig(usedEngine(t), rest), "auth: {keys_file: DIR/keys.yaml}\n", "", 1)
	config = strings.Replace(config, "AUTH", "auth: {keys_file: DIR/keys.yaml", 1)
	s := start(t, config)
	claims := func(more gojwt.MapClaims) gojwt.MapClaims {
		all := gojwt.MapClaims{"org": map[string]string{"team": "search"}, "scope": "inference openid"}
		for name, value := range more {
			all[name] = value
		}
		return all
	}
	good := i.token(t, claims(gojwt.MapClaims{"models": "a b"}))
	for _, tt := range []struct {
		name, token string
		status      int
		code        string
	}{
		{"good", good, 200, ""},
		{"again", good, 200, ""},
		{"above its subject's limit", good, 429, "rate_limit_exceeded"},
		{"another subject of the tenant", i.token(t, claims(gojwt.MapClaims{"sub": "else", "models": "a"})), 200, ""},
		{"above the tenant's limit", i.token(t, claims(gojwt.MapClaims{"sub": "third", "models": "a"})), 429, "rate_limit_exceeded"},
		{"another model", i.token(t, claims(gojwt.MapClaims{"models": "b"})), 403, "model_not_found"},
		{"no model", i.token(t, claims(gojwt.MapClaims{"models": []string{}})), 403, "model_not_found"},
		{"limits that are none", i.token(t, claims(gojwt.MapClaims{"models": "a", "limits": map[string]int{"requests": 5}})), 401, "invalid_api_key"},
		{"limits of its own", i.token(t, gojwt.MapClaims{"org": map[string]string{"team": "x"}, "scope": "inference", "models": "a", "limits": map[string]int{"tokens_per_minute": 1}}), 429, "rate_limit_exceeded"},
		{"another audience", i.token(t, claims(gojwt.MapClaims{"aud": "else"})), 401, "invalid_api_key"},
		{"no scope", i.token(t, claims(gojwt.MapClaims{"scope": "openid"})), 401, "invalid_api_key"},
		{"expired", i.token(t, claims(gojwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()})), 401, "invalid_api_key"},
		{"nonsense", "eyJ.eyJ.x", 401, "invalid_api_key"},
	} {
		if status, code, _ := s.chat(t, tt.token); status != tt.status || code != tt.code {
			t.Errorf("%s: %d %s, want %d %s", tt.name, status, code, tt.status, tt.code)
		}
	}
	s.set(tenantConfig(usedEngine(t), ""))
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if status, code, _ := s.chat(t, good); status != 401 || code != "invalid_api_key" {
		t.Errorf("after its issuer has left the file: %d %s", status, code)
	}
}

// Whether a token is valid nobody knows while its issuer has never answered: its client is to try again, not to ask for another token.
func TestIssuerThatIsAway(t *testing.T) {
	i := newIssuer(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	s := start(t, strings.Replace(tenantConfig(usedEngine(t), ""), "auth: {", "auth: {jwt: {issuer: '"+gone.URL+"', audience: pilotlight}, ", 1))
	i.url = gone.URL
	status, code, h := s.chat(t, i.token(t, nil))
	if status != 503 || code != "identity_unavailable" || h.Get("Retry-After") == "" {
		t.Errorf("%d %s %v", status, code, h)
	}
	token := i.token(t, nil)
	if _, err := s.keysFile.Identify([]byte(token), time.Now()); !errors.Is(err, auth.ErrUnavailable) || strings.Contains(err.Error(), token[:20]) {
		t.Errorf("Identify: %v", err)
	}
	if _, err := s.keysFile.Identify([]byte("ey"), time.Now()); !errors.Is(err, auth.ErrInvalidKey) {
		t.Errorf("Identify: %v", err)
	}
}
