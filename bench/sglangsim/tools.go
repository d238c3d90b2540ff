package sglangsim

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// tool is one entry of a request's tools.
type tool struct {
	Type     string `json:"type"`
	Function struct {
		Name       string          `json:"name"`
		Parameters json.RawMessage `json:"parameters"`
	} `json:"function"`
}

// toolCall is a call as answers show it. Null names and ids belong to the further pieces of a stream.
type toolCall struct {
	ID       *string      `json:"id"`
	Index    int          `json:"index"`
	Type     string       `json:"type"`
	Function toolFunction `json:"function"`
}

type toolFunction struct {
	Name      *string `json:"name"`
	Arguments string  `json:"arguments"`
}

// chooseTool picks the tool that an answer calls, if any: the one that tool_choice names, the first if it says required, and
// with auto the first whose name (or a part of it) the user's last message mentions, or any if it mentions tools.
func chooseTool(tools []tool, choice json.RawMessage, last string, lastIsUser bool) (*tool, error) {
	var word string
	var named struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	switch {
	case len(choice) == 0 || string(choice) == "null":
		word = "auto"
	case json.Unmarshal(choice, &word) == nil:
	case json.Unmarshal(choice, &named) == nil:
		for i := range tools {
			if tools[i].Function.Name == named.Function.Name {
				return &tools[i], nil
			}
		}
		return nil, badRequest("Tool '%s' not found in tools list.", named.Function.Name)
	default:
		return nil, invalid("1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'tool_choice'), 'msg': \"Input should be 'auto', 'required' or 'none'\"}")
	}
	switch word {
	case "none":
		return nil, nil
	case "required":
		if len(tools) == 0 {
			return nil, badRequest("Tools cannot be empty if tool choice is set to required.")
		}
		return &tools[0], nil
	case "auto":
	default:
		return nil, invalid("1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'tool_choice'), 'msg': \"Input should be 'auto', 'required' or 'none'\"}")
	}
	if !lastIsUser || len(tools) == 0 { // after a tool's result comes the answer
		return nil, nil
	}
	text := strings.ToLower(last)
	for i := range tools {
		for _, part := range nameParts(tools[i].Function.Name) {
			if len(part) > 3 && strings.Contains(text, part) {
				return &tools[i], nil
			}
		}
	}
	if strings.Contains(text, "tool") || strings.Contains(text, "function") {
		return &tools[0], nil
	}
	return nil, nil
}

// nameParts are a function name and its words, in lower case: getWeather and get_weather both hold "weather".
func nameParts(name string) []string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	parts := strings.FieldsFunc(b.String(), func(r rune) bool { return r == '_' || r == '-' || r == '.' || r == ' ' })
	return append(parts, strings.ToLower(name))
}

// planTool is the choice of an answer that calls a tool.
func planTool(t *tool, key, last string) plan {
	words := names(last)
	if len(words) == 0 {
		words = sentence(key, 8)
	}
	arguments := document(t.Function.Parameters, words)
	id, name := "call_"+newID()[:24], t.Function.Name
	return plan{
		pieces: append([]string{""}, split(string(arguments))...), finish: "tool_calls", matched: nil,
		tool: &toolCall{ID: &id, Type: "function", Function: toolFunction{Name: &name, Arguments: string(arguments)}},
	}
}

// sorted walks a map in the order of its keys, so that answers depend on the request alone.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}
