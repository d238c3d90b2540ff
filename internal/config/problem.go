package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Problem is one thing that is wrong (or, among warnings, doubtful) in a file, and what to do about it.
// It never holds the value of a field that may carry a secret.
type Problem struct {
	Line    int    // 1-based; 0: the file as a whole
	Path    string // such as models[2].scaling.replicas; empty: the file as a whole
	Value   string // the offending value as written, shortened; empty: none, or it may be a secret
	Message string
	Fix     string // what to write instead; may be empty
}

// String is the problem without the file's name: path: value: message; fix.
func (p Problem) String() string {
	var b strings.Builder
	for _, part := range []string{p.Path, p.Value} {
		if part != "" {
			b.WriteString(part)
			b.WriteString(": ")
		}
	}
	b.WriteString(p.Message)
	if p.Fix != "" {
		b.WriteString("; ")
		b.WriteString(p.Fix)
	}
	return b.String()
}

// Problems is the error of Load and Parse: everything that is wrong with one file, sorted by line.
type Problems struct {
	File string
	List []Problem
}

// Error has one line for each problem: file:line: path: value: message; fix.
func (p *Problems) Error() string {
	lines := make([]string, len(p.List))
	for i, problem := range p.List {
		lines[i] = located(p.File, problem)
	}
	return strings.Join(lines, "\n")
}

func located(file string, p Problem) string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", file, p)
	}
	return fmt.Sprintf("%s:%d: %s", file, p.Line, p)
}

// maxProblems keeps a file of another kind (a log, a JSON dump) from filling the terminal.
const maxProblems = 100

// sorted orders problems by line, drops repetitions (a merged anchor is read once per use) and cuts the
// list at maxProblems.
func sorted(list []Problem) []Problem {
	slices.SortStableFunc(list, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	list = slices.Compact(list)
	if extra := len(list) - maxProblems; extra > 0 {
		list = append(list[:maxProblems:maxProblems],
			Problem{Line: list[maxProblems].Line, Message: strconv.Itoa(extra) + " more problems from here on"})
	}
	return list
}

// shown makes a value from the file fit for a message: one line, printable, at most 60 characters.
func shown(s string) string {
	const most = 60
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most-1]) + "…"
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || s == "" {
		return strconv.Quote(s)
	}
	return s
}

// beside resolves a path from the file: relative ones count from the file's own folder, so that a
// configuration means the same from wherever it is started.
func beside(file, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(file), path)
}
