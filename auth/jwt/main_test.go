package jwt

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	gojwt "github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuerURL = "https://issuer.example"
	keysURL   = issuerURL + "/keys"
)

// web answers GET requests from memory, without sockets.
type web struct {
	mu    sync.Mutex // guards the fields below
	pages map[string]string
	down  bool
	delay time.Duration
	gets  map[string]int
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	address := r.URL.String()
	w.gets[address]++
	body, ok := w.pages[address]
	down, delay := w.down, w.delay
	w.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if down {
		return nil, errors.New("no route to host")
	}
	response := &http.Response{StatusCode: 200, Status: "200 OK", Header: http.Header{}, Request: r}
	if !ok {
		response.StatusCode, response.Status = 404, "404 Not Found"
	}
	response.Body = io.NopCloser(bytes.NewBufferString(body))
	return response, nil
}

func (w *web) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *web) fetches() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gets[keysURL]
}

// newWeb serves one issuer with the given keys.
func newWeb(t *testing.T, keys ...jose.JSONWebKey) *web {
	return &web{gets: map[string]int{}, pages: map[string]string{
		issuerURL + "/.well-known/openid-configuration": `{"issuer":"` + issuerURL + `","jwks_uri":"` + keysURL + `"}`,
		keysURL: jwks(t, keys...),
	}}
}

func jwks(t *testing.T, keys ...jose.JSONWebKey) string {
	t.Helper()
	data, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func newEC(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(kid string, key crypto.Signer) jose.JSONWebKey {
	return jose.JSONWebKey{KeyID: kid, Key: key.Public()}
}

var settings = Issuer{URL: issuerURL, Audience: []string{"pilotlight", "other"}, Claims: Mapping{Models: "https://x.example/models"}}

func verifier(t *testing.T, w *web, issuers ...Issuer) *Verifier {
	t.Helper()
	if issuers == nil {
		issuers = []Issuer{settings}
	}
	v, err := New(issuers, Options{Transport: w})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// token is a good one at now, with what the test changes: a nil claim is left out.
func token(t *testing.T, method gojwt.SigningMethod, kid string, key any, now time.Time, changes gojwt.MapClaims) []byte {
	t.Helper()
	claims := gojwt.MapClaims{"iss": issuerURL, "aud": "pilotlight", "sub": "team-a", "exp": now.Add(time.Hour).Unix(), "scope": "chat embed"}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	unsigned := gojwt.NewWithClaims(method, claims)
	if kid != "" {
		unsigned.Header["kid"] = kid
	}
	signed, err := unsigned.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(signed)
}
