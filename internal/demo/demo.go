// Package demo shows the gateway's main job on one machine, with nothing but Go and Python: a model at zero replicas, a request that
// starts it, the streamed answer, and the replica's end when nobody uses it. It runs the same code as `pilotlight serve`
// with a configuration that it writes itself.
package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"pilotlight/auth"
	"pilotlight/internal/app"
	"pilotlight/internal/config"
	"pilotlight/internal/demo/cpuengine"
)

// Engine names what answers.
type Engine string

const (
	EngineAuto   Engine = "auto"   // SGLang if it is installed beside a GPU, else CPU
	EngineCPU    Engine = "cpu"    // a real model of 135 million parameters on llama.cpp
	EngineSGLang Engine = "sglang" // SGLang of the Python on PATH
	EngineSim    Engine = "sim"    // the simulator: no model at all
)

// Options of a demo. The zero value is what `pilotlight demo` runs, but for Simulator.
type Options struct {
	Engine Engine
	// ScaledownAfter is how long the replica stays idle. 0 means DefaultScaledown.
	ScaledownAfter time.Duration
	// Model is the Hugging Face id for EngineSGLang. Empty: a small one.
	Model string
	// Simulator is the command of the simulator, for EngineSim.
	Simulator []string
	Out       io.Writer // what the person reads
	Log       io.Writer // the gateway's own log
	Version   string
}

const (
	// DefaultScaledown is short, so that a person sees the end of the replica.
	DefaultScaledown = 15 * time.Second
	sglangModel      = "HuggingFaceTB/SmolLM2-135M-Instruct"
	modelID          = "demo"
)

// Demo is a prepared demonstration.
type Demo struct {
	App    *app.Options
	opts   Options
	engine Engine
	dir    string
	key    string
	about  string
}

// Prepare sets up the engine and writes the configuration. Close removes what it has written.
func Prepare(ctx context.Context, o Options) (_ *Demo, err error) {
	if o.ScaledownAfter <= 0 {
		o.ScaledownAfter = DefaultScaledown
	}
	d := &Demo{opts: o, engine: o.Engine}
	if d.engine == EngineAuto || d.engine == "" {
		d.engine = detect(ctx)
	}
	model, err := d.model(ctx)
	if err != nil {
		return nil, err
	}
	if d.dir, err = os.MkdirTemp("", "pilotlight-demo-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	file := filepath.Join(d.dir, "pilotlight.yaml")
	text, err := yaml.Marshal(map[string]any{
		"listen":    "127.0.0.1:0",
		"admin":     map[string]any{"listen": "127.0.0.1:0"},
		"state_dir": filepath.Join(d.dir, "state"),
		"models":    []any{model},
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	load := func() (*config.Config, error) { return config.Load(file, os.LookupEnv) }
	c, err := load()
	if err != nil {
		return nil, err
	}
	secret, key, err := auth.Generate(rand.Reader, time.Now(), "demo", "the demo's own", time.Time{})
	if err != nil {
		return nil, err
	}
	keys, err := auth.Static(key)
	if err != nil {
		return nil, err
	}
	d.key = secret
	d.App = &app.Options{Config: c, Load: load, Watch: true, Keys: keys, Version: o.Version,
		Logger: slog.New(slog.NewTextHandler(o.Log, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	return d, nil
}

// Close removes the demo's folder; the engine itself stays in the user's cache for the next time.
func (d *Demo) Close() {
	if d.dir != "" {
		if err := os.RemoveAll(d.dir); err != nil {
			fmt.Fprintln(d.opts.Out, "could not remove the demo's folder:", err)
		}
	}
}

// detect prefers SGLang where it can run.
func detect(ctx context.Context) Engine {
	if _, err := exec.LookPath("nvidia-smi"); err != nil {
		return EngineCPU
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if exec.CommandContext(ctx, "nvidia-smi", "-L").Run() != nil {
		return EngineCPU
	}
	// find_spec does not import it, which would take half a minute.
	if exec.CommandContext(ctx, "python3", "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('sglang') is None)").Run() != nil {
		return EngineCPU
	}
	return EngineSGLang
}

// model is the entry of the configuration.
func (d *Demo) model(ctx context.Context) (map[string]any, error) {
	m := map[string]any{
		"name": "demo", "model_id": modelID,
		"scaling": map[string]any{"replicas": []int{0, 1}, "scaledown_after": d.opts.ScaledownAfter.String()},
		// Early and frequent, so that a person sees the progress even of a fast start.
		"cold": map[string]any{"grace": "300ms", "heartbeat": "1s"},
	}
	switch d.engine {
	case EngineSim:
		d.about = "the SIMULATOR (no model: its answers are made up)"
		m["model_path"] = "simulated"
		// The simulator's own flags belong to the command: extra_args are checked against SGLang's.
		command := slices.Concat(d.opts.Simulator, []string{"--sim-start", "6s", "--sim-ttft", "100ms", "--sim-itl", "40ms"})
		m["backend"] = map[string]any{"process": map[string]any{"command": command, "engine": "sglang"}}
	case EngineSGLang:
		id := d.opts.Model
		if id == "" {
			id = sglangModel
		}
		d.about = "SGLang with " + id
		m["model_hf_path"] = id
	case EngineCPU:
		engine, err := d.cpu(ctx)
		if err != nil {
			return nil, err
		}
		d.about = "llama.cpp on the CPU with SmolLM2-135M (real, tiny, and not wise)"
		m["model_path"] = engine.ModelPath
		m["scaling"].(map[string]any)["metric"] = map[string]any{"concurrency": engine.Parallel}
		m["backend"] = map[string]any{"process": map[string]any{"command": engine.Command, "engine": "openai", "probe": "/health"}}
	default:
		return nil, fmt.Errorf("there is no engine %q: use auto, cpu, sglang or sim", d.engine)
	}
	return m, nil
}

func (d *Demo) cpu(ctx context.Context) (cpuengine.Engine, error) {
	opts := cpuengine.Options{}
	if !cpuengine.Ready(opts) {
		d.say("Setting up a small real model and its server in your cache folder (about 130 MB, once; your own Python is not touched).")
		opts.Progress = cpuengine.Lines(d.opts.Out)
	}
	return cpuengine.Ensure(ctx, opts)
}

func (d *Demo) say(format string, args ...any) { fmt.Fprintf(d.opts.Out, format+"\n", args...) }
