package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"pilotlight/activator"
	"pilotlight/backends"
)

const plainAnswer = `{"id":"x","object":"chat.completion","model":"test/model:1b","choices":[]}`

// engineSays answers each request with a status, content type and body, and keeps what it was sent.
type engineSays struct {
	status  int
	ctype   string
	body    string
	headers map[string]string
	got     chan *sent
}

type sent struct {
	path   string
	header http.Header
	body   string
}

func says(status int, ctype, body string) *engineSays {
	return &engineSays{status: status, ctype: ctype, body: body, got: make(chan *sent, 100)}
}

func (e *engineSays) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	e.got <- &sent{r.URL.Path, r.Header, string(b)}
	if e.ctype != "" {
		w.Header().Set("Content-Type", e.ctype)
	}
	for k, v := range e.headers {
		w.Header().Set(k, v)
	}
	w.WriteHeader(e.status)
	io.WriteString(w, e.body)
}

func TestForwarding(t *testing.T) {
	engine := says(200, "application/json", plainAnswer)
	engine.headers = map[string]string{"Access-Control-Allow-Origin": "*", "Server": "uvicorn", "X-Engine": "yes", "X-Request-Id": "engine's"}
	e := newEdge(t, edgeOptions{served: "test/model-1b", model: Model{ID: "test/model:1b", Aliases: []string{"alias"}, RequiresAuth: true}}, engine)
	body := `{"messages":[{"role":"user","content":"\u00e9 model: \"alias\""}], "rid":"mine","priority":9,"model" : "alias","x":1.50,"bootstrap_host":"h"}`
	resp, got := e.chat(body, "X-Request-Id", "req-1", "X-Override-Priority", "9", "Cookie", "c=1")
	if resp.StatusCode != 200 {
		t.Fatalf("status %d: %s", resp.StatusCode, got)
	}
	if want := strings.Replace(plainAnswer, "test/model:1b", "alias", 1); got != want {
		t.Errorf("answer %s\nwant   %s", got, want)
	}
	for name, want := range map[string]string{"X-Request-Id": "req-1", "Content-Type": "application/json", "X-Engine": "yes",
		"Access-Control-Allow-Origin": "", "Server": "", "X-Should-Retry": ""} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	s := <-engine.got
	var up map[string]any
	if err := json.Unmarshal([]byte(s.body), &up); err != nil {
		t.Fatalf("forwarded body: %v\n%s", err, s.body)
	}
	if up["model"] != "test/model-1b" || up["priority"] != nil || up["bootstrap_host"] != nil {
		t.Errorf("forwarded %s", s.body)
	}
	if rid, _ := up["rid"].(string); len(rid) != 32 {
		t.Errorf("rid %q, want one of ours", up["rid"])
	}
	if !strings.Contains(s.body, `\u00e9 model: \"alias\"`) || !strings.Contains(s.body, `"x":1.50`) {
		t.Errorf("bytes were changed that should not be: %s", s.body)
	}
	for name, want := range map[string]string{"Authorization": "Bearer engine-key", "X-Request-Id": "req-1", "X-Override-Priority": "", "Cookie": "", "X-Api-Key": ""} {
		if got := s.header.Get(name); got != want {
			t.Errorf("engine got %s: %q, want %q", name, got, want)
		}
	}
	if s.path != "/v1/chat/completions" {
		t.Errorf("path %s", s.path)
	}
}

func TestOtherEnginesGetTheBodyAsItIs(t *testing.T) {
	engine := says(200, "application/json", `{"object":"list","model":"/models/x.gguf","data":[]}`)
	e := newEdge(t, edgeOptions{engine: backends.EngineOpenAI}, engine)
	body := `{"input":"x","rid":"r","priority":1,"model":"test/model:1b"}`
	_, got := e.request("POST", "/v1/embeddings", body)
	if s := <-engine.got; s.body != body {
		t.Errorf("forwarded %s", s.body)
	}
	if !strings.Contains(got, `"model":"test/model:1b"`) {
		t.Errorf("answer names another model: %s", got)
	}
}

// SDKs parse by the label: JSON under another one, or none, is a string to one and an error to the next.
func TestAnswersAreLabelledAsJSON(t *testing.T) {
	for _, tt := range []struct{ ctype, body, want string }{
		{"text/plain", plainAnswer, "application/json"},
		{"application/octet-stream", plainAnswer, "application/json"},
		{"application/json; charset=utf-8", plainAnswer, "application/json; charset=utf-8"},
		{"text/plain", "no JSON", "text/plain"},
	} {
		e := newEdge(t, edgeOptions{engine: backends.EngineOpenAI, served: "test/model:1b", model: Model{ID: "m", RequiresAuth: true}}, says(200, tt.ctype, tt.body))
		resp, got := e.chat(`{"model":"m"}`)
		want := strings.Replace(tt.body, "test/model:1b", "m", 1)
		if resp.Header.Get("Content-Type") != tt.want || got != want {
			t.Errorf("%s: got %s under %q, want %s under %q", tt.ctype, got, resp.Header.Get("Content-Type"), want, tt.want)
		}
	}
}

func TestEngineErrors(t *testing.T) {
	for _, tt := range []struct {
		name, body, ctype string
		status            int
		want              int
		code, typ         string
		message           string
		retryAfter        string
	}{
		{"flat", `{"object":"error","message":"temperature must be positive","type":"BadRequestError","param":null,"code":400}`, "application/json", 400, 400, "invalid_request", "invalid_request_error", "temperature must be positive", ""},
		{"too long", `{"object":"error","message":"The input (9031 tokens) is longer than the model's context length (8192 tokens).","type":"BadRequestError","param":null,"code":400}`, "application/json", 400, 400, "context_length_exceeded", "invalid_request_error", "The input (9031 tokens)", ""},
		{"unprocessable", `{"detail":[{"loc":["body","messages"],"msg":"field required"}]}`, "application/json", 422, 400, "invalid_request", "invalid_request_error", "field required", ""},
		{"nested, string code", `{"error":{"message":"no","type":"x","param":"p","code":"special"}}`, "application/json", 400, 400, "special", "invalid_request_error", "no", ""},
		{"queue full", `{"object":"error","message":"The request queue is full.","type":"503","param":null,"code":503}`, "application/json", 503, 503, "queue_full", "server_error", "The request queue is full.", "1"},
		{"crash", "Internal Server Error", "text/plain", 500, 500, "backend_error", "server_error", "Internal Server Error", ""},
		{"our key refused", `{"error":"Unauthorized"}`, "application/json", 401, 502, "backend_unavailable", "server_error", "went away", ""},
		{"no such route", `{"detail":"Not Found"}`, "application/json", 404, 404, "not_found", "invalid_request_error", "does not serve this route", ""},
		{"redirect", ``, "", 307, 502, "backend_unavailable", "server_error", "", ""},
	} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stream=%v", tt.name, stream), func(t *testing.T) {
				e := newEdge(t, edgeOptions{}, says(tt.status, tt.ctype, tt.body))
				resp, body := e.chat(fmt.Sprintf(`{"model":"test/model:1b","messages":[],"stream":%v}`, stream))
				if resp.StatusCode != tt.want || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Retry-After") != tt.retryAfter {
					t.Fatalf("status %d, %v, want %d\n%s", resp.StatusCode, resp.Header, tt.want, body)
				}
				got := openAIError(t, body)
				if got.Code != tt.code || got.Type != tt.typ || !strings.Contains(got.Message, tt.message) {
					t.Errorf("error %+v", got)
				}
			})
		}
	}
}

func TestRefusals(t *testing.T) {
	engine := says(200, "application/json", plainAnswer)
	open := &Model{ID: "open", Cold: DefaultCold(), Timeouts: DefaultTimeouts()}
	e := newEdge(t, edgeOptions{model: Model{ID: "test/model:1b", RequiresAuth: true}, body: 4096}, engine)
	open.Activator = e.model.Activator
	if err := e.gateway.SetModels([]*Model{e.model, open}); err != nil {
		t.Fatal(err)
	}
	const good = `{"model":"test/model:1b","messages":[]}`
	for _, tt := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		code                     string
	}{
		{"no key", "POST", "/v1/chat/completions", good, []string{"Authorization", ""}, 401, "invalid_api_key"},
		{"wrong key", "POST", "/v1/chat/completions", good, []string{"Authorization", "Bearer nope"}, 401, "invalid_api_key"},
		{"basic auth", "POST", "/v1/chat/completions", good, []string{"Authorization", "Basic a2V5LWE="}, 401, "invalid_api_key"},
		{"x-api-key", "POST", "/v1/chat/completions", good, []string{"Authorization", "", "X-Api-Key", "key-a"}, 200, ""},
		{"api-key", "POST", "/v1/chat/completions", good, []string{"Authorization", "", "Api-Key", "key-a"}, 200, ""},
		{"scheme in another case", "POST", "/v1/chat/completions", good, []string{"Authorization", "bearer key-a"}, 200, ""},
		{"open model without a key", "POST", "/v1/chat/completions", `{"model":"open"}`, []string{"Authorization", ""}, 200, ""},
		{"open model with an SDK's placeholder", "POST", "/v1/chat/completions", `{"model":"open"}`, []string{"Authorization", "Bearer EMPTY"}, 200, ""},
		{"unknown model", "POST", "/v1/chat/completions", `{"model":"gpt-9"}`, nil, 404, "model_not_found"},
		{"unknown model, wrong key", "POST", "/v1/chat/completions", `{"model":"gpt-9"}`, []string{"Authorization", "Bearer nope"}, 401, "invalid_api_key"},
		{"bad JSON, wrong key", "POST", "/v1/chat/completions", `{`, []string{"Authorization", "Bearer nope"}, 401, "invalid_api_key"},
		{"model in another case", "POST", "/v1/chat/completions", `{"model":"Test/Model:1B"}`, nil, 404, "model_not_found"},
		{"no body", "POST", "/v1/chat/completions", ``, nil, 400, "invalid_json"},
		{"no model", "POST", "/v1/chat/completions", `{}`, nil, 400, "missing_required_parameter"},
		{"model is a number", "POST", "/v1/chat/completions", `{"model":1}`, nil, 400, "invalid_parameter"},
		{"model is empty", "POST", "/v1/chat/completions", `{"model":""}`, nil, 400, "invalid_parameter"},
		{"two models", "POST", "/v1/chat/completions", `{"model":"open","mod\u0065l":"test/model:1b"}`, nil, 400, "invalid_parameter"},
		{"stream is a string", "POST", "/v1/chat/completions", `{"model":"open","stream":"true"}`, nil, 400, "invalid_parameter"},
		{"trailing data", "POST", "/v1/chat/completions", good + "x", nil, 400, "invalid_json"},
		{"BOM", "POST", "/v1/chat/completions", "\ufeff" + good, nil, 400, "invalid_json"},
		{"not UTF-8", "POST", "/v1/chat/completions", "{\"model\":\"open\",\"x\":\"\xff\"}", nil, 400, "invalid_json"},
		{"array", "POST", "/v1/chat/completions", `[]`, nil, 400, "invalid_json"},
		{"deep", "POST", "/v1/chat/completions", `{"model":"open","x":` + strings.Repeat("[", 1500) + strings.Repeat("]", 1500) + `}`, nil, 400, "invalid_json"},
		{"too large", "POST", "/v1/chat/completions", `{"model":"open","x":"` + strings.Repeat("x", 5000) + `"}`, nil, 413, "request_too_large"},
		{"gzip", "POST", "/v1/chat/completions", good, []string{"Content-Encoding", "gzip"}, 415, "unsupported_content_encoding"},
		{"huge header", "POST", "/v1/chat/completions", good, []string{"X-Big", strings.Repeat("x", 20<<10)}, 431, "headers_too_large"},
		{"background", "POST", "/v1/responses", `{"model":"open","background":true}`, nil, 400, "unsupported_parameter"},
		{"stored response", "GET", "/v1/responses/resp_1", ``, nil, 404, "not_found"},
		{"cancel stored response", "POST", "/v1/responses/resp_1/cancel", ``, nil, 404, "not_found"},
		{"wrong method", "GET", "/v1/chat/completions", ``, nil, 405, "method_not_allowed"},
		{"put", "PUT", "/v1/rerank", good, nil, 405, "method_not_allowed"},
		{"post to models", "POST", "/v1/models", good, nil, 405, "method_not_allowed"},
		{"bad wait", "POST", "/v1/chat/completions", good, []string{"X-Pilotlight-Max-Wait", "soon"}, 400, "invalid_header"},
		{"negative wait", "POST", "/v1/chat/completions", good, []string{"X-Pilotlight-Max-Wait", "-1"}, 400, "invalid_header"},
		{"unknown route", "POST", "/v1/files", good, nil, 404, "unknown_url"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := e.request(tt.method, tt.path, tt.body, tt.headers...)
			if resp.StatusCode != tt.status {
				t.Fatalf("status %d, want %d: %s", resp.StatusCode, tt.status, body)
			}
			if len(resp.Header.Get("X-Request-Id")) < 8 {
				t.Error("no x-request-id")
			}
			if tt.code == "" {
				return
			}
			if got := openAIError(t, body); got.Code != tt.code {
				t.Errorf("code %q, want %q: %s", got.Code, tt.code, body)
			}
			if tt.status == 405 && resp.Header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
	if log := e.log.String(); strings.Contains(log, "key-a") || strings.Contains(log, "xxxx") {
		t.Error("a key or a body is in the log")
	}
}

// Control routes of the engine must not be reachable, whatever the spelling.
func TestControlRoutesAreUnreachable(t *testing.T) {
	engine := says(200, "application/json", plainAnswer)
	e := newEdge(t, edgeOptions{}, engine)
	for _, route := range []string{"flush_cache", "release_memory_occupation", "resume_memory_occupation", "update_weights_from_disk", "server_info",
		"get_server_info", "abort_request", "pause_generation", "load_lora_adapter", "load_lora_adapter_from_tensors", "set_internal_state",
		"start_profile", "open_session", "generate", "metrics", "v1/loads", "freeze_gc", "configure_logging"} {
		for _, spelling := range []string{"/%s", "//%s", "/v1/%s", "/v1//%s", "/v1/../%s", "/v1/chat/completions/../../%s", "/v1%%2f%s", "/v1/%%2e%%2e/%s",
			"/v1/models/..%%2f%s", "/v1/models/../../%s", "/%s/", "/%s?x=/v1/chat/completions", "/./%s", "/v1/./%s", "/%s#/v1/models", "/V1/%s",
			"http://127.0.0.1/%s", "http://h/v1/../%s", "/v1/chat/completions;/../%s", "/v1/chat/completions%%00/%s", "\\%s", "/v1/\\..\\%s"} {
			target := fmt.Sprintf(spelling, route)
			for _, method := range []string{"GET", "POST"} {
				raw := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-a\r\nContent-Length: 25\r\nConnection: close\r\n\r\n{\"model\":\"test/model:1b\"}", method, target)
				answer := e.raw(raw)
				if !strings.HasPrefix(answer, "HTTP/1.1 404 ") && !strings.HasPrefix(answer, "HTTP/1.1 400 ") && !strings.HasPrefix(answer, "HTTP/1.1 405 ") {
					t.Errorf("%s %s: %.60q", method, target, answer)
				}
			}
		}
	}
	if n := len(engine.got); n != 0 {
		s := <-engine.got
		t.Errorf("%d requests reached the engine, the first at %s", n, s.path)
	}
}

func TestSpellingsOfGoodRoutes(t *testing.T) {
	engine := says(200, "application/json", plainAnswer)
	e := newEdge(t, edgeOptions{}, engine)
	for _, path := range []string{"/v1/chat/completions", "/chat/completions", "//v1/chat/completions", "/v1//chat/completions", "/v1/chat/completions/",
		"/v1/v1/chat/completions", "/v1/chat/completions?api-version=1", "http://x/v1/chat/completions"} {
		answer := e.raw(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-a\r\nContent-Length: 25\r\nConnection: close\r\n\r\n{\"model\":\"test/model:1b\"}", path))
		if !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
			t.Errorf("%s: %.200q", path, answer)
			continue
		}
		if s := <-engine.got; s.path != "/v1/chat/completions" {
			t.Errorf("%s arrived as %s", path, s.path)
		}
	}
}

func TestModels(t *testing.T) {
	e := newEdge(t, edgeOptions{model: Model{ID: "org/model:1b", Aliases: []string{"gpt-4o-mini"}, RequiresAuth: true, Created: 7}}, says(200, "", ""))
	resp, body := e.request("GET", "/v1/models", "")
	var list struct {
		Object string
		Data   []struct {
			ID, Object string
			Created    int64
			OwnedBy    string `json:"owned_by"`
		}
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp.StatusCode, body, err)
	}
	if list.Object != "list" || len(list.Data) != 2 || list.Data[0].ID != "org/model:1b" || list.Data[1].ID != "gpt-4o-mini" || list.Data[0].Object != "model" || list.Data[0].Created != 7 {
		t.Errorf("%s", body)
	}
	for path, want := range map[string]int{"/v1/models/org%2Fmodel:1b": 200, "/v1/models/org/model:1b": 200, "/models/org/model%3A1b": 200, "/v1/models/gpt-4o-mini": 200,
		"/v1/models/org%252Fmodel:1b": 404, "/v1/models/x": 404, "/v1/models/org%2F..%2Forg%2Fmodel:1b": 404, "/v1/models/%zz": 404} {
		answer := e.raw("GET " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-a\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(answer, fmt.Sprintf("HTTP/1.1 %d ", want)) {
			t.Errorf("GET %s: %.100q, want %d", path, answer, want)
		}
		if want == 200 && !strings.Contains(answer, `"pilotlight":{"state":"cold"`) {
			t.Errorf("GET %s: no state in %q", path, answer)
		}
	}
	for _, path := range []string{"/v1/models", "/v1/models/org/model:1b", "/", "/health"} {
		resp, body := e.request("HEAD", path, "")
		if resp.StatusCode != 200 || body != "" || resp.ContentLength <= 0 {
			t.Errorf("HEAD %s: %d, length %d, %q", path, resp.StatusCode, resp.ContentLength, body)
		}
	}
	if resp, body := e.request("GET", "/v1/models", "", "Authorization", ""); resp.StatusCode != 401 {
		t.Errorf("without a key: %d %s", resp.StatusCode, body)
	}
	if n := e.launcher.starts(); n != 0 {
		t.Errorf("looking at models started %d replicas", n)
	}
}

func TestColdPlain(t *testing.T) {
	release := make(chan struct{})
	e := newEdge(t, edgeOptions{start: func(ctx context.Context, _ int, progress func(activator.Progress)) error {
		progress(activator.Progress{Phase: "weights", Percent: 40})
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}, says(200, "application/json", plainAnswer))
	const body = `{"model":"test/model:1b","messages":[]}`
	for _, headers := range [][]string{{"X-Pilotlight-Max-Wait", "0s"}, {"X-Stainless-Read-Timeout", "5.2"}} {
		start := time.Now()
		resp, text := e.chat(body, headers...)
		if resp.StatusCode != 503 || resp.Header.Get("X-Should-Retry") != "true" || openAIError(t, text).Code != "model_cold" {
			t.Errorf("%v: %d %v %s", headers, resp.StatusCode, resp.Header, text)
		}
		if after := resp.Header.Get("Retry-After"); after != "10" {
			t.Errorf("Retry-After %q, want 10 where nothing is learned yet", after)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("%v: answered after %v", headers, d)
		}
	}
	settles(t, "the start goes on without a client", func() bool { return e.model.Activator.Status().State == activator.Starting })
	time.AfterFunc(50*time.Millisecond, func() { close(release) })
	if resp, text := e.chat(body); resp.StatusCode != 200 || text != plainAnswer {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	if n := e.launcher.starts(); n != 1 {
		t.Errorf("%d starts, want 1", n)
	}
}

func TestStartFailureTellsTheCause(t *testing.T) {
	for _, tt := range []struct {
		permanent bool
		retry     string
	}{{true, "false"}, {false, "true"}} {
		e := newEdge(t, edgeOptions{start: func(context.Context, int, func(activator.Progress)) error {
			return &backends.Failure{Class: backends.ClassOutOfMemory, Message: "the engine ran out of GPU memory", Advice: "lower --mem-fraction-static",
				Permanent: tt.permanent, Lines: []string{"secret /path"}}
		}}, says(200, "", ""))
		for _, stream := range []bool{false, true} {
			resp, body := e.chat(fmt.Sprintf(`{"model":"test/model:1b","stream":%v}`, stream))
			got := openAIError(t, body)
			if resp.StatusCode != 503 || got.Code != "out_of_memory" || !strings.Contains(got.Message, "GPU memory") || !strings.Contains(got.Message, "lower --mem-fraction-static") || strings.Contains(body, "secret") {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if resp.Header.Get("X-Should-Retry") != tt.retry || (resp.Header.Get("Retry-After") == "") != tt.permanent {
				t.Errorf("permanent %v: retry advice %v", tt.permanent, resp.Header)
			}
		}
	}
}

// SGLang answers embeddings with the path of its model, also when it was sent the name that it serves under.
func TestEmbeddingsAnswerUnderTheNameAskedFor(t *testing.T) {
	e := newEdge(t, edgeOptions{}, says(200, "application/json", `{"object":"list","data":[],"model":"/models/path"}`))
	resp, body := e.request("POST", "/v1/embeddings", `{"model":"test/model:1b","input":"x"}`)
	if resp.StatusCode != 200 || !strings.Contains(body, `"model":"test/model:1b"`) || strings.Contains(body, "/models/path") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
