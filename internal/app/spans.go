package app

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// spanQueue bounds the spans that wait for the collector or are on their way to it: some 2 KB each, so at most 8 MB while the
	// collector is away. What comes beyond is dropped and counted.
	spanQueue = 4096
	spanBatch = 512
	// spanDelay is how old a span gets before it is sent though the batch is not full.
	spanDelay = 2 * time.Second
	// exportTimeout bounds one attempt to send a batch, exportPatience all attempts together.
	exportTimeout  = 5 * time.Second
	exportPatience = 15 * time.Second
)

// spanPipe carries ended spans to the collector in force, in batches and beside the requests: who ends a span never waits. The batching
// is OpenTelemetry's; the pipe stands before and behind it, because that one drops without telling and cannot change its collector.
type spanPipe struct {
	batch   sdktrace.SpanProcessor
	log     *slog.Logger
	counter metric.Int64Counter
	pending atomic.Int64 // spans that OnEnd took and ExportSpans has not finished with
	life    context.Context
	end     context.CancelFunc

	mu     sync.Mutex // guards the fields below
	target *collector // nil: none
	broken bool       // the last export failed
}

// collector is one endpoint.
type collector struct {
	endpoint string // kept out of logs: its path may hold a token
	exporter *otlptrace.Exporter
}

var (
	spanExported = metric.WithAttributeSet(attribute.NewSet(attribute.String("result", "exported")))
	spanDropped  = metric.WithAttributeSet(attribute.NewSet(attribute.String("result", "dropped")))
	spanFailed   = metric.WithAttributeSet(attribute.NewSet(attribute.String("result", "failed")))
)

func newSpanPipe(counter metric.Int64Counter, log *slog.Logger, delay time.Duration) *spanPipe {
	p := &spanPipe{log: log, counter: counter}
	p.life, p.end = context.WithCancel(context.Background())
	p.batch = sdktrace.NewBatchSpanProcessor(spanExporter{p}, sdktrace.WithMaxQueueSize(spanQueue), sdktrace.WithMaxExportBatchSize(spanBatch),
		sdktrace.WithBatchTimeout(delay), sdktrace.WithExportTimeout(exportPatience))
	return p
}

// use changes the collector. A batch that is on its way to the one before goes on.
func (p *spanPipe) use(c *collector) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target, p.broken = c, false
}

func (p *spanPipe) current() *collector {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target
}

// OnStart is sdktrace.SpanProcessor's.
func (p *spanPipe) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd takes a span or drops it.
func (p *spanPipe) OnEnd(s sdktrace.ReadOnlySpan) {
	if p.pending.Add(1) > spanQueue {
		p.pending.Add(-1)
		p.counter.Add(context.Background(), 1, spanDropped)
		return
	}
	p.batch.OnEnd(s)
}

// ForceFlush sends what has ended.
func (p *spanPipe) ForceFlush(ctx context.Context) error { return p.batch.ForceFlush(ctx) }

// Shutdown sends what has ended, for as long as ctx allows, and gives up the rest.
func (p *spanPipe) Shutdown(ctx context.Context) error {
	defer p.end()
	return p.batch.Shutdown(ctx)
}

// spanExporter is the pipe's far end, behind the batches.
type spanExporter struct{ *spanPipe }

// ExportSpans sends a batch. It gives no error: what failed is counted and logged here, once until it works again.
func (e spanExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	n := int64(len(spans))
	defer e.pending.Add(-n)
	c := e.current()
	if c == nil {
		e.counter.Add(ctx, n, spanDropped)
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.life, cancel)()
	err := c.exporter.ExportSpans(ctx, spans)
	result := spanExported
	if err != nil {
		result = spanFailed
	}
	e.counter.Add(context.Background(), n, result)
	e.report(c, err)
	return nil
}

func (e spanExporter) report(c *collector, err error) {
	e.mu.Lock()
	changed := e.target == c && e.broken != (err != nil)
	if changed {
		e.broken = err != nil
	}
	e.mu.Unlock()
	switch {
	case !changed:
	case err != nil:
		e.log.Warn("traces cannot be sent; they are dropped until the collector is back", "error",
			strings.ReplaceAll(err.Error(), c.endpoint, "telemetry.otlp_endpoint"))
	default:
		e.log.Info("traces are sent again")
	}
}

// Shutdown is sdktrace.SpanExporter's. Exporters hold nothing but connections, which are the HTTP client's.
func (e spanExporter) Shutdown(context.Context) error { return nil }
