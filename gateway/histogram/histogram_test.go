package histogram

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

var options = []metric.Float64HistogramOption{metric.WithUnit("s"), metric.WithDescription("what it is"),
	metric.WithExplicitBucketBoundaries(.01, .1, 1, 10)}

// page is what Prometheus reads of one reader.
func page(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	text, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The page is that of the SDK's own histogram, to the letter, for the same measurements from many goroutines.
func TestLikeTheSDK(t *testing.T) {
	theirs, ours := prometheus.NewRegistry(), prometheus.NewRegistry()
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(theirs), otelprometheus.WithoutScopeInfo())
	if err != nil {
		t.Fatal(err)
	}
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("m")
	set := NewSet("m")
	other, err := otelprometheus.New(otelprometheus.WithRegisterer(ours), otelprometheus.WithoutScopeInfo(), otelprometheus.WithProducer(set))
	if err != nil {
		t.Fatal(err)
	}
	sdkmetric.NewMeterProvider(sdkmetric.WithReader(other))

	a, err := meter.Float64Histogram("some.duration", options...)
	if err != nil {
		t.Fatal(err)
	}
	b, err := set.Float64Histogram("some.duration", options...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.Float64Histogram("never.used", options...); err != nil {
		t.Fatal(err)
	}
	b.Series(attribute.NewSet(attribute.String("model", "unused")))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			labels := attribute.NewSet(attribute.String("model", fmt.Sprint("m", g%3)), attribute.Bool("cold", g%2 == 0))
			series := b.Series(labels)
			for range 2000 {
				// Whole units, whose sums are exact in either form and order.
				d := time.Duration(rand.IntN(20_000)) * (time.Second / 1024)
				a.Record(context.Background(), d.Seconds(), metric.WithAttributeSet(labels))
				series.Record(d)
			}
			for _, bound := range []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second} {
				a.Record(context.Background(), bound.Seconds(), metric.WithAttributeSet(labels))
				series.Record(bound)
			}
		})
	}
	wg.Wait()
	want, got := page(t, theirs), page(t, ours)
	// Of a sum of hundredths of seconds, the last digits depend on the order of the addition in the SDK.
	if counts(got) != counts(want) || !strings.Contains(got, "some_duration_seconds_bucket{cold=\"false\",model=\"m0\"") {
		t.Errorf("the page is\n%s\nand the SDK's\n%s", got, want)
	}
	if strings.Contains(got, "unused") || strings.Contains(got, "never") {
		t.Errorf("series that have counted nothing are on the page:\n%s", got)
	}
}

// counts leaves out the part of sums behind the millisecond, and what is not of the histogram.
func counts(page string) string {
	var kept []string
	for line := range strings.Lines(page) {
		if !strings.Contains(line, "some_duration") {
			continue
		}
		if before, sum, ok := strings.Cut(line, "} "); ok && strings.Contains(line, "_sum{") {
			var v float64
			fmt.Sscan(sum, &v)
			line = fmt.Sprintf("%s} %.3f\n", before, v)
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}

func TestBoundariesAreNeeded(t *testing.T) {
	for _, bad := range [][]float64{nil, {2, 1}} {
		if h, err := NewSet("m").Float64Histogram("x", metric.WithExplicitBucketBoundaries(bad...)); err == nil {
			t.Errorf("boundaries %v make %v", bad, h)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	labels := attribute.NewSet(attribute.String("gen_ai.request.model", "qwen"), attribute.String("gen_ai.operation.name", "chat"),
		attribute.String("http.response.status_code", "200"), attribute.String("error.type", ""))
	b.Run("here", func(b *testing.B) {
		h, err := NewSet("m").Float64Histogram("d", options...)
		if err != nil {
			b.Fatal(err)
		}
		s := h.Series(labels)
		b.ReportAllocs()
		for b.Loop() {
			s.Record(5 * time.Millisecond)
		}
	})
	b.Run("sdk", func(b *testing.B) {
		h, err := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())).Meter("m").Float64Histogram("d", options...)
		if err != nil {
			b.Fatal(err)
		}
		with := []metric.RecordOption{metric.WithAttributeSet(labels)}
		b.ReportAllocs()
		for b.Loop() {
			h.Record(context.Background(), .005, with...)
		}
	})
}
