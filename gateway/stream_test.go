package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/activator"
	"pilotlight/backends"
)

const (
	streamBodyText = `{"model":"test/model:1b","messages":[],"stream":true}`
	roleChunk      = `data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"test/model:1b","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}` + "\n\n"
	textChunk      = `data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"test/model:1b","choices":[{"index":0,"delta":{"content":"hi"}}]}` + "\n\n"
	doneEvent      = "data: [DONE]\n\n"
)

// streaming answers with pieces, flushed one by one; a piece is text or a pause. The last word "cut" breaks the connection.
func streaming(pieces ...any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/abort_request" {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for _, p := range pieces {
			switch p := p.(type) {
			case time.Duration:
				select {
				case <-time.After(p):
				case <-r.Context().Done():
					return
				}
			case string:
				if p == "cut" {
					panic(http.ErrAbortHandler)
				}
				io.WriteString(w, p)
				w.(http.Flusher).Flush()
			}
		}
	})
}

// wire is an answer as it lies on the wire.
type wire struct {
	head   string
	chunks []string // without the last
	whole  bool     // the last chunk came
	reset  bool     // the connection ended with a reset, not with a FIN
}

func (w wire) body() string { return strings.Join(w.chunks, "") }

// readWire reads one chunked answer to the end of the connection, or to the last chunk.
func readWire(t testing.TB, c net.Conn) wire {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	br := bufio.NewReader(c)
	var w wire
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			t.Fatalf("head: %v after %q", err, w.head)
		}
		if line == "\r\n" {
			break
		}
		w.head += line
	}
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			w.reset = err != io.EOF
			return w
		}
		var n int
		if _, err := fmt.Sscanf(line, "%x\r\n", &n); err != nil {
			t.Fatalf("chunk size %q", line)
		}
		if n == 0 {
			w.whole = true
			return w
		}
		buf := make([]byte, n+2)
		if _, err := io.ReadFull(br, buf); err != nil {
			w.reset = err != io.ErrUnexpectedEOF && err != io.EOF
			w.chunks = append(w.chunks, string(buf))
			return w
		}
		w.chunks = append(w.chunks, string(buf[:n]))
	}
}

func (e *edge) dial() net.Conn {
	e.t.Helper()
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	return c
}

func (e *edge) post(c net.Conn, path, body string) {
	e.t.Helper()
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-a\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body); err != nil {
		e.t.Fatal(err)
	}
}

func (e *edge) streamed(body string) wire {
	e.t.Helper()
	c := e.dial()
	e.post(c, "/v1/chat/completions", body)
	return readWire(e.t, c)
}

// checkSSE holds a body to the forms that every shipping client accepts (facts/clients.md §2.1).
func checkSSE(t *testing.T, body string) {
	t.Helper()
	for _, bad := range []string{"\n\n\n", "event:", "retry:", "\nid:", "data: \n", "data:\n", `"error":null`, "\r", "\ufeff"} {
		if strings.Contains(body, bad) {
			t.Errorf("the stream holds %q:\n%q", bad, body)
		}
	}
	inEvent := false
	for _, line := range strings.SplitAfter(body, "\n") {
		switch {
		case strings.HasPrefix(line, ":"):
			if inEvent {
				t.Errorf("a comment inside an event: %q", body)
			}
		case line == "\n":
			if !inEvent {
				t.Errorf("a blank line that ends no event: %q", body)
			}
			inEvent = false
		case line != "":
			if inEvent {
				t.Errorf("an event of two lines: %q", body)
			}
			inEvent = true
		}
	}
	if inEvent {
		t.Errorf("the last event is not ended: %q", body)
	}
}

// lastError decodes the error event that must end a broken stream.
func lastError(t *testing.T, w wire) string {
	t.Helper()
	body := w.body()
	i := strings.LastIndex(body, "data: {\"error\":{")
	if i < 0 || !strings.HasSuffix(body, "\n\n") {
		t.Fatalf("no error event ends %q", body)
	}
	if w.whole || w.reset {
		t.Errorf("the broken answer ended with a last chunk (%v) or a reset (%v), want a bare FIN", w.whole, w.reset)
	}
	return openAIError(t, strings.TrimSpace(strings.TrimPrefix(body[i:], "data: "))).Code
}

func TestStreamWarm(t *testing.T) {
	e := newEdge(t, edgeOptions{}, streaming(roleChunk, 20*time.Millisecond, textChunk, textChunk[:30], 20*time.Millisecond, textChunk[30:], doneEvent))
	c := e.dial()
	for range 2 { // the connection serves another request afterwards
		e.post(c, "/v1/chat/completions", streamBodyText)
		w := readWire(t, c)
		if !strings.HasPrefix(w.head, "HTTP/1.1 200 ") {
			t.Fatal(w.head)
		}
		for _, want := range []string{"Content-Type: text/event-stream\r\n", "Cache-Control: no-cache, no-transform\r\n", "X-Accel-Buffering: no\r\n", "X-Request-Id: "} {
			if !strings.Contains(w.head, want) {
				t.Errorf("no %q in %q", want, w.head)
			}
		}
		if got, want := w.body(), roleChunk+textChunk+textChunk+doneEvent; got != want || !w.whole {
			t.Errorf("got %q (whole %v)\nwant %q", got, w.whole, want)
		}
		if len(w.chunks) < 3 {
			t.Errorf("the events came in %d chunks: they were held back", len(w.chunks))
		}
		checkSSE(t, w.body())
	}
	if n := e.launcher.last().Transport().Idle(); n != 1 {
		t.Errorf("%d idle connections upstream, want the one used twice", n)
	}
}

// What an engine sends beyond the common form is brought into it.
func TestStreamIsNormalised(t *testing.T) {
	e := newEdge(t, edgeOptions{engine: backends.EngineOpenAI, served: "smol"}, streaming(
		": ping\n\n", "event: message\r\ndata: {\"choices\":[{\"model\":\"x\"}],\"model\":\"smol\",\"error\":null}\r\n\r\n",
		"retry: 100\n\n", "id: 7\ndata: {\"model\":\"smol\",\n", "data: \"choices\":[]}\n\n", "\n\n", "data: [DONE]\n\n"))
	w := e.streamed(streamBodyText)
	checkSSE(t, w.body())
	var models []string
	for _, event := range strings.Split(strings.TrimSuffix(w.body(), "\n\n"), "\n\n") {
		data := strings.TrimPrefix(event, "data: ")
		if data == "[DONE]" {
			models = append(models, data)
			continue
		}
		var doc struct{ Model string }
		if err := json.Unmarshal([]byte(data), &doc); err != nil {
			t.Fatalf("%v in %q", err, data)
		}
		models = append(models, doc.Model)
	}
	if got := strings.Join(models, " "); got != "test/model:1b test/model:1b [DONE]" || !w.whole {
		t.Errorf("events: %s (whole %v) from %q", got, w.whole, w.body())
	}
}

func TestStreamErrors(t *testing.T) {
	engineError := `data: {"error":{"object":"error","message":"The request queue is full.","type":"SERVICE_UNAVAILABLE","param":null,"code":503}}` + "\n\n"
	for _, tt := range []struct {
		name   string
		pieces []any
		before string // what the client gets before the error
		code   string
	}{
		{"engine's error in the middle", []any{roleChunk, engineError, doneEvent}, roleChunk, "queue_full"},
		{"cut between events", []any{roleChunk, textChunk, 10 * time.Millisecond, "cut"}, roleChunk + textChunk, "backend_unavailable"},
		{"cut inside an event", []any{roleChunk, textChunk[:40], 10 * time.Millisecond, "cut"}, roleChunk, "backend_unavailable"},
		{"clean end without [DONE]", []any{roleChunk, textChunk}, roleChunk + textChunk, "backend_unavailable"},
		{"clean end inside an event", []any{roleChunk, "data: [DONE]"}, roleChunk, "backend_unavailable"},
		{"empty stream", []any{""}, "", "backend_unavailable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEdge(t, edgeOptions{}, streaming(tt.pieces...))
			if tt.before == "" { // nothing was sent, so the status tells
				if resp, body := e.chat(streamBodyText); resp.StatusCode != 502 || openAIError(t, body).Code != tt.code {
					t.Fatalf("%d %s", resp.StatusCode, body)
				}
				return
			}
			w := e.streamed(streamBodyText)
			if code := lastError(t, w); code != tt.code {
				t.Errorf("code %q, want %q", code, tt.code)
			}
			if !strings.HasPrefix(w.body(), tt.before) {
				t.Errorf("got %q, want it to begin with %q", w.body(), tt.before)
			}
			checkSSE(t, w.body())
		})
	}
	t.Run("error as the first event", func(t *testing.T) {
		e := newEdge(t, edgeOptions{}, streaming(engineError, doneEvent))
		resp, body := e.chat(streamBodyText)
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || openAIError(t, body).Code != "queue_full" {
			t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
		}
	})
	t.Run("engine does not stream", func(t *testing.T) {
		e := newEdge(t, edgeOptions{}, says(200, "application/json", plainAnswer))
		// SDKs read a JSON answer as a stream of nothing, without an error.
		if resp, body := e.chat(streamBodyText); resp.StatusCode != 502 || openAIError(t, body).Code != "backend_unavailable" {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	})
}

func cold(grace, beat time.Duration) Model {
	return Model{Cold: Cold{Grace: grace, Heartbeat: beat, MaxWait: time.Minute}}
}

func slowStart(d time.Duration, err error) func(context.Context, int, func(activator.Progress)) error {
	return func(ctx context.Context, _ int, progress func(activator.Progress)) error {
		progress(activator.Progress{Phase: "weights", Percent: 40})
		select {
		case <-time.After(d):
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestStreamCold(t *testing.T) {
	e := newEdge(t, edgeOptions{model: cold(50*time.Millisecond, 40*time.Millisecond), start: slowStart(220*time.Millisecond, nil)},
		streaming(120*time.Millisecond, roleChunk, doneEvent)) // a long prefill is silent too
	start := time.Now()
	c := e.dial()
	e.post(c, "/v1/chat/completions", streamBodyText)
	one := make([]byte, 1)
	if _, err := c.Read(one); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 45*time.Millisecond {
		t.Errorf("headers after %v, before the grace was over", d)
	}
	w := readWire(t, &pushedBack{Conn: c, head: one})
	body := w.body()
	checkSSE(t, body)
	comments, rest, _ := strings.Cut(body, "data:")
	lines := strings.Split(strings.TrimSuffix(comments, "\n"), "\n")
	if n := len(lines); n < 4 || n > 10 {
		t.Errorf("%d heartbeats in 290 ms at one in 40", n)
	}
	if !strings.Contains(lines[0], "phase weights, 40 %") || !strings.Contains(lines[0], "position 1 of 1") {
		t.Errorf("heartbeat %q does not tell the progress", lines[0])
	}
	if "data:"+rest != roleChunk+doneEvent || !w.whole {
		t.Errorf("answer %q (whole %v)", rest, w.whole)
	}
}

// pushedBack gives a byte that was read already once more.
type pushedBack struct {
	net.Conn
	head []byte
}

func (p *pushedBack) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

func TestStreamColdFailures(t *testing.T) {
	failure := &backends.Failure{Class: backends.ClassGated, Message: "the model is gated", Permanent: true}
	t.Run("after the status", func(t *testing.T) {
		e := newEdge(t, edgeOptions{model: cold(20*time.Millisecond, 30*time.Millisecond), start: slowStart(100*time.Millisecond, failure)}, says(200, "", ""))
		w := e.streamed(streamBodyText)
		if code := lastError(t, w); code != "model_gated" {
			t.Errorf("code %q", code)
		}
		checkSSE(t, w.body())
	})
	t.Run("in the grace", func(t *testing.T) {
		e := newEdge(t, edgeOptions{model: cold(time.Second, time.Second), start: slowStart(20*time.Millisecond, failure)}, says(200, "", ""))
		resp, body := e.chat(streamBodyText)
		if resp.StatusCode != 503 || resp.Header.Get("X-Should-Retry") != "false" || openAIError(t, body).Code != "model_gated" {
			t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
		}
	})
	t.Run("engine refuses after the status", func(t *testing.T) {
		e := newEdge(t, edgeOptions{model: cold(10*time.Millisecond, 20*time.Millisecond), start: slowStart(60*time.Millisecond, nil)},
			says(400, "application/json", `{"object":"error","message":"bad temperature","type":"BadRequestError","param":null,"code":400}`))
		w := e.streamed(streamBodyText)
		if code := lastError(t, w); code != "invalid_request" || !strings.Contains(w.body(), "bad temperature") {
			t.Errorf("%s in %q", code, w.body())
		}
	})
	t.Run("the wait is over after the status", func(t *testing.T) {
		m := cold(10*time.Millisecond, 20*time.Millisecond)
		m.Cold.MaxWait = 100 * time.Millisecond
		e := newEdge(t, edgeOptions{model: m, start: slowStart(time.Minute, nil)}, says(200, "", ""))
		if code := lastError(t, e.streamed(streamBodyText)); code != "model_cold" {
			t.Errorf("code %q", code)
		}
	})
	t.Run("responses dialect", func(t *testing.T) {
		e := newEdge(t, edgeOptions{model: cold(10*time.Millisecond, 20*time.Millisecond), start: slowStart(60*time.Millisecond, failure)}, says(200, "", ""))
		c := e.dial()
		e.post(c, "/v1/responses", `{"model":"test/model:1b","input":"x","stream":true}`)
		w := readWire(t, c)
		i := strings.LastIndex(w.body(), "data: ")
		var event struct {
			Type, Code, Message string
			SequenceNumber      *int `json:"sequence_number"`
			Error               struct{ Message, Type, Code string }
		}
		if err := json.Unmarshal([]byte(strings.TrimSpace(w.body()[i+6:])), &event); err != nil || w.whole {
			t.Fatalf("%v: %q", err, w.body())
		}
		if event.Type != "error" || event.Code != "model_gated" || event.Error.Code != "model_gated" || event.SequenceNumber == nil {
			t.Errorf("%q", w.body())
		}
	})
}

func TestKeepAliveJSON(t *testing.T) {
	m := cold(20*time.Millisecond, 20*time.Millisecond)
	m.Cold.KeepAliveJSON = true
	const body = `{"model":"test/model:1b","messages":[]}`
	e := newEdge(t, edgeOptions{model: m, served: "other", start: slowStart(100*time.Millisecond, nil)}, says(200, "application/json", strings.Replace(plainAnswer, "test/model:1b", "other", 1)))
	w := e.streamed(body)
	if !strings.Contains(w.head, "200 OK") || !strings.Contains(w.head, "application/json") || !w.whole || strings.TrimLeft(w.body(), " ") != plainAnswer || !strings.HasPrefix(w.body(), "  ") {
		t.Errorf("%s%q (whole %v)", w.head, w.body(), w.whole)
	}
	if resp, text := e.chat(body); resp.ContentLength != int64(len(text)) || text != plainAnswer {
		t.Errorf("a warm answer is kept alive: %v %q", resp.Header, text)
	}
	e = newEdge(t, edgeOptions{model: m, start: slowStart(100*time.Millisecond, &backends.Failure{Class: backends.ClassHang, Message: "x"})}, says(200, "", ""))
	if w := e.streamed(body); strings.TrimLeft(w.body(), " ") != "" || w.whole {
		t.Errorf("a failure after white space must break the connection: %q (whole %v)", w.body(), w.whole)
	}
}

// A client that leaves is noticed within 10 ms in every phase, on FIN and on RST.
func TestClientLeaves(t *testing.T) {
	for _, phase := range []string{"waiting", "waiting after the status", "engine silent", "engine silent, plain", "streaming", "plain body"} {
		for _, how := range []string{"FIN", "RST"} {
			t.Run(phase+"/"+how, func(t *testing.T) {
				upstreamGone := make(chan time.Time, 1)
				aborted := make(chan string, 1)
				var seen atomic.Value
				m := cold(time.Minute, time.Minute)
				var start func(context.Context, int, func(activator.Progress)) error
				if strings.HasPrefix(phase, "waiting") {
					start = slowStart(time.Minute, nil)
				}
				if phase == "waiting after the status" {
					m = cold(time.Millisecond, time.Minute)
				}
				e := newEdge(t, edgeOptions{model: m, start: start}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					b, _ := io.ReadAll(r.Body)
					var doc struct{ RID string }
					json.Unmarshal(b, &doc)
					if r.URL.Path == "/abort_request" {
						aborted <- doc.RID
						return
					}
					seen.Store(doc.RID)
					switch phase {
					case "streaming":
						w.Header().Set("Content-Type", "text/event-stream")
						io.WriteString(w, roleChunk)
						w.(http.Flusher).Flush()
					case "plain body":
						w.Header().Set("Content-Length", "100")
						io.WriteString(w, "{")
						w.(http.Flusher).Flush()
					}
					<-r.Context().Done()
					upstreamGone <- time.Now()
				}))
				body := streamBodyText
				if strings.Contains(phase, "plain") {
					body = strings.Replace(body, "true", "false", 1)
				}
				c := e.dial()
				e.post(c, "/v1/chat/completions", body)
				waiting := strings.HasPrefix(phase, "waiting")
				if waiting {
					settles(t, "the request is queued", func() bool { return e.model.Activator.Status().QueuedRequests == 1 })
				} else {
					settles(t, "the engine has the request", func() bool { return seen.Load() != nil })
				}
				if phase == "streaming" || phase == "waiting after the status" {
					c.SetReadDeadline(time.Now().Add(5 * time.Second))
					if _, err := c.Read(make([]byte, 1000)); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(10 * time.Millisecond)
				if how == "RST" {
					c.(*net.TCPConn).SetLinger(0)
				}
				left := time.Now()
				c.Close()
				const limit = 10 * time.Millisecond
				slack := 15 * time.Millisecond // of a busy machine
				if waiting {
					settles(t, "the queue is empty", func() bool { return e.model.Activator.Status().QueuedRequests == 0 })
					if d := time.Since(left); d > limit+slack {
						t.Errorf("the waiter left after %v", d)
					}
					return
				}
				if d := (<-upstreamGone).Sub(left); d > limit+slack {
					t.Errorf("the engine's connection was closed after %v", d)
				}
				select {
				case rid := <-aborted:
					if rid != seen.Load() {
						t.Errorf("aborted %q, want %q", rid, seen.Load())
					}
				case <-time.After(2 * time.Second):
					t.Error("the engine was not told to abort")
				}
				settles(t, "the lease is back", func() bool {
					s := e.model.Activator.Status()
					return len(s.Replicas) == 1 && s.Replicas[0].InFlight == 0
				})
				settles(t, "the log says so", func() bool { return strings.Contains(e.log.String(), "client_closed_request") })
			})
		}
	}
}

// A replica that dies before it has answered: the request goes to the next one, and the client notices nothing.
func TestDeadReplicaIsRetried(t *testing.T) {
	for _, stream := range []bool{false, true} {
		var n atomic.Int64
		var e *edge
		e = newEdge(t, edgeOptions{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			if n.Add(1) == 1 {
				time.AfterFunc(20*time.Millisecond, e.launcher.last().die)
				panic(http.ErrAbortHandler)
			}
			if stream {
				streaming(roleChunk, doneEvent).ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, plainAnswer)
		}))
		resp, body := e.chat(fmt.Sprintf(`{"model":"test/model:1b","stream":%v}`, stream))
		if resp.StatusCode != 200 || n.Load() != 2 || e.launcher.starts() != 2 {
			t.Errorf("stream %v: %d after %d requests and %d starts: %s", stream, resp.StatusCode, n.Load(), e.launcher.starts(), body)
		}
	}
}

// A replica that breaks the connection and lives on may have done the work: the request is not sent twice.
func TestLivingReplicaIsNotRetried(t *testing.T) {
	var n atomic.Int64
	e := newEdge(t, edgeOptions{}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/v1/chat/completions" {
			n.Add(1)
		}
		panic(http.ErrAbortHandler)
	}))
	resp, body := e.chat(`{"model":"test/model:1b"}`)
	if resp.StatusCode != 502 || n.Load() != 1 || openAIError(t, body).Code != "backend_unavailable" {
		t.Errorf("%d after %d requests: %s", resp.StatusCode, n.Load(), body)
	}
}

func TestTimeouts(t *testing.T) {
	silent := streaming(roleChunk, time.Minute)
	limits := DefaultTimeouts()
	t.Run("idle stream", func(t *testing.T) {
		m := cold(time.Second, 30*time.Millisecond)
		m.Timeouts = limits
		m.Timeouts.IdleStream = 100 * time.Millisecond
		w := newEdge(t, edgeOptions{model: m}, silent).streamed(streamBodyText)
		if code := lastError(t, w); code != "stream_stalled" {
			t.Errorf("code %q", code)
		}
		if n := strings.Count(w.body(), "\n:"); n < 1 || n > 4 {
			t.Errorf("%d heartbeats in 100 ms of silence at one in 30: %q", n, w.body())
		}
		checkSSE(t, w.body())
	})
	// What the engine said last was not passed on, so nothing was written when it was heard: the time of then is not that of the writing.
	t.Run("idle stream after a comment", func(t *testing.T) {
		m := cold(time.Second, time.Minute)
		m.Timeouts = limits
		m.Timeouts.IdleStream = 300 * time.Millisecond
		w := newEdge(t, edgeOptions{model: m}, streaming(roleChunk, 200*time.Millisecond, ": working\n\n", time.Minute)).streamed(streamBodyText)
		if code := lastError(t, w); code != "stream_stalled" {
			t.Errorf("code %q", code)
		}
	})
	t.Run("request", func(t *testing.T) {
		m := cold(time.Second, time.Second)
		m.Timeouts = limits
		m.Timeouts.Request = 100 * time.Millisecond
		if code := lastError(t, newEdge(t, edgeOptions{model: m}, silent).streamed(streamBodyText)); code != "request_timeout" {
			t.Errorf("code %q", code)
		}
	})
	t.Run("first byte", func(t *testing.T) {
		m := cold(time.Second, time.Second)
		m.Timeouts = limits
		m.Timeouts.FirstByte = 50 * time.Millisecond
		resp, body := newEdge(t, edgeOptions{model: m}, streaming(time.Minute)).chat(`{"model":"test/model:1b"}`)
		if resp.StatusCode != 504 || openAIError(t, body).Code != "first_byte_timeout" {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	})
}

// An answer that is refused while the client still sends must arrive all the same.
func TestTooLargeWhileSending(t *testing.T) {
	e := newEdge(t, edgeOptions{body: 1 << 20}, says(200, "", ""))
	for range 5 {
		c := e.dial()
		const size = 32 << 20
		fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size)
		go func() {
			junk := make([]byte, 64<<10)
			for sent := 0; sent < size; sent += len(junk) {
				if _, err := c.Write(junk); err != nil {
					return
				}
			}
		}()
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		b, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 413 ") || !strings.Contains(string(b), "request_too_large") {
			t.Errorf("%.80q, %v", b, err)
		}
	}
}

func TestResponsesStream(t *testing.T) {
	created := "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r\",\"model\":\"smol\"}}\n\n"
	delta := "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,\"delta\":\"hi\"}\n\n"
	completed := "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":2,\"response\":{\"id\":\"r\",\"model\":\"smol\"}}\n\n"
	const body = `{"model":"test/model:1b","input":"x","stream":true}`
	e := newEdge(t, edgeOptions{served: "smol"}, streaming(created, delta, completed))
	c := e.dial()
	e.post(c, "/v1/responses", body)
	w := readWire(t, c)
	if want := strings.ReplaceAll(created+delta+completed, "smol", "test/model:1b"); w.body() != want || !w.whole {
		t.Errorf("got %q (whole %v)\nwant %q", w.body(), w.whole, want)
	}
	e = newEdge(t, edgeOptions{served: "smol"}, streaming(created, delta))
	c = e.dial()
	e.post(c, "/v1/responses", body)
	if w := readWire(t, c); w.whole || !strings.Contains(w.body(), `"backend_unavailable"`) {
		t.Errorf("a truncated answer looks whole: %q", w.body())
	}
}

func TestShutdownRefusesWaiters(t *testing.T) {
	e := newEdge(t, edgeOptions{start: slowStart(time.Minute, nil)}, says(200, "", ""))
	got := make(chan string, 1)
	c := e.dial()
	e.post(c, "/v1/chat/completions", streamBodyText)
	go func() {
		b, _ := io.ReadAll(c)
		got <- string(b)
	}()
	settles(t, "the request is queued", func() bool { return e.model.Activator.Status().QueuedRequests == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := e.model.Activator.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := e.gateway.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if answer := <-got; !strings.HasPrefix(answer, "HTTP/1.1 503 ") || !strings.Contains(answer, "shutting_down") || !strings.Contains(answer, "Retry-After: 1") {
		t.Errorf("%q", answer)
	}
}
