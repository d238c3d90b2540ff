// Package sglang is what Pilotlight knows about one engine: SGLang's command line and environment, what
// its output says about the progress of a start, and what its last words say about the cause of a death.
// It is pure: it starts nothing, opens nothing and reads no clock; the drivers feed it lines.
//
// Facts are those of SGLang v0.5.2 to v0.5.17, and of runs of v0.5.15. Output is matched by substring,
// because its wording moves between releases: a line that is not recognised is never an error.
//
// Values are not safe for concurrent use unless their comment says so; functions are.
package sglang

import (
	"slices"
	"strconv"

	"pilotlight/backends"
)

// cacheReport makes answers tell how much of the prompt was cached. All releases from 0.5.2 on have it.
const cacheReport = "--enable-cache-report"

// loadFormat and streamer make weights go from an object store to the device. Releases from 0.5.10 on have it.
const (
	loadFormat = "--load-format"
	streamer   = "runai_streamer"
)

// CommandLine returns the whole argument vector of a server for spec on host:port: the spec's command,
// then the flags that only the gateway may set, those of streamed weights and those that a sleep needs (SleepArgs), then ExtraArgs.
//
// Full canonical names are used throughout, because argparse accepts any unique prefix and a prefix that
// is unique today is ambiguous in a later release. The API key is visible to local users in the process
// list (SGLang has no other way to take one), so it must be random per replica. An empty ModelPath,
// ServedName or apiKey leaves its flag out.
func CommandLine(spec *backends.Spec, host string, port int, apiKey string) []string {
	args := append([]string(nil), spec.Command...)
	flag := func(name, value string) {
		if value != "" {
			args = append(args, name, value)
		}
	}
	flag("--model-path", spec.ModelPath)
	flag("--served-model-name", spec.ServedName)
	flag("--host", host)
	flag("--port", strconv.Itoa(port))
	flag("--api-key", apiKey)
	if spec.Stream && !slices.Contains(spec.Command, loadFormat) && !slices.Contains(spec.ExtraArgs, loadFormat) {
		args = append(args, loadFormat, streamer)
	}
	args = append(args, SleepArgs(spec)...)
	if spec.CacheReport && !slices.Contains(spec.Command, cacheReport) && !slices.Contains(spec.ExtraArgs, cacheReport) {
		args = append(args, cacheReport)
	}
	return append(args, spec.ExtraArgs...)
}
