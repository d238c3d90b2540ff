package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/internal/testtools/gatewaytest"
)

const (
	responseHead = "event: response.created\n" + `data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","created_at":1,"model":"m","status":"in_progress","output":[]}}` + "\n\n" +
		"event: response.output_text.delta\n" + `data: {"type":"response.output_text.delta","sequence_number":1,"item_id":"i","output_index":0,"content_index":0,"delta":"fi","logprobs":[]}` + "\n\n"
	upstreamKey = "sk-upstream"
)

// upstream is how a model server behaves, and what clients behind the gateway must make of it.
type upstream struct {
	Scenario
	// engine is what the gateway takes the server for; empty: openai.
	engine string
	// serve answers the nth request, from 1 on.
	serve func(w http.ResponseWriter, n int)

	kind     string // of the error; empty: an answer
	status   int    // of the error; 0: in a stream
	code     string // of the error, where it has a status
	says     string // in the error's message
	text     string
	attempts int
	slow     float64 // least seconds
}

// with answers at once.
func with(status int, contentType, body string) func(http.ResponseWriter, int) {
	return func(w http.ResponseWriter, _ int) { write(w, status, contentType, body) }
}

func write(w http.ResponseWriter, status int, contentType, body string) {
	w.Header()["Content-Type"] = nil // and no guess by net/http
	if contentType != "" {
		w.Header().Set("Content-Type", contentType)
	}
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// events streams pieces and ends properly.
func events(pieces ...string) func(http.ResponseWriter, int) {
	return func(w http.ResponseWriter, _ int) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, piece := range pieces {
			io.WriteString(w, piece)
			w.(http.Flusher).Flush()
		}
	}
}

// died streams pieces and dies: with a reset, or with an end that lacks the final chunk.
func died(reset bool, pieces ...string) func(http.ResponseWriter, int) {
	return func(w http.ResponseWriter, _ int) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		if len(pieces) > 0 {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		}
		for _, piece := range pieces {
			fmt.Fprintf(conn, "%x\r\n%s\r\n", len(piece), piece)
			time.Sleep(50 * time.Millisecond) // a reset takes with it what is not read yet
		}
		if reset {
			conn.(*net.TCPConn).SetLinger(0)
		}
	}
}

// silent stops after pieces and says nothing more until the gateway hangs up.
func silent(pieces ...string) func(http.ResponseWriter, int) {
	return func(w http.ResponseWriter, _ int) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		if len(pieces) > 0 {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"+strings.Join(pieces, ""))
		}
		io.Copy(io.Discard, conn)
	}
}

// flat is an error as SGLang writes it.
func flat(status int, message string) string {
	return fmt.Sprintf(`{"object":"error","message":%q,"type":"SomeError","param":null,"code":%d}`, message, status)
}

func chat(stream bool) Scenario     { return Scenario{Op: "chat", Stream: stream} }
func response(stream bool) Scenario { return Scenario{Op: "responses", Stream: stream} }

func once(s Scenario) Scenario {
	s.MaxRetries = noRetry
	return s
}

const jsonType, away = "application/json", "went away"

var upstreams = map[string]upstream{
	// Refusals, in all shapes that servers have for them.
	"flat 400":          {Scenario: chat(false), engine: "sglang", serve: with(400, jsonType, flat(400, "no such thing")), kind: "bad_request", status: 400, code: "invalid_request", says: "no such thing", attempts: 1},
	"flat 400 of chat":  {Scenario: chat(true), engine: "sglang", serve: with(400, jsonType, flat(400, "no such thing")), kind: "bad_request", status: 400, code: "invalid_request", says: "no such thing", attempts: 1},
	"too long":          {Scenario: chat(true), engine: "sglang", serve: with(400, jsonType, flat(400, "Requested token count exceeds the model's maximum context length of 8 tokens.")), kind: "bad_request", status: 400, code: "context_length_exceeded", says: "exceeds", attempts: 1},
	"detail 422":        {Scenario: chat(false), serve: with(422, jsonType, `{"detail":"not like this"}`), kind: "bad_request", status: 400, code: "invalid_request", says: "not like this", attempts: 1},
	"error as text":     {Scenario: chat(false), serve: with(400, jsonType, `{"error":"just text"}`), kind: "bad_request", status: 400, code: "invalid_request", says: "just text", attempts: 1},
	"flat 404":          {Scenario: response(false), engine: "sglang", serve: with(404, jsonType, flat(404, "not here")), kind: "not_found", status: 404, code: "not_found", attempts: 1},
	"401 of the engine": {Scenario: once(chat(false)), engine: "sglang", serve: with(401, jsonType, `{"error":"Unauthorized"}`), kind: "server", status: 502, code: "backend_unavailable", says: away, attempts: 1},
	"nested 429":        {Scenario: chat(false), serve: with(429, jsonType, `{"error":{"message":"slower","type":"t","param":null,"code":"rate_limit_exceeded"}}`), kind: "rate_limit", status: 429, code: "rate_limit_exceeded", says: "slower", attempts: 3},
	"flat 500":          {Scenario: chat(true), engine: "sglang", serve: with(500, jsonType, flat(500, "it broke")), kind: "server", status: 500, code: "backend_error", says: "it broke", attempts: 3},
	"500 in HTML":       {Scenario: once(response(true)), serve: with(500, "text/html", "<html>oh</html>"), kind: "server", status: 500, code: "backend_error", attempts: 1},
	"full":              {Scenario: chat(true), engine: "sglang", serve: with(503, jsonType, flat(503, "The request queue is full.")), kind: "server", status: 503, code: "queue_full", says: "queue is full", attempts: 3, slow: 2},
	"full in a stream":  {Scenario: once(chat(true)), engine: "sglang", serve: events(`data: {"error":{"object":"error","message":"The request queue is full.","type":"x","param":null,"code":503}}` + "\n\n" + streamDone), kind: "server", status: 503, code: "queue_full", says: "queue is full", attempts: 1},
	"full once": {Scenario: chat(false), engine: "sglang", serve: func(w http.ResponseWriter, n int) {
		if n == 1 {
			write(w, 503, jsonType, flat(503, "The request queue is full."))
			return
		}
		write(w, 200, jsonType, answerBody)
	}, text: "fine", attempts: 2, slow: 1},

	// Deaths before, in and at the end of an answer.
	"closed":                    {Scenario: chat(false), serve: died(false), kind: "server", status: 502, code: "backend_unavailable", says: away, attempts: 3},
	"closed, stream":            {Scenario: once(chat(true)), serve: died(true), kind: "server", status: 502, code: "backend_unavailable", says: away, attempts: 1},
	"body cut":                  {Scenario: once(chat(false)), serve: cutBody, kind: "server", status: 502, code: "backend_unavailable", says: away, attempts: 1},
	"stream cut by FIN":         {Scenario: chat(true), serve: died(false, chunkHead), kind: "stream", says: away, text: "fi", attempts: 1},
	"stream cut by RST":         {Scenario: chat(true), engine: "sglang", serve: died(true, chunkHead), kind: "stream", says: away, text: "fi", attempts: 1},
	"stream cut in an event":    {Scenario: chat(true), serve: died(false, chunkHead, chunkTail[:40]), kind: "stream", says: away, text: "fi", attempts: 1},
	"stream ends without DONE":  {Scenario: chat(true), serve: events(chunkHead, chunkTail), kind: "stream", says: away, text: "fine", attempts: 1},
	"SGLang's without DONE":     {Scenario: chat(true), engine: "sglang", serve: events(chunkHead), kind: "stream", says: away, text: "fi", attempts: 1},
	"error in a stream":         {Scenario: chat(true), engine: "sglang", serve: events(chunkHead, `data: {"error":{"object":"error","message":"it broke","type":"x","param":null,"code":500}}`+"\n\n"+streamDone), kind: "stream", says: "it broke", text: "fi", attempts: 1},
	"flat error in a stream":    {Scenario: chat(true), serve: events(chunkHead, "data: "+flat(500, "it broke")+"\n\n"), kind: "stream", says: "it broke", text: "fi", attempts: 1},
	"response cut by FIN":       {Scenario: response(true), serve: died(false, responseHead), kind: "stream", says: away, text: "fi", attempts: 1},
	"response cut by RST":       {Scenario: response(true), engine: "sglang", serve: died(true, responseHead), kind: "stream", says: away, text: "fi", attempts: 1},
	"response ends too soon":    {Scenario: response(true), serve: events(responseHead), kind: "stream", says: away, text: "fi", attempts: 1},
	"flat error in a response":  {Scenario: response(true), serve: events(responseHead, "event: error\n"+`data: {"type":"error","sequence_number":2,"code":"server_error","message":"it broke","param":null}`+"\n\n"), kind: "stream", says: "it broke", text: "fi", attempts: 1},
	"silent":                    {Scenario: once(chat(false)), serve: silent(), kind: "server", status: 504, code: "first_byte_timeout", says: "in time", attempts: 1, slow: 2},
	"silent in a stream":        {Scenario: chat(true), serve: silent(chunkHead), kind: "stream", says: "in the middle", text: "fi", attempts: 1, slow: 2},
	"silent in a response":      {Scenario: response(true), serve: silent(responseHead), kind: "stream", says: "in the middle", text: "fi", attempts: 1, slow: 2},
	"JSON in place of a stream": {Scenario: once(chat(true)), serve: with(200, jsonType, answerBody), kind: "server", status: 502, code: "backend_unavailable", says: "stream", attempts: 1},

	// What the gateway mends, or leaves alone.
	"no content type": {Scenario: chat(false), serve: with(200, "", answerBody), text: "fine", attempts: 1},
	"wrong type":      {Scenario: chat(false), serve: with(200, "text/plain", answerBody), text: "fine", attempts: 1},
	"odd stream": {Scenario: chat(true), serve: events("retry: 1\n\n", "event: ping\n\n", ": comment\n\n", "id: 7\n"+chunkHead, "data:\n\n", strings.Replace(chunkTail, "{", `{"error":null,`, 1), streamDone),
		text: "fine", attempts: 1},
}

func cutBody(w http.ResponseWriter, _ int) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answerBody), answerBody[:100])
}

// upstreamServer plays the script that the prompt names, and counts.
type upstreamServer struct {
	mu       sync.Mutex // guards the fields below
	attempts map[string]int
	strange  []string // credentials that are not the gateway's own
}

func (s *upstreamServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		return // a health check
	}
	var body struct {
		Messages []struct{ Content string }
		Input    string
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	name := body.Input
	if len(body.Messages) > 0 {
		name = body.Messages[0].Content
	}
	s.mu.Lock()
	s.attempts[name]++
	n := s.attempts[name]
	if got := r.Header.Get("Authorization"); got != "Bearer "+upstreamKey {
		s.strange = append(s.strange, got)
	}
	s.mu.Unlock()
	_, script, _ := strings.Cut(name, "/")
	if u, ok := upstreams[script]; ok {
		u.serve(w, n)
	}
}

// check compares an outcome with what the script must come to.
func (u upstream) check(id string) func(Target, Outcome) error {
	return func(_ Target, o Outcome) error {
		if o.Kind() != u.kind || o.Text != u.text || o.Elapsed < u.slow {
			return fmt.Errorf("got kind %q, text %q after %.2f s; want kind %q, text %q, at least %.0f s", o.Kind(), o.Text, o.Elapsed, u.kind, u.text, u.slow)
		}
		if o.Error == nil {
			return nil
		}
		// openai-go's newest shows the body's message only in a field.
		if !strings.Contains(o.Error.Message+o.Error.BodyMessage, u.says) {
			return fmt.Errorf("got messages %q and %q, want them to say %q", o.Error.Message, o.Error.BodyMessage, u.says)
		}
		if u.status != 0 && (o.Error.Status != u.status || o.Error.Code != u.code || o.Error.BodyMessage == "" || o.Error.RequestID != id) {
			return fmt.Errorf("got status %d, code %q, message %q, request id %q; want %d, %s, some text, %s", o.Error.Status, o.Error.Code, o.Error.BodyMessage, o.Error.RequestID, u.status, u.code, id)
		}
		return nil
	}
}

// Whatever a model server does, a client gets an answer or its own typed error: with the message, the request id, the right
// number of attempts, and never an answer that lacks its end and says nothing of it.
func TestClientsThroughGatewayToBrokenServers(t *testing.T) {
	t.Parallel()
	handler := &upstreamServer{attempts: map[string]int{}}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	var models []string
	for _, engine := range []string{"openai", "sglang"} {
		models = append(models, gatewaytest.Model(engine, fmt.Sprintf("timeouts: {first_byte: 2s, idle_stream: 2s}\nbackend: {static: {urls: [%q], engine: %s, api_key: %s}}", server.URL, engine, upstreamKey)))
	}
	g := gatewaytest.Serve(t, gatewaytest.Config(models...))
	address(t, g, "openai")
	address(t, g, "sglang")
	names := map[string]string{} // prompts by request id
	CheckTogether(t, func(client Client) []Play {
		play := Play{Target: edge(g, "openai")}
		for name, u := range upstreams {
			s := u.Scenario
			s.Name, s.Prompt, s.Model = name, client.Name+"/"+name, u.engine
			id := client.Name + "." + strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(name)
			s.Headers = map[string]string{"x-request-id": id}
			names[id] = s.Prompt
			play.Cases = append(play.Cases, Case{Scenario: s, Check: u.check(id)})
		}
		return []Play{play}
	})
	want := map[string]int{}
	for id, prompt := range names {
		_, script, _ := strings.Cut(prompt, "/")
		want[id] = upstreams[script].attempts
	}
	wantAttempts(t, g, want)
	if len(handler.strange) > 0 {
		t.Errorf("the server was sent %q", handler.strange)
	}
}

// wantAttempts compares how often each request came, by its id, with the access log, which is written a little later.
func wantAttempts(t *testing.T, g *gatewaytest.Gateway, want map[string]int) {
	t.Helper()
	var got map[string]int
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if got = requests(g); maps.Equal(got, want) {
			return
		}
	}
	for id, n := range want {
		if got[id] != n {
			t.Errorf("%s: %d attempts, want %d", id, got[id], n)
		}
	}
}

// requests counts the lines of the access log by request id.
func requests(g *gatewaytest.Gateway) map[string]int {
	counts := map[string]int{}
	for line := range strings.Lines(g.Log()) {
		var l struct {
			Msg string `json:"msg"`
			ID  string `json:"request_id"`
		}
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "request" {
			counts[l.ID]++
		}
	}
	return counts
}
