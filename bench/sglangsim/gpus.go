package sglangsim

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// defaultFraction is what --mem-fraction-static falls back to in SGLang.
const defaultFraction = "0.88"

// residue is what a sleeping process keeps of its GPU's memory, as a fraction: 1.6 of 44.4 GB were seen (SGLang 0.5.15, with
// CUDA graphs, most of it the CUDA context).
const (
	residue     = "0.012"
	weightsOnly = "0.05" // the same with a small model's weights
)

// claimGPUs tells whoever plays nvidia-smi which GPUs this process is on: a file in dir, named by the process id, with
// CUDA_VISIBLE_DEVICES (none: "all"), the fraction of their memory, and, while it sleeps, the fraction that it still has. Nobody removes it, as an engine can be killed: what counts is
// whether the process lives.
func claimGPUs(dir string, getenv func(string) string, fraction, asleep string) error {
	devices := "all"
	if getenv != nil && getenv("CUDA_VISIBLE_DEVICES") != "" {
		devices = getenv("CUDA_VISIBLE_DEVICES")
	}
	name := strconv.Itoa(os.Getpid())
	temporary := filepath.Join(dir, "."+name) // whoever looks meanwhile sees all of it or nothing
	if err := os.WriteFile(temporary, []byte(strings.TrimSpace(devices+" "+fraction+" "+asleep)+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(dir, name))
}
