package flags

import (
	"slices"
	"strings"
)

// ForSleep are the options without which an engine must not be put to sleep: without a memory saver nothing comes back, and without
// a copy of the weights every answer after the wake is empty (seen with 0.5.15; docs/facts/sglang.md, section 13). The model
// that guesses tokens for another one has an option of its own. weights says whether weights sleep, too. What the lines give already is
// left out; their options have full names, as Check gives them.
func ForSleep(weights bool, lines ...[]string) []string {
	args := slices.Concat(lines...)
	given := func(name string) bool {
		return slices.ContainsFunc(args, func(a string) bool { return a == name || strings.HasPrefix(a, name+"=") })
	}
	need := []string{"--enable-memory-saver"}
	if weights {
		need = append(need, "--enable-weights-cpu-backup")
		if given("--speculative-algorithm") || given("--speculative-draft-model-path") {
			need = append(need, "--enable-draft-weights-cpu-backup")
		}
	}
	return slices.DeleteFunc(need, given)
}
