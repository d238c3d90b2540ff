package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/backends/transport"
	"pilotlight/internal/testtools/otlptest"
)

// traced is an edge whose spans go to a collector through the exporter that production uses.
type traced struct {
	*edge
	collector *otlptest.Collector
	provider  *sdktrace.TracerProvider
}

const (
	clientTrace  = "0af7651916cd43dd8448eb211c80319c"
	clientSpan   = "b7ad6b7169203331"
	clientHeader = "00-" + clientTrace + "-" + clientSpan + "-01"
)

func newTraced(t *testing.T, o edgeOptions, tracing Tracing, engine http.Handler) *traced {
	c := otlptest.New(t)
	client := &http.Client{Transport: &http.Transport{}}
	exporter, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(c.URL+"/v1/traces"), otlptracehttp.WithHTTPClient(client))
	if err != nil {
		t.Fatal(err)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
	t.Cleanup(func() {
		if err := p.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		client.CloseIdleConnections()
	})
	e := newEdge(t, o, engine)
	tracing.Tracer = p.Tracer("test")
	e.gateway.SetTracing(tracing)
	return &traced{e, c, p}
}

// spans waits for n of them and gives them by kind: the server's, the queue's, the client's last.
func (e *traced) spans(n int) map[string]otlptest.Span {
	e.t.Helper()
	out := map[string]otlptest.Span{}
	spans := e.collector.Wait(n, func() {
		if err := e.provider.ForceFlush(context.Background()); err != nil {
			e.t.Fatal(err)
		}
	})
	if len(spans) != n {
		e.t.Fatalf("got %d spans, want %d: %v", len(spans), n, spans)
	}
	for _, s := range spans {
		switch s.Kind {
		case tracepb.Span_SPAN_KIND_SERVER:
			out["server"] = s
		case tracepb.Span_SPAN_KIND_CLIENT:
			out["client"] = s
		default:
			out[s.Name] = s
		}
	}
	return out
}

// wants holds a span's attributes against those wanted; "" wants that there is none, "*" any.
func wants(t *testing.T, s otlptest.Span, want map[string]string) {
	t.Helper()
	got := otlptest.Attributes(s.Attributes)
	for k, v := range want {
		if value, ok := got[k]; v == "*" && !ok || v != "*" && value != v {
			t.Errorf("span %q: %s is %q, want %q", s.Name, k, value, v)
		}
	}
	for k, v := range got {
		if strings.Contains(v, "secret prompt") || strings.Contains(v, "secret answer") || strings.Contains(v, "key-a") {
			t.Errorf("span %q tells %s=%q", s.Name, k, v)
		}
	}
}

func TestTraceOfAWarmRequest(t *testing.T) {
	engine := says(200, "application/json", `{"model":"test/model-1b","choices":[{"message":{"content":"secret answer \"usage\":{}"}}],"usage":{"prompt_tokens":12,"completion_tokens":34,"prompt_tokens_details":{"cached_tokens":5}}}`)
	e := newTraced(t, edgeOptions{served: "test/model-1b", model: Model{ID: "test/model:1b", Aliases: []string{"alias"}}}, Tracing{TrustClient: true}, engine)
	body := `{"model":"alias","messages":[{"role":"user","content":"secret prompt"}]}`
	e.chat(body) // starts the replica; not sampled
	if sent := <-engine.got; sent.header.Get("Traceparent") != "" {
		t.Error("a request that is not traced continues a trace")
	}
	resp, _ := e.chat(body, "Traceparent", clientHeader, "Tracestate", "vendor=1,b=2", "X-Request-Id", "req-7")
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	spans := e.spans(2)
	server, client := spans["server"], spans["client"]
	if got := fmt.Sprintf("%x %x %x", server.TraceId, server.ParentSpanId, client.TraceId); got != clientTrace+" "+clientSpan+" "+clientTrace {
		t.Errorf("trace, parent, trace: %s", got)
	}
	if string(client.ParentSpanId) != string(server.SpanId) {
		t.Error("the attempt is no child of the request")
	}
	sent := <-engine.got
	if want := fmt.Sprintf("00-%s-%x-01", clientTrace, client.SpanId); sent.header.Get("Traceparent") != want || sent.header.Get("Tracestate") != "vendor=1,b=2" {
		t.Errorf("the engine got %q, %q, want %q", sent.header["Traceparent"], sent.header["Tracestate"], want)
	}
	if server.Name != "POST /v1/chat/completions" || client.Name != "chat test/model:1b" {
		t.Errorf("names %q, %q", server.Name, client.Name)
	}
	told := map[string]string{"gen_ai.operation.name": "chat", "gen_ai.request.model": "test/model:1b", "gen_ai.response.model": "test/model-1b",
		"gen_ai.usage.input_tokens": "12", "gen_ai.usage.output_tokens": "34", "gen_ai.usage.cache_read.input_tokens": "5",
		"http.response.status_code": "200", "http.request.method": "POST", "gen_ai.request.stream": "false", "error.type": ""}
	wants(t, server, told)
	wants(t, client, told)
	wants(t, server, map[string]string{"http.route": "/v1/chat/completions", "pilotlight.request.id": "req-7", "pilotlight.tenant": "a", "pilotlight.cold": "false",
		"server.address": "127.0.0.1", "server.port": "*", "url.scheme": "http", "http.request.body.size": fmt.Sprint(len(body)), "http.response.body.size": "*"})
	wants(t, client, map[string]string{"gen_ai.provider.name": "sglang", "server.address": "127.0.0.1", "server.port": "*", "pilotlight.replica": "1", "http.request.resend_count": ""})
	if len(client.Events) != 1 || client.Events[0].Name != "first_byte" || client.Events[0].TimeUnixNano < client.StartTimeUnixNano || client.Events[0].TimeUnixNano > client.EndTimeUnixNano {
		t.Errorf("events %v", client.Events)
	}
	log := e.log.String()
	if strings.Count(log, "trace_id") != 1 || !strings.Contains(log, `"trace_id":"`+clientTrace+`"`) {
		t.Errorf("the access log lacks the trace's id, or has it for the other request:\n%s", log)
	}
}

func TestTraceOfAStream(t *testing.T) {
	for _, tt := range []struct{ name, path, events string }{
		{"chat", "/v1/chat/completions", "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"secret answer\"}}]}\n\n" +
			"data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n"},
		{"responses", "/v1/responses", "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"model\":\"m\",\"usage\":null}}\n\n" +
			"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"model\":\"m\",\"output\":[\"secret answer\"],\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}}\n\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newTraced(t, edgeOptions{secure: true}, Tracing{Sample: 1}, says(200, "text/event-stream", tt.events))
			resp, body := e.request("POST", tt.path, `{"model":"test/model:1b","stream":true,"input":"secret prompt"}`)
			if resp.StatusCode != 200 || !strings.Contains(body, "secret answer") {
				t.Fatalf("%s: %s", resp.Status, body)
			}
			spans := e.spans(3) // the first request waits for the start
			if spans["server"].ParentSpanId != nil {
				t.Error("a trace without a client's has a parent")
			}
			for _, span := range []string{"server", "client"} {
				wants(t, spans[span], map[string]string{"gen_ai.response.model": "m", "gen_ai.usage.input_tokens": "3", "gen_ai.usage.output_tokens": "4",
					"gen_ai.request.stream": "true", "gen_ai.operation.name": "chat"})
			}
			wants(t, spans["server"], map[string]string{"url.scheme": "https", "server.address": "127.0.0.1"})
			wants(t, spans["client"], map[string]string{"gen_ai.response.time_to_first_chunk": "*"})
			if resp.Header.Get("Traceparent") != "" {
				t.Error("the trace leaks to the client")
			}
		})
	}
}

func TestTraceOfAColdRequest(t *testing.T) {
	release := make(chan struct{})
	start := StartTrace{Span: trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})}
	var asked atomic.Uint64
	o := edgeOptions{model: Model{ID: "test/model:1b", StartTrace: func(replica uint64) (StartTrace, bool) {
		asked.Store(replica)
		return start, true
	}}, start: func(context.Context, int, func(activator.Progress)) error {
		<-release
		return nil
	}}
	e := newTraced(t, o, Tracing{Sample: 1}, says(200, "application/json", plainAnswer))
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.chat(`{"model":"test/model:1b","messages":[]}`)
	}()
	settles(t, "a request that waits", func() bool { return e.model.Activator.Status().QueuedRequests == 1 })
	// One phase lies before the request, one behind its arrival.
	start.Phases = []StartPhase{{"launch", time.Now().Add(-time.Hour)}, {"weights", time.Now()}}
	close(release)
	<-done
	spans := e.spans(3)
	queue := spans["queue"]
	wants(t, queue, map[string]string{"pilotlight.cold": "true", "error.type": ""})
	wants(t, spans["server"], map[string]string{"pilotlight.cold": "true"})
	if asked.Load() != 1 {
		t.Errorf("asked for the start of replica %d", asked.Load())
	}
	if len(queue.Links) != 1 || queue.Links[0].TraceId[0] != 1 || queue.Links[0].SpanId[0] != 2 {
		t.Errorf("links %v", queue.Links)
	}
	if len(queue.Events) != 1 || queue.Events[0].Name != "weights" {
		t.Errorf("events %v", queue.Events)
	}
	if string(queue.ParentSpanId) != string(spans["server"].SpanId) || spans["client"].StartTimeUnixNano < queue.EndTimeUnixNano {
		t.Errorf("the spans are out of order: %v", spans)
	}
}

// A wait for a place on a replica that has long been ready is no cold start.
func TestTraceOfAWaitWithoutAStart(t *testing.T) {
	begun, end := make(chan struct{}, 2), make(chan struct{})
	o := edgeOptions{limit: 1, model: Model{ID: "test/model:1b", StartTrace: func(uint64) (StartTrace, bool) {
		return StartTrace{Ended: time.Now().Add(-time.Hour)}, true
	}}}
	e := newTraced(t, o, Tracing{TrustClient: true}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-end
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, plainAnswer)
	}))
	done := make(chan struct{}, 2)
	ask := func(headers ...string) {
		e.chat(`{"model":"test/model:1b"}`, headers...)
		done <- struct{}{}
	}
	go ask()
	<-begun
	go ask("Traceparent", clientHeader)
	settles(t, "a request that waits", func() bool { return e.model.Activator.Status().QueuedRequests == 1 })
	close(end)
	<-done
	<-done
	queue := e.spans(3)["queue"]
	wants(t, queue, map[string]string{"pilotlight.cold": "false"})
	if len(queue.Links) != 0 {
		t.Errorf("links %v", queue.Links)
	}
}

func TestTraceOfErrors(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		key        string
		engine     *engineSays
		spans      int
		status     string
		code       string
		failed     bool
	}{
		{"unknown model", `{"model":"secret prompt"}`, "Bearer key-a", says(200, "application/json", "{}"), 1, "404", "model_not_found", false},
		{"no JSON", `{`, "Bearer key-a", says(200, "application/json", "{}"), 1, "400", "invalid_json", false},
		{"wrong key", `{"model":"test/model:1b"}`, "Bearer nonsense", says(200, "application/json", "{}"), 1, "401", "invalid_api_key", false},
		{"engine refuses", `{"model":"test/model:1b"}`, "Bearer key-a", says(400, "application/json", `{"message":"no"}`), 3, "400", "invalid_request", false},
		{"engine fails", `{"model":"test/model:1b"}`, "Bearer key-a", says(500, "application/json", `{"message":"oops"}`), 3, "500", "*", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newTraced(t, edgeOptions{model: Model{ID: "test/model:1b", RequiresAuth: true}}, Tracing{Sample: 1}, tt.engine)
			e.chat(tt.body, "Authorization", tt.key)
			spans := e.spans(tt.spans)
			wants(t, spans["server"], map[string]string{"http.response.status_code": tt.status, "error.type": tt.code})
			if got := spans["server"].Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR; got != tt.failed {
				t.Errorf("failed: %v, want %v", got, tt.failed)
			}
			if tt.spans == 3 && spans["client"].Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR {
				t.Errorf("the attempt has the status %v", spans["client"].Status)
			}
		})
	}
}

func TestTraceOfAFailedStart(t *testing.T) {
	live := StartTrace{Span: trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})}
	o := edgeOptions{model: Model{ID: "test/model:1b", StartTrace: func(replica uint64) (StartTrace, bool) { return live, replica == 0 }},
		start: func(context.Context, int, func(activator.Progress)) error {
			time.Sleep(20 * time.Millisecond)
			return fmt.Errorf("made by the test")
		}}
	e := newTraced(t, o, Tracing{Sample: 1}, http.NotFoundHandler())
	if resp, _ := e.chat(`{"model":"test/model:1b"}`); resp.StatusCode != 503 {
		t.Fatal(resp.Status)
	}
	spans := e.spans(2)
	wants(t, spans["queue"], map[string]string{"pilotlight.cold": "true", "error.type": "*"})
	if len(spans["queue"].Links) != 1 || spans["server"].Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR {
		t.Errorf("got %v", spans)
	}
}

func TestTraceOfARetry(t *testing.T) {
	e := newTraced(t, edgeOptions{}, Tracing{TrustClient: true}, says(200, "application/json", plainAnswer))
	e.chat(`{"model":"test/model:1b"}`)
	// The replica's address refuses from now on, and its end becomes known a moment later.
	first, bad := e.launcher.last(), e.launcher.endpoint
	bad.Addr = "127.0.0.1:1"
	first.pool.Swap(transport.New(transport.Options{Endpoint: bad})).Close()
	time.AfterFunc(20*time.Millisecond, first.die)
	if resp, body := e.chat(`{"model":"test/model:1b"}`, "Traceparent", clientHeader); resp.StatusCode != 200 {
		t.Fatal(resp.Status, body)
	}
	spans := e.spans(4)
	server := spans["server"]
	if len(server.Events) != 1 || server.Events[0].Name != "retry" || server.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
		t.Errorf("events %v, status %v", server.Events, server.Status)
	}
	resent := map[string]bool{}
	for _, s := range e.collector.Spans() {
		if s.Kind == tracepb.Span_SPAN_KIND_CLIENT {
			a := otlptest.Attributes(s.Attributes)
			resent[a["http.request.resend_count"]+a["error.type"]] = true
		}
	}
	if len(resent) != 2 || !resent["1"] || !resent["backend_unavailable"] {
		t.Errorf("attempts %v", resent)
	}
}

func TestTraceOfACancelledRequest(t *testing.T) {
	left := make(chan struct{})
	e := newTraced(t, edgeOptions{}, Tracing{Sample: 1}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort_request" {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: {\"choices\":[]}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(left)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", e.url+"/v1/chat/completions", strings.NewReader(`{"model":"test/model:1b","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer key-a")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	resp.Body.Close()
	<-left
	spans := e.spans(3)
	for _, span := range []string{"server", "client"} {
		wants(t, spans[span], map[string]string{"error.type": "client_closed_request"})
		if spans[span].Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
			t.Errorf("%s: a client that leaves is no failure", span)
		}
	}
}

func TestTracingCanBeTurnedOffAndOn(t *testing.T) {
	e := newTraced(t, edgeOptions{}, Tracing{}, says(200, "application/json", plainAnswer))
	ask := func() { e.chat(`{"model":"test/model:1b"}`) }
	ask()
	e.gateway.SetTracing(Tracing{Sample: 1}) // no tracer
	ask()
	e.gateway.SetTracing(Tracing{Sample: 1, Tracer: e.provider.Tracer("again")})
	ask()
	e.spans(2)
}

// BenchmarkTraced is what a traced request costs beyond another: three spans, their attributes, and the queue of the exporter.
func BenchmarkTraced(b *testing.B) {
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(discardSpans{}))
	defer p.Shutdown(context.Background())
	g := &Gateway{}
	g.SetTracing(Tracing{Tracer: p.Tracer("test"), TrustClient: true})
	ctx := &fasthttp.RequestCtx{}
	chatHeader("Traceparent", clientHeader).CopyTo(&ctx.Request.Header)
	m, answer := &Model{ID: "test/model:1b"}, []byte(`{"model":"m","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":34}}`)
	x := &exchange{route: routes["/chat/completions"], model: m, replica: 1, attempts: 1}
	e := backends.Endpoint{Addr: "127.0.0.1:30000", Engine: backends.EngineSGLang}
	var extra []byte
	b.ReportAllocs()
	for b.Loop() {
		r := &record{start: time.Now(), id: []byte("req-1"), route: x.route, model: m, status: 200}
		t := g.trace(ctx, r)
		t.enqueued()
		t.granted(m, &activator.Lease{})
		t.sending(x, e)
		extra = t.propagate(extra[:0])
		t.firstByte(200)
		t.answer(answer)
		t.ended(r, "")
	}
}

// discardSpans is an exporter that does nothing.
type discardSpans struct{}

func (discardSpans) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discardSpans) Shutdown(context.Context) error                             { return nil }
