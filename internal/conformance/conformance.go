// Package conformance drives the official OpenAI SDKs against any base URL and says what came out, so that a server can be
// held to what shipping clients make of its bytes rather than to what a specification says. Each SDK version is a tiny
// program below testdata that reads scenarios and prints one JSON line for each.
//
// It holds test support only. Cases lists what a drop-in endpoint must give; which of them apply depends on the Target.
package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"pilotlight/internal/testtools"
)

// Client is one SDK in one version.
type Client struct {
	Name string
	// command makes the driver, or skips the test, and returns how to run it.
	command func(t testing.TB) []string
}

// Clients are the newest versions and an older one of each that is still widely installed.
func Clients() []Client {
	return []Client{
		python("python-3.54.0", "openai==3.54.0", pythonNeeds3...),
		python("python-2.46.0", "openai==2.46.0", pythonNeeds2...),
		node("node-7.57.0", "openai@7.57.0"),
		node("node-6.49.0", "openai@6.49.0"),
		golang("go-3.96.0", ""),
		golang("go-3.40.0", "v3.40.mod"),
	}
}

func python(name, sdk string, needs ...string) Client {
	return Client{Name: name, command: func(t testing.TB) []string {
		return []string{testtools.Python(t, append([]string{sdk}, needs...)...), "-I", source(t, "python", "driver.py")}
	}}
}

func node(name, sdk string) Client {
	return Client{Name: name, command: func(t testing.TB) []string {
		program, dir := testtools.Node(t, sdk)
		// Node looks for packages beside the script, so a copy goes to where they are: under a name of its own, since
		// other test processes do the same.
		text, err := os.ReadFile(source(t, "node", "driver.mjs"))
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.CreateTemp(dir, "driver-*.mjs")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(file.Name()) })
		if _, err := file.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		return []string{program, file.Name()}
	}}
}

func golang(name, modfile string) Client {
	return Client{Name: name, command: func(t testing.TB) []string {
		return []string{testtools.GoModule(t, source(t, "go"), modfile)}
	}}
}

// source finds a driver whichever package's test asks for it.
func source(t testing.TB, parts ...string) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		t.Fatal("the drivers' sources are found only without -trimpath")
	}
	return filepath.Join(append([]string{filepath.Dir(file), "testdata"}, parts...)...)
}

// Target is a server to talk to.
type Target struct {
	// BaseURL ends in /v1.
	BaseURL string
	Key     string
	// Roots is a file of certificates in PEM that clients are to trust; empty: those of the machine.
	Roots string
	// Model is what scenarios ask for unless they say otherwise.
	Model string
	// Timeout bounds one client's whole run; 0: 3 minutes.
	Timeout time.Duration
	// Edge tells that the server is the gateway, which promises more than an engine: its own keys and models,
	// nested errors with string codes, request ids, names echoed.
	Edge bool
	// Serves limits Cases to what the server can do: any of "embeddings", "tools", "json", "responses", and "errors" (errors
	// of OpenAI's shape). nil: all of them.
	Serves []string
}

// Scenario is one call of the SDK. Its zero fields mean the SDK's own defaults.
type Scenario struct {
	Name string `json:"name"`
	// Op is chat, tools, json_object, json_schema, responses, embeddings, models or model (which retrieves Model).
	Op string `json:"op"`
	// Model and Key replace the target's.
	Model string `json:"model"`
	Key   string `json:"key,omitempty"`
	// Prompt is the only message; empty: a greeting.
	Prompt string `json:"prompt"`
	// MaxTokens 0 means 24.
	MaxTokens int  `json:"max_tokens"`
	Stream    bool `json:"stream,omitempty"`
	// Usage asks for the usage chunk of a stream.
	Usage bool `json:"usage,omitempty"`
	// CancelAfter makes the client leave after so many chunks.
	CancelAfter int `json:"cancel_after,omitempty"`
	// Timeout is the client's own, in seconds.
	Timeout float64 `json:"timeout,omitempty"`
	// MaxRetries replaces the SDK's 2.
	MaxRetries *int              `json:"max_retries,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
}

// Outcome is what the SDK made of one scenario.
type Outcome struct {
	Scenario     string     `json:"scenario"`
	OK           bool       `json:"ok"`
	Text         string     `json:"text"`
	FinishReason string     `json:"finish_reason"`
	Usage        *Usage     `json:"usage"`
	Chunks       int        `json:"chunks"`
	ToolCalls    []ToolCall `json:"tool_calls"`
	// Dims are the lengths of the embeddings.
	Dims   []int    `json:"dims"`
	Models []string `json:"models"`
	// Model is the name in the answer, RequestID its x-request-id as the SDK shows it (empty for lists of models).
	Model     string `json:"model"`
	RequestID string `json:"request_id"`
	// Cancelled tells that the client left on purpose.
	Cancelled bool `json:"cancelled"`
	// First and Elapsed are seconds from the call to the first text and to the end.
	First   float64 `json:"first"`
	Elapsed float64 `json:"elapsed"`
	Error   *Fault  `json:"error"`
}

// Usage counts tokens.
type Usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}

// ToolCall is one call that the model asked for.
type ToolCall struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// Fault is an SDK's error.
type Fault struct {
	// Class is the error's type in the SDK's language.
	Class  string `json:"class"`
	Status int    `json:"status"`
	Type   string `json:"type"`
	Code   string `json:"code"`
	Param  string `json:"param"`
	// Message is the whole text that the application sees; BodyMessage the one the SDK found in the body.
	Message     string `json:"message"`
	BodyMessage string `json:"body_message"`
	RequestID   string `json:"request_id"`
}

// Kind is the error's class in one vocabulary for all SDKs: "bad_request", "authentication", "permission",
// "not_found", "conflict", "unprocessable", "rate_limit", "server", "timeout", "connection", "stream" (an error inside a
// stream, or a broken one), or "other". It is "" without an error.
func (o Outcome) Kind() string {
	if o.Error == nil {
		return ""
	}
	switch o.Error.Class {
	case "BadRequestError":
		return "bad_request"
	case "AuthenticationError":
		return "authentication"
	case "PermissionDeniedError":
		return "permission"
	case "NotFoundError":
		return "not_found"
	case "ConflictError":
		return "conflict"
	case "UnprocessableEntityError":
		return "unprocessable"
	case "RateLimitError":
		return "rate_limit"
	case "InternalServerError":
		return "server"
	case "APITimeoutError", "APIConnectionTimeoutError", "context.DeadlineExceeded":
		return "timeout"
	case "APIConnectionError", "*url.Error":
		return "connection"
	case "openai.Error":
		return kindOfStatus(o.Error.Status)
	case "APIError", "*ssestream.StreamError", "RemoteProtocolError", "TypeError", "*errors.errorString":
		return "stream"
	}
	return "other"
}

func kindOfStatus(status int) string {
	kinds := map[int]string{
		400: "bad_request", 401: "authentication", 403: "permission", 404: "not_found", 409: "conflict",
		422: "unprocessable", 429: "rate_limit",
	}
	if kind, ok := kinds[status]; ok {
		return kind
	}
	if status >= 500 {
		return "server"
	}
	return "other"
}

// Run makes client play scenarios one after the other and returns their outcomes in the same order. The test fails if the
// driver itself does. It is skipped where the client's language is missing.
func Run(t testing.TB, client Client, target Target, scenarios ...Scenario) []Outcome {
	t.Helper()
	outcomes, err := drive(t.Context(), client.command(t), target, scenarios)
	if err != nil {
		t.Fatalf("%s: %v", client.Name, err)
	}
	return outcomes
}

// drive runs a driver. Safe for concurrent use.
func drive(ctx context.Context, argv []string, target Target, scenarios []Scenario) ([]Outcome, error) {
	timeout := target.Timeout
	if timeout == 0 {
		timeout = 3 * time.Minute
	}
	filled := make([]Scenario, len(scenarios))
	for i, s := range scenarios {
		filled[i] = s.filled(target)
	}
	input, err := json.Marshal(map[string]any{"base_url": target.BaseURL, "api_key": target.Key, "scenarios": filled})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = environ(os.Environ())
	if target.Roots != "" {
		cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+target.Roots, "NODE_EXTRA_CA_CERTS="+target.Roots) // Python and Go; Node
	}
	cmd.Stdin = bytes.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("driver: %w: %s\nafter: %s", err, stderr.String(), stdout.String())
	}
	var outcomes []Outcome
	decoder := json.NewDecoder(&stdout)
	for decoder.More() {
		var o Outcome
		if err := decoder.Decode(&o); err != nil {
			return nil, fmt.Errorf("reading the driver's output: %w", err)
		}
		outcomes = append(outcomes, o)
	}
	if len(outcomes) != len(scenarios) {
		return nil, fmt.Errorf("got %d outcomes, want %d", len(outcomes), len(scenarios))
	}
	return outcomes, nil
}

func (s Scenario) filled(target Target) Scenario {
	if s.Model == "" {
		s.Model = target.Model
	}
	if s.Prompt == "" {
		s.Prompt = "Say hello."
	}
	if s.MaxTokens == 0 {
		s.MaxTokens = 24
	}
	return s
}

// environ leaves out what would send an SDK elsewhere: its own variables, and proxies for a loopback address.
func environ(all []string) []string {
	var kept []string
	for _, kv := range all {
		name := strings.ToUpper(strings.SplitN(kv, "=", 2)[0])
		if strings.HasPrefix(name, "OPENAI_") || strings.HasSuffix(name, "_PROXY") {
			continue
		}
		kept = append(kept, kv)
	}
	return kept
}

// String shows what matters of an outcome in a failure message.
func (o Outcome) String() string {
	text, err := json.Marshal(o)
	if err != nil {
		return fmt.Sprintf("%+v", o.Scenario)
	}
	return string(text)
}
