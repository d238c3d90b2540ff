package config

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pilotlight/backends/sglang/footprint"
)

// ofSize is a model with Llama 3 8B's cache (131,072 bytes a token) and weights of that many gigabytes.
func ofSize(t *testing.T, gigabytes float64, more string) *footprint.Model {
	t.Helper()
	m, err := footprint.Read(fstest.MapFS{"model.safetensors": {}, "config.json": {Data: []byte(
		`{"num_hidden_layers": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072, "torch_dtype": "bfloat16"` + more + `}`)}})
	if err != nil {
		t.Fatal(err)
	}
	m.WeightBytes = int64(gigabytes * 1e9)
	return m
}

func TestMemory(t *testing.T) {
	for _, c := range []struct {
		name   string
		size   float64
		more   string
		fields []string
		want   string // in the error or the description
		not    string
	}{
		{"too large for one", 16, "", []string{`resources: {gpu: "T4:1"}`, "extra_args: --cpu-offload-gb 0 --mem-fraction-static 0.9"},
			"--mem-fraction-static 0.9 gives 14.4 GB of one T4, and the weights take 16 GB of each; set resources.gpu: \"T4:2\" and --tp-size 2", ""},
		{"far too large for one", 141, "", []string{`resources: {gpu: "L40s:1"}`},
			`resources.gpu: L40s:1: the weights take 141 GB, and one L40s has 48 GB; set resources.gpu: "L40s:4" and --tp-size 4`, ""},
		{"too large for two", 141, "", []string{`resources: {gpu: "L40s:2"}`, "extra_args: --tp 2"}, "the weights take 141 GB, 70.5 GB on each of 2 GPUs, and one L40s has 48 GB", ""},
		{"too large for copies on two", 60, "", []string{`resources: {gpu: "L40s:2"}`, "extra_args: --dp 2"}, "the weights take 60 GB, and one L40s has 48 GB", ""},
		{"stages share", 60, "", []string{`resources: {gpu: "L40s:2"}`, "extra_args: --pp-size 2 --context-length 8192"}, "weights 60 GB, 30 GB on each of 2 GPUs; KV cache 65.5 MB for 1,000 tokens on each", ""},
		{"a kind that never holds them", 300, "", []string{`resources: {gpu: "T4:1"}`}, `set resources.gpu: "H100:8" and --tp-size 8`, ""},
		{"nothing holds them", 3000, "", []string{`resources: {gpu: "H200:8"}`, "extra_args: --tp 8"}, "no eight GPUs of one kind hold them", ""},
		{"a fraction that is too small", 16, "", []string{`resources: {gpu: "H100:1"}`, "extra_args: --mem-fraction-static 0.15"},
			"--mem-fraction-static 0.15 gives 12 GB of one H100, and the weights take 16 GB of each; write --mem-fraction-static 0.25 or more", ""},
		{"too large for a share", 80, "", []string{`resources: {gpu: "H200:1"}`, "gpu_share: 0.5"},
			"resources.gpu: H200:1: the weights take 80 GB, and 0.5 of one H200 has 70.5 GB; write gpu_share: 0.76 or more", ""},
		{"the arithmetic of a share", 16, "", []string{`resources: {gpu: "H200:1"}`, "gpu_share: 0.5", "extra_args: --context-length 8192"},
			"about 0.88 of 0.5 of one H200 (70.5 GB) leaves room for 351,257 tokens at most", "is enough"},
		{"within what drivers differ", 50, "", []string{`resources: {gpu: "L40s:1"}`}, "leave 0 MB of one L40s's 48 GB for the KV cache", ""},
		{"quantized while loaded", 60, "", []string{`resources: {gpu: "L40s:1"}`, "extra_args: --quantization fp8"}, "weights 60 GB", "and one L40s has"},
		{"quantized before", 60, `, "quantization_config": {}`, []string{`resources: {gpu: "L40s:1"}`, "extra_args: --quantization fp8"}, "and one L40s has 48 GB", ""},
		{"offloaded", 60, "", []string{`resources: {gpu: "L40s:1"}`, "extra_args: --cpu-offload-gb 30"}, "weights 60 GB", "and one L40s has"},
		{"a kind that is not said", 60, "", []string{"resources: {gpu: 1}"}, "memory       weights 60 GB; KV cache 131.1 MB for 1,000 tokens\n", "room"},
		{"the arithmetic", 16, "", []string{`resources: {gpu: "L40s:1"}`, "extra_args: --context-length 8k --mem-fraction-static 0.8"},
			"memory       weights 16 GB; KV cache 131.1 MB for 1,000 tokens; 0.8 of one L40s (48 GB) leaves room for 170,898 tokens at most, 21.4 contexts of 8,000", ""},
		{"an eight-bit cache", 16, "", []string{`resources: {gpu: "L40s:1"}`, "extra_args: --context-length 8k --mem-fraction-static 0.8 --kv-cache-dtype fp8_e5m2"}, "room for 341,796 tokens", ""},
		{"a context that does not fit", 16, "", []string{`resources: {gpu: "L4:1"}`}, "a: room for 39,062 tokens is less than one context of 131,072; limit it with --context-length 38912, or set resources.gpu: ", ""},
		{"a device that is larger than needed", 2, "", []string{`resources: {gpu: "H200:1"}`, "extra_args: --context-length 4096"},
			`a: weights of 2 GB and 8 contexts of 4,096 (4.3 GB) fit one L4 with its 24 GB; resources.gpu: "L4:1" is enough`, ""},
		{"a device as needed", 30, "", []string{`resources: {gpu: "L40s:1"}`, "extra_args: --context-length 4096"}, "memory", "is enough"},
		{"weights that fill one of several", 40, "", []string{`resources: {gpu: "L40s:4"}`, "extra_args: --context-length 1024"}, "a: the weights fill 83 % of one L40s; --tp-size 4 spreads them over the 4 that it asks for", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := ""
			conf, err := Source{Env: testEnv, Footprint: func(path, revision string, _ map[string]string) (*footprint.Model, error) {
				asked = path + "@" + revision
				return ofSize(t, c.size, c.more), nil
			}}.Parse("/etc/pilotlight/p.yaml", []byte(withField(c.fields...)))
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = describe(conf)
			}
			if !strings.Contains(got, c.want) || c.not != "" && strings.Contains(got, c.not) {
				t.Errorf("got %s\nwant %q in it, and not %q", got, c.want, c.not)
			}
			if asked != "org/a@" {
				t.Errorf("asked for %q", asked)
			}
		})
	}
}

func TestMemoryOfAFolderThatCannotBeRead(t *testing.T) {
	conf, err := Source{Env: testEnv, Footprint: func(string, string, map[string]string) (*footprint.Model, error) {
		return nil, errors.New("config.json: unexpected end")
	}}.Parse("/etc/pilotlight/p.yaml", []byte(withField(`resources: {gpu: "L4:1"}`)))
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(conf); !strings.Contains(got, "a: the model's folder does not tell what it takes: config.json: unexpected end") {
		t.Errorf("got %s", got)
	}
}

func TestAdviceFromLearnedStarts(t *testing.T) {
	for _, c := range []struct {
		fields string
		took   time.Duration
		want   string
	}{
		{"scaling: {scaledown_after: 90}", 2 * time.Minute, "a: a start took 2m0s, and a replica leaves after 1m30s without traffic; scaledown_after of 4m0s or more"},
		{"scaling: {scaledown_after: 90}", time.Minute, ""}, {"scaling: {scaledown_after: 90}", 0, ""}, {"scaling: {replicas: 1, scaledown_after: 90}", 2 * time.Minute, ""},
	} {
		d := describer{config: must(t, withField(c.fields)), commandLine: launch, exists: func(string) bool { return true },
			lookPath: func(string) (string, error) { return "/usr/bin/python3", nil },
			learned: func(*Model) (Learned, bool) {
				return Learned{Start: c.took, Slow: "the latest start took 2m0s; faster storage"}, c.took > 0
			}}
		d.all()
		got := d.out.String()
		if !strings.Contains(got, "a: the latest start took 2m0s; faster storage\n") {
			t.Errorf("what was slow is missing: %s", got)
		}
		if c.want == "" && strings.Contains(got, "a start took") || !strings.Contains(got, c.want) {
			t.Errorf("%s, %s: got %s\nwant %q", c.fields, c.took, got, c.want)
		}
	}
}
