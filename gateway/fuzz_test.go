package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/backends"
)

// Whatever comes on a connection, what goes back is HTTP, errors are OpenAI's, and the engine sees only whole requests for its model.
func FuzzClientBytes(f *testing.F) {
	for _, row := range malformedRows() {
		if len(row.send) < 4096 {
			f.Add([]byte(row.send))
		}
	}
	engine := &strictEngine{}
	e := newEdge(f, edgeOptions{model: Model{ID: "test/model:1b", RequiresAuth: true}, body: 1 << 20}, engine)
	f.Fuzz(func(t *testing.T, raw []byte) {
		nc, err := net.Dial("tcp", e.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(8 * time.Second))
		go func() {
			nc.Write(raw) // the server may refuse to read it all
			nc.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(nc)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("no end after %q", got)
		}
		engine.check(t)
		if bytes.Contains(raw, []byte("HEAD")) || err != nil {
			return // an answer without its body cannot be told from one with, nor a cut one from a broken one
		}
		for br := bufio.NewReader(bytes.NewReader(got)); ; {
			if _, err := br.Peek(1); err == io.EOF {
				return
			}
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatalf("%v in %q", err, got)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				// A client that has ended its side counts as gone: its stream may be cut, but it never ends cleanly.
				if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
					return
				}
				t.Fatalf("%v in %q", err, got)
			}
			if resp.StatusCode >= 400 {
				openAIError(t, string(body))
			}
			if resp.StatusCode != 100 && resp.Header.Get("X-Request-Id") == "" {
				t.Errorf("no x-request-id in %q", got)
			}
		}
	})
}

// rawEngine answers each connection's first request with bytes, and ends it.
type rawEngine struct {
	ln net.Listener
	wg sync.WaitGroup
	mu sync.Mutex
	// answer is guarded by mu.
	answer []byte
}

func newRawEngine(tb testing.TB) *rawEngine {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	e := &rawEngine{ln: ln}
	e.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			e.wg.Go(func() {
				defer c.Close()
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				io.Copy(io.Discard, req.Body)
				e.mu.Lock()
				answer := e.answer
				e.mu.Unlock()
				c.Write(answer)
			})
		}
	})
	tb.Cleanup(func() { ln.Close(); e.wg.Wait() })
	return e
}

// atEngine leads an edge's model to another address.
func (e *edge) atEngine(addr string, engine backends.Engine) {
	e.launcher.mu.Lock()
	defer e.launcher.mu.Unlock()
	e.launcher.endpoint = backends.Endpoint{Addr: addr, Engine: engine, ServedName: e.model.ID}
}

// Whatever an engine answers, its client gets a whole answer, an error, or a connection that is visibly cut: never a hang, and never
// a stream that looks whole without its last event.
func FuzzEngineBytes(f *testing.F) {
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, s := range []string{
		head + oneChunk("data: {\"x\":1}\n\n") + oneChunk("data: [DONE]\n\n") + "0\r\n\r\n",
		head + oneChunk("data: {\"x\":1}\n\n") + "0\r\n\r\n",
		head + oneChunk("data: {\"x\":1}\n\n"),
		head + oneChunk("data: {\"x\":1}\n\ndata: [DO"),
		head + oneChunk("data: {\"error\":{\"message\":\"m\",\"code\":400}}\n\n") + "0\r\n\r\n",
		head + oneChunk(":\n\n\n\nevent: x\n\nid: 1\nretry: 2\ndata:\n\n") + "0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {}\n\n",
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"a\":",
		"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"message\":\"m\"}",
		"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 204 No\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", "\r\n", "HTTP",
		"HTTP/1.1 200 OK\r\nX-A: b\r\n Set-Cookie: c\r\nContent-Length: 0\r\n\r\n",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	engine := newRawEngine(f)
	e := newEdge(f, edgeOptions{model: Model{Cold: DefaultCold(), Timeouts: Timeouts{Request: 4 * time.Second, FirstByte: 2 * time.Second, IdleStream: 2 * time.Second}}}, http.NotFoundHandler())
	e.atEngine(engine.ln.Addr().String(), backends.EngineOpenAI)
	f.Fuzz(func(t *testing.T, wire []byte, stream bool) {
		engine.mu.Lock()
		engine.answer = wire
		engine.mu.Unlock()
		nc, err := net.Dial("tcp", e.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(8 * time.Second))
		body := `{"model":"test/model:1b"}`
		if stream {
			body = `{"model":"test/model:1b","stream":true}`
		}
		io.WriteString(nc, sized(keyed(chatLine)+"Connection: close\r\n", body))
		resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			t.Fatalf("%v to %q", err, wire)
		}
		answer, err := io.ReadAll(resp.Body)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatalf("no end of the answer to %q", wire)
		case err != nil:
			if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
				t.Errorf("%v to %q", err, wire)
			}
		case resp.StatusCode >= 400:
			openAIError(t, string(answer))
		case resp.StatusCode < 200 || resp.StatusCode >= 300:
			t.Errorf("status %d to %q", resp.StatusCode, wire)
		case stream && !bytes.HasSuffix(answer, []byte("data: [DONE]\n\n")):
			t.Errorf("a clean end without the last event: %q to %q", answer, wire)
		}
		if id := resp.Header.Get("X-Request-Id"); string(appendRequestID(nil, []byte(id))) != id || resp.Header.Get("Set-Cookie") != "" {
			t.Errorf("headers %v to %q", resp.Header, wire)
		}
	})
}

// A connection that the engine has closed while it was idle costs no request.
func TestEngineThatClosedMeanwhileIsAskedAnew(t *testing.T) {
	engine := newRawEngine(t) // closes each connection after its answer, although it has not said so
	engine.answer = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	e := newEdge(t, edgeOptions{}, http.NotFoundHandler())
	e.atEngine(engine.ln.Addr().String(), backends.EngineOpenAI)
	for i := range 5 {
		if resp, body := e.chat(chatBody("m")); resp.StatusCode != 200 {
			t.Errorf("request %d: %d %s", i, resp.StatusCode, body)
		}
	}
}
