package app

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/backends/store"
	"pilotlight/bench/pysglang"
	"pilotlight/internal/testtools"
)

// newCutting is a launcher of a small model whose weights are cut up for one rank, by a simulated SGLang.
func newCutting(t *testing.T) *launcher {
	t.Helper()
	packages, folder := filepath.Join(t.TempDir(), "packages"), t.TempDir()
	if err := pysglang.Write(packages); err != nil {
		t.Fatal(err)
	}
	header := `{"a.weight": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}`
	weights := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header+"12345678"...)
	for name, text := range map[string]string{"config.json": `{"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}`, "model.safetensors": string(weights)} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := store.New(store.Options{Path: filepath.Join(t.TempDir(), "store")})
	if err != nil {
		t.Fatal(err)
	}
	logs := t.TempDir()
	return &launcher{
		log: slog.New(slog.DiscardHandler), cutter: NewCutter(s, logs),
		spec: backends.Spec{
			Model: "m", Engine: backends.EngineSGLang, Driver: backends.DriverProcess, Command: []string{testtools.Python(t), "-m", "sglang.launch_server"},
			ModelPath: folder, Env: map[string]string{"PYTHONPATH": packages}, Shard: backends.Shard{TP: 1},
		},
	}
}

func mustCut(t *testing.T, l *launcher, on *backends.Placement, progress func(activator.Progress)) {
	t.Helper()
	release, err := l.cut(t.Context(), 1, on, nil, progress)
	if err := errors.Join(err, release()); err != nil {
		t.Fatal(err)
	}
}

// A start has its weights cut up on its own devices, once; parts that somebody gives as a model are loaded as such where they fit, and
// refused where they do not, with what to do.
func TestStartsHaveWeightsCutUp(t *testing.T) {
	l := newCutting(t)
	var phases []string
	on := backends.Placement{Devices: []string{"3"}}
	mustCut(t, l, &on, func(p activator.Progress) { phases = append(phases, p.Phase+" "+p.Detail) })
	if !slices.Equal(on.Args, []string{"--load-format", "sharded_state"}) || !strings.HasPrefix(filepath.Base(filepath.Dir(filepath.Dir(on.ModelPath))), "models--sharded--") || len(on.Files) != 1 {
		t.Fatalf("placed at %+v", on)
	}
	if len(phases) == 0 || phases[len(phases)-1] != "shard finished" {
		t.Errorf("told %q", phases)
	}
	text, err := os.ReadFile(filepath.Join(l.cutter.logs, "shard-m.log"))
	if err != nil || !strings.Contains(string(text), "CUDA_VISIBLE_DEVICES=3") {
		t.Errorf("its log: %s, %v", text, err)
	}
	again := backends.Placement{}
	mustCut(t, l, &again, func(p activator.Progress) { t.Errorf("the second start is told %+v", p) })
	if again.ModelPath != on.ModelPath {
		t.Errorf("placed at %s, and before at %s", again.ModelPath, on.ModelPath)
	}

	parts := launcher{log: l.log, cutter: l.cutter, spec: l.spec}
	parts.spec.Shard, parts.spec.ModelPath = backends.Shard{}, on.ModelPath
	fits := backends.Placement{}
	mustCut(t, &parts, &fits, nil)
	if fits.ModelPath != on.ModelPath || !slices.Equal(fits.Args, on.Args) {
		t.Errorf("parts as a model are placed at %+v", fits)
	}
	for args, want := range map[string]string{
		"--tp-size 2":                  "for --tp-size 1 and not 2",
		"--dtype float16":              "in bfloat16 and not float16",
		"--quantization fp8":           "with --quantization none and not fp8",
		"--enable-fp32-lm-head":        "with none and not --enable-fp32-lm-head",
		"--tp-size 2 --pp-size 2":      "--pp-size",
		"--load-format runai_streamer": "--load-format",
	} {
		parts.spec.ExtraArgs = strings.Fields(args)
		_, err := parts.cut(t.Context(), 1, &backends.Placement{}, nil, nil)
		var f *backends.Failure
		if !errors.As(err, &f) || !f.Permanent || f.Class != backends.ClassBadFlag || !strings.Contains(f.Advice, want) {
			t.Errorf("%s: %+v", args, err)
		}
	}
}

func TestStartsThatCannotCutSaySo(t *testing.T) {
	l := newCutting(t)
	for name, c := range map[string]struct {
		change func(l *launcher)
		class  backends.Class
		want   string
	}{
		"other ranks": {func(l *launcher) { l.spec.ExtraArgs = []string{"--tp-size", "2"} }, backends.ClassBadFlag, "make them equal"},
		"no SGLang":   {func(l *launcher) { l.spec.Env = nil }, backends.ClassBadFlag, "no package sglang"},
		"no store":    {func(l *launcher) { l.cutter = nil }, backends.ClassBadFlag, "write store"},
		"no folder":   {func(l *launcher) { l.spec.ModelPath = "/does/not/exist" }, backends.ClassModelNotFound, "model_path"},
		"streamed":    {func(l *launcher) { l.spec.Stream = true }, backends.ClassBadFlag, "stream_model: false"},
		"no memory": {func(l *launcher) {
			l.spec.Env = map[string]string{"PYTHONPATH": l.spec.Env["PYTHONPATH"], "SGLANG_SIM_SHARD": "oom"}
		}, backends.ClassOutOfMemory, ""},
	} {
		broken := launcher{log: l.log, cutter: l.cutter, spec: l.spec}
		c.change(&broken)
		_, err := broken.cut(t.Context(), 1, &backends.Placement{}, nil, func(activator.Progress) {})
		var f *backends.Failure
		if !errors.As(err, &f) || f.Class != c.class || !strings.Contains(f.Advice, c.want) {
			t.Errorf("%s: %+v", name, err)
		}
	}
}
