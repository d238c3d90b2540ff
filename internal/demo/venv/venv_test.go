package venv_test

import (
	"archive/zip"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/internal/demo/venv"
	"pilotlight/internal/testtools"
)

// wheel writes a wheel of one module and returns the folder it lies in, so that no test here needs a network.
func wheel(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "tiny-1.0-py3-none-any.whl"))
	if err != nil {
		t.Fatal(err)
	}
	archive := zip.NewWriter(file)
	for _, f := range [][2]string{
		{"tiny.py", "answer = 42\n"},
		{"tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"},
		{"tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{"tiny-1.0.dist-info/RECORD", "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\ntiny-1.0.dist-info/RECORD,,\n"},
	} {
		w, err := archive.Create(f[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// needPython skips where no environment can be made at all.
func needPython(t *testing.T) {
	t.Helper()
	out, err := exec.Command("python3", "-I", "-c", "import sys, venv, ensurepip; assert sys.version_info >= (3, 10)").CombinedOutput()
	if err != nil {
		testtools.Missing(t, "python", strings.TrimSpace(string(out))+" "+err.Error())
	}
}

func options(t *testing.T, wheels string) venv.Options {
	t.Helper()
	return venv.Options{
		CacheDir: t.TempDir(), Name: "env", Requirements: []string{"tiny==1.0"}, NoDeps: true, Files: []string{"tiny.py"},
		// What a user may have set must not lead the installation elsewhere.
		Environ: append(os.Environ(), "PIP_NO_INDEX=1", "PIP_FIND_LINKS="+wheels, "PIP_TARGET="+t.TempDir(), "PIP_USER=1",
			"PYTHONPATH=/nonexistent", "PIP_CONFIG_FILE="+os.DevNull),
	}
}

func works(t *testing.T, env *venv.Env) {
	t.Helper()
	out, err := exec.Command(env.Python, "-I", "-c", "import tiny; print(tiny.answer, tiny.__file__)").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "42 "+env.Site) {
		t.Errorf("got %s, %v; want 42 from %s", out, err, env.Site)
	}
}

func TestEnsure(t *testing.T) {
	needPython(t)
	opts := options(t, wheel(t))
	var mu sync.Mutex
	var steps []string
	opts.Progress = func(p venv.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if len(steps) == 0 || steps[len(steps)-1] != p.Step {
			steps = append(steps, p.Step)
		}
	}
	if venv.Ready(opts) {
		t.Fatal("it is ready before it was made")
	}

	// Several at once: one works, the others wait.
	var group sync.WaitGroup
	envs, errs := make([]*venv.Env, 3), make([]error, 3)
	for i := range envs {
		group.Go(func() { envs[i], errs[i] = venv.Ensure(t.Context(), opts) })
	}
	group.Wait()
	fresh := 0
	for i, env := range envs {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if env.Fresh {
			fresh++
		}
	}
	if fresh != 1 || !venv.Ready(opts) {
		t.Errorf("got %d makers of 3 and ready %t, want one and true", fresh, venv.Ready(opts))
	}
	works(t, envs[0])
	for _, want := range []string{"looking for Python", "waiting for another", "making a private Python", "downloading tiny==1.0", "installing"} {
		if !strings.Contains(strings.Join(steps, "\n"), want) {
			t.Errorf("got steps %q, want %q among them", steps, want)
		}
	}

	// There already: nothing is asked for but the interpreter's name.
	again, err := venv.Ensure(t.Context(), opts)
	if err != nil || again.Fresh {
		t.Errorf("got %+v, %v the second time; want it as it was", again, err)
	}

	// A file of a package is gone.
	if err := os.Remove(filepath.Join(again.Site, "tiny.py")); err != nil {
		t.Fatal(err)
	}
	mended, err := venv.Ensure(t.Context(), opts)
	if err != nil || !mended.Fresh {
		t.Fatalf("got %+v, %v after damage; want it made anew", mended, err)
	}
	works(t, mended)
}

// A break may come anywhere; the marker is what tells a whole environment from half of one.
func TestEnsureGoesOnAfterABreak(t *testing.T) {
	needPython(t)
	opts := options(t, wheel(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opts.Progress = func(p venv.Progress) {
		if p.Step == "installing" {
			cancel()
		}
	}
	if _, err := venv.Ensure(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	if venv.Ready(opts) {
		t.Fatal("half an environment counts as ready")
	}
	// The interpreter of the broken one must not matter either.
	dir, err := venv.Dir(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "venv", "bin", "python")); err != nil {
		t.Fatal(err)
	}
	var steps []string
	opts.Progress = func(p venv.Progress) { steps = append(steps, p.Step) }
	env, err := venv.Ensure(t.Context(), opts)
	if err != nil || !env.Fresh {
		t.Fatalf("got %+v, %v; want it made", env, err)
	}
	works(t, env)
	if strings.Contains(strings.Join(steps, "\n"), "downloading") {
		t.Errorf("got steps %q, want no second download", steps)
	}
}

func TestEnsureSaysWhatFailed(t *testing.T) {
	needPython(t)
	opts := options(t, wheel(t))
	opts.Requirements = []string{"tiny==2.0"}
	_, err := venv.Ensure(t.Context(), opts)
	if err == nil || !strings.Contains(err.Error(), "downloading tiny==2.0") || !strings.Contains(err.Error(), "No matching distribution") {
		t.Errorf("got %v, want the step and pip's reason", err)
	}
	opts.Python = "/nonexistent/python3"
	var missing *venv.MissingError
	if _, err := venv.Ensure(t.Context(), opts); !errors.As(err, &missing) {
		t.Errorf("got %v, want a MissingError", err)
	}
}

// Debian's Python without python3-venv has no ensurepip, but the machine may have a pip that can fill other environments.
func TestEnsureWithoutEnsurepip(t *testing.T) {
	needPython(t)
	real, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	fake := func(pip string) string {
		path := filepath.Join(t.TempDir(), "python3")
		text := "#!/bin/sh\ncase \"$*\" in\n*importlib.util*) echo 3.11.0 venv pip;;\n*'-m pip'*) " + pip + ";;\n*) exec " + real + " \"$@\";;\nesac\n"
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	opts := options(t, wheel(t))
	opts.Python = fake("echo 'no such option: --python' >&2; exit 2")
	var missing *venv.MissingError
	if _, err := venv.Ensure(t.Context(), opts); !errors.As(err, &missing) || !strings.Contains(err.Error(), "python3-venv") {
		t.Errorf("got %v with an old pip, want a MissingError that names python3-venv", err)
	}
	if out, err := exec.Command(real, "-I", "-m", "pip", "--python", real, "--version").CombinedOutput(); err != nil {
		t.Logf("this machine's own pip is too old for the second half: %s", out)
		return
	}
	opts.Python = fake("exec " + real + " \"$@\"")
	env, err := venv.Ensure(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	works(t, env)
}

func TestLockWaitsAndCanBeGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := venv.Lock(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := venv.Lock(ctx, path, func() { told++ }); !errors.Is(err, context.DeadlineExceeded) || told != 1 {
		t.Errorf("got %v, told %d times; want the deadline and once", err, told)
	}
	if err := venv.Unlock(first); err != nil {
		t.Fatal(err)
	}
	second, err := venv.Lock(t.Context(), path, func() { t.Error("waited for a free lock") })
	if err != nil {
		t.Fatal(err)
	}
	if err := venv.Unlock(second); err != nil {
		t.Fatal(err)
	}
}
