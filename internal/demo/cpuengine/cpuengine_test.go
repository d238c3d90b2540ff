package cpuengine_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pilotlight/internal/demo/cpuengine"
	"pilotlight/internal/demo/venv"
	"pilotlight/internal/testtools"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "sk-engine"

type client struct {
	t   *testing.T
	url string
}

// do sends body (nil: a GET) and returns status and text.
func (c client) do(key, path string, body any) (int, string) {
	c.t.Helper()
	method, reader := http.MethodGet, io.Reader(nil)
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		method, reader = http.MethodPost, bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, reader)
	if err != nil {
		c.t.Fatal(err)
	}
	request.Close = true
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

type object = map[string]any

func chat(more object) object {
	body := object{"model": "org/smol:q4", "temperature": 0, "max_tokens": 8, "messages": []object{{"role": "user", "content": "Say hello."}}}
	for k, v := range more {
		body[k] = v
	}
	return body
}

// What the package comment promises about the engine's answers. The SDKs' view of them is in internal/conformance.
func TestEngineAnswers(t *testing.T) {
	server := testtools.CPUEngine(t, "org/smol:q4", key)
	for _, q := range []struct {
		name, key, path string
		body            any
		status          int
		want            []string
	}{
		{"health needs no key", "", "/health", nil, 200, []string{`"ok"`}},
		{"models", key, "/v1/models", nil, 200, []string{`"object":"list"`, `"id":"org/smol:q4"`}},
		{"no model by name", key, "/v1/models/org%2Fsmol:q4", nil, 404, []string{`"not_found_error"`}},
		{"wrong key", "sk-other", "/v1/models", nil, 401, []string{`{"error":{`, `"authentication_error"`, `"code":401`}},
		{"chat", key, "/v1/chat/completions", chat(nil), 200, []string{`"finish_reason":"length"`, `"completion_tokens":8`, `"model":"org/smol:q4"`}},
		{"another model's name", key, "/v1/chat/completions", chat(object{"model": "gpt"}), 200, []string{`"model":"org/smol:q4"`}},
		{"stream", key, "/v1/chat/completions", chat(object{"stream": true, "stream_options": object{"include_usage": true}}), 200,
			[]string{"data: {", `"delta":{"role":"assistant","content":null}`, `"finish_reason":"length","index":0,"delta":{}`, `"choices":[]`, "data: [DONE]\n\n"}},
		{"completion", key, "/v1/completions", object{"model": "m", "prompt": "One, two,", "max_tokens": 4}, 200, []string{`"text_completion"`}},
		{"response", key, "/v1/responses", object{"model": "m", "input": "hi", "max_output_tokens": 4}, 200, []string{`"object":"response"`}},
		{"embeddings", key, "/v1/embeddings", object{"model": "asked", "input": []string{"a", "b"}}, 200, []string{`"embedding":[`, `"model":"asked"`}},
		{"embeddings in base64", key, "/v1/embeddings", object{"model": "m", "input": "a", "encoding_format": "base64"}, 200, []string{`"embedding":"`}},
		{"no messages", key, "/v1/chat/completions", object{"model": "m"}, 400, []string{`"code":400`, `"invalid_request_error"`}},
		{"too long", key, "/v1/chat/completions", chat(object{"messages": []object{{"role": "user", "content": strings.Repeat("word ", 6000)}}}), 400, []string{`"exceed_context_size_error"`}},
		{"unknown route", key, "/v1/nope", object{}, 404, []string{`"not_found_error"`}},
	} {
		t.Run(q.name, func(t *testing.T) {
			status, text := client{t, server.URL}.do(q.key, q.path, q.body)
			if status != q.status {
				t.Errorf("got status %d, want %d: %s", status, q.status, text)
			}
			for _, want := range q.want {
				if !strings.Contains(text, want) {
					t.Errorf("got %s, want %s in it", text, want)
				}
			}
		})
	}
	if out := server.Output(); strings.Contains(out, "Say hello") || strings.Contains(out, key) {
		t.Errorf("the output holds a prompt or the key: %s", out)
	}
	if !strings.Contains(server.Output(), "engine is up on http://127.0.0.1:") {
		t.Errorf("got output %q, want the line that says it is up", server.Output())
	}
}

// An answer that is being streamed does not hold the end up: who stops a replica has waited for its requests.
func TestEngineEndsAtOnce(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			server := testtools.CPUEngine(t, "m", "")
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/chat/completions",
				strings.NewReader(`{"stream":true,"max_tokens":2000,"messages":[{"role":"user","content":"Tell a long story."}]}`))
			if err != nil {
				t.Fatal(err)
			}
			request.Close = true
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if _, err := response.Body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			server.Signal(t, sig)
			if err := server.Wait(t, 5*time.Second); err != nil {
				t.Errorf("got %v, want status 0", err)
			}
		})
	}
}

func TestEngineSaysWhyItDidNotStart(t *testing.T) {
	engine := ensure(t)
	argv := fill(engine, "/nonexistent.gguf", 1)
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err == nil || err.Error() != "exit status 1" || !strings.Contains(string(out), "engine did not start") || !strings.Contains(string(out), "/nonexistent.gguf") {
		t.Errorf("got %v, want status 1 and the reason: %s", err, out)
	}
}

// The default action of a signal ends a start, since a Python handler cannot run while the model is being loaded.
func TestEngineDiesWhileLoading(t *testing.T) {
	engine := ensure(t)
	// A FIFO that nobody writes to makes the load last as long as we like.
	fifo := filepath.Join(t.TempDir(), "model.gguf")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	argv := fill(engine, fifo, 1)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd := exec.Command(argv[0], argv[1:]...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // long enough for its imports; being early makes the test easier, not wrong
		began := time.Now()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if err == nil || err.Error() != "signal: "+sig.String() || time.Since(began) > 2*time.Second {
			t.Errorf("got %v after %v, want a death by %v at once", err, time.Since(began), sig)
		}
	}
}

func TestEnsureIsCheapOnceDone(t *testing.T) {
	engine := ensure(t)
	again := ensure(t)
	if again.Fresh || strings.Join(again.Command, " ") != strings.Join(engine.Command, " ") {
		t.Errorf("got %+v the second time, want %+v", again, engine)
	}
	info, err := os.Stat(engine.ModelPath)
	if err != nil || info.Size() < 50<<20 {
		t.Errorf("got model %v, %v; want a file of some 98 MB", info, err)
	}
	for _, name := range []string{"{model_path}", "{host}", "{port}", "{served_name}", "{api_key}"} {
		if !strings.Contains(strings.Join(engine.Command, " "), name) {
			t.Errorf("got command %q, want the placeholder %s in it", engine.Command, name)
		}
	}
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	progress := cpuengine.Lines(&out)
	for _, p := range []venv.Progress{
		{Step: "downloading a"},
		{Step: "downloading a", Elapsed: time.Second, Bytes: 1},
		{Step: "downloading a", Elapsed: 2100 * time.Millisecond, Bytes: 34_000_000},
		{Step: "installing", Elapsed: 2200 * time.Millisecond},
	} {
		progress(p)
	}
	want := "  0.0s  downloading a\n  2.1s  downloading a, 34 MB so far\n  2.2s  installing\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func ensure(t *testing.T) cpuengine.Engine {
	t.Helper()
	if testing.Short() && !cpuengine.Ready(cpuengine.Options{}) && !testtools.Required("python") {
		t.Skip("the engine would have to be downloaded: -short")
	}
	engine, err := cpuengine.Ensure(t.Context(), cpuengine.Options{})
	if err != nil {
		testtools.Missing(t, "python", err)
	}
	return engine
}

func fill(engine cpuengine.Engine, model string, port int) []string {
	replace := strings.NewReplacer("{model_path}", model, "{host}", "127.0.0.1", "{port}", fmt.Sprint(port), "{served_name}", "m", "{api_key}", "")
	var argv []string
	for _, arg := range engine.Command {
		argv = append(argv, replace.Replace(arg))
	}
	return argv
}
