package sglangsim

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// defaultFraction is what --mem-fraction-static falls back to in SGLang.
const defaultFraction = "0.88"

// claimGPUs tells whoever plays nvidia-smi which GPUs this process is on: a file in dir, named by the process id, with
// CUDA_VISIBLE_DEVICES (none: "all") and the fraction of their memory. Nobody removes it, as an engine can be killed: what counts is
// whether the process lives.
func claimGPUs(dir string, getenv func(string) string, fraction string) error {
	devices := "all"
	if getenv != nil && getenv("CUDA_VISIBLE_DEVICES") != "" {
		devices = getenv("CUDA_VISIBLE_DEVICES")
	}
	name := strconv.Itoa(os.Getpid())
	temporary := filepath.Join(dir, "."+name) // whoever looks meanwhile sees all of it or nothing
	if err := os.WriteFile(temporary, fmt.Appendf(nil, "%s %s\n", devices, fraction), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(dir, name))
}
