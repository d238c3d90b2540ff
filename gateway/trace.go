package gateway

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"net"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
	"go.opentelemetry.io/otel/trace"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/gateway/jsonbody"
)

// requestTrace is the trace of one inference request: a server span for the whole, an internal one for each wait in the queue, and a
// client span for each attempt at a replica, with the names of OpenTelemetry's HTTP and GenAI conventions. It never holds a prompt, an
// answer or a key. A nil one, which is what most requests have, takes every call and does nothing; so calls may stand wherever something
// happens. It belongs to the request's goroutine.
type requestTrace struct {
	tracer   trace.Tracer
	ctx      context.Context // of the server span
	server   trace.Span
	queue    trace.Span // nil while the request is not queued
	queuedAt time.Time
	upstream trace.Span // nil before the first attempt, and between two
	sentAt   time.Time
	answered bool // the first event was seen

	model string // what the engine calls it
	usage []byte // the last usage object that the engine has sent
}

func newRequestTrace(tracer trace.Tracer, parent trace.SpanContext, r *record, local net.Addr, scheme string) *requestTrace {
	ctx := context.Background()
	if parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	attrs := append(addressOf(local.String()),
		semconv.HTTPRequestMethodPost, semconv.HTTPRoute(r.route.upstream), semconv.URLPath(r.route.upstream), semconv.URLScheme(scheme),
		semconv.HTTPRequestBodySize(r.bytesIn), semconv.GenAIOperationNameKey.String(operationName(r.route)),
		attribute.String("pilotlight.request.id", string(r.id)))
	t := &requestTrace{tracer: tracer}
	t.ctx, t.server = tracer.Start(ctx, "POST "+r.route.upstream, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(r.start),
		trace.WithAttributes(attrs...))
	return t
}

// operationName is the conventions' word for what a route does, and our own where they have none.
func operationName(r *route) string {
	switch r.metric {
	case "completions":
		return "text_completion"
	case "responses":
		return "chat"
	}
	return r.metric
}

// addressOf splits an address into the attributes of a server.
func addressOf(addr string) []attribute.KeyValue {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return []attribute.KeyValue{semconv.ServerAddress(addr)}
	}
	attrs := []attribute.KeyValue{semconv.ServerAddress(host)}
	if n, err := strconv.Atoi(port); err == nil {
		attrs = append(attrs, semconv.ServerPort(n))
	}
	return attrs
}

// appendID appends what the access log tells of the trace. Only for a request that has one.
func (t *requestTrace) appendID(dst []byte) []byte {
	id := t.server.SpanContext().TraceID()
	return hex.AppendEncode(dst, id[:])
}

// enqueued begins a wait for a replica.
func (t *requestTrace) enqueued() {
	if t == nil {
		return
	}
	t.queuedAt = time.Now()
	_, t.queue = t.tracer.Start(t.ctx, "queue", trace.WithTimestamp(t.queuedAt))
}

// granted ends the wait, if there was one.
func (t *requestTrace) granted(m *Model, lease *activator.Lease) {
	if t == nil || t.queue == nil {
		return
	}
	t.leaveQueue(m, lease.ReplicaID(), lease.Cold())
}

// leaveQueue ends the wait's span with a link to the start that it was spent on, and with that start's phases. replica 0: none was granted.
func (t *requestTrace) leaveQueue(m *Model, replica uint64, cold bool) {
	if m.StartTrace != nil {
		// Another start than this wait's own has ended before it.
		if start, ok := m.StartTrace(replica); ok && (start.Ended.IsZero() || start.Ended.After(t.queuedAt)) {
			cold = true
			t.queue.AddLink(trace.Link{SpanContext: start.Span})
			for _, p := range start.Phases {
				if !p.At.Before(t.queuedAt) {
					t.queue.AddEvent(p.Phase, trace.WithTimestamp(p.At))
				}
			}
		}
	}
	t.queue.SetAttributes(attribute.Bool("pilotlight.cold", cold))
	t.queue.End()
	t.queue = nil
}

// sending begins an attempt at a replica.
func (t *requestTrace) sending(x *exchange, e backends.Endpoint) {
	if t == nil {
		return
	}
	t.sentAt = time.Now()
	operation := operationName(x.route)
	attrs := append(addressOf(e.Addr), semconv.HTTPRequestMethodPost, semconv.GenAIOperationNameKey.String(operation),
		semconv.GenAIRequestModel(x.model.ID), semconv.GenAIRequestStream(x.stream), attribute.Int64("pilotlight.replica", int64(x.replica)))
	if e.Engine == backends.EngineSGLang {
		attrs = append(attrs, semconv.GenAIProviderNameKey.String(string(e.Engine)))
	}
	if x.attempts > 1 {
		attrs = append(attrs, semconv.HTTPRequestResendCount(x.attempts-1))
	}
	_, t.upstream = t.tracer.Start(t.ctx, operation+" "+x.model.ID, trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(t.sentAt),
		trace.WithAttributes(attrs...))
}

// propagate appends the header lines that continue the trace in the engine.
func (t *requestTrace) propagate(head []byte) []byte {
	if t == nil || t.upstream == nil {
		return head
	}
	return appendTraceHeaders(head, t.upstream.SpanContext())
}

// firstByte notes the engine's status. SGLang sends it with the first token (facts/sglang.md §6.4).
func (t *requestTrace) firstByte(status int) {
	if t == nil || t.upstream == nil {
		return
	}
	t.upstream.AddEvent("first_byte")
	t.upstream.SetAttributes(semconv.HTTPResponseStatusCode(status))
	if status >= 400 {
		t.upstream.SetStatus(codes.Error, "")
		t.upstream.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(status)))
	}
}

// attemptFailed ends an attempt that brought no answer.
func (t *requestTrace) attemptFailed(err error, again bool) {
	if t == nil || t.upstream == nil {
		return
	}
	t.failUpstream(callError(err).label())
	if again {
		t.server.AddEvent("retry")
	}
}

func (t *requestTrace) failUpstream(code string) {
	t.upstream.SetAttributes(semconv.ErrorTypeKey.String(code))
	t.upstream.SetStatus(codes.Error, "")
	t.upstream.End()
	t.upstream = nil
}

// event reads what a stream's event tells of the engine's model and of tokens.
func (t *requestTrace) event(data []byte) {
	if t != nil {
		t.observe(data)
	}
}

// answer does the same with an answer in one piece.
func (t *requestTrace) answer(body []byte) {
	if t != nil {
		t.read(body)
	}
}

var usageMember = []byte(`"usage"`)

func (t *requestTrace) observe(data []byte) {
	first := !t.answered
	if first {
		t.answered = true
		if t.upstream != nil {
			t.upstream.SetAttributes(semconv.GenAIResponseTimeToFirstChunk(time.Since(t.sentAt).Seconds()))
		}
	}
	if first || bytes.Contains(data, usageMember) {
		t.read(data)
	}
}

// read keeps the model and the usage of a document, which the Responses API's events hold one level down.
func (t *requestTrace) read(doc []byte) {
	if inner, ok := jsonbody.Locate(doc, "response"); ok && inner.Kind == jsonbody.Object {
		doc = doc[inner.Start:inner.End]
	}
	if t.model == "" {
		if start, end, ok := jsonbody.TopLevelString(doc, "model"); ok {
			t.model = string(jsonbody.StringValue(doc[start:end]))
		}
	}
	if u, ok := jsonbody.Locate(doc, "usage"); ok && u.Kind == jsonbody.Object {
		t.usage = append(t.usage[:0], doc[u.Start:u.End]...)
	}
}

// usageObject holds the names of all APIs: chat and completions, and the Responses API.
type usageObject struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	PromptDetails    struct {
		Cached int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	InputTokens  int `json:"input_tokens"`
	OutputTokens int `json:"output_tokens"`
	InputDetails struct {
		Cached int `json:"cached_tokens"`
	} `json:"input_tokens_details"`
}

// learned are the attributes of what the engine has told.
func (t *requestTrace) learned() []attribute.KeyValue {
	var attrs []attribute.KeyValue
	if t.model != "" {
		attrs = append(attrs, semconv.GenAIResponseModel(t.model))
	}
	var u usageObject
	if len(t.usage) == 0 || json.Unmarshal(t.usage, &u) != nil {
		return attrs // none, or numbers that are none
	}
	if n := u.PromptTokens + u.InputTokens; n > 0 {
		attrs = append(attrs, semconv.GenAIUsageInputTokens(n))
	}
	if n := u.CompletionTokens + u.OutputTokens; n > 0 {
		attrs = append(attrs, semconv.GenAIUsageOutputTokens(n))
	}
	if n := u.PromptDetails.Cached + u.InputDetails.Cached; n > 0 {
		attrs = append(attrs, semconv.GenAIUsageCacheReadInputTokens(n))
	}
	return attrs
}

// ended ends whatever is open. code is the error's, empty without one.
func (t *requestTrace) ended(r *record, code string) {
	if t == nil {
		return
	}
	if t.queue != nil {
		t.queue.SetAttributes(semconv.ErrorTypeKey.String(code))
		t.leaveQueue(r.model, 0, false)
	}
	learned := t.learned()
	// The conventions: an error of the client's making is none of the server's. Who has left is no failure of the replica either.
	failed := r.failure != nil && r.failure.Status >= 500
	if t.upstream != nil {
		t.upstream.SetAttributes(learned...)
		switch {
		case failed:
			t.failUpstream(code)
		default:
			if code != "" {
				t.upstream.SetAttributes(semconv.ErrorTypeKey.String(code))
			}
			t.upstream.End()
		}
	}
	attrs := append(learned, semconv.HTTPResponseStatusCode(r.status), semconv.HTTPResponseBodySize(r.bytesOut))
	if r.model != nil {
		attrs = append(attrs, semconv.GenAIRequestModel(r.model.ID), semconv.GenAIRequestStream(r.stream),
			attribute.String("pilotlight.tenant", r.identity.Tenant), attribute.Bool("pilotlight.cold", r.cold))
	}
	if code != "" {
		attrs = append(attrs, semconv.ErrorTypeKey.String(code))
	}
	t.server.SetAttributes(attrs...)
	if failed {
		t.server.SetStatus(codes.Error, "")
	}
	t.server.End()
}
