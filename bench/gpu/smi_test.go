package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// h200MiB is an H200's memory.
const h200MiB = 143771

// withGPU makes a folder with an nvidia-smi that knows one H200 and the simulated engines which say in claims that they are on it: a file by
// process id with the GPU, the fraction of its memory, and, of an engine that sleeps, the fraction that it still has.
func withGPU(t *testing.T) (tools, claims string) {
	t.Helper()
	tools, claims = t.TempDir(), t.TempDir()
	script := fmt.Sprintf(`#!/bin/sh
cd %q || exit 1
for f in [0-9]*; do
	[ -e "$f" ] && kill -0 "$f" 2>/dev/null && cat "$f"
done | awk -v full=%d -v what="$1" '
	{ used += full * $NF }
	END {
		m = int(used) + 3
		if (what ~ /uuid/) printf "0, GPU-0, NVIDIA H200, %%d, %%d, Disabled\n", full, m
		else if (what ~ /driver/) printf "simulated H200, %%d MiB, none\n", full
		else printf "0, %%d\n", m
	}'
`, claims, h200MiB)
	if err := os.WriteFile(filepath.Join(tools, "nvidia-smi"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return tools, claims
}
