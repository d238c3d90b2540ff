package sse

import (
	"pilotlight/gateway/jsonbody"
)

// Usage is what an engine says that a request took, in tokens.
type Usage struct{ Prompt, Completion int64 }

// UsageOf finds the usage that an answer or an event of chat completions, completions and the like tells. ok is false if there is none. Such
// documents hold no member of that name but the engine's own, since quotes within text are escaped; so it is not asked where the member
// lies, unless there are several. It allocates nothing.
func UsageOf(doc []byte) (u Usage, ok bool) {
	at := findToken(doc, usageKey)
	if at < 0 {
		return Usage{}, false
	}
	behind := at + len(usageKey)
	if behind+1 < len(doc) && doc[behind] == ':' && doc[behind+1] == '{' && findToken(doc[behind:], usageKey) < 0 {
		return readUsage(doc[behind+1:])
	}
	return usageIn(doc)
}

// ResponseUsageOf is UsageOf for the Responses API, whose documents repeat what clients have made up, such as schemas: it looks at the top level
// and in the member response, and nowhere else.
func ResponseUsageOf(doc []byte) (u Usage, ok bool) {
	if !hasToken(doc, usageKey) {
		return Usage{}, false
	}
	if u, ok = usageIn(doc); ok {
		return u, true
	}
	inner, found := jsonbody.Locate(doc, "response")
	if !found || inner.Kind != jsonbody.Object {
		return Usage{}, false
	}
	return usageIn(doc[inner.Start:inner.End])
}

func usageIn(doc []byte) (u Usage, ok bool) {
	m, ok := jsonbody.Locate(doc, "usage")
	if !ok || m.Kind != jsonbody.Object {
		return Usage{}, false
	}
	return readUsage(doc[m.Start:m.End])
}

func readUsage(object []byte) (u Usage, ok bool) {
	prompt, first := count(object, "prompt_tokens")
	if !first {
		prompt, first = count(object, "input_tokens")
	}
	completion, second := count(object, "completion_tokens")
	if !second {
		completion, second = count(object, "output_tokens")
	}
	if !second { // embeddings and the like
		if total, told := count(object, "total_tokens"); told {
			if !first {
				prompt = total
			}
			completion, second = max(total-prompt, 0), true
		}
	}
	return Usage{prompt, completion}, first || second
}

// count reads a whole number of at most 15 digits.
func count(object []byte, key string) (n int64, ok bool) {
	m, ok := jsonbody.Locate(object, key)
	if !ok || m.Kind != jsonbody.Number || m.End-m.Start > 15 {
		return 0, false
	}
	for _, c := range object[m.Start:m.End] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
