package shard

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// runKilled runs TestKilled in a process of its own, which kills itself while the ranks write.
func runKilled(t *testing.T, job []byte, dir string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), "SHARD_TEST_JOB="+string(job), "SHARD_TEST_STORE="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil || err.Error() != "signal: killed" {
		t.Fatalf("%v: %s", err, out)
	}
}

// processesWith are those whose command line holds text.
func processesWith(t *testing.T, text string) (found []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		line, err := os.ReadFile(name)
		if err == nil && bytes.Contains(line, []byte(text)) { // else it went
			found = append(found, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found
}
