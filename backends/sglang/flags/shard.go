package flags

import (
	"fmt"
	"slices"
)

// ShardedState is the --load-format of weights that lie in files by tensor parallel rank (LoadFormat.SHARDED_STATE).
const ShardedState = "sharded_state"

// Unshardable is what keeps the ranks of an engine from having files of weights of their own, and what to do; empty: nothing. In lines, later
// ones win.
func Unshardable(lines ...*Line) (message, fix string) {
	value := func(name string) (text string, given bool) {
		for _, l := range slices.Backward(lines) {
			if text, given = l.Value(name); given {
				return text, true
			}
		}
		return "", false
	}
	ranks := RanksOf(lines...)
	switch {
	case ranks.PP > 1:
		return fmt.Sprintf("--pp-size %d: SGLang names the files of sharded weights by tensor parallel rank alone", ranks.PP),
			fmt.Sprintf("write --tp-size %d without --pp-size", ranks.TP*ranks.PP)
	case ranks.DP > 1 && !ranks.DataInside:
		return fmt.Sprintf("--dp-size %d: every copy would write the same files of sharded weights", ranks.DP), "leave --dp-size out, and have several replicas"
	}
	if nodes, given := value("--nnodes"); given && nodes != "1" {
		return "--nnodes " + nodes + ": the ranks of other machines cannot write to this one's store", "leave --nnodes out"
	}
	if format, given := value("--load-format"); given && !slices.Contains([]string{"auto", "safetensors", ShardedState}, format) {
		return "--load-format " + format + ": sharded weights have a format of their own", "leave --load-format out"
	}
	if _, draft := value("--speculative-draft-model-path"); draft {
		if _, given := value("--speculative-draft-load-format"); !given {
			return "--speculative-draft-model-path: the draft model is not sharded, and would be looked for as if it were", "add --speculative-draft-load-format auto"
		}
	}
	return "", ""
}
