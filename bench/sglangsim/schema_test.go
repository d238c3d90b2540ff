package sglangsim

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestDocuments(t *testing.T) {
	words := []string{"alpha", " beta"}
	for _, c := range []struct{ schema, want string }{
		{`{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"string"}}}`, `{"a":"alpha","b":"beta"}`},
		{`{"type":"object","required":["free"]}`, `{"free":"alpha"}`},
		{`{"properties":{"x":{"type":"null"}}}`, `{"x":null}`},
		{`{"type":"array","items":{"type":"boolean"},"minItems":2}`, `[true,true]`},
		{`{"type":"array"}`, `[]`},
		{`{"type":"integer","minimum":10}`, `10`},
		{`{"type":"integer","exclusiveMinimum":10}`, `11`},
		{`{"type":"integer","maximum":3}`, `3`},
		{`{"type":"number","maximum":-0.5}`, `-0.5`},
		{`{"enum":["x","y"]}`, `"x"`},
		{`{"const":{"k":[1]}}`, `{"k":[1]}`},
		{`{"type":["string","null"],"maxLength":2}`, `"al"`},
		{`{"type":"string","minLength":8}`, `"alpha beta"`},
		{`{"anyOf":[{"type":"integer"},{"type":"null"}]}`, `7`},
		{`{"$ref":"#/$defs/a~1b","$defs":{"a/b":{"const":1}}}`, `1`},
		{`{"$ref":"#/nowhere"}`, `null`},
		{`nonsense`, `{}`},
	} {
		if got := string(document(json.RawMessage(c.schema), words)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.schema, got, c.want)
		}
	}
}

func TestGreedySchemasAreBounded(t *testing.T) {
	for _, schema := range []string{
		`{"type":"object","properties":{"a":{"$ref":"#"},"b":{"$ref":"#"},"c":{"$ref":"#"}}}`,
		`{"type":"array","minItems":1e300,"items":{"type":"array","minItems":1e9,"items":{"type":"string"}}}`,
		`{"type":"string","minLength":1e300}`,
		`{"$ref":"#"}`,
		`{"type":"string","maxLength":-5}`,
	} {
		if got := document(json.RawMessage(schema), []string{"wörd"}); len(got) > 1<<20 || !json.Valid(got) {
			t.Errorf("%s: %d bytes, valid %v", schema, len(got), json.Valid(got))
		}
	}
}

func TestToolChoice(t *testing.T) {
	var tools []tool
	if err := json.Unmarshal([]byte(`[{"type":"function","function":{"name":"get_weather"}},{"type":"function","function":{"name":"bookFlight"}}]`), &tools); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		choice, last string
		user         bool
		want         string // a name, empty for none, or "error"
	}{
		{``, "How is the weather?", true, "get_weather"},
		{`"auto"`, "I want a flight", true, "bookFlight"},
		{`null`, "use a tool please", true, "get_weather"},
		{`"auto"`, "hello", true, ""},
		{`"auto"`, "weather", false, ""},
		{`"none"`, "weather", true, ""},
		{`"required"`, "hello", true, "get_weather"},
		{`{"type":"function","function":{"name":"bookFlight"}}`, "hello", true, "bookFlight"},
		{`{"type":"function","function":{"name":"other"}}`, "hello", true, "error"},
		{`"sometimes"`, "hello", true, "error"},
		{`7`, "hello", true, "error"},
	} {
		got := ""
		chosen, err := chooseTool(tools, json.RawMessage(c.choice), c.last, c.user)
		if err != nil {
			got = "error"
		} else if chosen != nil {
			got = chosen.Function.Name
		}
		if got != c.want {
			t.Errorf("%s, %q: got %q, want %q", c.choice, c.last, got, c.want)
		}
	}
}

func TestSplitLosesNothing(t *testing.T) {
	for _, text := range []string{"", " ", "a", "a b", "  a\n\nb  ", strings.Repeat("日本", 30), strings.Repeat("x", 100), "\xff\xfe"} {
		pieces := split(text)
		if got := strings.Join(pieces, ""); got != text {
			t.Errorf("%q became %q", text, got)
		}
		for _, p := range pieces {
			if p == "" || len(p) > pieceLength+4 {
				t.Errorf("%q has piece %q", text, p)
			}
		}
	}
}
