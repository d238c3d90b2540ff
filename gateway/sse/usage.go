package sse

import (
	"bytes"

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

// readUsage reads a usage object, which doc begins with.
func readUsage(doc []byte) (u Usage, ok bool) {
	if u, ok = usualUsage(doc); ok {
		return u, true
	}
	return anyUsage(doc)
}

// usualUsage reads one that has its counts first and is written without spaces, as those of all engines that were seen.
func usualUsage(doc []byte) (u Usage, ok bool) {
	var prompt, completion bool
	for i := 1; ; {
		if i >= len(doc) || doc[i] != '"' {
			return Usage{}, false
		}
		end := bytes.IndexByte(doc[i+1:], '"')
		if end < 0 {
			return Usage{}, false
		}
		name := doc[i+1 : i+1+end]
		if i += end + 2; i >= len(doc) || doc[i] != ':' {
			return Usage{}, false
		}
		n, start := int64(0), i+1
		for i++; i < len(doc) && doc[i]-'0' <= 9 && i-start < maxDigits; i++ {
			n = n*10 + int64(doc[i]-'0')
		}
		if i == start || i >= len(doc) || doc[i] != ',' && doc[i] != '}' {
			return Usage{}, false
		}
		switch string(name) {
		case "prompt_tokens", "input_tokens":
			u.Prompt, prompt = n, true
		case "completion_tokens", "output_tokens":
			u.Completion, completion = n, true
		}
		if prompt && completion {
			return u, true
		}
		if doc[i] == '}' {
			return Usage{}, false
		}
		i++
	}
}

func anyUsage(object []byte) (u Usage, ok bool) {
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

// maxDigits is more than any count has.
const maxDigits = 15

// count reads a whole number.
func count(object []byte, key string) (n int64, ok bool) {
	m, ok := jsonbody.Locate(object, key)
	if !ok || m.Kind != jsonbody.Number || m.End-m.Start > maxDigits {
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
