package sglang

import "pilotlight/backends"

const (
	// slowRead and fastRead are what storage gives: below the first it is a network or a disk that turns, above the second a good local
	// disk or the page cache, and only fewer bytes help. NVMe disks read 1 to 3 GB/s.
	slowRead = 500e6
	fastRead = 2e9
)

// Remedy is what makes a phase of a start shorter, for operators; empty for phases that are as short as they get. bytesPerSecond is how fast the
// engine read meanwhile; 0: not known.
func Remedy(phase backends.Phase, bytesPerSecond float64) string {
	switch phase {
	case backends.PhaseLaunch:
		return "keep the engine's Python environment and its caches of compiled kernels (~/.cache, ~/.triton) on a local disk; sleep_after or a longer scaledown_after makes starts rarer"
	case backends.PhaseDownload:
		return "fetch the model before it is needed (hf download, then model_path or the same cache), or stream it from an object store nearby (--load-format runai_streamer)"
	case backends.PhaseWeights:
		switch {
		case bytesPerSecond >= fastRead:
			return "the storage is fast: fewer bytes help (a quantised model, more GPUs with --tp-size), or starting less often (sleep_after, a longer scaledown_after)"
		case bytesPerSecond >= slowRead:
			return "use faster storage, or a quantised model; with several GPUs a sharded model (--load-format sharded_state)"
		default:
			return "use faster storage (NVMe reads 1 to 3 GB/s), read ahead on network disks (--weight-loader-prefetch-checkpoints), or stream the weights (--load-format runai_streamer)"
		}
	case backends.PhaseKVCache, backends.PhaseGraphs:
		return "capture fewer CUDA graphs (--cuda-graph-max-bs-decode, before 0.5.14 --cuda-graph-max-bs), and keep the caches of compiled kernels (~/.cache, ~/.triton) from start to start"
	case backends.PhaseWarmup:
		return "--skip-server-warmup leaves the warm-up to the first request; kernels that are compiled meanwhile are kept in ~/.cache and ~/.triton"
	}
	return ""
}
