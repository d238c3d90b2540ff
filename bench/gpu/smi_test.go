package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// h200MiB is an H200's memory.
const h200MiB = 143771

// withGPUs makes a folder with an nvidia-smi that knows so many H200 and the simulated engines which say in claims that they are on it: a file by
// process id with the GPU, the fraction of its memory, and, of an engine that sleeps, the fraction that it still has.
func withGPUs(t *testing.T, n int) (tools, claims string) {
	t.Helper()
	tools, claims = t.TempDir(), t.TempDir()
	script := fmt.Sprintf(`#!/bin/sh
cd %q || exit 1
for f in [0-9]*; do
	[ -e "$f" ] && kill -0 "$f" 2>/dev/null && cat "$f"
done | awk -v full=%d -v gpus=%d -v what="$1" '
	{ for (i = 0; i < gpus; i++) if ($1 == "all" || index("," $1 ",", "," i ",")) used[i] += full * $NF }
	END {
		for (i = 0; i < gpus; i++) {
			m = int(used[i]) + 3
			if (what ~ /uuid/) printf "%%d, GPU-%%d, NVIDIA H200, %%d, %%d, Disabled\n", i, i, full, m
			else if (what ~ /driver/) printf "simulated H200, %%d MiB, none\n", full
			else printf "%%d, %%d\n", i, m
		}
	}'
`, claims, h200MiB, n)
	if err := os.WriteFile(filepath.Join(tools, "nvidia-smi"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return tools, claims
}
