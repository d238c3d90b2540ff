package sglangsim

import (
	"encoding/json"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// schemaDepth bounds nesting, since a schema may refer to itself.
	schemaDepth = 24
	// schemaValues bounds a document, since it may do so more than once.
	schemaValues = 5000
	// schemaText bounds one string, in bytes.
	schemaText = 1 << 16
)

// document makes a value that satisfies a simple JSON schema: object, array, string, number, integer, boolean, null, enum,
// const, anyOf/oneOf/allOf (first branch), local $ref, minItems, minimum, maximum, minLength. Every property is given, since
// strict clients list all as required. Keys are in alphabetical order.
func document(schema json.RawMessage, words []string) json.RawMessage {
	var root map[string]any
	if json.Unmarshal(schema, &root) != nil {
		return json.RawMessage(`{}`)
	}
	d := documenter{root: root, words: words}
	return marshal(d.value(root, "", 0))
}

type documenter struct {
	root  map[string]any
	words []string
	used  int
	made  int // values so far
}

func (d *documenter) word() string {
	if len(d.words) == 0 {
		return "example"
	}
	d.used++
	return strings.TrimSpace(d.words[(d.used-1)%len(d.words)])
}

func (d *documenter) value(schema any, name string, depth int) any {
	s, ok := schema.(map[string]any)
	if d.made++; !ok || depth > schemaDepth || d.made > schemaValues {
		return nil
	}
	if ref, ok := s["$ref"].(string); ok {
		return d.value(d.resolve(ref), name, depth+1)
	}
	if v, ok := s["const"]; ok {
		return v
	}
	if list, ok := s["enum"].([]any); ok && len(list) > 0 {
		return list[0]
	}
	for _, key := range []string{"anyOf", "oneOf", "allOf"} {
		if list, ok := s[key].([]any); ok && len(list) > 0 {
			return d.value(list[0], name, depth+1)
		}
	}
	kind, _ := s["type"].(string)
	if list, ok := s["type"].([]any); ok && len(list) > 0 {
		kind, _ = list[0].(string)
	}
	if kind == "" && s["properties"] != nil {
		kind = "object"
	}
	switch kind {
	case "object":
		out := map[string]any{}
		properties, _ := s["properties"].(map[string]any)
		for key, sub := range sorted(properties) {
			out[key] = d.value(sub, key, depth+1)
		}
		required, _ := s["required"].([]any)
		for _, key := range required {
			if key, ok := key.(string); ok && properties[key] == nil {
				out[key] = d.word()
			}
		}
		return out
	case "array":
		n := int(max(1, min(number(s["minItems"], 1), schemaValues)))
		if s["items"] == nil && s["prefixItems"] == nil || number(s["maxItems"], 1) < 1 {
			return []any{}
		}
		out := []any{}
		for range n {
			out = append(out, d.value(s["items"], name, depth+1))
		}
		return out
	case "integer":
		return int64(math.Ceil(d.within(s, 7)))
	case "number":
		return d.within(s, 1.5)
	case "boolean":
		return true
	case "null":
		return nil
	default:
		text := d.word()
		for float64(len(text)) < min(number(s["minLength"], 0), schemaText) {
			text += " " + d.word()
		}
		if limit := number(s["maxLength"], schemaText); float64(len(text)) > limit {
			text = strings.ToValidUTF8(text[:int(max(limit, 0))], "")
		}
		return text
	}
}

// within is the wanted number, moved into the schema's bounds.
func (d *documenter) within(s map[string]any, want float64) float64 {
	low := max(number(s["minimum"], want), number(s["exclusiveMinimum"], want-1)+1)
	return min(max(want, low), number(s["maximum"], math.Inf(1)), number(s["exclusiveMaximum"], math.Inf(1))-1)
}

func number(v any, fallback float64) float64 {
	if n, ok := v.(float64); ok {
		return n
	}
	return fallback
}

// resolve follows a reference inside of the schema, such as #/$defs/Item.
func (d *documenter) resolve(ref string) any {
	path, ok := strings.CutPrefix(ref, "#")
	var at any = d.root
	for _, key := range strings.Split(strings.Trim(path, "/"), "/") {
		if key == "" {
			continue
		}
		m, isMap := at.(map[string]any)
		if !ok || !isMap {
			return nil
		}
		at = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(key)]
	}
	return at
}

// names are the words of a prompt that look like names (capitalised, not first): plausible arguments for a tool.
func names(prompt string) []string {
	var out []string
	for i, word := range strings.FieldsFunc(prompt, func(r rune) bool { return !unicode.IsLetter(r) && r != '-' }) {
		if first, _ := utf8.DecodeRuneInString(word); i > 0 && unicode.IsUpper(first) {
			out = append(out, word)
		}
	}
	return out
}
