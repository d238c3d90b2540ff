package shard

import (
	"os/exec"
	"strings"
	"testing"

	"pilotlight/backends/sglang/flags"
	"pilotlight/internal/testtools"
)

// What the program calls is there in SGLang's own source, as it is called. The simulated package, which other tests run, must not be the only
// one that has it.
func TestCallsAreSGLangs(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), testtools.PythonAlone(t, "sglang==0.5.15"), "-B", "testdata/calls.py").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "0.5.15" {
		t.Errorf("%v: %s", err, out)
	}
}

// The options that the program adds, and those that are not the engine's to load with, are SGLang's.
func TestOptionsAreSGLangs(t *testing.T) {
	for _, version := range []string{"0.5.2", "0.5.15", "0.5.23"} {
		table, _, err := flags.ForVersion(version)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"--model-path", "--tp-size", "--load-format", "--skip-server-warmup", "--watchdog-timeout", "--trust-remote-code", "--dtype", "--quantization"} {
			if table.Option(name) == nil {
				t.Errorf("SGLang %s has no %s", version, name)
			}
		}
		if table.Option("--cuda-graph-backend-decode") == nil && table.Option("--disable-cuda-graph") == nil {
			t.Errorf("SGLang %s: nothing leaves CUDA graphs out", version)
		}
	}
	newest := flags.Newest()
	for _, name := range shaping {
		known := false
		for _, table := range flags.All() {
			known = known || table.Option(name) != nil
		}
		if !known {
			t.Errorf("no SGLang up to %s has %s", newest.Version(), name)
		}
	}
}
