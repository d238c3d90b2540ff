package jwt

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestCheckUnique(t *testing.T) {
	for _, tt := range []struct {
		json string
		want error
	}{
		{`{}`, nil},
		{`{"a":1,"b":{"a":[{"a":1},{"a":2}]}}`, nil},
		{`{"a":1,"a":1}`, errRepeated},
		{`{"a":1,"\u0061":1}`, errRepeated},
		{`{"b":[{"c":{"a":1,"a":2}}]}`, errRepeated},
	} {
		if got := checkUnique([]byte(tt.json)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.json, got, tt.want)
		}
	}
	for _, broken := range []string{``, `{`, `{"a"`, `{"a":}`, `[1,]`, `{}{}`, `{} x`} {
		if err := checkUnique([]byte(broken)); err == nil {
			t.Errorf("%q: accepted", broken)
		}
	}
}

// What is accepted, a whole parser accepts, and writing it out again loses no name.
func FuzzCheckUnique(f *testing.F) {
	for _, seed := range []string{`{"a":[1,{"b":null}]}`, `{"a":1,"a":2}`, `[]`, `{"é":1,"\u00e9":2}`, `1e400`, `{"a":{"a":{"a":1,"b":2}}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := checkUnique(data)
		if !json.Valid(data) {
			if err == nil {
				t.Fatalf("%q is no JSON and was accepted", data)
			}
			return
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(data, &object) != nil || object == nil {
			return
		}
		again, marshalErr := json.Marshal(object)
		if marshalErr != nil {
			t.Fatal(marshalErr)
		}
		if err := checkUnique(again); errors.Is(err, errRepeated) && !nestedRepeats(object) {
			t.Fatalf("%q has no name twice: %v", again, err)
		}
	})
}

// nestedRepeats tells whether a value inside has a name twice, which writing the outer object again does not change.
func nestedRepeats(object map[string]json.RawMessage) bool {
	for _, value := range object {
		if errors.Is(checkUnique(value), errRepeated) {
			return true
		}
	}
	return false
}
