// Package python reads the calls and plain values of a Python file without running it: what is assigned to a name at
// the top of a module, and with which arguments a function is called anywhere. Everything that is no plain value (a
// comprehension, a condition, a function's result) is kept as its source text. It is no check of Python's grammar:
// what is not about calls and assignments is stepped over.
//
// Values are immutable; functions are safe for concurrent use.
package python

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type kind int

const (
	end kind = iota // of the file
	newline
	name
	number
	text
	format // an f-string, whose text is not known without running it
	operator
)

// token is one word of the language; source[from:to] is its text.
type token struct {
	kind     kind
	value    string // of names and operators as written, of texts what they mean
	from, to int
	line     int // from 1
	indent   int // columns before the first token of its line
}

// SyntaxError is a place where the text is not Python, as far as it was looked at.
type SyntaxError struct {
	Line    int // from 1
	Message string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// lexer cuts a file into tokens.
type lexer struct {
	source string
	at     int
	line   int
	indent int
	depth  int // of brackets, in which line ends do not count
	tokens []token
}

func tokenize(source string) ([]token, error) {
	l := &lexer{source: strings.TrimPrefix(source, "\ufeff"), line: 1}
	if !utf8.ValidString(source) {
		return nil, &SyntaxError{1, "not UTF-8"}
	}
	fresh := true
	for l.at < len(l.source) {
		c := l.source[l.at]
		switch {
		case c == '\n':
			if l.depth == 0 {
				l.add(newline, "", l.at, l.at+1)
				fresh = true
			}
			l.line++
			l.at++
		case c == '\\' && strings.HasPrefix(l.source[l.at:], "\\\n"), c == '\\' && strings.HasPrefix(l.source[l.at:], "\\\r\n"):
			l.at = strings.IndexByte(l.source[l.at:], '\n') + l.at + 1
			l.line++
		case c == ' ' || c == '\t' || c == '\r' || c == '\f':
			l.at++
		case c == '#':
			for l.at < len(l.source) && l.source[l.at] != '\n' {
				l.at++
			}
		default:
			if fresh {
				fresh = false
				l.indent = l.at - (strings.LastIndexByte(l.source[:l.at], '\n') + 1)
			}
			if err := l.word(); err != nil {
				return nil, err
			}
		}
	}
	l.add(newline, "", l.at, l.at)
	l.add(end, "", l.at, l.at)
	return l.tokens, nil
}

func (l *lexer) add(k kind, value string, from, to int) {
	l.tokens = append(l.tokens, token{k, value, from, to, l.line, l.indent})
}

// operators of more than one sign, longest first.
var operators = []string{"...", "**=", "//=", ">>=", "<<=", "->", ":=", "**", "//", ">>", "<<", "<=", ">=", "==", "!=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "@="}

func (l *lexer) word() error {
	rest := l.source[l.at:]
	r, _ := utf8.DecodeRuneInString(rest)
	switch {
	case r == '"' || r == '\'':
		return l.text("")
	case r == '_' || unicode.IsLetter(r):
		size := strings.IndexFunc(rest, func(r rune) bool {
			return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.Mn, r)
		})
		if size < 0 {
			size = len(rest)
		}
		word := rest[:size]
		if size < len(rest) && (rest[size] == '"' || rest[size] == '\'') && len(word) <= 2 && strings.Trim(strings.ToLower(word), "rbuft") == "" {
			return l.text(strings.ToLower(word))
		}
		l.add(name, word, l.at, l.at+size)
		l.at += size
	case r >= '0' && r <= '9' || r == '.' && len(rest) > 1 && rest[1] >= '0' && rest[1] <= '9':
		size := 1
		for size < len(rest) {
			c := rest[size]
			sign := (c == '+' || c == '-') && (rest[size-1] == 'e' || rest[size-1] == 'E') && !strings.HasPrefix(strings.ToLower(rest), "0x")
			if !sign && c != '.' && c != '_' && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') {
				break
			}
			size++
		}
		l.add(number, rest[:size], l.at, l.at+size)
		l.at += size
	default:
		for _, op := range operators {
			if strings.HasPrefix(rest, op) {
				l.add(operator, op, l.at, l.at+len(op))
				l.at += len(op)
				return nil
			}
		}
		switch r {
		case '(', '[', '{':
			l.depth++
		case ')', ']', '}':
			if l.depth--; l.depth < 0 {
				return &SyntaxError{l.line, "a bracket is closed that was not opened"}
			}
		}
		size := utf8.RuneLen(r)
		l.add(operator, rest[:size], l.at, l.at+size)
		l.at += size
	}
	return nil
}

// text reads a string literal whose prefix (such as rb) begins at l.at.
func (l *lexer) text(prefix string) error {
	from, line := l.at, l.line
	l.at += len(prefix)
	quote := l.source[l.at : l.at+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(l.source[l.at:], triple) {
		quote = triple
	}
	l.at += len(quote)
	raw := strings.Contains(prefix, "r")
	var b strings.Builder
	for {
		rest := l.source[l.at:]
		switch {
		case rest == "" || rest[0] == '\n' && len(quote) == 1:
			return &SyntaxError{line, "a text is not closed"}
		case strings.HasPrefix(rest, quote):
			l.at += len(quote)
			k := text
			if strings.ContainsAny(prefix, "ft") {
				k = format
			}
			l.tokens = append(l.tokens, token{k, b.String(), from, l.at, line, l.indent})
			return nil
		case rest[0] == '\\' && len(rest) > 1:
			if rest[1] == '\n' {
				l.line++
			}
			if raw {
				b.WriteString(rest[:2])
				l.at += 2
				continue
			}
			l.at += escape(&b, rest)
		default:
			if rest[0] == '\n' {
				l.line++
			}
			b.WriteByte(rest[0])
			l.at++
		}
	}
}

var escapes = map[byte]string{'n': "\n", 't': "\t", 'r': "\r", '\\': "\\", '\'': "'", '"': "\"", 'a': "\a", 'b': "\b", 'f': "\f", 'v': "\v", '\n': ""}

// escape writes what the escape at the beginning of s means, and returns its length. What is none stays as it is,
// as in Python.
func escape(b *strings.Builder, s string) int {
	if out, ok := escapes[s[1]]; ok {
		b.WriteString(out)
		return 2
	}
	if digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[1]]; digits > 0 && len(s) >= 2+digits {
		if n, err := strconv.ParseUint(s[2:2+digits], 16, 32); err == nil {
			b.WriteRune(rune(n))
			return 2 + digits
		}
	}
	octal := 1
	for octal < 4 && octal < len(s) && s[octal] >= '0' && s[octal] <= '7' {
		octal++
	}
	if octal > 1 {
		n, err := strconv.ParseUint(s[1:octal], 8, 32)
		if err == nil {
			b.WriteRune(rune(n))
		}
		return octal
	}
	b.WriteString(s[:2])
	return 2
}
