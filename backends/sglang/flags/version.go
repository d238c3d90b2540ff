package flags

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Why the release that a command starts may not be known.
var (
	// ErrNoPython is a command whose interpreter is not known: a wrapper, a container, a program that is not Python.
	ErrNoPython = errors.New("the command's Python is not known")
	// ErrNoSGLang is an interpreter that works and has no package sglang.
	ErrNoSGLang = errors.New("its Python has no package sglang")
)

// version is the leading numbers of a release such as 0.5.12.post1, 0.5.15rc0 or 0.5.17+cu129 (PEP 440).
var version = regexp.MustCompile(`^v?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?(?:[.+-]?[A-Za-z0-9]+)*$`)

func numbers(text string) ([3]int, error) {
	m := version.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return [3]int{}, fmt.Errorf("%q is no release such as 0.5.15", text)
	}
	var out [3]int
	for i, digits := range m[1:] {
		if digits != "" {
			out[i], _ = strconv.Atoi(digits) // at most six digits
		}
	}
	return out, nil
}

// ForVersion returns the options of a release such as 0.5.15 or v0.5.12.post1: its own, or those of the nearest
// older release that is known (the oldest, for what is older than all). exact tells whether they are the
// release's own; a post-release counts as the release. The error is about text that is no release.
func ForVersion(text string) (t *Table, exact bool, err error) {
	want, err := numbers(text)
	if err != nil {
		return nil, false, err
	}
	t = tables()[0]
	for _, candidate := range tables() {
		have, err := numbers(candidate.version)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		if less(want, have) {
			break
		}
		t, exact = candidate, have == want
	}
	return t, exact, nil
}

func less(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}
