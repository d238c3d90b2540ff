package gateway

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/router"
)

// breakOff ends the connection in the middle of whatever it was doing, as a process that dies does.
func breakOff(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func plainStatus(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// Every class of answer, and whether a replica that gives it again and again gets further requests.
func TestBreakerByClassOfAnswer(t *testing.T) {
	// An engine that is silent is so until the gateway has given up.
	silent := func(r *http.Request) { <-r.Context().Done() }
	const body, streaming = `{"model":"test/model:1b","user":"u"}`, `{"model":"test/model:1b","user":"u","stream":true}`
	sse := func(end func(w http.ResponseWriter, r *http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: {\"choices\":[]}\n\n")
			w.(http.Flusher).Flush()
			end(w, r)
		}
	}
	for _, tt := range []struct {
		name    string
		answer  http.HandlerFunc
		body    string
		out     bool
		timeout Timeouts
	}{
		{name: "200", answer: plainStatus(200, `{"model":"m"}`)},
		{name: "400", answer: plainStatus(400, `{"object":"error","message":"no","type":"BadRequest","code":400}`)},
		{name: "401", answer: plainStatus(401, `{}`), out: true}, // our own key: the replica is of no use
		{name: "404", answer: plainStatus(404, `{"detail":"Not Found"}`)},
		{name: "422", answer: plainStatus(422, `{}`)},
		{name: "429", answer: plainStatus(429, `{}`)},
		{name: "500", answer: plainStatus(500, `{"message":"broken"}`), out: true},
		{name: "502", answer: plainStatus(502, `bad gateway`), out: true},
		{name: "503", answer: plainStatus(503, `{"message":"unhealthy"}`), out: true},
		{name: "503 for a full queue", answer: plainStatus(503, `{"object":"error","message":"The request queue is full.","code":503}`)},
		{name: "504", answer: plainStatus(504, ``), out: true},
		{name: "a redirect", answer: plainStatus(302, ``), out: true},
		{name: "the connection breaks before an answer", answer: func(w http.ResponseWriter, _ *http.Request) { breakOff(w) }, out: true},
		{name: "the connection breaks in an answer", out: true, answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "{")
			w.(http.Flusher).Flush()
			breakOff(w)
		}},
		{name: "silence before the answer", out: true, timeout: Timeouts{Request: time.Minute, FirstByte: 30 * time.Millisecond, IdleStream: time.Minute},
			answer: func(_ http.ResponseWriter, r *http.Request) { silent(r) }},
		{name: "silence in a stream", body: streaming, out: true, timeout: Timeouts{Request: time.Minute, FirstByte: time.Minute, IdleStream: 30 * time.Millisecond},
			answer: sse(func(_ http.ResponseWriter, r *http.Request) { silent(r) })},
		{name: "a stream that breaks", body: streaming, out: true, answer: sse(func(w http.ResponseWriter, _ *http.Request) { breakOff(w) })},
		{name: "a stream that ends too early", body: streaming, out: true, answer: sse(func(http.ResponseWriter, *http.Request) {})},
		{name: "a stream of an error", body: streaming, out: true, answer: sse(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "data: {\"error\":{\"message\":\"broken\",\"code\":500}}\n\ndata: [DONE]\n\n")
		})},
		{name: "a stream of a client's error", body: streaming, answer: sse(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "data: {\"error\":{\"message\":\"too long\",\"code\":400}}\n\ndata: [DONE]\n\n")
		})},
		{name: "a whole stream", body: streaming, answer: sse(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "data: [DONE]\n\n") })},
		{name: "the request's own time is up", timeout: Timeouts{Request: 30 * time.Millisecond, FirstByte: time.Minute, IdleStream: time.Minute},
			answer: func(_ http.ResponseWriter, r *http.Request) { silent(r) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			engine := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/abort_request" {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body) // or the client that leaves would not be noticed
				tt.answer(w, r)
			})
			e, _ := newFleet(t, edgeOptions{model: Model{Timeouts: tt.timeout}}, engine, engine)
			request := tt.body
			if request == "" {
				request = body
			}
			// The session keeps the requests at one replica, until that is taken out.
			for range 6 {
				e.chat(request)
			}
			out := 0
			for id := uint64(1); id <= 2; id++ {
				if s, ok := e.model.Balancer.Status(id); ok && s.Out {
					out++
				}
			}
			if (out == 1) != tt.out || out == 2 {
				t.Errorf("%d of two replicas are out, want out: %v", out, tt.out)
			}
		})
	}
}

func TestClientsThatLeaveDoNotTakeAReplicaOut(t *testing.T) {
	stall := make(chan struct{})
	defer close(stall)
	var asked atomic.Int64
	engine := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort_request" {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		asked.Add(1)
		select {
		case <-stall:
		case <-r.Context().Done():
		}
	})
	e, _ := newFleet(t, edgeOptions{}, engine, engine)
	const requests = 12
	for i := range int64(requests) {
		c := e.connect(t)
		const body = `{"model":"test/model:1b","user":"u"}`
		fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-a\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		for deadline := time.Now().Add(10 * time.Second); asked.Load() <= i; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the engine was not asked")
			}
		}
		_ = c.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); strings.Count(e.log.String(), `"error":"client_closed_request"`) < requests; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not all clients were seen to leave:\n%s", e.log.String())
		}
	}
	for id := uint64(1); id <= 2; id++ {
		if s, ok := e.model.Balancer.Status(id); ok && (s.Out || s.Failures > 0) {
			t.Errorf("replica %d: %+v", id, s)
		}
	}
}

// A request whose replica is silent is ended there and answered by another, before its client has seen anything.
func TestSilentReplicaIsLeftForAnother(t *testing.T) {
	for _, body := range []string{`{"model":"test/model:1b","messages":[]}`, `{"model":"test/model:1b","messages":[],"stream":true}`} {
		stall := make(chan struct{})
		var first, aborted atomic.Int64
		engine := func(id int64) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/abort_request" {
					aborted.Store(id)
					return
				}
				b, _ := io.ReadAll(r.Body)
				if first.CompareAndSwap(0, id) {
					select {
					case <-stall:
					case <-r.Context().Done():
					}
					return
				}
				if strings.Contains(string(b), `"stream":true`) {
					w.Header().Set("Content-Type", "text/event-stream")
					fmt.Fprint(w, "data: {\"choices\":[]}\n\ndata: [DONE]\n\n")
					return
				}
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"model":"test/model:1b"}`)
			}
		}
		timeouts := DefaultTimeouts()
		timeouts.FirstToken = 50 * time.Millisecond
		e, _ := newFleet(t, edgeOptions{model: Model{Timeouts: timeouts}}, engine(1), engine(2))
		resp, answer := e.chat(body)
		if resp.StatusCode != 200 || strings.Contains(answer, "error") {
			t.Errorf("%d %s", resp.StatusCode, answer)
		}
		if got := resp.Header.Get("X-Pilotlight-Reason"); !strings.HasSuffix(got, "; attempts=2") {
			t.Errorf("reason %q does not tell of two attempts", got)
		}
		for deadline := time.Now().Add(10 * time.Second); aborted.Load() != first.Load(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("replica %d was not told to end the request, but %d", first.Load(), aborted.Load())
			}
		}
		close(stall)
	}
}

// A request stays with a silent replica if no other has room: half done is better than not begun.
func TestSilentReplicaIsKeptIfTheOthersAreFull(t *testing.T) {
	release, blocked := make(chan struct{}), make(chan struct{})
	var n atomic.Int64
	engine := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if n.Add(1) == 2 {
			close(blocked)
		}
		<-release
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"model":"test/model:1b"}`)
	})
	timeouts := DefaultTimeouts()
	timeouts.FirstToken = 20 * time.Millisecond
	e, _ := newFleet(t, edgeOptions{limit: 1, model: Model{Timeouts: timeouts}}, engine, engine)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			resp, answer := e.chat(`{"model":"test/model:1b"}`)
			if resp.StatusCode != 200 {
				t.Errorf("%d %s", resp.StatusCode, answer)
			}
		})
	}
	<-blocked
	time.Sleep(5 * timeouts.FirstToken)
	close(release)
	wg.Wait()
	if n.Load() != 2 {
		t.Errorf("the engines were asked %d times, want 2", n.Load())
	}
}

// A server that dies under its requests, with nobody to tell of it but the broken connections and that nobody listens any more.
func TestRequestsOfADeadServerAreAnsweredByAnother(t *testing.T) {
	waiting := make(chan struct{}, 100)
	var dying atomic.Int64 // the replica that does not answer
	engine := func(id int64) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if dying.CompareAndSwap(0, id) || dying.Load() == id {
				waiting <- struct{}{}
				<-r.Context().Done()
				return
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"model":"test/model:1b"}`)
		}
	}
	e, l := newFleet(t, edgeOptions{}, engine(1), engine(2))
	const requests = 20
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			if resp, answer := e.chat(`{"model":"test/model:1b","user":"u"}`); resp.StatusCode != 200 {
				t.Errorf("%d %s", resp.StatusCode, answer)
			}
		})
	}
	for range requests / 2 { // the session fills one replica, until it has more to do than the other
		select {
		case <-waiting:
		case <-time.After(100 * time.Millisecond):
		}
	}
	dead := l.servers[dying.Load()-1]
	_ = dead.Listener.Close()
	dead.CloseClientConnections()
	wg.Wait()
	for i := range 5 {
		if resp, answer := e.chat(`{"model":"test/model:1b","user":"u"}`); resp.StatusCode != 200 {
			t.Errorf("request %d after the death: %d %s", i, resp.StatusCode, answer)
		}
	}
}

// What may be sent again is bounded: engines that refuse everything get no storm.
func TestRetriesAreBounded(t *testing.T) {
	var seen atomic.Int64
	e, l := newFleet(t, edgeOptions{}, answering(0, &seen), answering(0, &seen), answering(0, &seen))
	for _, s := range l.servers {
		_ = s.Listener.Close()
		s.CloseClientConnections()
	}
	const requests = 300
	failed := 0
	for range requests {
		if resp, _ := e.chat(`{"model":"test/model:1b"}`); resp.StatusCode == 502 {
			failed++
		}
	}
	if failed != requests {
		t.Errorf("%d of %d requests failed with nobody there", failed, requests)
	}
	attempts := strings.Count(e.log.String(), `"attempts":1`)
	if again := requests - attempts; again > requests/10+10 {
		t.Errorf("%d of %d requests were sent again, want at most a tenth and ten", again, requests)
	}
	if s, _ := e.model.Balancer.Status(1); s.Chosen[router.ReasonLoad] == 0 {
		t.Errorf("status %+v", s)
	}
}
