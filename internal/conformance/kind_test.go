package conformance

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// A case that cannot fail proves nothing: each check refuses the outcome that its fault would bring.
func TestCasesRefuseWrongOutcomes(t *testing.T) {
	target := Target{Model: "m", Edge: true}
	good := map[string]Outcome{
		"chat":             {OK: true, Text: "x", FinishReason: "stop", Usage: &Usage{1, 2, 3}, Model: "m", RequestID: "r"},
		"stream":           {OK: true, Text: "x", FinishReason: "stop", Chunks: 3, Model: "m", RequestID: "r"},
		"tools":            {OK: true, FinishReason: "tool_calls", Model: "m", ToolCalls: []ToolCall{{"i", "get_weather", `{"city":"Oslo"}`}}},
		"json-schema":      {OK: true, Text: `{"name":"a","age":1}`, FinishReason: "stop"},
		"embeddings":       {OK: true, Dims: []int{3, 3}, Model: "m", RequestID: "r"},
		"models":           {OK: true, Models: []string{"a", "m"}},
		"wrong-key":        {Error: &Fault{Class: "AuthenticationError", Status: 401, Code: "invalid_api_key", BodyMessage: "x", RequestID: "r"}},
		"cancelled-stream": {OK: true, Cancelled: true, Chunks: 2},
		"client-timeout":   {Error: &Fault{Class: "APITimeoutError"}},
	}
	bad := map[string][]func(*Outcome){
		"chat": {
			func(o *Outcome) { o.OK = false }, func(o *Outcome) { o.Text = "" }, func(o *Outcome) { o.FinishReason = "" },
			func(o *Outcome) { o.Usage = nil }, func(o *Outcome) { o.Usage = &Usage{1, 2, 4} }, func(o *Outcome) { o.Model = "other" }, func(o *Outcome) { o.RequestID = "" },
		},
		"stream": {func(o *Outcome) { o.Chunks = 1 }, func(o *Outcome) { o.Usage = &Usage{1, 2, 3} }},
		"tools": {
			func(o *Outcome) { o.ToolCalls = nil }, func(o *Outcome) { o.FinishReason = "stop" },
			func(o *Outcome) { o.ToolCalls = []ToolCall{{"i", "get_weather", `{"town":"Oslo"}`}} },
			func(o *Outcome) { o.ToolCalls = []ToolCall{{"i", "get_weather", `{"city":`}} },
			func(o *Outcome) { o.ToolCalls = []ToolCall{{"", "get_weather", `{"city":"Oslo"}`}} },
		},
		"json-schema": {func(o *Outcome) { o.Text = `{"name":"a"}` }, func(o *Outcome) { o.Text = `{"name":` }},
		"embeddings":  {func(o *Outcome) { o.Dims = []int{3} }, func(o *Outcome) { o.Dims = []int{3, 4} }, func(o *Outcome) { o.Dims = []int{0, 0} }},
		"models":      {func(o *Outcome) { o.Models = []string{"a"} }},
		"wrong-key": {func(o *Outcome) {
			o.Error = &Fault{Class: "AuthenticationError", Status: 401, Code: "x", BodyMessage: "x", RequestID: "r"}
		}, func(o *Outcome) { o.Error.Status = 403 }},
		"cancelled-stream": {func(o *Outcome) { o.Cancelled = false }, func(o *Outcome) { o.Chunks = 3 }},
		"client-timeout":   {func(o *Outcome) { o.Error = &Fault{Class: "APIConnectionError"} }},
	}
	for _, c := range Cases(target) {
		outcome, ok := good[c.Name]
		if !ok {
			continue
		}
		delete(good, c.Name)
		if err := c.Check(target, outcome); err != nil {
			t.Errorf("%s: good outcome: %v", c.Name, err)
		}
		for i, spoil := range bad[c.Name] {
			spoiled := outcome
			if outcome.Error != nil {
				fault := *outcome.Error
				spoiled.Error = &fault
			}
			spoil(&spoiled)
			if c.Check(target, spoiled) == nil {
				t.Errorf("%s: bad outcome %d passes: %s", c.Name, i, spoiled)
			}
		}
	}
	if len(good) > 0 {
		t.Errorf("no case is named for %v", good)
	}
}

func TestCasesFollowTheTarget(t *testing.T) {
	names := func(target Target) string {
		var out []string
		for _, c := range Cases(target) {
			out = append(out, c.Name)
		}
		return strings.Join(out, " ")
	}
	engine := names(Target{Serves: []string{"tools"}})
	for _, absent := range []string{"unknown-model", "embeddings", "json-object", "wrong-key"} {
		if slices.Contains(strings.Fields(engine), absent) {
			t.Errorf("got case %s for an engine that only serves tools: %s", absent, engine)
		}
	}
	for _, present := range []string{"unknown-model", "embeddings", "tools", "wrong-key", "model"} {
		if edge := names(Target{Edge: true}); !slices.Contains(strings.Fields(edge), present) {
			t.Errorf("case %s is missing for the gateway: %s", present, edge)
		}
	}
}

func TestKind(t *testing.T) {
	for _, c := range []struct {
		class  string
		status int
		want   string
	}{
		{"RateLimitError", 429, "rate_limit"},
		{"InternalServerError", 503, "server"},
		{"openai.Error", 503, "server"},
		{"openai.Error", 404, "not_found"},
		{"openai.Error", 418, "other"},
		{"APIConnectionTimeoutError", 0, "timeout"},
		{"APITimeoutError", 0, "timeout"},
		{"*url.Error", 0, "connection"},
		{"APIError", 0, "stream"},
		{"ValueError", 0, "other"},
	} {
		if got := (Outcome{Error: &Fault{Class: c.class, Status: c.status}}).Kind(); got != c.want {
			t.Errorf("%s %d: got %q, want %q", c.class, c.status, got, c.want)
		}
	}
	if got := (Outcome{OK: true}).Kind(); got != "" {
		t.Errorf("got %q for an answer, want nothing", got)
	}
}

func TestChecksAreJoined(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	err := all(func(Target, Outcome) error { return a }, ok, func(Target, Outcome) error { return b })(Target{}, Outcome{OK: true})
	if !errors.Is(err, a) || !errors.Is(err, b) {
		t.Errorf("got %v, want both errors", err)
	}
}
