package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"

	"pilotlight/backends"
	"pilotlight/backends/sglang/footprint"
)

// reader walks one document and collects what is wrong with it. It works on nodes, not on decoded structs,
// because each message needs a line, and a wrong field must not hide the next one.
type reader struct {
	file string
	env  func(string) (string, bool)
	// engineRelease is Source.EngineRelease; nil: nobody knows.
	engineRelease func(command []string, dir string, env map[string]string) (string, error)
	footprint     func(path, revision string, env map[string]string) (*footprint.Model, error) // Source.Footprint
	stored        func(Store, backends.Weights) string                                         // Source.Stored
	kept          Store                                                                        // of the file
	problems      []Problem
	warnings      []Problem
	visited       int
}

// maxVisited bounds how many values a file may have once its aliases are written out. A few hundred models
// need some ten thousand; nested aliases can ask for billions.
const maxVisited = 200_000

// value is one field of the file. The zero node means that the field is absent or null, which both mean
// "the default".
type value struct {
	r      *reader
	node   *yaml.Node // never an alias
	path   string
	line   int  // of the field, or of what should hold it
	secret bool // its text may not appear in messages
}

// exhausted tells whether the file has spent its values. The reader then sees nothing but absent fields, and
// Parse says why.
func (r *reader) exhausted() bool { return r.visited > maxVisited }

func (r *reader) value(node *yaml.Node, path string, line int) value {
	r.visited++
	if r.exhausted() {
		return value{r: r, path: path, line: line}
	}
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	v := value{r: r, node: node, path: path, line: node.Line}
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" {
		v.node = nil
	}
	return v
}

func (v value) given() bool { return v.node != nil }

func (v value) problem(message, fix string) Problem {
	p := Problem{Line: v.line, Path: v.path, Message: message, Fix: fix}
	if v.node != nil && v.node.Kind == yaml.ScalarNode && !v.secret {
		p.Value = shown(v.node.Value)
	}
	return p
}

func (v value) fail(message, fix string) {
	v.r.problems = append(v.r.problems, v.problem(message, fix))
}
func (v value) warn(message, fix string) {
	v.r.warnings = append(v.r.warnings, v.problem(message, fix))
}

// asSecret keeps the value's text out of every message from here on.
func (v value) asSecret() value {
	v.secret = true
	return v
}

// expected reports a wrong type.
func (v value) expected(what, fix string) {
	v.fail("expected "+what+", got "+v.kind(), fix)
}

// kind names what the value is, in words.
func (v value) kind() string {
	if v.node == nil {
		return "nothing"
	}
	switch v.node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch tag := v.node.ShortTag(); tag {
	case "!!str":
		return "text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	default:
		return "the tag " + tag
	}
}

// fields is a mapping whose names have been checked.
type fields struct {
	value
	byName map[string]value
}

// fields reads a mapping that may have the known names and no others. What is not a mapping is reported
// and reads as an empty one.
func (v value) fields(known ...string) fields {
	f := fields{value: v, byName: map[string]value{}}
	for _, entry := range v.entries() {
		name := entry.key.Value
		if !contains(known, name) {
			v.r.problems = append(v.r.problems, Problem{Line: entry.key.Line, Path: join(v.path, shown(name)),
				Message: "unknown field", Fix: suggestField(name, known)})
			continue
		}
		f.byName[name] = entry.value
	}
	return f
}

// get returns the named field; an absent one is placed where its mapping is.
func (f fields) get(name string) value {
	if v, ok := f.byName[name]; ok {
		return v
	}
	return value{r: f.r, path: join(f.path, name), line: f.line}
}

// entry is one name and value of a mapping.
type entry struct {
	key   *yaml.Node
	value value
}

// entries lists a mapping in the order of the file, merge keys (<<) written out behind the mapping's own
// names, which win. Repeated names, names that are not text and values that are no mapping are reported.
func (v value) entries() []entry {
	if v.node == nil {
		return nil
	}
	if v.node.Kind != yaml.MappingNode {
		v.expected("a mapping", "")
		return nil
	}
	seen := map[string]int{}
	return v.r.entries(nil, v.node, v.path, seen, 0)
}

// maxMergeDepth is more than anyone merges by hand, and ends a mapping that merges itself.
const maxMergeDepth = 8

func (r *reader) entries(out []entry, node *yaml.Node, path string, seen map[string]int, depth int) []entry {
	if depth > maxMergeDepth {
		r.problems = append(r.problems, Problem{Line: node.Line, Path: path, Message: "merged mappings are nested too deep",
			Fix: "check for a mapping that merges itself"})
		return out
	}
	r.visited += len(node.Content) / 2 // names that are overridden take time too
	own := map[string]int{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, child := node.Content[i], node.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.ShortTag() == "!!merge" {
			merges = append(merges, child)
			continue
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
			r.problems = append(r.problems, Problem{Line: key.Line, Path: path, Message: "a field name must be text"})
			continue
		}
		childPath := join(path, shown(key.Value))
		if line, repeated := own[key.Value]; repeated {
			r.problems = append(r.problems, Problem{Line: key.Line, Path: childPath,
				Message: fmt.Sprintf("given twice, first on line %d", line), Fix: "keep one"})
			continue
		}
		own[key.Value] = key.Line
		if _, overridden := seen[key.Value]; overridden {
			continue
		}
		seen[key.Value] = key.Line
		out = append(out, entry{key, r.value(child, childPath, key.Line)})
	}
	for _, merge := range merges {
		for _, source := range mergeSources(merge) {
			if source.Kind != yaml.MappingNode {
				r.problems = append(r.problems, Problem{Line: merge.Line, Path: join(path, "<<"),
					Message: "only mappings can be merged", Fix: "point << at an anchor of a mapping"})
				continue
			}
			if r.visited++; r.exhausted() {
				return out
			}
			out = r.entries(out, source, path, seen, depth+1)
		}
	}
	return out
}

// mergeSources are the mappings behind a merge key: one, or a list of them, each usually an alias.
func mergeSources(node *yaml.Node) []*yaml.Node {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind != yaml.SequenceNode {
		return []*yaml.Node{node}
	}
	var out []*yaml.Node
	for _, item := range node.Content {
		if item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		out = append(out, item)
	}
	return out
}

// items reads a list. What is not one, and entries without a value, are reported.
func (v value) items() []value {
	if v.node == nil {
		return nil
	}
	if v.node.Kind != yaml.SequenceNode {
		fix := ""
		if v.node.Kind == yaml.ScalarNode && !v.secret {
			fix = "write [" + shown(v.node.Value) + "]"
		}
		v.expected("a list", fix)
		return nil
	}
	var out []value
	for i, node := range v.node.Content {
		item := v.r.value(node, v.path+"["+strconv.Itoa(i)+"]", node.Line)
		item.secret = v.secret
		if v.r.exhausted() {
			return out
		}
		if !item.given() {
			if v.r.exhausted() {
				return out
			}
			item.fail("empty entry", "remove it, or give it a value")
			continue
		}
		out = append(out, item)
	}
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func contains(list []string, s string) bool {
	for _, item := range list {
		if item == s {
			return true
		}
	}
	return false
}

// otherNames are fields that people bring along from Flyte, Kubernetes and other gateways.
var otherNames = map[string]string{
	"args": "extra_args", "arguments": "extra_args", "flags": "extra_args",
	"env": "env_vars", "environment": "env_vars",
	"gpus": "gpu", "mem": "memory", "ttl": "scaledown_after", "idle_timeout": "scaledown_after",
	"hf_path": "model_hf_path", "served_model_name": "model_id", "id": "model_id",
	"cmd": "command", "host": "listen", "port": "listen", "address": "listen",
}

func suggestField(name string, known []string) string {
	if other, ok := otherNames[name]; ok && contains(known, other) {
		return fmt.Sprintf("did you mean %s?", other)
	}
	if near := nearest(name, known); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return "known here: " + strings.Join(known, ", ")
}

// nearest returns the candidate that is a few typing errors away from s, or nothing.
func nearest(s string, candidates []string) string {
	if len(s) > 100 {
		return "" // no typing error, and the distance takes quadratic time
	}
	best, bestDistance := "", max(2, len(s)/3)+1
	for _, candidate := range candidates {
		d := levenshtein.ComputeDistance(strings.ToLower(s), strings.ToLower(candidate))
		if d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// sortedNames lists a map's keys in order, so that messages do not change from run to run.
func sortedNames[T any](m map[string]T) []string {
	return slices.Sorted(maps.Keys(m))
}
