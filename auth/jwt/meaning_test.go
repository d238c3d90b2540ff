package jwt

import (
	"errors"
	"reflect"
	"testing"
	"time"

	gojwt "github.com/golang-jwt/jwt/v5"
)

// Scopes and limits that an issuer asks for are read strictly: what is misread must not be taken for nothing.
func TestScopeAndLimits(t *testing.T) {
	key := newEC(t)
	issuer := settings
	issuer.Scope, issuer.Claims.Limits = "chat", "limits.pilotlight"
	asked := 0
	v, err := New([]Issuer{issuer}, Options{Transport: newWeb(t, public("1", key)), Mean: func(c Caller) (any, error) {
		if asked++; c.Limits["unknown"] != 0 {
			return nil, errors.New("unknown is no limit")
		}
		return c.Tenant + "!", nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	now := time.Now()
	within := func(limits any) gojwt.MapClaims {
		return gojwt.MapClaims{"limits": map[string]any{"pilotlight": limits}}
	}
	for _, tt := range []struct {
		name   string
		claims gojwt.MapClaims
		ok     bool
		want   map[string]int64
	}{
		{"nothing about limits", nil, true, nil},
		{"limits", within(map[string]any{"requests_per_minute": 5}), true, map[string]int64{"requests_per_minute": 5}},
		{"no object", within(5), false, nil},
		{"a fraction", within(map[string]any{"requests_per_minute": 1.5}), false, nil},
		{"a text", within(map[string]any{"requests_per_minute": "5"}), false, nil},
		{"below zero", within(map[string]any{"requests_per_minute": -5}), false, nil},
		{"what its user refuses", within(map[string]any{"unknown": 5}), false, nil},
		{"another scope", gojwt.MapClaims{"scope": "embed chats"}, false, nil},
		{"no scope", gojwt.MapClaims{"scope": nil}, false, nil},
		{"scopes in a list", gojwt.MapClaims{"scope": []string{"x", "chat"}}, true, nil},
	} {
		for range 2 { // the second answer comes from memory
			caller, err := v.Verify(t.Context(), token(t, gojwt.SigningMethodES256, "1", key, now, tt.claims), now)
			switch {
			case tt.ok && (err != nil || caller.Meaning != "team-a!" || !reflect.DeepEqual(caller.Limits, tt.want)):
				t.Errorf("%s: %+v, %v", tt.name, caller, err)
			case !tt.ok && !errors.Is(err, ErrInvalid):
				t.Errorf("%s: %+v, %v; want ErrInvalid", tt.name, caller, err)
			}
		}
	}
	again := token(t, gojwt.SigningMethodES256, "1", key, now, gojwt.MapClaims{"jti": "x"})
	before := asked
	for range 5 {
		if _, err := v.Verify(t.Context(), again, now); err != nil {
			t.Fatal(err)
		}
	}
	if asked != before+1 {
		t.Errorf("a token was given its meaning %d times", asked-before)
	}
}
