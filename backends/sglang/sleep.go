package sglang

import (
	"encoding/json"
	"net/http"
	"strings"

	"pilotlight/backends"
	"pilotlight/backends/sglang/flags"
)

// SleepArgs are the options that an engine needs to sleep as spec says and that spec's arguments do not give; see flags.ForSleep.
func SleepArgs(spec *backends.Spec) []string {
	if spec.Sleep == "" {
		return nil
	}
	return flags.ForSleep(spec.Sleep == backends.SleepWeights, spec.Command, spec.ExtraArgs)
}

// Step is one request to an engine on its way into or out of sleep. It is a POST with a JSON body, and has been done when the answer is 200.
type Step struct {
	Path string
	Body string
	// Busy is the status of an engine that is not that far yet, and is asked again; 0: none.
	Busy int
}

// FallAsleep are the steps into sleep, in order. Each fences the one after it. The pause keeps generations, and probes that generate, in
// the API server, where they wait instead of killing the engine; mode abort also ends those that are under way for a client that
// has left, after whom SGLang generates for another 2 s. The flush is refused until the scheduler itself counts as idle, by the very
// condition whose absence makes it die at the release.
func FallAsleep(how backends.Sleep) []Step {
	return []Step{
		{Path: "/pause_generation", Body: `{"mode":"abort"}`},
		{Path: "/flush_cache", Body: `{}`, Busy: http.StatusBadRequest},
		{Path: "/release_memory_occupation", Body: tags(how)},
	}
}

// WakeUp are the steps out of the same sleep, in order.
func WakeUp(how backends.Sleep) []Step {
	return []Step{
		{Path: "/resume_memory_occupation", Body: tags(how)},
		{Path: "/continue_generation", Body: `{}`},
	}
}

// tags name what is released. The same ones are resumed: one that was not released would kill the engine.
func tags(how backends.Sleep) string {
	if how == backends.SleepKV {
		return `{"tags":["kv_cache"]}`
	}
	return `{"tags":["weights","kv_cache"]}`
}

// Canary is a generation of a few tokens, sent to an engine that is awake and has nothing else to do: SGLang's own warm-up. An engine
// that answered it before it slept must answer it after.
func Canary() Step {
	return Step{Path: "/generate", Body: `{"text":"The capital city of France is","sampling_params":{"max_new_tokens":8,"temperature":0}}`}
}

// Sings tells whether the answer to Canary holds any text. Engines that only embed, or that have no tokenizer, never do.
func Sings(status int, body []byte) bool {
	var answer struct {
		Text string `json:"text"`
	}
	return status == http.StatusOK && json.Unmarshal(body, &answer) == nil && strings.TrimSpace(answer.Text) != ""
}
