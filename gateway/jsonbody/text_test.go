package jsonbody

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAppendString(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", `""`},
		{"plain", `"plain"`},
		{`"\`, `"\"\\"`},
		{"\x00\x1F\n\r\t\b\x7F", "\"\\u0000\\u001f\\n\\r\\t\\u0008\x7F\""},
		{"<é模😀>&/", `"<é模😀>&/"`},
		{"a\xFFb\xE6\xA8", `"a` + "\uFFFD" + `b` + "\uFFFD\uFFFD" + `"`},
		{"\xED\xA0\x80", `"` + strings.Repeat("\uFFFD", 3) + `"`},
		{"\uFFFD", "\"\uFFFD\""},
	} {
		got := string(AppendString([]byte("x"), c.text))
		if got != "x"+c.want {
			t.Errorf("%q: got %s, want x%s", c.text, got, c.want)
		}
		if fromBytes := string(AppendString([]byte("x"), []byte(c.text))); fromBytes != got {
			t.Errorf("%q: got %s from bytes, %s from a string", c.text, fromBytes, got)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("a\"\\\n\x00\xFFé\u2028😀")
	f.Fuzz(func(t *testing.T, text string) {
		var back string
		literal := AppendString(nil, text)
		if err := json.Unmarshal(literal, &back); err != nil {
			t.Fatalf("%q gave %s: %v", text, literal, err)
		}
		if want := string([]rune(text)); back != want || !utf8.Valid(literal) {
			t.Errorf("%q gave %s, which reads as %q", text, literal, back)
		}
	})
}

func TestStringValueIsPartOfItsLiteral(t *testing.T) {
	literal := []byte(`"abc"`)
	if got := StringValue(literal); &got[0] != &literal[1] || string(got) != "abc" {
		t.Errorf("got a copy %q", got)
	}
}

// Documents that were not validated may hold what Scan refuses.
func TestStringValueOfMalformedText(t *testing.T) {
	for _, c := range []struct{ literal, want string }{
		{`"\ud83d"`, "\uFFFD"},
		{`"\ud83dx"`, "\uFFFDx"},
		{`"\ud83d\u0041"`, "\uFFFDA"},
		{`"\ude00\ud83d\ude00"`, "\uFFFD😀"},
		{`"\u12"`, "\uFFFD12"},
		{`"\x41"`, "\uFFFD41"},
		{`"\"`, "\uFFFD"},
	} {
		if got := string(StringValue([]byte(c.literal))); got != c.want {
			t.Errorf("%s: got %q, want %q", c.literal, got, c.want)
		}
	}
}
