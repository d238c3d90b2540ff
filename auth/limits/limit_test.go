package limits

import (
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	if err := (Limits{RequestsPerMinute: 1, ColdStarts: 2}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (Limits{}).Validate(); err != nil {
		t.Error(err)
	}
	err := Limits{RequestsPerMinute: -1, TokensPerMinute: -1, TokensPerDay: -1, TokensPerMonth: -1, Concurrent: -1, ColdStarts: -1}.Validate()
	if err == nil {
		t.Fatal("negative limits: accepted")
	}
	for kind := RequestsPerMinute; kind <= ColdStarts; kind++ {
		if !strings.Contains(err.Error(), kind.String()) {
			t.Errorf("got %q, which does not name %s", err, kind)
		}
	}
}

// Messages are for logs; they must name whose limit it is, which and how high.
func TestRefusalSaysWhat(t *testing.T) {
	for scope := range scopes {
		for kind := RequestsPerMinute; kind <= ColdStarts; kind++ {
			for _, tooLarge := range []bool{false, true} {
				got := Refusal{Scope: scope, Kind: kind, Limit: 4711, TooLarge: tooLarge}.Error()
				if strings.Contains(got, "scope ") || strings.Contains(got, "kind ") || !strings.Contains(got, "4711") ||
					!strings.Contains(got, scope.String()) || !strings.Contains(got, kind.String()) {
					t.Errorf("got %q for %v and %v", got, scope, kind)
				}
			}
			if want := kind == TokensPerDay || kind == TokensPerMonth; kind.Quota() != want {
				t.Errorf("%v: got quota %v, want %v", kind, kind.Quota(), want)
			}
		}
	}
}
