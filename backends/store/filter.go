package store

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Filter chooses among a model's files by shell patterns, as allow_patterns and ignore_patterns of huggingface_hub do: '*' also crosses '/',
// '?' is one character, '[a-z]' and '[!a-z]' are sets, and a pattern that ends in '/' means all below. The zero value chooses all.
type Filter struct {
	Include []string // empty: all
	Exclude []string
}

// WeightFiles are patterns of the files that hold weights, in any form. What they leave over is small: configuration, tokenizer, code.
var WeightFiles = []string{
	"*.safetensors", "*.bin", "*.pt", "*.pth", "*.tensors", "*.gguf", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data",
}

// choose returns the chosen files in their order. The filter has been checked.
func (f Filter) choose(files []File) []File {
	include, _ := compile(f.Include) // check has seen that they compile
	exclude, _ := compile(f.Exclude)
	matches := func(patterns []*regexp.Regexp, name string) bool {
		return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(name) })
	}
	var chosen []File
	for _, file := range files {
		if (len(include) == 0 || matches(include, file.Path)) && !matches(exclude, file.Path) {
			chosen = append(chosen, file)
		}
	}
	return chosen
}

// Check reports patterns that are none.
func (f Filter) Check() error {
	if _, err := compile(f.Include); err != nil {
		return err
	}
	_, err := compile(f.Exclude)
	return err
}

func compile(patterns []string) ([]*regexp.Regexp, error) {
	var compiled []*regexp.Regexp
	for _, p := range patterns {
		re, err := regexp.Compile(translate(p))
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", p, err)
		}
		compiled = append(compiled, re)
	}
	return compiled, nil
}

// translate is Python's fnmatch.translate.
func translate(pattern string) string {
	if strings.HasSuffix(pattern, "/") {
		pattern += "*"
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for len(pattern) > 0 {
		c := pattern[0]
		pattern = pattern[1:]
		switch c {
		case '*':
			b.WriteString(`.*`)
		case '?':
			b.WriteString(`.`)
		case '[':
			// A ']' right after the bracket (or its '!') belongs to the set.
			start := 0
			if strings.HasPrefix(pattern, "!") {
				start++
			}
			if strings.HasPrefix(pattern[start:], "]") {
				start++
			}
			end := strings.IndexByte(pattern[start:], ']')
			if end < 0 {
				b.WriteString(`\[`)
				continue
			}
			set := pattern[:start+end]
			pattern = pattern[start+end+1:]
			b.WriteByte('[')
			if rest, not := strings.CutPrefix(set, "!"); not {
				b.WriteByte('^')
				set = rest
			}
			b.WriteString(strings.NewReplacer(`\`, `\\`, `[`, `\[`, `]`, `\]`, `^`, `\^`).Replace(set))
			b.WriteByte(']')
		default:
			b.WriteString(regexp.QuoteMeta(string([]byte{c}))) // a byte, which may be part of a rune
		}
	}
	return b.String() + `\z`
}
