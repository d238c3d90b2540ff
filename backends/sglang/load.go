package sglang

import (
	"encoding/json"
	"fmt"
)

// LoadPaths tell how much an engine has to do: /v1/loads since 0.5.8, before that /get_load. An engine without the first answers 404. Both
// are read from what the schedulers publish when a request's prefill begins, every few decoded tokens, and when they run out of work
// (docs/facts/sglang.md, section 2.3).
var LoadPaths = [...]string{"/v1/loads?include=core", "/get_load"}

// InFlight reads the number of requests that an engine works on or has queued from the answer of one of LoadPaths, over all data-parallel
// groups.
func InFlight(body []byte) (int, error) {
	type group struct {
		Running *int `json:"num_running_reqs"`
		Waiting int  `json:"num_waiting_reqs"`
		Both    *int `json:"num_reqs"` // of /get_load: those that wait are among them
	}
	var doc struct {
		Loads []group `json:"loads"`
	}
	err := json.Unmarshal(body, &doc)
	if err != nil {
		err = json.Unmarshal(body, &doc.Loads)
	}
	if err != nil {
		return 0, fmt.Errorf("the engine's load: %w", err)
	}
	n := 0
	for _, g := range doc.Loads {
		switch {
		case g.Running != nil:
			n += *g.Running + g.Waiting
		case g.Both != nil:
			n += *g.Both
		default:
			return 0, fmt.Errorf("the engine's load has an unknown form: %.200s", body)
		}
	}
	if len(doc.Loads) == 0 {
		return 0, fmt.Errorf("the engine's load has an unknown form: %.200s", body)
	}
	return n, nil
}
