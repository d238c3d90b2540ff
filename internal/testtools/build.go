package testtools

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// built holds what this process has built, so that each program is built once per test run of a package.
var built struct {
	mu    sync.Mutex // guards paths, and is held while building: the go command uses all cores by itself
	paths map[string]string
}

// Binary builds a program of this module, such as "./cmd/pilotlight" (relative to the module's root), and returns its path. flags
// go to "go build", such as "-race".
func Binary(t testing.TB, pkg string, flags ...string) string {
	t.Helper()
	return build(t, moduleRoot(t), pkg, flags)
}

// GoModule builds the program in dir, a folder with a go.mod of its own, and returns its path. modfile names another
// file in dir to use in place of go.mod (with its .sum beside it), for a second set of versions; empty: go.mod. The tool that
// PILOTLIGHT_REQUIRE may name is "modules".
func GoModule(t testing.TB, dir, modfile string) string {
	t.Helper()
	return goProgram(t, dir, modfile, ".")
}

// goProgram builds pkg, a package of the module in dir or one that it requires.
func goProgram(t testing.TB, dir, modfile, pkg string) string {
	t.Helper()
	abs, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	var flags []string
	if modfile != "" {
		flags = append(flags, "-modfile="+filepath.Join(abs, modfile))
	}
	if path := cached(abs, pkg, flags); path != "" {
		return path
	}
	// A missing network must not look like a driver that does not compile.
	ctx, cancel := context.WithTimeout(t.Context(), setupTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"list", "-deps"}, flags...), pkg)...)
	cmd.Dir, cmd.Env = abs, goEnv()
	if text, err := cmd.CombinedOutput(); err != nil {
		Missing(t, "modules", fmt.Errorf("finding the packages of %s: %w: %s", dir, err, last(text)))
	}
	return build(t, abs, pkg, flags)
}

// cached is what build has made already, or "".
func cached(dir, pkg string, flags []string) string {
	built.mu.Lock()
	defer built.mu.Unlock()
	return built.paths[buildKey(dir, pkg, flags)]
}

func buildKey(dir, pkg string, flags []string) string {
	return strings.Join(append([]string{dir, pkg}, flags...), "\n")
}

func build(t testing.TB, dir, pkg string, flags []string) string {
	t.Helper()
	built.mu.Lock()
	defer built.mu.Unlock()
	key := buildKey(dir, pkg, flags)
	if path := built.paths[key]; path != "" {
		return path
	}
	sum := sha256.Sum256([]byte(key))
	folder := filepath.Join(cacheDir(t), "bin", filepath.Base(pkg)+"-"+hex.EncodeToString(sum[:6]))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), setupTimeout)
	defer cancel()
	// A new file each time and a rename, because another test process may be running the old program.
	fresh, err := os.MkdirTemp(folder, "build-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	name := filepath.Base(pkg)
	if name == "." {
		name = filepath.Base(dir)
	}
	out := filepath.Join(fresh, name)
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-trimpath", "-o", out}, flags...), pkg)...)
	cmd.Dir = dir
	cmd.Env = goEnv()
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s in %s: %v: %s", pkg, dir, err, last(text))
	}
	path := filepath.Join(folder, name)
	if err := os.Rename(out, path); err != nil {
		t.Fatal(err)
	}
	if built.paths == nil {
		built.paths = map[string]string{}
	}
	built.paths[key] = path
	return path
}

// goEnv keeps a workspace or flags of the user's from changing what is built.
func goEnv() []string { return append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false") }

// moduleRoot is the nearest folder above the test's own with a go.mod.
func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = filepath.Dir(dir)
	}
}
