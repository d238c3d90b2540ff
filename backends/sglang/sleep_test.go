package sglang

import (
	"slices"
	"testing"

	"pilotlight/backends"
)

func TestSleepArgs(t *testing.T) {
	const (
		memorySaver   = "--enable-memory-saver"
		weightsBackup = "--enable-weights-cpu-backup"
		draftBackup   = "--enable-draft-weights-cpu-backup"
	)
	for _, c := range []struct {
		sleep          backends.Sleep
		command, extra []string
		want           []string
	}{
		{"", nil, nil, nil},
		{backends.SleepKV, nil, nil, []string{memorySaver}},
		{backends.SleepWeights, nil, nil, []string{memorySaver, weightsBackup}},
		{backends.SleepWeights, []string{"sglang", "serve", memorySaver}, []string{weightsBackup}, nil},
		{backends.SleepWeights, nil, []string{"--speculative-algorithm", "EAGLE"}, []string{memorySaver, weightsBackup, draftBackup}},
		{backends.SleepWeights, []string{"--speculative-draft-model-path=x"}, nil, []string{memorySaver, weightsBackup, draftBackup}},
		{backends.SleepKV, nil, []string{"--speculative-algorithm", "EAGLE"}, []string{memorySaver}},
	} {
		spec := &backends.Spec{Sleep: c.sleep, Command: c.command, ExtraArgs: c.extra}
		if got := SleepArgs(spec); !slices.Equal(got, c.want) {
			t.Errorf("%s with %v %v: got %v, want %v", c.sleep, c.command, c.extra, got, c.want)
		}
		line := CommandLine(spec, "127.0.0.1", 1, "k")
		for _, name := range c.want {
			if !slices.Contains(line, name) {
				t.Errorf("%s is missing in %v", name, line)
			}
		}
	}
}

// A hash that a sleep changes replaces the replica: one without a memory saver must not be put to sleep.
func TestSleepIsPartOfTheSpec(t *testing.T) {
	hashes := map[string]bool{}
	for _, s := range []backends.Sleep{"", backends.SleepKV, backends.SleepWeights} {
		hashes[(&backends.Spec{Sleep: s}).Hash()] = true
	}
	if len(hashes) != 3 {
		t.Error("specs that sleep differently are the same")
	}
}

func TestStepsMirrorEachOther(t *testing.T) {
	for _, how := range []backends.Sleep{backends.SleepKV, backends.SleepWeights} {
		in, out := FallAsleep(how), WakeUp(how)
		if in[len(in)-1].Body != out[0].Body {
			t.Errorf("%s releases %s and resumes %s", how, in[len(in)-1].Body, out[0].Body)
		}
		if in[0].Path != "/pause_generation" || out[len(out)-1].Path != "/continue_generation" {
			t.Errorf("%s is not paused from the first step to the last: %v, %v", how, in, out)
		}
	}
}

func TestSings(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   bool
	}{
		{200, `{"text":" Paris.","meta_info":{}}`, true},
		{200, `{"text":""}`, false},
		{200, `{"text":" \n"}`, false},
		{200, `[{"text":"x"}]`, false},
		{400, `{"text":"x"}`, false},
		{200, `{"embedding":[1]}`, false},
		{200, ``, false},
	} {
		if got := Sings(c.status, []byte(c.body)); got != c.want {
			t.Errorf("%d %s: %v", c.status, c.body, got)
		}
	}
}
