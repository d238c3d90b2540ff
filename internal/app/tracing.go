package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
	"go.opentelemetry.io/otel/trace"

	"pilotlight/gateway"
	"pilotlight/internal/config"
)

// tracing makes spans and sends them to the configured collector. open, use and shutdown are called one at a time; tracer at any time.
type tracing struct {
	log      *slog.Logger
	version  string
	counter  metric.Int64Counter
	delay    time.Duration // until a batch that is not full is sent
	client   *http.Client
	pipe     *spanPipe // nil until traces are configured
	provider *sdktrace.TracerProvider
	making   atomic.Pointer[trace.Tracer] // nil while traces are not configured
}

func newTracing(m metric.Meter, version string, log *slog.Logger) (*tracing, error) {
	counter, err := m.Int64Counter("pilotlight.spans", metric.WithUnit("{span}"),
		metric.WithDescription("Spans of traces, by what became of them."))
	if err != nil {
		return nil, err
	}
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("BUG: the default transport is a %T", http.DefaultTransport)
	}
	return &tracing{log: log, version: version, counter: counter, delay: spanDelay, client: &http.Client{Transport: transport.Clone()}}, nil
}

// open makes the way to a configuration's collector, without connecting yet; nil for a configuration without one. What comes of it
// holds nothing that would have to be given back.
func (t *tracing) open(c config.Traces) (*collector, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	url := c.Endpoint + "/v1/traces"
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(url), otlptracehttp.WithHTTPClient(t.client),
		otlptracehttp.WithTimeout(exportTimeout), otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: exportTimeout, MaxElapsedTime: exportPatience}))
	if err != nil {
		return nil, fmt.Errorf("telemetry.otlp_endpoint: %w", err)
	}
	return &collector{endpoint: c.Endpoint, exporter: exporter}, nil
}

// use puts a configuration and its collector into force, and gives what the edge has to know.
func (t *tracing) use(c config.Traces, to *collector) gateway.Tracing {
	if to == nil {
		t.making.Store(nil)
		if t.pipe != nil {
			t.pipe.use(nil)
		}
		return gateway.Tracing{}
	}
	if t.provider == nil {
		t.pipe = newSpanPipe(t.counter, t.log, t.delay)
		t.provider = sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithSpanProcessor(t.pipe),
			sdktrace.WithResource(t.resource()))
	}
	if now := t.pipe.current(); now == nil || now.endpoint != to.endpoint {
		t.pipe.use(to)
	}
	tracer := t.provider.Tracer("pilotlight", trace.WithInstrumentationVersion(t.version), trace.WithSchemaURL(semconv.SchemaURL))
	t.making.Store(&tracer)
	return gateway.Tracing{Tracer: tracer, Sample: c.Sample, TrustClient: c.TrustClient}
}

// resource names this gateway. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES change or add to it.
func (t *tracing) resource() *resource.Resource {
	r, err := resource.New(context.Background(), resource.WithAttributes(semconv.ServiceName("pilotlight"), semconv.ServiceVersion(t.version)),
		resource.WithHost(), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil { // what could be found is in r all the same
		t.log.Warn("traces: not everything is known of this process", "error", err)
	}
	return r
}

// tracer makes spans; nil while traces are not configured.
func (t *tracing) tracer() trace.Tracer {
	if p := t.making.Load(); p != nil {
		return *p
	}
	return nil
}

// shutdown sends what has ended, for as long as ctx allows. A collector that does not answer is no reason to end with an error.
func (t *tracing) shutdown(ctx context.Context) {
	t.making.Store(nil)
	if t.provider != nil {
		if err := t.provider.Shutdown(ctx); err != nil {
			t.log.Warn("the last traces were not sent", "error", err)
		}
	}
	t.client.CloseIdleConnections()
}
