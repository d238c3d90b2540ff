package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

func TestImports(t *testing.T) {
	touchSources(t)
	packages, err := list(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 20 {
		t.Fatalf("go list found %d packages; this module has more", len(packages))
	}
	for _, problem := range check(packages) {
		t.Error(problem)
	}
}

// Every layer and reservation must be about something, or a folder that was renamed is no longer watched.
func TestRulesAreInUse(t *testing.T) {
	packages, err := list(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		used := false
		for _, p := range packages {
			used = used || covers(l.packages, strings.TrimPrefix(p.ImportPath, module+"/"))
		}
		if !used {
			t.Errorf("layer %s holds no package", l.packages)
		}
	}
	for _, r := range reservations {
		used := false
		for _, p := range packages {
			for _, imported := range append(append(p.Imports, p.TestImports...), p.XTestImports...) {
				used = used || covers(r.packages, imported)
			}
			used = used || covers(r.packages, p.ImportPath)
		}
		if !used {
			t.Errorf("nobody imports %s, and no package of ours is there", r.packages)
		}
	}
}

// The check has to find what it is there for.
func TestCheckFindsViolations(t *testing.T) {
	one := func(name string, imports, tests []string) []pkg {
		return []pkg{{ImportPath: module + "/" + name, Imports: imports, TestImports: tests}}
	}
	for _, tt := range []struct {
		name     string
		packages []pkg
		want     string // empty: nothing is wrong
	}{
		{"auth imports ours", one("auth", []string{"pilotlight/backends"}, nil), "auth imports pilotlight/backends"},
		{"activator imports ours", one("activator", []string{"pilotlight/backends"}, nil), "activator imports pilotlight/backends"},
		{"router imports a driver", one("router", []string{"pilotlight/backends/process"}, nil), "router imports pilotlight/backends/process"},
		{"gateway imports a driver", one("gateway", []string{"pilotlight/backends/static"}, nil), "gateway imports pilotlight/backends/static"},
		{"a sibling imports gateway", one("backends/static", []string{"pilotlight/gateway"}, nil), "backends/static imports pilotlight/gateway"},
		{"somebody imports a command", one("internal/app", []string{"pilotlight/cmd/pilotlight"}, nil), "commands are flags and wiring"},
		{"even a test imports a command", one("internal/e2e", nil, []string{"pilotlight/cmd/pilotlight"}), "commands are flags and wiring"},
		{"the product imports bench", one("internal/demo", []string{"pilotlight/bench/sglangsim"}, nil), "must not depend on what measures it"},
		{"fasthttp outside of the edge", one("activator", []string{"github.com/valyala/fasthttp"}, nil), "activator imports github.com/valyala/fasthttp"},
		{"fasthttp's subpackage outside of the edge", one("auth", nil, []string{"github.com/valyala/fasthttp/fasthttputil"}), "a test of auth imports"},
		{"a test imports a stranger", one("auth", nil, []string{"pilotlight/gateway"}), "a test of auth imports pilotlight/gateway"},
		{"a new package without a place", one("internal/helpers", nil, nil), "internal/helpers is in 0 layers"},

		{"what is allowed", one("gateway", []string{"fmt", "github.com/valyala/fasthttp", "pilotlight/router", "pilotlight/gateway/sse"}, nil), ""},
		{"a test with the simulator", one("backends/process", nil, []string{"pilotlight/bench/sglangsim"}), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(check(tt.packages), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("check = %q, want it to hold %q", got, tt.want)
			}
		})
	}
}

// From a real module on disk to the complaint, so that neither go list nor its reading can quietly give nothing.
func TestListSeesRealImports(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":             "module pilotlight\n\ngo 1.26.0\n",
		"auth/auth.go":       "package auth\n\nimport _ \"pilotlight/gateway\"\n",
		"auth/auth_test.go":  "package auth_test\n\nimport _ \"pilotlight/cmd/pilotlight\"\n",
		"gateway/gateway.go": "package gateway\n",
		"cmd/pilotlight/p.go": "// Package pilotlight stands for the command, which a real main package could not be: nobody can import that.\n" +
			"package pilotlight\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	packages, err := list(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(check(packages), "\n")
	for _, want := range []string{"auth imports pilotlight/gateway: ", "a test of auth imports pilotlight/cmd/pilotlight: "} {
		if !strings.Contains(got, want) {
			t.Errorf("check = %q, want it to hold %q", got, want)
		}
	}
}

// touchSources looks at every folder of the module. `go test` remembers a result until something changes that the test has looked
// at, and what `go list` looks at is not seen.
func touchSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
