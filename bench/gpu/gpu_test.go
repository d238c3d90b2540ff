package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pilotlight/bench/pysglang"
	"pilotlight/internal/testtools"
)

// TestMain lets more scenes play side by side than there are processors: they wait more than they work.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic("BUG: " + err.Error())
	}
	goleak.VerifyTestMain(m)
}

// smallConfig is what SmolLM2-135M-Instruct says of itself, as far as anybody here reads it.
const smallConfig = `{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "tie_word_embeddings": true}`

// simulated are options with the simulator in SGLang's place, which starts in a second and is as slow in what it does afterwards as the machine is busy.
func simulated(t *testing.T) options {
	t.Helper()
	small := filepath.Join(t.TempDir(), "small")
	if err := os.MkdirAll(small, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"config.json": smallConfig, "tokenizer.json": "{}"} {
		if err := os.WriteFile(filepath.Join(small, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return options{
		Pilotlight: testtools.Binary(t, "./cmd/pilotlight"),
		Command: []string{
			testtools.Binary(t, "./cmd/sglang-sim"), "--sim-start", "500ms", "--sim-children", "2", "--sim-model-check", "--sim-drain-poll", "100ms", "--sim-exit-delay", "50ms",
			// A cancelled request must be ended by the gateway: the engine alone would take this long to see that its client is gone.
			"--sim-disconnect-delay", "1m",
		},
		EngineVersion: "0.5.15", More: map[string][]string{"giant": {"--sim-fail", "oom"}}, // it reads no config.json
		Large: small, // it has no weights to read
		Model: small, Out: t.TempDir(), Slack: 100, LongAnswer: 3000, Log: t.Logf,
	}
}

// onGPU gives the scene GPUs of its own.
func (o options) onGPU(t *testing.T, n int) options {
	t.Helper()
	tools, claims := withGPUs(t, n)
	o.Tools, o.Command, o.Log = tools, slices.Concat(o.Command, []string{"--sim-gpu-dir", claims}), t.Logf
	return o
}

// inPython has the simulator started by a Python that has it as SGLang, so that weights can be cut up.
func (o options) inPython(t *testing.T) options {
	t.Helper()
	packages := filepath.Join(t.TempDir(), "packages")
	if err := pysglang.Write(packages); err != nil {
		t.Fatal(err)
	}
	o.Vars = append(slices.Clone(o.Vars), "PYTHONPATH="+packages, "SGLANG_SIM="+strings.Join(o.Command, " "))
	o.Command = []string{testtools.Python(t), "-m", "sglang.launch_server"}
	small := filepath.Join(t.TempDir(), "small")
	if err := os.CopyFS(small, os.DirFS(o.Model)); err != nil {
		t.Fatal(err)
	}
	s := shape{hidden: 64, inter: 128, layers: 2, heads: 4, kvHeads: 2, headDim: 16, vocab: 256, layersPerFile: 1}
	if err := s.write(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	o.Model, o.Even = small, small
	return o
}

// Every scene holds with the simulator as it must with the real engine.
func TestScenesWithTheSimulator(t *testing.T) {
	t.Parallel()
	o := simulated(t)
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			gpus := 1
			if s.name == "two" || s.name == "beside" {
				gpus = 2
			}
			o := o.onGPU(t, gpus)
			if slices.Contains([]string{"store", "sharded", "two", "beside"}, s.name) {
				o = o.inPython(t)
			}
			r, err := s.play(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Passed {
				t.Errorf("did not hold; the gateway's log ends with:\n%s", tail(filepath.Join(o.Out, s.name, "gateway.log")))
			}
			if err := r.write(o.Out); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What fails is told as such, in the result and on the page; the rest of the scene is not played where it would mean nothing, and
// nothing is left behind.
func TestAFailingStepIsToldAndNothingIsLeft(t *testing.T) {
	t.Parallel()
	o := simulated(t)
	o.Command = append(o.Command, "--sim-fail", "unsupported")
	s, err := find("cold")
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.play(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Passed || len(r.Steps) != 2 || r.Steps[0].OK || !strings.Contains(r.Steps[0].Error, "unsupported_model") || !r.Steps[1].OK {
		t.Errorf("got %v, %+v", r.Passed, r.Steps)
	}
	if err := r.write(o.Out); err != nil {
		t.Fatal(err)
	}
	results, err := readResults(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := writeReport(&page, results); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Not all steps held", "| cold start, a streaming client waits | **no** |", "unsupported_model"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, page.String())
		}
	}
}

// A scene whose time is over ends, says so, and leaves nothing.
func TestASceneIsBoundedInTime(t *testing.T) {
	t.Parallel()
	o := simulated(t)
	o.Command = append(o.Command, "--sim-start", "1h")
	s := coldScene
	s.limit = 2 * time.Second
	r, err := s.play(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Passed || len(r.Steps) != 2 || r.Steps[0].OK || !r.Steps[1].OK {
		t.Errorf("got %v, %s, %s", r.Passed, r.Steps[0].text(), r.Steps[1].text())
	}
	if left := writers(o.Out); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

func TestThePageHoldsWhatWasMeasured(t *testing.T) {
	r := result{Scene: "cold", Passed: true, Seconds: 100, Machine: machineText{GPU: "NVIDIA H200", CPUs: 16, Memory: 128 << 30, Kernel: "6.1"}, Steps: []*stepResult{
		{Name: "cold start", OK: true, Seconds: 70, Figures: []figure{{"engine ready after", 66.5, "s"}, {"ready to first byte", 0.05, "s"}, {"of it the engine", 0.03, "s"}, {"of it the gateway", 0.02, "s"}}},
		{Name: "memory", OK: true, Figures: []figure{{"GPU memory in use", 3, "MiB"}}, Notes: []string{"a|b"}},
	}}
	var page bytes.Buffer
	if err := writeReport(&page, []result{r}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| cold: cold start | 66.50 s | 50.0 ms | 30.0 ms | 20.0 ms |", "All steps held in 100 s", "NVIDIA H200, 16 CPUs, 128 GiB", `GPU memory in use 3 MiB; a\|b |`,
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, page.String())
		}
	}
}

func TestTheCommandLine(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"-list"}, 0, "cold "},
		{[]string{"-report", t.TempDir()}, 1, "no results"},
		{[]string{"-scene", "cold"}, 2, "-model"},
		{[]string{"-scene", "nothing", "-model", t.TempDir(), "-out", t.TempDir()}, 1, `no scene "nothing"`},
		{[]string{"-scene", "cold", "-model", "m", "more"}, 2, "more"},
		{[]string{"-what"}, 2, "-what"},
	} {
		var out bytes.Buffer
		if status := command(c.args, &out, &out); status != c.status || !strings.Contains(out.String(), c.want) {
			t.Errorf("%v: %d, %s", c.args, status, out.String())
		}
	}
}

// The giant is more than any GPU has, and is a model like the small one otherwise.
func TestTheGiantIsTooLarge(t *testing.T) {
	o := simulated(t)
	dir := filepath.Join(t.TempDir(), "giant")
	if err := os.WriteFile(filepath.Join(o.Model, "model.safetensors"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := makeGiant(o.Model, dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Hidden int    `json:"hidden_size"`
		Inter  int    `json:"intermediate_size"`
		Layers int    `json:"num_hidden_layers"`
		Type   string `json:"model_type"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	if bytes := 2 * c.Layers * c.Hidden * (3*c.Inter + 2*c.Hidden); bytes < 300e9 || c.Type != "llama" {
		t.Errorf("%d bytes of weights, type %s", bytes, c.Type)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"config.json", "tokenizer.json"}) {
		t.Errorf("the folder has %v", names)
	}
}

// sdk is openai-python and what it needs, pinned.
var sdk = []string{
	"openai==2.46.0", "certifi==2026.10.18", "distro==1.9.0", "httpcore==1.0.9", "httpx==0.28.1", "tqdm==4.70.1",
	"annotated-types==0.8.0", "anyio==4.16.0", "h11==0.16.0", "idna==3.20", "jiter==0.19.0", "pydantic==2.14.3",
	"pydantic-core==2.50.4", "sniffio==1.3.1", "typing-inspection==0.4.5", "typing-extensions==4.16.0",
}

// The official client sees what ours sees, errors included. Python's starts are slow on a busy machine, so it plays a part.
func TestTheOfficialClientPlaysToo(t *testing.T) {
	t.Parallel()
	o := simulated(t)
	o.Client = testtools.Python(t, sdk...)
	s := coldScene
	s.steps = slices.DeleteFunc(slices.Clone(s.steps), func(s step) bool {
		return !slices.Contains([]string{"cold start, a streaming client waits", "regular expression", "tools", "a client leaves, and the engine stops working for it"}, s.name)
	})
	if len(s.steps) != 4 {
		t.Fatalf("%d steps", len(s.steps))
	}
	s.steps = append(s.steps, step{name: "an error", do: func(ctx context.Context, p *play) error {
		a, err := p.client.ask(ctx, p.gateway, chat("nobody", "Say hello.", nil))
		if err == nil && (a.Status != 404 || a.Code != "model_not_found") {
			err = errors.New(a.text())
		}
		return err
	}})
	r, err := s.play(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Passed || r.Versions.Client != "openai-python 2.46.0" {
		t.Errorf("with %s: passed %v", r.Versions.Client, r.Passed)
	}
}
