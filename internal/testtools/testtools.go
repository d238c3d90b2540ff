// Package testtools brings what tests need from outside Go: Python and Node with pinned packages, model servers, and programs built from
// this module or from drivers with a go.mod of their own.
//
// Each tool is made once, in the user's cache folder, and shared by all test processes; a file lock keeps them apart. Where
// a tool cannot be had (no interpreter, no network), the test is skipped with the reason, unless the environment variable
// PILOTLIGHT_REQUIRE names it ("python", "node", "modules"; separated by commas): then the test fails. With -short, what would first have to
// be downloaded is skipped too.
package testtools

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pilotlight/internal/demo/venv"
)

// RequireEnv names the tools that must be there, separated by commas.
const RequireEnv = "PILOTLIGHT_REQUIRE"

// setupTimeout bounds the making of one tool, waiting for another process that makes it included.
const setupTimeout = 8 * time.Minute

// Required tells whether PILOTLIGHT_REQUIRE names tool.
func Required(tool string) bool {
	names := strings.FieldsFunc(os.Getenv(RequireEnv), func(r rune) bool { return r == ',' || r == ' ' })
	return slices.Contains(names, tool)
}

// Missing ends the test: it fails if tool is required, and is skipped otherwise. reason says what is missing.
func Missing(t testing.TB, tool string, reason any) {
	t.Helper()
	if Required(tool) {
		t.Fatalf("%s=%s, but %s cannot be used: %v", RequireEnv, os.Getenv(RequireEnv), tool, reason)
	}
	t.Skipf("needs %s: %v", tool, reason)
}

// cacheDir is where tools live.
func cacheDir(t testing.TB) string {
	t.Helper()
	user, err := os.UserCacheDir()
	if err != nil {
		t.Fatalf("finding the cache folder: %v", err)
	}
	dir := filepath.Join(user, "pilotlight", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Python returns an interpreter in an environment with exactly the pinned requirements and what they need. Pin these
// needs too, or a later day brings other versions.
func Python(t testing.TB, requirements ...string) string {
	t.Helper()
	return python(t, venv.Options{CacheDir: cacheDir(t), Name: "python", Requirements: requirements})
}

// PythonAlone is Python without what the requirements need: for packages that are read and not run.
func PythonAlone(t testing.TB, requirements ...string) string {
	t.Helper()
	return python(t, venv.Options{CacheDir: cacheDir(t), Name: "python", Requirements: requirements, NoDeps: true})
}

func python(t testing.TB, opts venv.Options) string {
	t.Helper()
	skipIfShort(t, "python", venv.Ready(opts))
	ctx, cancel := context.WithTimeout(t.Context(), setupTimeout)
	defer cancel()
	env, err := venv.Ensure(ctx, opts)
	if err != nil {
		Missing(t, "python", err)
	}
	return env.Python
}

// skipIfShort skips a test that would download something, where -short asks for haste and nobody requires the tool.
func skipIfShort(t testing.TB, tool string, ready bool) {
	t.Helper()
	if testing.Short() && !ready && !Required(tool) {
		t.Skipf("needs %s, which would have to be downloaded first: -short", tool)
	}
}
