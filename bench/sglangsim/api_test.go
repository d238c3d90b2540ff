package sglangsim

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestChatStreamTranscript(t *testing.T) {
	f := serve(t, nil)
	status, body := f.post("/v1/chat/completions", chatBody("hello \"big\" wörld", `,"stream":true,"stream_options":{"include_usage":true}`))
	if status != 200 {
		t.Fatalf("status %d: %s", status, body)
	}
	golden(t, "chat_stream.txt", stable(body))
}

func TestTranscripts(t *testing.T) {
	f := serve(t, func(o *Options) { o.EmbedAndGenerate = true })
	tool := `,"tools":[{"type":"function","function":{"name":"get_weather","parameters":{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer","minimum":3}},"required":["city"]}}}]`
	weather := `{"model":"m","messages":[{"role":"user","content":"How is the weather in Paris?"}]` + tool
	for _, c := range []struct{ file, path, body string }{
		{"chat.json", "/v1/chat/completions", chatBody("hi there", "")},
		{"chat_n.json", "/v1/chat/completions", `{"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"go"}]}],"n":2,"max_tokens":4,"seed":7}`},
		{"chat_stop.json", "/v1/chat/completions", chatBody("one two three", `,"stop":["two"]`)},
		{"chat_tool.json", "/v1/chat/completions", weather + `}`},
		{"chat_tool_stream.txt", "/v1/chat/completions", weather + `,"stream":true,"tool_choice":"required"}`},
		{"chat_schema.json", "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"city?"}],"response_format":{"type":"json_schema","json_schema":{"name":"c","schema":{"type":"object","properties":{"city":{"type":"string"},"pop":{"type":"integer"},"tags":{"type":"array","items":{"enum":["a","b"]}},"ok":{"type":"boolean"},"v":{"const":"x"},"r":{"$ref":"#/$defs/p"}},"required":["city"],"$defs":{"p":{"type":"number","maximum":1}}}}}}`},
		{"completion.json", "/v1/completions", `{"model":"m","prompt":"echo: a b c"}`},
		{"completion_stream.txt", "/v1/completions", `{"model":"m","prompt":"echo: a b","stream":true,"stream_options":{"include_usage":true}}`},
		{"responses.json", "/v1/responses", `{"model":"m","input":"echo: a b"}`},
		{"responses_stream.txt", "/v1/responses", `{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"echo: a b"}]}],"stream":true}`},
		{"score.json", "/v1/score", `{"model":"m","query":"q","items":["a","b"],"label_token_ids":[1,2],"apply_softmax":true}`},
		{"classify.json", "/v1/classify", `{"model":"m","input":"x"}`},
	} {
		t.Run(c.file, func(t *testing.T) {
			status, body := f.post(c.path, c.body)
			if status != 200 {
				t.Fatalf("status %d: %s", status, body)
			}
			golden(t, c.file, stable(body))
		})
	}
}

func TestAnswersDependOnTheRequestAlone(t *testing.T) {
	f := serve(t, nil)
	text := func(body string) string {
		_, answer := f.post("/v1/chat/completions", body)
		return at(t, parse(t, answer), "choices", 0, "message", "content").(string)
	}
	const ask = `{"messages":[{"role":"user","content":"tell me"}],"max_tokens":20`
	first := text(ask + `}`)
	if again := text(ask + `}`); again != first {
		t.Errorf("the same request got %q, then %q", first, again)
	}
	if other := text(ask + `,"seed":5}`); other == first {
		t.Errorf("another seed got the same answer %q", other)
	}
	if n := len(strings.Fields(first)); n != 20 {
		t.Errorf("got %d words for max_tokens 20", n)
	}
	if _, answer := f.post("/v1/chat/completions", ask+`}`); at(t, parse(t, answer), "choices", 0, "finish_reason") != "length" {
		t.Errorf("finish_reason is not length: %s", answer)
	}
}

func TestEchoComesBackByteForByte(t *testing.T) {
	f := serve(t, nil)
	for _, text := range []string{"x", "a  b\tc\n d", strings.Repeat("long", 400), "Ünïcödé 日本語テキスト 🙂🙂🙂🙂🙂", `{"json": "<&>"}`} {
		_, answer := f.post("/v1/chat/completions", chatBody(text, ""))
		if got := at(t, parse(t, answer), "choices", 0, "message", "content"); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
		_, body := f.post("/v1/chat/completions", chatBody(text, `,"stream":true`))
		if got, finish, done := streamed(t, body); got != text || finish != "stop" || !done {
			t.Errorf("streamed %q, finish %q, done %v; want %q", got, finish, done, text)
		}
	}
}

func TestRidIsTheResponsesID(t *testing.T) {
	f := serve(t, nil)
	_, answer := f.post("/v1/chat/completions", chatBody("x", `,"rid":"my-\"rid"`))
	if id := at(t, parse(t, answer), "id"); id != `my-"rid` {
		t.Errorf("id %v", id)
	}
	_, body := f.post("/v1/chat/completions", chatBody("x", `,"rid":"my-\"rid","stream":true`))
	if !strings.Contains(body, `"id":"my-\"rid"`) {
		t.Errorf("stream has another id: %s", body)
	}
	_, answer = f.post("/v1/chat/completions", chatBody("x", ""))
	if id := at(t, parse(t, answer), "id").(string); len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("own id is %q, want 32 hexadecimal digits", id)
	}
}

func TestContinuousUsageIsInEveryChunk(t *testing.T) {
	f := serve(t, nil)
	_, body := f.post("/v1/chat/completions", chatBody("a b", `,"stream":true,"stream_options":{"continuous_usage_stats":true}`))
	for _, frame := range strings.Split(strings.TrimSuffix(body, "\n\ndata: [DONE]\n\n"), "\n\n") {
		if !strings.Contains(frame, `"usage":{"prompt_tokens"`) {
			t.Errorf("chunk without usage: %s", frame)
		}
	}
}

func TestErrorsAreFlat(t *testing.T) {
	f := serve(t, func(o *Options) { o.ContextLength = 100 })
	long := strings.Repeat("x", 400)
	for _, c := range []struct {
		name, path, body string
		status           int
		kind, message    string
	}{
		{"syntax", "/v1/chat/completions", `{"messages":`, 400, "Bad Request", "json_invalid"},
		{"no messages", "/v1/chat/completions", `{}`, 400, "Bad Request", "messages"},
		{"wrong type", "/v1/chat/completions", `{"messages":[],"stream":"yes"}`, 400, "Bad Request", "stream"},
		{"role", "/v1/chat/completions", `{"messages":[{"role":"king","content":"x"}]}`, 400, "Bad Request", "role"},
		{"empty messages", "/v1/chat/completions", `{"messages":[]}`, 400, "BadRequestError", "Messages cannot be empty."},
		{"too long", "/v1/chat/completions", chatBody(long, ""), 400, "BadRequestError", "tokens) is longer than the model's context length (100 tokens)."},
		{"too long stream", "/v1/chat/completions", chatBody(long, `,"stream":true`), 400, "BadRequestError", "is longer than"},
		{"prompt and limit", "/v1/chat/completions", chatBody("x", `,"max_tokens":99`), 400, "BadRequestError", "Requested token count exceeds"},
		{"max_tokens", "/v1/chat/completions", chatBody("x", `,"max_tokens":0`), 400, "BadRequestError", "max_tokens"},
		{"temperature", "/v1/chat/completions", chatBody("x", `,"temperature":-1`), 400, "BadRequestError", "temperature must be non-negative"},
		{"top_p", "/v1/chat/completions", chatBody("x", `,"top_p":0`), 400, "BadRequestError", "top_p must be in (0, 1]"},
		{"adapter", "/v1/chat/completions", `{"model":"llama3:8b","messages":[{"role":"user","content":"x"}]}`, 400, "BadRequestError", "LoRA adapter '8b' was requested, but LoRA is not enabled"},
		{"required without tools", "/v1/chat/completions", chatBody("x", `,"tool_choice":"required"`), 400, "BadRequestError", "Tools cannot be empty"},
		{"no prompt", "/v1/completions", `{"model":"m"}`, 400, "Bad Request", "prompt"},
		{"not an embedding model", "/v1/embeddings", `{"input":"x"}`, 400, "BadRequestError", "--is-embedding"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := f.post(c.path, c.body)
			v := parse(t, body)
			message, _ := v["message"].(string)
			if status != c.status || v["object"] != "error" || v["type"] != c.kind || v["param"] != nil || v["code"] != float64(c.status) || !strings.Contains(message, c.message) {
				t.Errorf("got %d %s, want %d, type %q, message with %q", status, body, c.status, c.kind, c.message)
			}
		})
	}
}

func TestErrorShapesOfOtherRoutes(t *testing.T) {
	f := serve(t, nil)
	for _, c := range []struct {
		method, path, body, contentType string
		status                          int
		want                            string
	}{
		{"POST", "/v1/chat/completions", chatBody("x", ""), "text/plain", 400, `{"object":"error","message":"Unsupported Media Type: Only 'application/json' is allowed","type":"Bad Request","param":null,"code":400}`},
		{"GET", "/nowhere", "", "", 404, `{"detail":"Not Found"}`},
		{"GET", "/v1/chat/completions", "", "", 405, `{"detail":"Method Not Allowed"}`},
		{"GET", "/metrics", "", "", 404, `{"detail":"Not Found"}`},
		{"GET", "/v1/models/other", "", "", 404, `{"error":{"code":"model_not_found","message":"The model 'other' does not exist","param":"model","type":"invalid_request_error"}}`},
		{"POST", "/generate", `{}`, "application/json", 400, `{"error":{"message":"Either text, input_ids or input_embeds should be provided."}}`},
		{"POST", "/v1/responses", `{"input":7}`, "application/json", 400, `{"error":{"code":400,"message":"input must be a string or a list of items","param":null,"type":"invalid_request_error"}}`},
		{"GET", "/v1/responses/resp_x", "", "", 404, `{"error":{"code":404,"message":"Response with id 'resp_x' not found.","param":null,"type":"invalid_request_error"}}`},
	} {
		status, body, err := f.do(t.Context(), c.method, c.path, c.body, "Content-Type", c.contentType)
		if err != nil || status != c.status || body != c.want {
			t.Errorf("%s %s: got %d %s (%v), want %d %s", c.method, c.path, status, body, err, c.status, c.want)
		}
	}
}

func TestAnyModelNameIsEchoed(t *testing.T) {
	f := serve(t, func(o *Options) { o.ModelPath, o.ServedModelName = "/models/x", "org/served.name" })
	if _, answer := f.post("/v1/chat/completions", `{"model":"unheard-of","messages":[{"role":"user","content":"x"}]}`); at(t, parse(t, answer), "model") != "unheard-of" {
		t.Errorf("got %s", answer)
	}
	if status, answer := f.get("/v1/models/org/served.name"); status != 200 || at(t, parse(t, answer), "max_model_len") != 8192.0 {
		t.Errorf("got %d %s", status, answer)
	}
	if _, answer := f.get("/v1/models"); at(t, parse(t, answer), "data", 0, "id") != "org/served.name" {
		t.Errorf("got %s", answer)
	}
	for _, path := range []string{"/model_info", "/get_model_info"} {
		if _, answer := f.get(path); at(t, parse(t, answer), "model_path") != "/models/x" {
			t.Errorf("%s: %s", path, answer)
		}
	}
}

func TestEmbeddingsNameTheModelsPath(t *testing.T) {
	f := serve(t, func(o *Options) { o.IsEmbedding, o.ModelPath, o.ServedModelName = true, "/models/e", "e" })
	status, answer := f.post("/v1/embeddings", `{"model":"e","input":["a","b"],"dimensions":8}`)
	v := parse(t, answer)
	if status != 200 || v["model"] != "/models/e" || len(at(t, v, "data", 1, "embedding").([]any)) != 8 {
		t.Errorf("got %d %s", status, answer)
	}
	_, answer = f.post("/v1/embeddings", `{"input":"a","encoding_format":"base64","dimensions":8}`)
	raw, err := base64.StdEncoding.DecodeString(at(t, parse(t, answer), "data", 0, "embedding").(string))
	if err != nil || len(raw) != 32 {
		t.Errorf("got %d bytes, %v, want 32", len(raw), err)
	}
	if status, _ := f.post("/v1/chat/completions", chatBody("x", "")); status != 400 {
		t.Errorf("an embedding model chats: %d", status)
	}
}

func TestRerankIsABareSortedArray(t *testing.T) {
	f := serve(t, nil)
	status, answer := f.post("/v1/rerank", `{"query":"b","documents":["a","b","c"],"top_n":2}`)
	v := parse(t, `{"list":`+answer+`}`)
	if status != 200 || len(v["list"].([]any)) != 2 || at(t, v, "list", 0, "document") != "b" || at(t, v, "list", 0, "index") != 1.0 {
		t.Errorf("got %d %s", status, answer)
	}
}

func TestTokensGoThereAndBack(t *testing.T) {
	f := serve(t, nil)
	for _, prefix := range []string{"", "/v1"} {
		_, answer := f.post(prefix+"/tokenize", `{"model":"m","prompt":"hällo world"}`)
		v := parse(t, answer)
		tokens := marshal(v["tokens"])
		if v["count"] != float64(len(v["tokens"].([]any))) || v["max_model_len"] != 8192.0 {
			t.Errorf("got %s", answer)
		}
		if _, answer = f.post(prefix+"/detokenize", `{"tokens":`+string(tokens)+`}`); answer != `{"text":"hällo world"}` {
			t.Errorf("got %s", answer)
		}
	}
}

func TestNativeGenerate(t *testing.T) {
	f := serve(t, nil)
	_, answer := f.post("/generate", `{"text":"echo: a b","rid":"r1"}`)
	v := parse(t, answer)
	if v["text"] != "a b" || at(t, v, "meta_info", "id") != "r1" || at(t, v, "meta_info", "finish_reason", "type") != "stop" {
		t.Errorf("got %s", answer)
	}
	_, body := f.post("/generate", `{"text":"echo: a b","stream":true}`)
	frames := strings.Split(body, "\n\n")
	if len(frames) != 4 || !strings.Contains(frames[0], `"text":"a"`) || !strings.Contains(frames[1], `"text":"a b"`) || frames[2] != "data: [DONE]" {
		t.Errorf("want cumulative text and [DONE], got %q", frames)
	}
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		api, admin, given, method, path string
		want                            int
	}{
		{"", "", "", "GET", "/v1/models", 200},
		{"k", "", "", "GET", "/v1/models", 401},
		{"k", "", "Bearer x", "GET", "/ping", 401},
		{"k", "", "Bearer k", "GET", "/ping", 200},
		{"k", "", "", "GET", "/nowhere", 401},
		{"k", "", "", "GET", "/health", 200},
		{"k", "", "", "OPTIONS", "/v1/models", 200},
		{"k", "", "Bearer k", "POST", "/flush_cache", 200},
		{"k", "a", "Bearer k", "POST", "/flush_cache", 401},
		{"k", "a", "Bearer a", "POST", "/flush_cache", 200},
		{"", "a", "", "GET", "/v1/models", 200},
		{"", "a", "", "POST", "/flush_cache", 401},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			f := serve(t, func(o *Options) { o.APIKey, o.AdminAPIKey = c.api, c.admin })
			var header []string
			if c.given != "" {
				header = []string{"Authorization", c.given}
			}
			status, body, err := f.do(t.Context(), c.method, c.path, "", header...)
			if err != nil || status != c.want {
				t.Errorf("got %d %v, want %d", status, err, c.want)
			}
			if status == http.StatusUnauthorized && body != `{"error":"Unauthorized"}` {
				t.Errorf("body %s", body)
			}
		})
	}
}

func TestForeignKeysAreNoticed(t *testing.T) {
	f := serve(t, func(o *Options) { o.APIKey = "engine" })
	f.post("/v1/chat/completions", chatBody("x", ""), "Authorization", "Bearer engine")
	if v := f.Stats(); v.BadKeys != 0 || v.LastHeaders["Authorization"] != "engine key" {
		t.Errorf("own key: %+v", v)
	}
	f.post("/v1/chat/completions", chatBody("x", ""), "Authorization", "Bearer pl-client", "X-Api-Key", "pl-client")
	_, stats := f.get("/sim/stats")
	if v := f.Stats(); v.BadKeys != 1 || v.Unauthorized != 1 || v.LastHeaders["X-Api-Key"] != "other" || strings.Contains(stats, "pl-client") {
		t.Errorf("client's key: %s", stats)
	}
	if v := f.Stats(); v.Requests != 1 || v.Routes["POST /v1/chat/completions"] != 2 {
		t.Errorf("counts: %+v", v)
	}
}

func TestServerInfoLeaksTheKey(t *testing.T) {
	f := serve(t, func(o *Options) { o.APIKey = "engine" })
	if _, answer := f.get("/server_info", "Authorization", "Bearer engine"); at(t, parse(t, answer), "api_key") != "engine" || at(t, parse(t, answer), "status") != "ready" {
		t.Errorf("got %s", answer)
	}
}

func TestBackgroundResponses(t *testing.T) {
	f := serve(t, slow)
	_, answer := f.post("/v1/responses", `{"model":"m","input":"echo: a b","background":true}`)
	v := parse(t, answer)
	id := v["id"].(string)
	if v["status"] != "queued" {
		t.Errorf("got %s", answer)
	}
	f.eventually("completed", func() bool {
		_, answer = f.get("/v1/responses/" + id)
		return at(t, parse(t, answer), "status") == "completed"
	})
	if at(t, parse(t, answer), "output", 0, "content", 0, "text") != "a b" {
		t.Errorf("got %s", answer)
	}
	_, answer = f.post("/v1/responses", `{"model":"m","input":"go on","background":true}`)
	id = at(t, parse(t, answer), "id").(string)
	if status, answer := f.post("/v1/responses/"+id+"/cancel", ``); status != 200 || at(t, parse(t, answer), "status") != "cancelled" {
		t.Errorf("got %d %s", status, answer)
	}
	f.eventually("cancelled", func() bool { return f.Stats().Aborted == 1 && f.Idle() })
	f.eventually("stored", func() bool {
		_, answer = f.get("/v1/responses/" + id)
		return at(t, parse(t, answer), "status") == "cancelled"
	})
}

func TestJSONMode(t *testing.T) {
	f := serve(t, nil)
	content := func(text, more string) string {
		_, answer := f.post("/v1/chat/completions", chatBody(text, more))
		return at(t, parse(t, answer), "choices", 0, "message", "content").(string)
	}
	const object = `,"response_format":{"type":"json_object"}`
	if got := content(`{"own": 1}`, object); got != `{"own": 1}` {
		t.Errorf("an echoed document became %s", got)
	}
	if got := content("plain", object); got != `{"answer":"plain"}` {
		t.Errorf("got %s", got)
	}
	if status, _ := f.post("/v1/chat/completions", chatBody("x", `,"response_format":{"type":"poem"}`)); status != 400 {
		t.Errorf("unknown format: %d", status)
	}
	if status, _ := f.post("/v1/chat/completions", chatBody("x", `,"response_format":{"type":"json_schema"}`)); status != 400 {
		t.Errorf("no schema: %d", status)
	}
}

func TestCompletionPrompts(t *testing.T) {
	f := serve(t, nil)
	for _, c := range []struct {
		prompt  string
		choices int
	}{
		{`"a"`, 1}, {`["a","b","c"]`, 3}, {`[1,2,3]`, 1}, {`[[1,2],[3]]`, 2}, {`""`, 0}, {`[]`, 0}, {`{}`, 0},
	} {
		status, answer := f.post("/v1/completions", `{"model":"m","prompt":`+c.prompt+`,"n":2}`)
		choices, _ := parse(t, answer)["choices"].([]any)
		if (status == 200) != (c.choices > 0) || len(choices) != 2*c.choices {
			t.Errorf("%s: %d, %d choices, want %d", c.prompt, status, len(choices), 2*c.choices)
		}
	}
	_, answer := f.post("/v1/completions", `{"prompt":"ask","max_tokens":2,"echo":true}`)
	if text := at(t, parse(t, answer), "choices", 0, "text").(string); !strings.HasPrefix(text, "ask") || len(strings.Fields(text)) != 2 {
		t.Errorf("echoed %q", text)
	}
	if status, _ := f.post("/v1/completions", `{"prompt":"ask","n":129}`); status != 400 {
		t.Errorf("n beyond its bound: %d", status)
	}
}

func TestAbortedAnswersSayAbort(t *testing.T) {
	f := serve(t, slow)
	const asked = `,"max_tokens":1000`
	for _, c := range []struct{ path, body, want string }{
		{"/v1/chat/completions", `{"rid":"r","messages":[{"role":"user","content":"go on"}]` + asked + `}`, `"finish_reason":"abort"`},
		{"/v1/completions", `{"rid":"r","prompt":"go on"` + asked + `}`, `"finish_reason":"abort"`},
		{"/v1/completions", `{"rid":"r","prompt":"go on","stream":true` + asked + `}`, `"finish_reason":"abort"`},
		{"/generate", `{"rid":"r","text":"go on","sampling_params":{"max_new_tokens":1000}}`, `"type":"abort"`},
		{"/generate", `{"rid":"r","text":"go on","stream":true,"sampling_params":{"max_new_tokens":1000}}`, `"type":"abort"`},
		{"/v1/responses", `{"rid":"r","input":"go on"}`, `"status":"cancelled"`},
	} {
		t.Run(c.path, func(t *testing.T) {
			before := f.Stats().GeneratedTokens
			answer := make(chan string, 1)
			go func() {
				_, body, err := f.do(context.Background(), "POST", c.path, c.body)
				if err != nil {
					body = err.Error()
				}
				answer <- body
			}()
			f.eventually("running", func() bool { return f.Stats().GeneratedTokens > before })
			f.post("/abort_request", `{"rid":"r"}`)
			if got := <-answer; !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestShortWorkTakesItsPlace(t *testing.T) {
	f := serve(t, func(o *Options) { o.IsEmbedding, o.TTFT, o.DrainPoll = true, 300*time.Millisecond, 20*time.Millisecond })
	answered := make(chan int, 1)
	go func() {
		status, _, err := f.do(context.Background(), "POST", "/v1/embeddings", `{"input":"x"}`)
		if err != nil {
			status = 0
		}
		answered <- status
	}()
	f.eventually("running", func() bool { return f.Stats().Running == 1 })
	f.Drain()
	if status := <-answered; status != 200 {
		t.Errorf("the drain did not wait: %d", status)
	}
	f.end(ErrDrained)
	if v := f.Stats(); v.Requests != 1 || v.Finished != 1 || v.GeneratedTokens != 0 {
		t.Errorf("stats %+v", v)
	}
}

func TestResponsesThatReachTheirLimit(t *testing.T) {
	f := serve(t, nil)
	_, answer := f.post("/v1/responses", `{"model":"m","instructions":"be brief","input":"go","max_output_tokens":3}`)
	v := parse(t, answer)
	if v["status"] != "incomplete" || at(t, v, "incomplete_details", "reason") != "max_output_tokens" || v["instructions"] != "be brief" {
		t.Errorf("got %s", answer)
	}
	id := v["id"].(string)
	if _, again := f.get("/v1/responses/" + id); again != answer {
		t.Errorf("stored as %s, want %s", again, answer)
	}
	if status, _ := f.post("/v1/responses", `{"model":"m","input":"go","previous_response_id":"resp_other"}`); status != 404 {
		t.Errorf("unknown previous response: %d", status)
	}
	if status, _ := f.post("/v1/responses", `{"model":"m","input":"go","previous_response_id":"`+id+`"}`); status != 200 {
		t.Errorf("known previous response: %d", status)
	}
	_, body := f.post("/v1/responses", `{"model":"m","input":"go","max_output_tokens":3,"stream":true}`)
	if !strings.Contains(body, "event: response.incomplete\n") || strings.Contains(body, "[DONE]") {
		t.Errorf("got %s", body)
	}
}

func TestSmallRoutes(t *testing.T) {
	f := serve(t, nil)
	for path, want := range map[string]string{"/": `"SGLang is running"`, "/ping": "", "/freeze_gc": ""} {
		if status, body := f.get(path); status != 200 || body != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if _, body := f.get("/get_load"); !strings.Contains(body, `"num_reqs":0`) {
		t.Errorf("/get_load: %s", body)
	}
	if status, _ := f.post("/update_weight_version", `{"new_version":"9"}`); status != 200 || f.metadata()["weight_version"] != "9" {
		t.Errorf("weight version: %d, %v", status, f.metadata())
	}
	_, body := f.post("/tokenize", `{"prompt":["ab","c"]}`)
	if v := parse(t, body); len(v["tokens"].([]any)) != 2 {
		t.Errorf("a batch of prompts: %s", body)
	}
	if _, body := f.post("/tokenize", `{"messages":[{"role":"user","content":"x"}]}`); parse(t, body)["count"].(float64) < 1 {
		t.Errorf("messages: %s", body)
	}
	if _, body := f.post("/detokenize", `{"tokens":`+string(marshal([][]int{encodeTokens("ab"), encodeTokens("c")}))+`}`); body != `{"text":["ab","c"]}` {
		t.Errorf("a batch of tokens: %s", body)
	}
	if status, _ := f.post("/detokenize", `{"tokens":[7]}`); status != 400 {
		t.Errorf("an unknown token: %d", status)
	}
}

func TestNoBodyBreaksARoute(t *testing.T) {
	f := serve(t, func(o *Options) { o.EmbedAndGenerate = true })
	bodies := []string{
		``, `null`, `[]`, `"x"`, `0`, `{}`, `{`, "\xff", `{"messages":null}`, `{"messages":[null]}`, `{"messages":[{}]}`, `{"messages":{}}`,
		`{"messages":[{"role":"user","content":[{"type":"text"}]}],"tools":[{}],"tool_choice":"required"}`,
		`{"messages":[{"role":"user","content":{}}],"prompt":{},"input":{},"tokens":{},"query":{},"items":{},"documents":{}}`,
		`{"prompt":[[]],"input":[[]],"tokens":[[]],"query":[[]],"items":[[]],"text":"","input_ids":[]}`,
		`{"prompt":[-1],"input":[-1],"tokens":[-1,99999999999],"input_ids":[-1],"query":"q","items":"i","documents":[""]}`,
		`{"prompt":"x","max_tokens":-5,"n":-5,"input":"x","dimensions":-1,"max_output_tokens":-1,"text":"x","sampling_params":{"max_new_tokens":-1}}`,
		`{"prompt":"x","n":0,"stop":7,"rid":7,"input":"x","encoding_format":"morse","text":"x"}`,
		`{"prompt":"x","stop":["",""],"stream_options":{},"stream":true,"input":"x","top_n":-1,"query":"q","documents":["d"],"items":[""],"label_token_ids":[]}`,
		`{"messages":[{"role":"user","content":"echo: "}],"prompt":"echo: ","input":"echo: ","text":"echo: ","stream":true}`,
		`{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"schema":[]}}}`,
		`{"prompt":"x","json_schema":"{"}`, `{"input":[{"role":"king"},{"type":"function_call_output","output":7}]}`,
	}
	for path, rt := range f.routes() {
		if rt.methods["POST"] == nil || rt.admin {
			continue
		}
		for _, body := range bodies {
			status, answer, err := f.do(t.Context(), "POST", path, body, "Content-Type", "application/json")
			if err != nil || status >= 500 {
				t.Errorf("%s with %s: %d %s %v", path, body, status, answer, err)
			}
		}
	}
}
