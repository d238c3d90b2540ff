package sglangsim

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode"
)

// grammarSteps and grammarDepth bound what is tried for one grammar, since rules may refer to themselves.
const (
	grammarSteps = 10_000
	grammarDepth = 32
)

// forcedText is the text that a request's regex or ebnf asks for; nil if it has neither. It is a short one: the first of what could be
// chosen, and nothing that could be left out.
func (p *sampling) forcedText() (*string, error) {
	switch {
	case p.Regex != "" && p.EBNF != "":
		return nil, badRequest("Only one of regex, json_schema, or ebnf can be set.")
	case p.Regex != "":
		re, err := syntax.Parse(p.Regex, syntax.Perl)
		if err != nil {
			return nil, badRequest("Failed to compile regex grammar: %v", err)
		}
		var b strings.Builder
		matching(re, &b)
		text := b.String()
		return &text, nil
	case p.EBNF != "":
		text, err := derive(p.EBNF)
		if err != nil {
			return nil, badRequest("Failed to compile ebnf grammar: %v", err)
		}
		return &text, nil
	}
	return nil, nil
}

// matching writes a text that matches re.
func matching(re *syntax.Regexp, b *strings.Builder) {
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		b.WriteRune(visible(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('a')
	case syntax.OpCapture, syntax.OpPlus, syntax.OpAlternate:
		matching(re.Sub[0], b)
	case syntax.OpRepeat:
		for range re.Min {
			matching(re.Sub[0], b)
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			matching(sub, b)
		}
	default: // star, quest, and what matches no text
	}
}

// visible is a character of a class, given as pairs of its ranges' ends: one that can be seen, if there is one.
func visible(ranges []rune) rune {
	for i := 0; i+1 < len(ranges); i += 2 {
		for r := ranges[i]; r <= ranges[i+1] && r < ranges[i]+256; r++ {
			if unicode.IsGraphic(r) && !unicode.IsSpace(r) {
				return r
			}
		}
	}
	if len(ranges) == 0 {
		return 'a'
	}
	return ranges[0]
}

// derive makes a text of a grammar: rules "name ::= …" of literals in double quotes, character classes, names, groups, |, *, + and ?, with
// comments after #. It begins with rule root.
func derive(grammar string) (string, error) {
	g := deriver{rules: map[string]string{}}
	var name string
	for line := range strings.Lines(grammar) {
		head, body, ok := strings.Cut(line, "::=")
		if ok && isRuleName(strings.TrimSpace(head)) {
			name, line = strings.TrimSpace(head), body
		}
		if name == "" && strings.TrimSpace(line) != "" && !strings.HasPrefix(strings.TrimSpace(line), "#") {
			return "", fmt.Errorf("expected a rule, found %q", strings.TrimSpace(line))
		}
		g.rules[name] += " " + line
	}
	return g.rule("root", 0)
}

func isRuleName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return !isNameRune(r) }) < 0
}

func isNameRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' || r == '-'
}

var errTooDeep = errors.New("no short text found")

// deriver makes texts of rules.
type deriver struct {
	rules map[string]string
	steps int
}

func (g *deriver) rule(name string, depth int) (string, error) {
	body, ok := g.rules[name]
	if !ok {
		return "", fmt.Errorf("there is no rule %q", name)
	}
	p := ebnfReader{g: g, rest: body, depth: depth + 1}
	text, err := p.choice()
	if err == nil && p.peek() != 0 {
		err = fmt.Errorf("rule %s: unexpected %q", name, p.rest)
	}
	return text, err
}

// ebnfReader reads a rule's body and makes its text in the same pass.
type ebnfReader struct {
	g     *deriver
	rest  string
	depth int
}

// peek skips white space and comments, and returns the next byte, 0 at the end.
func (p *ebnfReader) peek() byte {
	for {
		p.rest = strings.TrimLeft(p.rest, " \t\r\n")
		if !strings.HasPrefix(p.rest, "#") {
			break
		}
		_, p.rest, _ = strings.Cut(p.rest, "\n")
	}
	if p.rest == "" {
		return 0
	}
	return p.rest[0]
}

// choice is the first of the alternatives that has a text.
func (p *ebnfReader) choice() (string, error) {
	if p.g.steps++; p.g.steps > grammarSteps || p.depth > grammarDepth {
		return "", errTooDeep
	}
	text, err := p.sequence()
	for p.peek() == '|' && (err == nil || errors.Is(err, errTooDeep)) {
		p.rest = p.rest[1:]
		other, e := p.sequence()
		if e != nil && !errors.Is(e, errTooDeep) {
			return "", e
		}
		if err != nil && e == nil {
			text, err = other, nil
		}
	}
	return text, err
}

// sequence reads to the next | or ). One that has no short text is read to its end, so that the next alternative is found.
func (p *ebnfReader) sequence() (string, error) {
	var b strings.Builder
	var deep error
	for c := p.peek(); c != 0 && c != '|' && c != ')'; c = p.peek() {
		text, err := p.item(c)
		switch c := p.peek(); {
		case c == '*' || c == '?': // can be left out
			text, err = "", ignoreDeep(err)
			p.rest = p.rest[1:]
		case c == '+':
			p.rest = p.rest[1:]
		}
		if errors.Is(err, errTooDeep) {
			deep, err = err, nil
		}
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), deep
}

func ignoreDeep(err error) error {
	if errors.Is(err, errTooDeep) {
		return nil
	}
	return err
}

func (p *ebnfReader) item(c byte) (string, error) {
	switch c {
	case '"':
		quoted, err := strconv.QuotedPrefix(p.rest)
		if err != nil {
			return "", fmt.Errorf("a literal without an end: %q", p.rest)
		}
		p.rest = p.rest[len(quoted):]
		return strconv.Unquote(quoted)
	case '[':
		end := strings.IndexByte(p.rest[1:], ']') + 2
		if end < 2 {
			return "", fmt.Errorf("a class without an end: %q", p.rest)
		}
		re, err := syntax.Parse(p.rest[:end], syntax.Perl)
		if err != nil {
			return "", err
		}
		p.rest = p.rest[end:]
		var b strings.Builder
		matching(re, &b)
		return b.String(), nil
	case '(':
		p.rest = p.rest[1:]
		text, err := p.choice()
		if err != nil && !errors.Is(err, errTooDeep) {
			return "", err
		}
		if p.peek() != ')' {
			if err != nil {
				return "", err
			}
			return "", fmt.Errorf("a group without an end: %q", p.rest)
		}
		p.rest = p.rest[1:]
		return text, err
	}
	n := strings.IndexFunc(p.rest, func(r rune) bool { return !isNameRune(r) })
	if n < 0 {
		n = len(p.rest)
	}
	if n == 0 {
		return "", fmt.Errorf("unexpected %q", p.rest)
	}
	name := p.rest[:n]
	p.rest = p.rest[n:]
	return p.g.rule(name, p.depth)
}
