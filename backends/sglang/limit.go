package sglang

import (
	"regexp"
	"strconv"
	"strings"
)

var maxRunning = regexp.MustCompile(`max_running_requests=(\d+)`)

// MaxRunningRequests reads the engine's own limit of simultaneous requests from its capacity line, which
// comes after memory is laid out and before the port is bound:
//
//	max_total_num_tokens=…, chunked_prefill_size=…, max_prefill_tokens=…, max_running_requests=4096, …
//
// With data parallelism the number is that of one group. Any other line gives false, also the dump of
// the arguments, where the same name stands for what was asked for and not for what was granted.
func MaxRunningRequests(line string) (int, bool) {
	if !strings.Contains(line, "max_total_num_tokens=") {
		return 0, false
	}
	m := maxRunning.FindStringSubmatch(line)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	return n, err == nil && n > 0
}

// MaxRunningRequestsFlag reads the limit from launch arguments; the last one wins, as in argparse. The
// engine may grant fewer, so its capacity line counts for more.
func MaxRunningRequestsFlag(args []string) (limit int, found bool) {
	const name = "--max-running-requests"
	for i, arg := range args {
		value, ok := strings.CutPrefix(arg, name+"=")
		if arg == name && i+1 < len(args) {
			value, ok = args[i+1], true
		}
		if n, err := strconv.Atoi(value); ok && err == nil && n > 0 {
			limit, found = n, true
		}
	}
	return limit, found
}
