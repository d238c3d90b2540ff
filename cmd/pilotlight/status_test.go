package main

import (
	"strings"
	"testing"
	"time"

	"pilotlight/internal/app"
)

func TestStatusTellsOfStarts(t *testing.T) {
	now := time.Now()
	soon := now.Add(30 * time.Second)
	state := &app.State{Models: []app.ModelState{
		{
			ModelID: "a", State: "starting", ETASeconds: 41.2,
			Replicas: []app.ReplicaState{{ID: 3, State: "starting", Since: now.Add(-20 * time.Second), Phase: "weights", Percent: 38.4, ETA: 41.2}},
			Slow:     &app.SlowState{Text: "the start has taken 1m40s, more than twice the usual 45s", Remedy: "faster storage"},
		},
		{ModelID: "b", Failure: &app.FailureState{Class: "model_gated", Message: "the model's repository is gated", Permanent: true, At: now.Add(-time.Minute)}},
		{ModelID: "c", Failure: &app.FailureState{Class: "killed", Message: "the engine was killed", At: now, RetryAt: &soon, Lines: []string{"last words"}}},
		{ModelID: "d", Scaling: &app.ScalingState{Want: 3, Reason: "load", Metric: "concurrency", Load: 21.4, Target: 8}},
		{ModelID: "e", Scaling: &app.ScalingState{Want: 1, Reason: "devices", Metric: "request_rate", Load: 7, Target: 2.5},
			RolledBack: &app.FailureState{Class: "out_of_memory", Message: "no memory", Permanent: true, At: now.Add(-time.Minute), Lines: []string{"more words"}}},
	}}
	var out strings.Builder
	if err := printState(&out, state, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"a replica 3: starting for 20s, phase weights, 38 %, ready in about 41s\n",
		"a: the start has taken 1m40s, more than twice the usual 45s\n  advice: faster storage\n",
		"b failed 1m0s ago (model_gated): the model's repository is gated\n  it is not tried again until its configuration changes, or by: pilotlight retry b\n",
		"  it is not tried again for 30s, or by: pilotlight retry c\n  | last words\n",
		"d wants 3 (load): a load of 21.4 requests in flight, 8 for each replica\n",
		"e wants 1 (devices): a load of 7 requests per second, 2.5 for each replica\n",
		"e is NOT as configured: no replica of the changed model became ready, so it stays as it was before (1m0s ago)\n  out_of_memory: no memory\n" +
			"  it is tried again when its configuration changes, or by: pilotlight retry e\n  | more words\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status lacks %q:\n%s", want, out.String())
		}
	}
}
