package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/gateway/jsonbody"
)

// another makes a model of its own, whose engine is handler, and whose starts do what start says.
func another(t *testing.T, id string, min int, start func(ctx context.Context, n int, progress func(activator.Progress)) error, handler http.Handler) *Model {
	t.Helper()
	engine := httptest.NewServer(handler)
	l := &fakeLauncher{start: start, limit: 1, endpoint: backends.Endpoint{Addr: engine.Listener.Addr().String(), Engine: backends.EngineSGLang, ServedName: id}}
	c := activator.DefaultConfig()
	c.Min = min
	act, err := activator.New(activator.Options{Name: id, Config: c, Launcher: l, SpecHash: "1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := act.Close(ctx); err != nil {
			t.Errorf("closing %s: %v", id, err)
		}
		engine.CloseClientConnections()
		engine.Close()
	})
	return &Model{ID: id, RequiresAuth: true, Cold: DefaultCold(), Timeouts: DefaultTimeouts(), Activator: act}
}

// named is an engine that answers with its name, and notes what it is sent.
type named struct {
	name   string
	status int // 0: 200
	mu     sync.Mutex
	bodies []string
}

func (n *named) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	n.mu.Lock()
	n.bodies = append(n.bodies, string(b))
	n.mu.Unlock()
	model := `"none"`
	if start, end, ok := jsonbody.TopLevelString(b, "model"); ok {
		model = string(b[start:end]) // as SGLang does
	}
	if n.status != 0 {
		w.WriteHeader(n.status)
		return
	}
	if strings.Contains(string(b), `"stream":true`) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: {\"model\":%s,\"by\":%q}\n\ndata: [DONE]\n\n", model, n.name)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"model":%s,"by":%q}`, model, n.name)
}

func (n *named) seen() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.bodies...)
}

func awaitOpen(t *testing.T, m *Model) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); m.Activator.Open() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not start", m.ID)
		}
	}
}

func TestSplit(t *testing.T) {
	main, canary := &named{name: "main"}, &named{name: "canary"}
	next := another(t, "next", 1, nil, canary)
	awaitOpen(t, next)
	e := newEdge(t, edgeOptions{model: Model{Split: []Share{{next, 25}}}, more: []*Model{next}}, main)
	const requests = 400
	by := map[string]string{}
	for i := range requests {
		session := fmt.Sprint(i % 200) // each twice
		resp, body := e.chat(`{"model":"test/model:1b"}`, DefaultSessionHeader, session)
		if !strings.Contains(body, `"model":"test/model:1b"`) {
			t.Fatalf("the answer does not have the name that was asked for: %s", body)
		}
		at := "main"
		if resp.Header.Get("X-Pilotlight-Model") == "next; via=split" {
			at = "canary"
		}
		if !strings.Contains(body, at) {
			t.Fatalf("header %q, answer %s", resp.Header.Get("X-Pilotlight-Model"), body)
		}
		if was := by[session]; was != "" && was != at {
			t.Errorf("session %s went to %s, and then to %s", session, was, at)
		}
		by[session] = at
	}
	if n := len(canary.seen()); n < requests/8 || n > requests*3/8 {
		t.Errorf("%d of %d requests went to the canary, want a quarter", n, requests)
	}
	// Without a session it is chance.
	before := len(canary.seen())
	for range requests {
		e.chat(`{"model":"test/model:1b"}`)
	}
	if n := len(canary.seen()) - before; n < requests/8 || n > requests*3/8 {
		t.Errorf("%d of %d requests without a session went to the canary, want a quarter", n, requests)
	}
	if log := e.log.String(); !strings.Contains(log, `"model":"next"`) || !strings.Contains(log, `"asked":"test/model:1b","via":"split"`) {
		t.Error("the log does not tell of the split")
	}
	for _, body := range canary.seen()[:1] {
		if !strings.Contains(body, `"model":"next"`) {
			t.Errorf("the canary was sent %s", body)
		}
	}
}

var errNoStart = &backends.Failure{Class: backends.ClassOutOfMemory, Message: "no memory", Permanent: true, Err: errors.New("by the test")}

func TestFallback(t *testing.T) {
	never := func(ctx context.Context, _ int, _ func(activator.Progress)) error {
		<-ctx.Done()
		return ctx.Err()
	}
	fails := func(context.Context, int, func(activator.Progress)) error { return errNoStart }
	all := Fallback{Cold: true, Full: true, Failed: true, After: time.Hour}
	soonCold := Fallback{Cold: true, After: 20 * time.Millisecond}
	soon := DefaultTimeouts()
	soon.FirstByte = 30 * time.Millisecond
	hang := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	for _, tt := range []struct {
		name     string
		start    func(ctx context.Context, n int, progress func(activator.Progress)) error
		engine   http.Handler
		fallback Fallback
		timeouts Timeouts
		headers  []string
		full     bool
		via      string // empty: the model's own error
		code     string
	}{
		{name: "cold for too long", start: never, engine: &named{}, fallback: soonCold, via: "cold"},
		{name: "cold, and its wait is over", start: never, engine: &named{}, fallback: Fallback{Cold: true, After: time.Hour}, headers: []string{"X-Pilotlight-Max-Wait", "0s"}, via: "cold"},
		{name: "its start fails", start: fails, engine: &named{}, fallback: Fallback{Failed: true}, via: "failed"},
		{name: "its start fails, which is no reason", start: fails, engine: &named{}, fallback: Fallback{Cold: true, Full: true, After: time.Hour}, code: "out_of_memory"},
		{name: "500", engine: &named{status: 500}, fallback: all, via: "failed"},
		{name: "500, which is no reason", engine: &named{status: 500}, fallback: Fallback{Cold: true, After: time.Hour}, code: "backend_error"},
		{name: "400", engine: &named{status: 400}, fallback: all, code: "invalid_request"},
		{name: "429", engine: &named{status: 429}, fallback: all, code: "rate_limit_exceeded"},
		{name: "the connection breaks", engine: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { breakOff(w) }), fallback: all, via: "failed"},
		{name: "silence", engine: hang, timeouts: soon, fallback: all, via: "failed"},
		{name: "full", engine: &named{}, fallback: Fallback{Full: true, After: 20 * time.Millisecond}, full: true, via: "full"},
		{name: "full, and its wait is over", engine: &named{}, fallback: Fallback{Full: true, After: time.Hour}, headers: []string{"X-Pilotlight-Max-Wait", "0s"}, full: true, via: "full"},
	} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stream=%v", tt.name, stream), func(t *testing.T) {
				t.Parallel()
				small := &named{name: "small"}
				next := another(t, "small", 1, nil, small)
				awaitOpen(t, next)
				fallback := tt.fallback
				fallback.Models = []*Model{another(t, "cold", 0, never, &named{}), next}
				e := newEdge(t, edgeOptions{model: Model{Fallback: fallback, Timeouts: tt.timeouts}, start: tt.start, limit: 1,
					more: fallback.Models}, tt.engine)
				if tt.full {
					lease, ok := e.model.Activator.TryAcquire()
					for ; !ok; lease, ok = e.model.Activator.TryAcquire() {
						if ticket, err := e.model.Activator.Enqueue(activator.Request{}); err == nil {
							<-ticket.Done()
							ticket.Cancel()
						}
					}
					defer lease.Release()
					for e.model.Activator.Status().State != activator.Ready {
						time.Sleep(time.Millisecond)
					}
				}
				body := `{"model":"test/model:1b"}`
				if stream {
					body = `{"model":"test/model:1b","stream":true}`
				}
				resp, answer := e.chat(body, tt.headers...)
				if tt.via == "" {
					if got := openAIError(t, answer); got.Code != tt.code || len(small.seen()) != 0 {
						t.Errorf("%d %s, want %s and no fallback", resp.StatusCode, answer, tt.code)
					}
					return
				}
				if resp.StatusCode != 200 || !strings.Contains(answer, "small") || !strings.Contains(answer, `"model":"test/model:1b"`) {
					t.Errorf("%d %s, want the fallback's answer with the name that was asked for", resp.StatusCode, answer)
				}
				if got := resp.Header.Get("X-Pilotlight-Model"); got != "small; via="+tt.via {
					t.Errorf("X-Pilotlight-Model: %s, want via=%s", got, tt.via)
				}
				if n := e.model.metrics.active.Load() + next.metrics.active.Load(); n != 0 {
					t.Errorf("%d requests count as active", n)
				}
			})
		}
	}
}

// Once a byte of an answer has gone out, another model's would not go on from there.
func TestNoFallbackInTheMiddleOfAnAnswer(t *testing.T) {
	small := &named{name: "small"}
	next := another(t, "small", 1, nil, small)
	awaitOpen(t, next)
	e := newEdge(t, edgeOptions{model: Model{Fallback: Fallback{Models: []*Model{next}, Cold: true, Full: true, Failed: true, After: time.Hour}}, more: []*Model{next}},
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: {\"choices\":[]}\n\n")
			w.(http.Flusher).Flush()
			time.Sleep(50 * time.Millisecond)
			breakOff(w)
		}))
	_, answer := e.chat(`{"model":"test/model:1b","stream":true}`)
	if !strings.Contains(answer, "backend_unavailable") || strings.Contains(answer, "small") || len(small.seen()) > 0 {
		t.Errorf("got %s", answer)
	}
}

// A stream whose status went out while its model was cold goes on with the fallback.
func TestFallbackAfterHeartbeats(t *testing.T) {
	small := &named{name: "small"}
	next := another(t, "small", 1, nil, small)
	awaitOpen(t, next)
	cold := DefaultCold()
	cold.Grace, cold.Heartbeat = 0, 10*time.Millisecond
	e := newEdge(t, edgeOptions{model: Model{Cold: cold, Fallback: Fallback{Models: []*Model{next}, Cold: true, After: 50 * time.Millisecond}}, more: []*Model{next},
		start: func(ctx context.Context, _ int, _ func(activator.Progress)) error {
			<-ctx.Done()
			return ctx.Err()
		}}, http.NotFoundHandler())
	resp, answer := e.chat(`{"model":"test/model:1b","stream":true}`)
	if resp.StatusCode != 200 || !strings.HasPrefix(answer, ": pilotlight") || !strings.Contains(answer, "small") || !strings.HasSuffix(answer, "data: [DONE]\n\n") {
		t.Errorf("%d %s", resp.StatusCode, answer)
	}
}

func TestModelsParameters(t *testing.T) {
	engine := &named{name: "main"}
	e := newEdge(t, edgeOptions{model: Model{Parameters: []Parameter{
		{Name: "temperature", Raw: []byte("0.5")}, {Name: "max_tokens", Raw: []byte("7"), Override: true}}}}, engine)
	e.chat(`{"model":"alias-is-not-here","max_tokens":1}`)
	e.chat(`{"messages":[{"role":"user","content":"hi"}],"max_tokens":100,"model":"test/model:1b"}`)
	seen := engine.seen()
	if len(seen) != 1 || !strings.Contains(seen[0], `"temperature":0.5`) || !strings.Contains(seen[0], `"max_tokens":7,`) || strings.Contains(seen[0], "100") {
		t.Errorf("the engine was sent %s", seen)
	}
}

// Copies are sent where there is room, and neither their answers nor their failures reach anybody.
func TestShadow(t *testing.T) {
	main, copied := &named{name: "main"}, &named{name: "copy", status: 500}
	next := another(t, "next", 1, nil, copied)
	awaitOpen(t, next)
	next.Parameters = []Parameter{{Name: "top_k", Raw: []byte("3")}}
	e := newEdge(t, edgeOptions{model: Model{Shadow: Share{next, 100}}, more: []*Model{next}}, main)
	const requests = 10
	for i := range requests {
		resp, body := e.chat(fmt.Sprintf(`{"model":"test/model:1b","seed":%d,"priority":9}`, i))
		if resp.StatusCode != 200 || !strings.Contains(body, `"by":"main"`) || resp.Header.Get("X-Pilotlight-Model") != "" {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		for deadline := time.Now().Add(10 * time.Second); next.Activator.Status().Replicas[0].InFlight > 0 || len(copied.seen()) <= i; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("request %d: %d copies, %d in flight", i, len(copied.seen()), next.Activator.Status().Replicas[0].InFlight)
			}
		}
	}
	for i, body := range copied.seen() {
		if !strings.Contains(body, fmt.Sprintf(`"seed":%d`, i)) || !strings.Contains(body, `"model":"next"`) || !strings.Contains(body, `"top_k":3`) || strings.Contains(body, "priority") {
			t.Errorf("copy %d is %s", i, body)
		}
	}
	// One that is full is not waited for.
	lease, ok := next.Activator.TryAcquire()
	if !ok {
		t.Fatal("no place at the shadow")
	}
	if resp, body := e.chat(`{"model":"test/model:1b"}`); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	lease.Release()
	if n := len(copied.seen()); n != requests || len(main.seen()) != requests+1 {
		t.Errorf("%d copies of %d requests", n, len(main.seen()))
	}
	if log := e.log.String(); strings.Count(log, `"msg":"request"`) != requests+1 {
		t.Error("copies are in the access log")
	}
}
