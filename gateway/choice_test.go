package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/backends/transport"
	"pilotlight/router"
)

// engines are replicas with a server each. Their launcher starts the one of the slot.
type engines struct {
	mu      sync.Mutex
	servers []*httptest.Server
	started []*fakeInstance // by slot
	limit   int
	kind    backends.Engine
}

func (l *engines) Launch(_ context.Context, start activator.Start, _ func(activator.Progress)) (activator.Instance, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := &fakeInstance{exited: make(chan struct{}), limit: l.limit}
	i.pool.Store(transport.New(transport.Options{Endpoint: backends.Endpoint{
		Addr: l.servers[start.Slot].Listener.Addr().String(), Engine: l.kind, ServedName: "test/model:1b"}}))
	l.started[start.Slot] = i
	return i, nil
}

// newFleet starts an edge in front of one replica for each handler. Replica ids are 1, 2, … in the order of the handlers.
func newFleet(t *testing.T, o edgeOptions, handlers ...http.Handler) (*edge, *engines) {
	t.Helper()
	l := &engines{started: make([]*fakeInstance, len(handlers)), limit: 64, kind: o.engine}
	if o.limit > 0 {
		l.limit = o.limit
	}
	if l.kind == "" {
		l.kind = backends.EngineSGLang
	}
	for _, h := range handlers {
		s := httptest.NewServer(h)
		l.servers = append(l.servers, s)
		t.Cleanup(func() {
			s.CloseClientConnections()
			s.Close()
		})
	}
	o.config = activator.DefaultConfig()
	o.config.Min, o.config.Max = len(handlers), len(handlers)
	o.launcher = l
	o.model.Balancer = router.NewBalancer(o.model.Routing.Policy)
	e := newEdge(t, o, http.NotFoundHandler())
	for deadline := time.Now().Add(10 * time.Second); e.model.Activator.Open() < len(handlers); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the fleet did not start")
		}
	}
	return e, l
}

// answering is an engine that answers at once with what it found cached.
func answering(cached int, seen *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort_request" {
			return
		}
		seen.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":"resp_%d","model":"test/model:1b","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":%d}}}`, seen.Load(), cached)
	}
}

func conversation(text string, more string) string {
	return `{"model":"test/model:1b","messages":[{"role":"system","content":"` + strings.Repeat(text+" ", 500) + `"},{"role":"user","content":"` + more + `"}]}`
}

func TestConversationStaysWhereItIsCached(t *testing.T) {
	var seen [3]atomic.Int64
	e, _ := newFleet(t, edgeOptions{}, answering(90, &seen[0]), answering(90, &seen[1]), answering(90, &seen[2]))
	first, _ := e.chat(conversation("one", "hello"))
	at := first.Header.Get("X-Pilotlight-Replica")
	if got := first.Header.Get("X-Pilotlight-Reason"); got != "load; matched=0.00" || at == "" {
		t.Fatalf("the first went to %q for %q", at, got)
	}
	if got := first.Header.Get("X-Pilotlight-Start"); got != "warm" {
		t.Errorf("start %q, want warm", got)
	}
	if got := first.Header.Get("Server-Timing"); !strings.HasPrefix(got, "queue;dur=0, engine;dur=") {
		t.Errorf("Server-Timing: %s", got)
	}
	for i := range 5 {
		resp, _ := e.chat(conversation("one", fmt.Sprint("and ", i)))
		if got := resp.Header.Get("X-Pilotlight-Replica"); got != at || !strings.HasPrefix(resp.Header.Get("X-Pilotlight-Reason"), "prefix; matched=0.") {
			t.Errorf("went to %s for %q, want %s for its prefix", got, resp.Header.Get("X-Pilotlight-Reason"), at)
		}
	}
	log := e.log.String()
	if !strings.Contains(log, `"reason":"prefix","matched":0.`) {
		t.Errorf("the log does not say why:\n%s", log)
	}
	var id uint64
	if _, err := fmt.Sscan(at, &id); err != nil {
		t.Fatal(err)
	}
	s, ok := e.model.Balancer.Status(id)
	if !ok || s.Chosen[router.ReasonPrefix] != 5 || s.Blocks == 0 {
		t.Errorf("status %+v", s)
	}
	for deadline := time.Now().Add(5 * time.Second); s.Work != 0; s, _ = e.model.Balancer.Status(id) {
		if time.Now().After(deadline) {
			t.Fatalf("%v of work is left, and nothing is in flight", s.Work)
		}
		time.Sleep(time.Millisecond)
	}
}

// What the engine tells of its cache is believed: a replica that never has what it is thought to have loses its advantage.
func TestEngineCorrectsWhatIsThoughtToBeCached(t *testing.T) {
	for _, stream := range []bool{false, true} {
		var seen [2]atomic.Int64
		plain := answering(1, &seen[0])
		engine := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !stream {
				plain(w, r)
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"prompt_tokens_details\":{\"cached_tokens\":1}}}\n\ndata: [DONE]\n\n")
		})
		e, _ := newFleet(t, edgeOptions{}, engine, engine)
		body := conversation("one", "hello")
		if stream {
			body = strings.Replace(body, "{", `{"stream":true,`, 1)
		}
		low := 1.0
		for range 8 {
			e.chat(body)
			for id := uint64(1); id <= 2; id++ {
				if s, ok := e.model.Balancer.Status(id); ok {
					low = min(low, s.Trust)
				}
			}
		}
		if low > 0.9 {
			t.Errorf("stream %v: trust is %v though nothing was cached", stream, low)
		}
	}
}

func TestSessionsStick(t *testing.T) {
	for _, tt := range []struct {
		name   string
		body   string
		header []string
	}{
		{"header", `{"model":"test/model:1b","messages":[%d]}`, []string{"X-Pilotlight-Session", "abc"}},
		{"prompt_cache_key", `{"model":"test/model:1b","prompt_cache_key":"abc","messages":[%d]}`, nil},
		{"user", `{"model":"test/model:1b","user":"abc","messages":[%d]}`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var seen atomic.Int64
			e, _ := newFleet(t, edgeOptions{}, answering(0, &seen), answering(0, &seen), answering(0, &seen), answering(0, &seen))
			at := ""
			for i := range 8 {
				resp, _ := e.chat(fmt.Sprintf(tt.body, i), tt.header...)
				if at == "" {
					at = resp.Header.Get("X-Pilotlight-Replica")
					continue
				}
				if got := resp.Header.Get("X-Pilotlight-Replica"); got != at || !strings.HasPrefix(resp.Header.Get("X-Pilotlight-Reason"), "sticky") {
					t.Errorf("request %d went to %s for %q, want %s for its session", i, got, resp.Header.Get("X-Pilotlight-Reason"), at)
				}
			}
		})
	}
}

func TestPreviousResponseIsFoundWhereItIsKept(t *testing.T) {
	var seen [3]atomic.Int64
	engine := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			id := fmt.Sprintf("resp_%d_%d", n, seen[n].Add(1))
			if b, _ := io.ReadAll(r.Body); strings.Contains(string(b), `"stream":true`) {
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprintf(w, "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":%q}}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":%q}}\n\n", id, id)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"id":%q,"model":"m"}`, id)
		}
	}
	e, l := newFleet(t, edgeOptions{}, engine(0), engine(1), engine(2))
	ask := func(previous, more string) (*http.Response, string) {
		if previous != "" {
			more += `,"previous_response_id":"` + previous + `"`
		}
		return e.request("POST", "/v1/responses", `{"model":"test/model:1b","input":"`+strings.Repeat("x", 100)+`"`+more+`}`)
	}
	for _, more := range []string{"", `,"stream":true`} {
		resp, body := ask("", more)
		at := resp.Header.Get("X-Pilotlight-Replica")
		_, rest, _ := strings.Cut(body, `"id":"`)
		id, _, _ := strings.Cut(rest, `"`)
		for range 6 {
			resp, _ := ask(id, more)
			if got := resp.Header.Get("X-Pilotlight-Replica"); got != at || !strings.HasPrefix(resp.Header.Get("X-Pilotlight-Reason"), "response") {
				t.Errorf("went to %s for %q, want %s where %s is kept", got, resp.Header.Get("X-Pilotlight-Reason"), at, id)
			}
		}
		var n int
		if _, err := fmt.Sscan(at, &n); err != nil {
			t.Fatal(err)
		}
		l.mu.Lock()
		var keeper *fakeInstance
		for _, i := range l.started {
			if i.pool.Load() == e.poolOf(uint64(n)) {
				keeper = i
			}
		}
		l.mu.Unlock()
		keeper.die()
		resp, body = ask(id, more)
		if e := openAIError(t, body); resp.StatusCode != 404 || e.Code != "previous_response_not_found" || e.Param != "previous_response_id" {
			t.Errorf("after the replica's end: %d %s", resp.StatusCode, body)
		}
	}
	if resp, body := ask("resp_made_up", ""); resp.StatusCode != 404 {
		t.Errorf("an unknown response: %d %s", resp.StatusCode, body)
	}
}

// poolOf is the transport of a replica that is open; nil if it is not.
func (e *edge) poolOf(id uint64) *transport.Pool {
	lease, _ := e.model.Activator.TryAcquireOn(id, nil)
	if !lease.Held() {
		return nil
	}
	defer lease.Release()
	return lease.Instance().(Target).Transport()
}
