package smuggling

import (
	"fmt"
	"strings"
	"testing"
)

// judge says what is unsafe in what we made of a case, given a strict peer's verdict.
func judge(c testCase, ours, peer verdict) (problems []string) {
	unsafe := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	plain := map[string]bool{body("own"): true, body("next"): true}
	for _, e := range ours.engine {
		switch {
		case e.marker == "hidden":
			unsafe("a request hidden in another reached the engine")
		case !plain[strings.ReplaceAll(e.whole, modelOf(e.whole), modelName)]:
			unsafe("the engine got a body that was not sent as one: %.80q", e.whole)
		case !strings.HasPrefix(e.line, "POST /v1/chat/completions "):
			unsafe("the engine was sent %.80q", e.line)
		}
	}
	if len(ours.rubbish) > 0 {
		unsafe("the engine got rubbish: %s", ours.rubbish[0])
	}
	if len(ours.engine) > len(ours.statuses) {
		unsafe("the engine got %d requests, the client %d answers", len(ours.engine), len(ours.statuses))
	}
	if ours.end == endAstray {
		unsafe("requests and answers are out of step")
	}
	if c.ambiguous {
		if ours.end != endClosed {
			unsafe("the connection is used on after a request whose end is not clear (%s)", ours.end)
		}
	}
	// The peer's second opinion, where ours is that nothing is unclear. Behind a connection's last request nothing can be smuggled.
	if peer.refused() && peer.end == endClosed && len(ours.engine) > 0 && ours.end != endClosed && strings.Contains(c.raw, chat("hidden")) {
		unsafe("forwarded what the peer refuses, and the connection is used on")
	}
	return problems
}

// modelOf is the model's name in a body.
func modelOf(s string) string {
	_, rest, ok := strings.Cut(s, `"model":"`)
	name, _, closed := strings.Cut(rest, `"`)
	if !ok || !closed {
		return modelName
	}
	return name
}

func TestJudge(t *testing.T) {
	own := seen{line: strings.TrimSpace(line), marker: "own", whole: body("own")}
	hidden := seen{line: strings.TrimSpace(line), marker: "hidden", whole: body("hidden")}
	refusal := verdict{statuses: []int{400}, end: endClosed}
	for _, c := range []struct {
		name      string
		ambiguous bool
		ours      verdict
		want      string // part of the only problem; empty: none
	}{
		{"refused and closed", true, refusal, ""},
		{"refused and kept", true, verdict{statuses: []int{400}, end: endKept}, "used on"},
		{"refused and kept, nothing unclear", false, verdict{statuses: []int{400}, end: endKept}, ""},
		{"waits", true, verdict{end: endWaits}, "used on"},
		{"forwarded against the peer, and kept", false, verdict{statuses: []int{200}, engine: []seen{own}, end: endKept}, "peer refuses"},
		{"forwarded against the peer, and closed", true, verdict{statuses: []int{200}, engine: []seen{own}, end: endClosed}, ""},
		{"hidden", false, verdict{statuses: []int{200}, engine: []seen{hidden}, end: endClosed}, "hidden"},
		{"more requests than answers", false, verdict{statuses: []int{200}, engine: []seen{own, own}, end: endClosed}, "2 requests"},
		{"rubbish", false, verdict{statuses: []int{400}, rubbish: []string{"x"}, end: endKept}, "rubbish"},
		{"other body", false, verdict{statuses: []int{200}, engine: []seen{{line: own.line, whole: "x"}}, end: endClosed}, "not sent as one"},
		{"other path", false, verdict{statuses: []int{200}, engine: []seen{{line: "POST /flush_cache HTTP/1.1", whole: body("own")}}, end: endClosed}, "flush_cache"},
		{"out of step", false, verdict{statuses: []int{200}, end: endAstray}, "out of step"},
	} {
		got := judge(testCase{name: c.name, raw: chat("hidden"), ambiguous: c.ambiguous}, c.ours, refusal)
		switch {
		case c.want == "" && len(got) > 0:
			t.Errorf("%s: got %q, want no problem", c.name, got)
		case c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)):
			t.Errorf("%s: got %q, want one about %q", c.name, got, c.want)
		}
	}
}
