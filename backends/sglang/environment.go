package sglang

import (
	"maps"
	"slices"
	"strings"
)

// Folders are the places that a launch's environment points to.
type Folders struct {
	// Temp becomes TMPDIR. It must be short (the engine makes unix sockets in it, whose names may have
	// 107 bytes) and belong to this launch alone, because a killed engine leaves its sockets behind.
	Temp string
	// Cache keeps what would otherwise be compiled again at each start since TMPDIR is new each time.
	Cache string
}

// fixed holds the variables that every launch gets, with the reason for each.
var fixed = map[string]string{
	// /health answers at once instead of generating a token, which takes a second or more and runs the
	// model; it still answers 503 until the warm-up is over.
	"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
	// Without it Python keeps lines back while its output is a file, and progress arrives in lumps.
	"PYTHONUNBUFFERED": "1",
	// After a crash the server would hold its port for up to 65 s, accepting and never answering, while
	// it writes dumps that nobody asked for.
	"SGLANG_PYSPY_DUMP_BEFORE_CRASH":    "0",
	"SGLANG_CUDA_COREDUMP_BEFORE_CRASH": "0",
}

// unset lists variables that must not reach an engine.
var unset = []string{
	// Two servers that share this folder merge their metrics.
	"PROMETHEUS_MULTIPROC_DIR",
	// Replaces the API server by one whose /health is always good.
	"SGLANG_RUST_SERVER",
}

// loopback goes into NO_PROXY: the engine's warm-up calls itself over HTTP, and with HTTP_PROXY set it
// would ask the proxy for 127.0.0.1.
var loopback = []string{"127.0.0.1", "localhost", "::1"}

// Env makes an engine's environment, sorted, from the one it inherits ("NAME=value" entries), what every
// SGLang launch needs, and the model's own variables. The model's own win over ours, ours over the
// inherited ones; only NO_PROXY is always extended by the loopback names.
func Env(inherited []string, own map[string]string, folders Folders) []string {
	env := make(map[string]string, len(inherited)+len(own)+8)
	for _, entry := range inherited {
		if name, value, ok := strings.Cut(entry, "="); ok && name != "" {
			env[name] = value
		}
	}
	for _, name := range unset {
		delete(env, name)
	}
	maps.Copy(env, fixed)
	if folders.Temp != "" {
		env["TMPDIR"] = folders.Temp
	}
	if folders.Cache != "" && env["TORCHINDUCTOR_CACHE_DIR"] == "" {
		// torch keeps compiled kernels below the temporary folder unless told otherwise.
		env["TORCHINDUCTOR_CACHE_DIR"] = folders.Cache
	}
	maps.Copy(env, own)

	// Both spellings are read in the wild, and where both exist libraries differ in which one wins.
	direct := withLoopback(env["NO_PROXY"] + "," + env["no_proxy"])
	env["NO_PROXY"], env["no_proxy"] = direct, direct

	out := make([]string, 0, len(env))
	for name, value := range env {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

// withLoopback returns the comma-separated list without empty or repeated entries, plus the loopback names.
func withLoopback(list string) string {
	var names []string
	for _, name := range append(strings.Split(list, ","), loopback...) {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
