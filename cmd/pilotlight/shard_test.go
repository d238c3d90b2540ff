package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pilotlight/backends"
	"pilotlight/internal/config"
)

func TestShardFlags(t *testing.T) {
	for _, c := range []struct {
		flags shardFlags
		want  backends.Shard
		args  string
		wrong string
	}{
		{shardFlags{}, backends.Shard{}, "", ""},
		{shardFlags{shard: "tp=4", python: "python3"}, backends.Shard{TP: 4}, "--tp-size 4", ""},
		{shardFlags{shard: "engine=sglang,tp=2,trust_remote_code", python: "p", args: `--dtype "bfloat16"`}, backends.Shard{TP: 2, TrustRemoteCode: true}, "--tp-size 2 --dtype bfloat16", ""},
		{shardFlags{shard: "4"}, backends.Shard{}, "", "write tp=N"},
		{shardFlags{shard: "tp=0"}, backends.Shard{}, "", "write tp=N"},
		{shardFlags{shard: "trust_remote_code"}, backends.Shard{}, "", "write tp=N"},
		{shardFlags{shard: "engine=vllm,tp=2"}, backends.Shard{}, "", "write tp=N"},
		{shardFlags{shard: "tp=2", args: `"`}, backends.Shard{}, "", "--engine-args"},
		{shardFlags{accelerator: "L40s:4"}, backends.Shard{}, "", "are for --shard"},
	} {
		spec, err := c.flags.spec()
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%+v: %v, want %q", c.flags, err, c.wrong)
			}
			continue
		}
		if err != nil || (spec == nil) != (c.want.TP == 0) {
			t.Errorf("%+v: %+v, %v", c.flags, spec, err)
			continue
		}
		if spec != nil && (spec.Shard != c.want || strings.Join(spec.ExtraArgs, " ") != c.args || spec.Command[0] != c.flags.python) {
			t.Errorf("%+v: %+v", c.flags, spec)
		}
	}
}

// What models want cut up comes with their own commands; an entry of prefetch that one of them serves is not cut up a second time.
func TestWhatTheConfigurationWantsCutUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	text := `store: {path: store}
prefetch:
  - {name: parts, source: org/served, shard: {tp: 2}}
  - {name: alone, source: org/alone, shard: {tp: 4}, accelerator: "L40s:4"}
  - org/whole
models:
  - {name: a, model_id: a, model_path: "store:parts", extra_args: --tp-size 2 --dtype float16}
  - {name: b, model_id: b, model_path: /models/b, extra_args: --tp-size 2, prefetch: {shard: {tp: 2}}}
  - {name: c, model_id: c, model_hf_path: org/whole, prefetch: true}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, err := config.Load(file, func(name string) (string, bool) { return t.TempDir(), name == "HOME" })
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range cutsOf(conf) {
		got = append(got, strings.Join([]string{c.label, c.spec.Weights.Origin + c.spec.ModelPath, strings.Join(c.spec.ExtraArgs, " "), c.accelerator}, "|"))
	}
	want := []string{"a|org/servedstore:parts|--tp-size 2 --dtype float16|", "b|/models/b|--tp-size 2|", "alone|org/alone|--tp-size 4|L40s:4"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
