package doccheck

import (
	"go/ast"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every error code that the edge can give must be in the README's table, and beside its status. Codes are the Code members of error
// values, what is assigned to one, and what defaultCode returns.
func TestErrorCodesAreDocumented(t *testing.T) {
	_, files := goFiles(t, "gateway", false)
	statuses := map[string]map[string]bool{} // by code; statuses only where the code writes them beside each other
	note := func(code, status string) {
		if statuses[code] == nil {
			statuses[code] = map[string]bool{}
		}
		if status != "" {
			statuses[code][status] = true
		}
	}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if name, ok := n.Type.(*ast.Ident); !ok || name.Name != "apiError" {
					return true
				}
				code, status := "", ""
				for _, element := range n.Elts {
					pair, ok := element.(*ast.KeyValueExpr)
					if !ok {
						continue
					}
					switch pair.Key.(*ast.Ident).Name {
					case "Code":
						code, _ = text(pair.Value)
					case "Status":
						if lit, ok := pair.Value.(*ast.BasicLit); ok {
							status = lit.Value
						}
					}
				}
				if code != "" {
					note(code, status)
				}
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					if field, ok := left.(*ast.SelectorExpr); ok && field.Sel.Name == "Code" && len(n.Rhs) == len(n.Lhs) {
						if code, ok := text(n.Rhs[i]); ok {
							note(code, "")
						}
					}
				}
			case *ast.FuncDecl:
				if n.Name.Name != "defaultCode" {
					return true
				}
				ast.Inspect(n, func(n ast.Node) bool {
					if back, ok := n.(*ast.ReturnStmt); ok {
						if code, ok := text(back.Results[0]); ok {
							note(code, "")
						}
					}
					return true
				})
			}
			return true
		})
	}
	if len(statuses) < 25 {
		t.Fatalf("found only these codes: %v", sortedKeys(statuses))
	}
	errors, _, _ := strings.Cut(section(t, read(t, "README.md"), "## Errors"), "### ")
	rows := column(errors, 1)
	for _, code := range sortedKeys(statuses) {
		documented := rows[code]
		if code == "invalid_admin_token" || code == "invalid_configuration" || code == "cross_site_request" {
			documented = []string{errors} // the admin listener's are in a sentence
			if !strings.Contains(errors, "`"+code+"`") {
				documented = nil
			}
		}
		if documented == nil {
			t.Errorf("the README's error table lacks %s", code)
			continue
		}
		for _, status := range sortedKeys(statuses[code]) {
			if !slices.ContainsFunc(documented, func(row string) bool { return strings.Contains(row, status) }) {
				t.Errorf("the README's error table does not say that %s comes with status %s", code, status)
			}
		}
	}
	for _, code := range sortedKeys(rows) {
		if statuses[code] == nil {
			t.Errorf("the README's error table has %s, which nothing gives", code)
		}
	}
}

// Each class of failure becomes a code, too.
func TestFailureClassesAreDocumented(t *testing.T) {
	_, files := goFiles(t, "backends", false)
	classes := map[string]bool{}
	for _, file := range files {
		if file.Name.Name != "backends" {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Class" {
				class, ok := text(spec.Values[0])
				if !ok {
					t.Errorf("the class %s is no literal", spec.Names[0].Name)
				}
				classes[class] = true
			}
			return true
		})
	}
	if len(classes) < 10 {
		t.Fatalf("found only these classes: %v", sortedKeys(classes))
	}
	rows := column(section(t, read(t, "README.md"), "### Why a start failed"), 0)
	compare(t, "the README's table of failed starts", rows, classes)
}

// compare wants the same words on both sides.
func compare[A, B any](t *testing.T, where string, documented map[string]A, real map[string]B) {
	t.Helper()
	for _, word := range sortedKeys(real) {
		if _, ok := documented[word]; !ok {
			t.Errorf("%s lacks %s", where, word)
		}
	}
	for _, word := range sortedKeys(documented) {
		if _, ok := real[word]; !ok {
			t.Errorf("%s has %s, which does not exist", where, word)
		}
	}
}

// Paths that the edge serves, from its own table and from the admin listener's switch.
func TestEndpointsAreDocumented(t *testing.T) {
	endpoints := section(t, read(t, "README.md"), "## Endpoints")
	_, files := goFiles(t, "gateway", false)
	var paths []string
	for path, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if n.Names[0].Name != "routes" || len(n.Values) != 1 {
					return true
				}
				for _, element := range n.Values[0].(*ast.CompositeLit).Elts {
					route, _ := text(element.(*ast.KeyValueExpr).Key)
					if route != "/" && route != "/health" {
						route = "/v1" + route
					}
					paths = append(paths, route)
				}
			case *ast.BasicLit:
				if filepath.Base(path) != "admin.go" {
					return true
				}
				if s, ok := text(n); ok && strings.HasPrefix(s, "/") && !strings.HasSuffix(s, "/") && s != "/retry" {
					paths = append(paths, s)
				}
			}
			return true
		})
	}
	if len(paths) < 15 {
		t.Fatalf("found only these paths: %v", paths)
	}
	for _, path := range paths {
		if !regexp.MustCompile("[ `]" + regexp.QuoteMeta(path) + "`").MatchString(endpoints) {
			t.Errorf("the README's endpoints lack %s", path)
		}
	}
}

// Every field that the configuration reads is in the README: in a table, or among those that are refused as not supported yet.
func TestFieldsAreDocumented(t *testing.T) {
	_, files := goFiles(t, "internal/config", false)
	fields := map[string]bool{}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if method, ok := call.Fun.(*ast.SelectorExpr); !ok || method.Sel.Name != "fields" {
				return true
			}
			for _, argument := range call.Args {
				if field, ok := text(argument); ok {
					fields[field] = true
				}
			}
			return true
		})
	}
	// Members of what is refused as a whole.
	for _, inner := range []string{"cert", "key", "path", "max_bytes", "remote", "url", "kind", "count", "issuer", "audience", "jwks_url", "revision",
		"accelerator", "shard", "tp", "trust_remote_code"} {
		if !fields[inner] {
			t.Errorf("%s is no field any more; take it out of this test", inner)
		}
		delete(fields, inner)
	}
	if len(fields) < 50 {
		t.Fatalf("found only these fields: %v", sortedKeys(fields))
	}
	configuration := section(t, read(t, "README.md"), "## Configuration")
	for _, field := range sortedKeys(fields) {
		if !regexp.MustCompile("[`.{ ]" + field + "[`.,} ]").MatchString(configuration) {
			t.Errorf("the README's configuration lacks %s", field)
		}
	}
}

// Every package has its line, and every line its package.
func TestPackagesAreDocumented(t *testing.T) {
	packages := map[string]bool{}
	_, files := goFiles(t, ".", true)
	for path := range files {
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		packages[filepath.ToSlash(folder)] = true
	}
	rows := column(section(t, read(t, "README.md"), "## Packages"), 0)
	compare(t, "the README's table of packages", rows, packages)
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// Links of the pages lead to files and headings that exist.
func TestLinks(t *testing.T) {
	var pages []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if err == nil && strings.HasSuffix(path, ".md") {
			pages = append(pages, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, page := range pages {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			to, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if to.Scheme != "" {
				continue
			}
			links++
			target := page
			if to.Path != "" {
				target = filepath.Join(filepath.Dir(page), to.Path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
				continue
			}
			if to.Fragment == "" {
				continue
			}
			data, err := os.ReadFile(target)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(anchors(string(data)), to.Fragment) {
				t.Errorf("%s links to %s, and there is no such heading", page, m[1])
			}
		}
	}
	if links < 10 {
		t.Errorf("found only %d links", links)
	}
}

// anchors are the fragments of a page's headings, as GitHub makes them.
func anchors(page string) []string {
	var list []string
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		title := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		title = regexp.MustCompile(`[^\p{L}\p{N}\s_-]`).ReplaceAllString(title, "")
		list = append(list, strings.ReplaceAll(title, " ", "-"))
	}
	return list
}
