// Package otlptest is a collector of OpenTelemetry traces for tests: it takes what an OTLP/HTTP exporter sends, in protobuf, and keeps it.
package otlptest

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector receives at URL + "/v1/traces". Safe for concurrent use.
type Collector struct {
	URL string

	t        testing.TB
	mu       sync.Mutex // guards the fields below
	spans    []Span
	requests int
	status   int
	hold     chan struct{}
}

// Span is one span with what it came in.
type Span struct {
	*tracepb.Span
	Resource map[string]string
}

// New starts a collector that ends with the test.
func New(t testing.TB) *Collector {
	c := &Collector{t: t}
	s := httptest.NewServer(c)
	c.URL = s.URL
	t.Cleanup(func() {
		c.Hold(false)
		s.CloseClientConnections()
		s.Close()
	})
	return c
}

// Answer makes it answer with a status; 0: take spans again.
func (c *Collector) Answer(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
}

// Hold makes it keep requests without an answer, or ends that.
func (c *Collector) Hold(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hold != nil {
		close(c.hold)
		c.hold = nil
	}
	if on {
		c.hold = make(chan struct{})
	}
}

// ServeHTTP is http.Handler's.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.requests++
	status, hold := c.status, c.hold
	c.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
		return
	}
	if status != 0 {
		http.Error(w, "made by the test", status)
		return
	}
	if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		c.t.Errorf("collector: got %s %s, %s", r.Method, r.URL, r.Header.Get("Content-Type"))
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			c.t.Errorf("collector: %v", err)
			return
		}
		body = unzipped
	}
	data, err := io.ReadAll(body)
	var request collectorpb.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(data, &request)
	}
	if err != nil {
		c.t.Errorf("collector: %v", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range request.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans = append(c.spans, Span{s, Attributes(rs.Resource.GetAttributes())})
			}
		}
	}
}

// Spans are those that have come so far.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Span(nil), c.spans...)
}

// Requests is the number of batches that came, whatever they were answered.
func (c *Collector) Requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests
}

// Wait waits for n spans, and fails the test if they do not come. Each time it looks it calls flush first, unless that is nil.
func (c *Collector) Wait(n int, flush func()) []Span {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if flush != nil {
			flush()
		}
		spans := c.Spans()
		if len(spans) >= n {
			return spans
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%d of %d spans came: %v", len(spans), n, spans)
		}
	}
}

// Attributes are keys and values as text.
func Attributes(list []*commonpb.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range list {
		switch v := kv.Value.GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			out[kv.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			out[kv.Key] = strconv.FormatInt(v.IntValue, 10)
		case *commonpb.AnyValue_BoolValue:
			out[kv.Key] = strconv.FormatBool(v.BoolValue)
		case *commonpb.AnyValue_DoubleValue:
			out[kv.Key] = strconv.FormatFloat(v.DoubleValue, 'g', -1, 64)
		default:
			out[kv.Key] = kv.Value.String()
		}
	}
	return out
}
