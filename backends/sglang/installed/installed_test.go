package installed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pilotlight/backends/sglang/flags"
	"pilotlight/internal/testtools"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write makes a file of lines and returns its path.
func write(t *testing.T, mode os.FileMode, path ...string) func(lines ...string) string {
	t.Helper()
	return func(lines ...string) string {
		name := filepath.Join(path...)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
}

// packages is a folder in which a package of that version is installed, as far as its metadata goes.
func packages(t *testing.T, version string) string {
	dir := t.TempDir()
	write(t, 0o644, dir, "sglang-"+version+".dist-info", "METADATA")("Metadata-Version: 2.1", "Name: sglang", "Version: "+version)
	return dir
}

func TestVersionOfRealInterpreters(t *testing.T) {
	python := testtools.Python(t)
	with := map[string]string{"PYTHONPATH": packages(t, "0.5.12.post1"), "HF_TOKEN": "not passed on"}
	dir := t.TempDir()
	short := write(t, 0o755, dir, "sglang")("#!"+python, "import sys")
	long := write(t, 0o755, dir, "long", "sglang")("#!/bin/sh", "'''exec' \""+python+"\" \"$0\" \"$@\"", "' '''")
	d := New(os.Environ())
	for _, command := range [][]string{{python, "-m", "sglang.launch_server"}, {short, "serve"}, {long, "serve"}, {"./sglang", "serve"}} {
		got, err := d.Version(command, dir, with)
		if got != "0.5.12.post1" || err != nil {
			t.Errorf("%q: got %q, %v", command, got, err)
		}
	}
	if got, err := d.Version([]string{python}, "", nil); got != "" || !errors.Is(err, flags.ErrNoSGLang) {
		t.Errorf("without the package: got %q, %v", got, err)
	}
}

func TestVersionOfOtherCommands(t *testing.T) {
	dir := t.TempDir()
	shell := write(t, 0o755, dir, "start.sh")("#!/bin/sh", "exec python3 -m sglang.launch_server")
	binary := write(t, 0o755, dir, "sglang-sim")("\x7fELF\x00\x01")
	d := New(os.Environ())
	for _, command := range [][]string{nil, {shell}, {binary}, {filepath.Join(dir, "absent")}, {"no-such-program-anywhere"}} {
		if got, err := d.Version(command, "", nil); got != "" || !errors.Is(err, flags.ErrNoPython) {
			t.Errorf("%q: got %q, %v", command, got, err)
		}
	}
	broken := write(t, 0o755, dir, "python3")("#!/bin/sh", "echo no such option >&2; exit 1")
	if got, err := d.Version([]string{broken}, "", nil); got != "" || err == nil || !strings.Contains(err.Error(), "no such option") {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := d.Version([]string{filepath.Join(dir, "gone", "python3")}, "", nil); err == nil {
		t.Error("an interpreter that is not there gave no error")
	}
}

// An interpreter that never answers must not hold up the gateway, nor what it started keep its pipe open.
func TestAskEndsInTime(t *testing.T) {
	hanging := write(t, 0o755, t.TempDir(), "python3")("#!/bin/sh", "exec sleep 60")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := ask(ctx, hanging, "", nil); err == nil || !strings.Contains(err.Error(), "did not say") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestVersionIsRemembered(t *testing.T) {
	now, asked := time.Unix(0, 0), 0
	d := New(nil)
	d.now = func() time.Time { return now }
	d.ask = func(context.Context, string, string, []string) (string, error) { asked++; return "0.5.15", nil }
	ask := func(path string) {
		if got, err := d.Version([]string{"python3"}, "", map[string]string{"PYTHONPATH": path}); got != "0.5.15" || err != nil {
			t.Fatal(got, err)
		}
	}
	ask("a")
	ask("a")
	if asked != 1 {
		t.Errorf("asked %d times within a minute", asked)
	}
	ask("b")
	now = now.Add(fresh)
	ask("a")
	if asked != 3 {
		t.Errorf("asked %d times for two environments and a minute later; want 3", asked)
	}
}

// The answers do not grow without bound in a process that lives long: see Version.
func TestAnswersAreForgotten(t *testing.T) {
	now := time.Unix(0, 0)
	d := New(nil)
	d.now = func() time.Time { return now }
	d.ask = func(context.Context, string, string, []string) (string, error) { return "0.5.15", nil }
	for i := range 100 {
		now = now.Add(fresh)
		if _, err := d.Version([]string{"python3"}, strings.Repeat("x", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(d.answers); n > 1 {
		t.Errorf("%d answers are kept", n)
	}
}
