package sglang

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pilotlight/backends"
)

var update = flag.Bool("update", false, "write what is made of each excerpt into docs/troubleshooting.md")

const page = "../../docs/troubleshooting.md"

// told is what the page says under an excerpt.
func told(f *backends.Failure) string {
	text := "> " + f.Message + "\n"
	if f.Advice != "" {
		text += ">\n> **Advice:** " + f.Advice + "\n"
	}
	return text
}

var excerpt = regexp.MustCompile("(?s)```(log|text)([^\n]*)\n(.*?)```\n((?:>[^\n]*\n)*)")

// exitOf reads "exit=1", "exit=-9" (a signal) and "args=--tp=2" behind a fence.
func exitOf(t *testing.T, info string) (exit ExitStatus, args []string) {
	t.Helper()
	for _, field := range strings.Fields(info) {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "exit":
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatalf("%q: %v", info, err)
			}
			if exit.Code = n; n < 0 {
				exit = ExitStatus{Signal: syscall.Signal(-n)}
			}
		case "args":
			args = append(args, value)
		default:
			t.Fatalf("%q is not understood", field)
		}
	}
	return exit, args
}

// The page has a section for each class of failure and no other, in each an excerpt, and below an engine's output what Classify makes of it.
func TestTroubleshootingPage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../backends.go")
	if err != nil {
		t.Fatal(err)
	}
	var classes []string
	for _, m := range regexp.MustCompile(`Class\w+\s+Class = "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		classes = append(classes, m[1])
	}
	if len(classes) < 15 {
		t.Fatalf("found only these classes: %v", classes)
	}
	sections := strings.Split(string(text), "\n## `")
	var found []string
	for i, section := range sections[1:] {
		class, _, _ := strings.Cut(section, "`")
		found = append(found, class)
		excerpts := 0
		sections[i+1] = excerpt.ReplaceAllStringFunc(section, func(block string) string {
			excerpts++
			m := excerpt.FindStringSubmatch(block)
			if m[1] == "text" {
				return block
			}
			exit, args := exitOf(t, m[2])
			lines := strings.Split(strings.TrimSuffix(m[3], "\n"), "\n")
			f := Classify(lines, exit, args...)
			if string(f.Class) != class {
				t.Errorf("an excerpt of %s is classified as %s: %q", class, f.Class, lines)
			}
			if !*update && m[4] != told(f) {
				t.Errorf("under an excerpt of %s the page says %q, want %q; run with -update", class, m[4], told(f))
			}
			return "```log" + m[2] + "\n" + m[3] + "```\n" + told(f)
		})
		if excerpts == 0 {
			t.Errorf("the page has no excerpt of %s", class)
		}
	}
	for _, class := range classes {
		if !slices.Contains(found, class) {
			t.Errorf("the page lacks %s", class)
		}
	}
	for _, class := range found {
		if !slices.Contains(classes, class) {
			t.Errorf("the page has %s, which is no class", class)
		}
	}
	if *update {
		if err := os.WriteFile(page, []byte(strings.Join(sections, "\n## `")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
