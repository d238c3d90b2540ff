package doccheck

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// citation is a page and sections of it: "facts/clients.md §1.5, §2.4", "DESIGN.md §6", "facts/clients.md §§0–3".
var citation = regexp.MustCompile(`\b(facts/[A-Za-z]+\.md|DESIGN\.md)((?:[ ,]*(?:and )?§+ ?[0-9.]*[0-9](?:–[0-9.]*[0-9])?)*)`)

// bare is a note cited in a way that nobody can follow, such as "(facts: …)" or "facts §3".
var bare = regexp.MustCompile(`\bfacts(:| §)`)

var numberOf = regexp.MustCompile(`[0-9.]*[0-9]`)

// What comments cite must exist under docs.
func TestCitations(t *testing.T) {
	set, files := goFiles(t, ".", true)
	cited := 0
	for path, file := range files {
		for _, group := range file.Comments {
			if strings.HasPrefix(filepath.ToSlash(path), root+"/internal/doccheck/") {
				continue // examples
			}
			at := set.Position(group.Pos()).Line
			text := strings.Join(strings.Fields(group.Text()), " ")
			for _, m := range citation.FindAllStringSubmatch(text, -1) {
				cited++
				if err := resolve(m[1], m[2]); err != nil {
					t.Errorf("%s:%d cites %q: %v", path, at, m[0], err)
				}
			}
			if m := bare.FindString(text); m != "" {
				t.Errorf("%s:%d says %q; name the page and the section", path, at, m)
			}
		}
	}
	if cited < 10 {
		t.Errorf("found only %d citations", cited)
	}
}

func resolve(page, sections string) error {
	data, err := os.ReadFile(filepath.Join(root, "docs", page))
	if err != nil {
		return err
	}
	for _, number := range numberOf.FindAllString(sections, -1) {
		if !hasSection(string(data), number) {
			return fmt.Errorf("docs/%s has no section %s", page, number)
		}
	}
	return nil
}

// hasSection: "1.5" is the heading "1.5 …", or item 5 of the list in section "1. …".
func hasSection(page, number string) bool {
	if regexp.MustCompile(`(?m)^#+ ` + regexp.QuoteMeta(number) + `\.? `).MatchString(page) {
		return true
	}
	of, item, ok := cutLast(number)
	if !ok {
		return false
	}
	_, body, ok := cutHeading(page, of)
	return ok && regexp.MustCompile(`(?m)^`+item+`\. `).MatchString(body)
}

func cutLast(number string) (of, item string, ok bool) {
	i := strings.LastIndex(number, ".")
	if i < 0 {
		return "", "", false
	}
	return number[:i], number[i+1:], true
}

// cutHeading returns what stands between a numbered heading and the next heading of any level.
func cutHeading(page, number string) (before, body string, ok bool) {
	at := regexp.MustCompile(`(?m)^#+ ` + regexp.QuoteMeta(number) + `\.? .*$`).FindStringIndex(page)
	if at == nil {
		return "", "", false
	}
	body = page[at[1]:]
	if end := strings.Index(body, "\n#"); end >= 0 {
		body = body[:end]
	}
	return page[:at[0]], body, true
}

func TestHasSection(t *testing.T) {
	const page = "# Page\n\n## 0. Decisions\n1. one\n2. two\n\n## 1. More\n### 1.5 Deep\n7. seven\n\n## 10. Last\n"
	for _, tt := range []struct {
		number string
		want   bool
	}{
		{"0", true}, {"1", true}, {"1.5", true}, {"10", true}, {"0.2", true}, {"1.5.7", true},
		{"2", false}, {"0.3", false}, {"1.7", false}, {"5", false}, {"1.50", false}, {"0.0", false},
	} {
		if got := hasSection(page, tt.number); got != tt.want {
			t.Errorf("hasSection(%s) = %v, want %v", tt.number, got, tt.want)
		}
	}
	for _, tt := range []struct{ text, page, sections string }{
		{"see facts/clients.md §1.5, §2.4 for it", "facts/clients.md", " §1.5, §2.4"},
		{"facts/sglang.md §2.4, facts/clients.md §4.", "facts/sglang.md", " §2.4"},
		{"(DESIGN.md §6)", "DESIGN.md", " §6"},
		{"DESIGN.md's limits", "DESIGN.md", ""},
		{"facts/clients.md §§0–3", "facts/clients.md", " §§0–3"},
	} {
		m := citation.FindStringSubmatch(tt.text)
		if m == nil || m[1] != tt.page || m[2] != tt.sections {
			t.Errorf("citation in %q = %q, want %q with %q", tt.text, m, tt.page, tt.sections)
		}
	}
}
