// Package pysglang is the simulator in the shape of SGLang's Python package: its server, and the few calls with which weights are cut up, by
// processes that really do. Whoever has Python can so play what involves the engine's own environment without SGLang, torch or a GPU.
package pysglang

import (
	"embed"
	"io/fs"
	"os"
)

//go:embed all:packages
var packages embed.FS

// Write writes the package into an empty or new folder, for PYTHONPATH. `python3 -m sglang.launch_server` then starts the simulated server that
// the variable SGLANG_SIM names (a program and its own arguments, separated by spaces). SGLANG_SIM_SHARD makes cutting up fail: oom, unsupported, disk,
// quiet, hang, killed; see packages/sglang/srt/entrypoints/engine.py.
func Write(dir string) error {
	files, err := fs.Sub(packages, "packages")
	if err != nil {
		return err
	}
	return os.CopyFS(dir, files)
}
