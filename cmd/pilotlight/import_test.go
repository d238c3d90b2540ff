package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImportCommand(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	app := write("app.py", `a = SGLangAppEnvironment(name="a", model_id="a", model_hf_path="o/a", extra_args=["--tp", SIZE])`)
	none := write("none.py", "x = 1\n")
	broken := write("broken.py", "x = (1))\n")
	large := write("large.py", strings.Repeat("#\n", maxPython/2+1))
	run := func(args ...string) (out, errs string, err error) {
		root := rootCommand()
		var o, e strings.Builder
		root.SetOut(&o)
		root.SetErr(&e)
		root.SetArgs(append([]string{"import"}, args...))
		err = root.ExecuteContext(t.Context())
		return o.String(), e.String(), err
	}
	out, errs, err := run(app, none)
	if err != nil || !strings.Contains(out, "- name: a\n    model_id: a\n    model_hf_path: o/a\n") || errs != "lines with (!) that ask for something: 1\n" {
		t.Errorf("%v: %s%s", err, out, errs)
	}
	var usage usageError
	for _, args := range [][]string{{}, {none}, {broken}, {large}} {
		if out, _, err := run(args...); !errors.As(err, &usage) || out != "" {
			t.Errorf("%q: got %v, %s", args, err, out)
		}
	}
	if _, _, err := run(filepath.Join(dir, "absent.py")); err == nil || errors.As(err, &usage) {
		t.Errorf("a file that is not there: %v", err)
	}
}
