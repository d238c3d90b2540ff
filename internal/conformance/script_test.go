package conformance

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	answerBody = `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"fine"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`
	chunkHead  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"fi"},"finish_reason":null}]}` + "\n\n"
	chunkTail  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"ne"},"finish_reason":"stop"}]}` + "\n\n"
	streamDone = "data: [DONE]\n\n"
)

// script is what the server does with the requests that name it: the first fails answers are the error, the rest are fine.
type script struct {
	fails   int
	status  int
	code    string
	headers map[string]string
	// stream is sent with status 200 instead, in these pieces.
	stream []string

	wantKind     string
	wantText     string
	wantAttempts int
	// slow is the least number of seconds that a client must have waited.
	slow float64
}

const forever = 1 << 30

var soon = map[string]string{"retry-after-ms": "10"}

// scripts say what every client here does, as far as they all agree; it is what a gateway's answers rely on.
var scripts = map[string]script{
	"400":                 {fails: forever, status: 400, code: "x", wantKind: "bad_request", wantAttempts: 1},
	"401":                 {fails: forever, status: 401, code: "invalid_api_key", wantKind: "authentication", wantAttempts: 1},
	"403":                 {fails: forever, status: 403, code: "x", wantKind: "permission", wantAttempts: 1},
	"404":                 {fails: forever, status: 404, code: "model_not_found", wantKind: "not_found", wantAttempts: 1},
	"409 is retried":      {fails: forever, status: 409, code: "x", headers: soon, wantKind: "conflict", wantAttempts: 3},
	"429 is retried":      {fails: forever, status: 429, code: "rate_limit_exceeded", headers: soon, wantKind: "rate_limit", wantAttempts: 3},
	"429 not to be tried": {fails: forever, status: 429, code: "insufficient_quota", headers: map[string]string{"x-should-retry": "false"}, wantKind: "rate_limit", wantAttempts: 1},
	"500 is retried":      {fails: forever, status: 500, code: "internal_error", headers: soon, wantKind: "server", wantAttempts: 3},
	"503 is retried":      {fails: forever, status: 503, code: "queue_full", headers: soon, wantKind: "server", wantAttempts: 3},
	"503 not to be tried": {fails: forever, status: 503, code: "start_failed", headers: map[string]string{"x-should-retry": "false"}, wantKind: "server", wantAttempts: 1},
	"503 once":            {fails: 1, status: 503, code: "model_cold", headers: map[string]string{"Retry-After": "1"}, wantText: "fine", wantAttempts: 2, slow: 1},
	"beats":               {stream: []string{": starting\n", chunkHead, ": still here\n", chunkTail, streamDone}, wantText: "fine", wantAttempts: 1},
	"error in a stream": {
		stream:   []string{chunkHead, `data: {"error":{"message":"the engine is gone","type":"server_error","param":null,"code":"engine_exited"}}` + "\n\n"},
		wantKind: "stream", wantText: "fi", wantAttempts: 1,
	},
}

// scriptedServer answers by the header x-script and counts.
type scriptedServer struct {
	mu       sync.Mutex // guards attempts
	attempts map[string]int
}

func (s *scriptedServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.Header.Get("x-script")
	s.mu.Lock()
	s.attempts[name]++
	attempt := s.attempts[name]
	s.mu.Unlock()
	sc := scripts[strings.SplitN(name, "/", 2)[1]]
	w.Header().Set("x-request-id", fmt.Sprintf("req-%d", attempt))
	if sc.stream != nil {
		w.Header().Set("content-type", "text/event-stream")
		for _, piece := range sc.stream {
			fmt.Fprint(w, piece)
			w.(http.Flusher).Flush()
		}
		return
	}
	w.Header().Set("content-type", "application/json")
	if attempt <= sc.fails {
		for key, value := range sc.headers {
			w.Header().Set(key, value)
		}
		w.WriteHeader(sc.status)
		fmt.Fprintf(w, `{"error":{"message":"scripted","type":"t","param":"model","code":%q}}`, sc.code)
		return
	}
	fmt.Fprint(w, answerBody)
}

func TestClientsAgainstScripts(t *testing.T) {
	handler := &scriptedServer{attempts: map[string]int{}}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	t.Parallel()
	CheckTogether(t, func(client Client) []Play {
		play := Play{Target: Target{BaseURL: server.URL + "/v1", Key: "sk-x", Model: "m"}}
		for name, sc := range scripts {
			id := client.Name + "/" + name
			play.Cases = append(play.Cases, Case{
				Scenario: Scenario{Name: name, Op: "chat", Stream: sc.stream != nil, Headers: map[string]string{"x-script": id}},
				Check:    func(_ Target, o Outcome) error { return sc.check(o, handler.count(id)) },
			})
		}
		return []Play{play}
	})
}

func (s *scriptedServer) count(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attempts[id]
}

// check compares what came of a script with what must.
func (sc script) check(o Outcome, attempts int) error {
	if o.Kind() != sc.wantKind || o.Text != sc.wantText || attempts != sc.wantAttempts || o.Elapsed < sc.slow {
		return fmt.Errorf("got kind %q, text %q, %d attempts, %.2f s; want kind %q, text %q, %d attempts, at least %.0f s",
			o.Kind(), o.Text, attempts, o.Elapsed, sc.wantKind, sc.wantText, sc.wantAttempts, sc.slow)
	}
	if sc.wantKind == "" {
		return nil
	}
	if sc.status == 0 {
		if !strings.Contains(o.Error.Message, "the engine is gone") {
			return fmt.Errorf("got message %q, want the server's", o.Error.Message)
		}
		return nil
	}
	want := Fault{Status: sc.status, Code: sc.code, Type: "t", Param: "model", BodyMessage: "scripted", RequestID: fmt.Sprintf("req-%d", attempts)}
	got := *o.Error
	got.Class, got.Message = "", ""
	if got != want {
		return fmt.Errorf("got %+v, want %+v", got, want)
	}
	return nil
}
