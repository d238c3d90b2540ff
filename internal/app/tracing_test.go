package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"

	"pilotlight/internal/config"
	"pilotlight/internal/testtools/otlptest"
)

const tracedModel = "models: [{name: a, model_id: m, model_path: x, requires_auth: false, backend: {static: {urls: [ENGINE], engine: openai}}}]\n"

// tracedApp is an App whose one model's engine answers every request.
type tracedApp struct {
	*started
	t      *testing.T
	engine string
	start  func() // lets the model start
}

// startTraced gives an App whose model is ready and whose start was traced, if traces are configured.
func startTraced(t *testing.T, telemetry string) *tracedApp {
	t.Helper()
	a := startCold(t, telemetry)
	a.start()
	a.settle("a model that is ready", func(m ModelState) bool { return m.State == "ready" })
	return a
}

// startCold gives an App whose model starts when its start is called.
func startCold(t *testing.T, telemetry string) *tracedApp {
	t.Helper()
	may := make(chan struct{})
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			select {
			case <-may:
			case <-r.Context().Done():
			}
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"model":"m","choices":[]}`)
	}))
	t.Cleanup(engine.Close)
	a := &tracedApp{t: t, engine: engine.URL, start: sync.OnceFunc(func() { close(may) })}
	t.Cleanup(a.start)
	a.started = start(t, a.text(telemetry))
	return a
}

func (a *tracedApp) settle(what string, is func(ModelState) bool) {
	a.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !is(a.State().Models[0]); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.t.Fatalf("never came: %s", what)
		}
	}
}

func (a *tracedApp) text(telemetry string) string {
	return strings.ReplaceAll(tracedModel, "ENGINE", a.engine) + "telemetry: " + telemetry + "\n"
}

func (a *tracedApp) reload(telemetry string) {
	a.t.Helper()
	a.set(a.text(telemetry))
	if err := a.Reload(); err != nil {
		a.t.Fatal(err)
	}
}

func (a *tracedApp) ask() {
	a.t.Helper()
	resp, err := http.Post(a.BaseURL()+"/chat/completions", "application/json", strings.NewReader(`{"model":"m"}`))
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 {
		a.t.Fatalf("%s %s %v", resp.Status, body, err)
	}
}

func (a *tracedApp) flush() {
	if a.tracing.provider != nil {
		if err := a.tracing.provider.ForceFlush(context.Background()); err != nil {
			a.t.Fatal(err)
		}
	}
}

// count reads what became of spans off the metrics page.
func (a *tracedApp) count(result string) (n int) {
	a.t.Helper()
	resp, err := http.Get(a.AdminURL() + "/metrics")
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), fmt.Sprintf("pilotlight_spans_total{result=%q} ", result))
	if found {
		if _, err := fmt.Sscan(rest, &n); err != nil {
			a.t.Fatal(err)
		}
	}
	return n
}

func TestTracesOfAColdStart(t *testing.T) {
	c := otlptest.New(t)
	a := startCold(t, "{otlp_endpoint: "+c.URL+", traces: {sample: 1}}")
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.ask()
	}()
	a.settle("a request that waits", func(m ModelState) bool { return m.QueuedRequests == 1 })
	a.start()
	<-done
	byName := map[string]otlptest.Span{}
	for _, s := range c.Wait(4, a.flush) {
		byName[s.Name] = s
		if s.Resource["service.name"] != "pilotlight" {
			t.Errorf("resource %v", s.Resource)
		}
	}
	begun, queue, server := byName["start m"], byName["queue"], byName["POST /v1/chat/completions"]
	if begun.Span == nil || queue.Span == nil || server.Span == nil {
		t.Fatalf("spans %v", byName)
	}
	if string(begun.TraceId) == string(server.TraceId) || begun.ParentSpanId != nil {
		t.Error("a start belongs to a request's trace")
	}
	if len(queue.Links) != 1 || string(queue.Links[0].TraceId) != string(begun.TraceId) || string(queue.Links[0].SpanId) != string(begun.SpanId) {
		t.Errorf("links %v, want to %x", queue.Links, begun.TraceId)
	}
	if got := otlptest.Attributes(begun.Attributes); got["gen_ai.request.model"] != "m" || got["pilotlight.replica"] == "" {
		t.Errorf("the start's attributes: %v", got)
	}
}

func TestTracesAreReloaded(t *testing.T) {
	one, two := otlptest.New(t), otlptest.New(t)
	a := startTraced(t, "{}")
	a.ask()
	if a.tracing.provider != nil {
		t.Error("traces are made for nobody")
	}
	a.reload("{otlp_endpoint: " + one.URL + ", traces: {sample: 1}}")
	a.ask()
	one.Wait(2, a.flush)
	a.reload("{otlp_endpoint: " + two.URL + ", traces: {sample: 1}}")
	a.ask()
	two.Wait(2, a.flush)
	a.reload("{otlp_endpoint: " + two.URL + ", traces: {sample: 0}}")
	a.ask()
	a.reload("{}")
	a.ask()
	a.flush()
	if len(one.Spans()) != 2 || len(two.Spans()) != 2 {
		t.Errorf("%d and %d spans, want 2 and 2", len(one.Spans()), len(two.Spans()))
	}
	if n := a.count("exported"); n != 4 {
		t.Errorf("%d spans are counted", n)
	}
}

// Requests must not notice a collector that is away, refuses, or does not answer; and neither may a shutdown, for long.
func TestTracesWithoutACollector(t *testing.T) {
	t.Run("refuses", func(t *testing.T) {
		c := otlptest.New(t)
		c.Answer(http.StatusBadRequest)
		a := startTraced(t, "{otlp_endpoint: "+c.URL+", traces: {sample: 1}}")
		a.ask()
		for deadline := time.Now().Add(5 * time.Second); a.count("failed") < 3; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d of 3 spans are counted as failed", a.count("failed"))
			}
			a.flush()
		}
		c.Answer(0)
		a.ask()
		c.Wait(2, a.flush)
	})
	t.Run("away", func(t *testing.T) {
		a := startTraced(t, "{otlp_endpoint: 'http://127.0.0.1:1', traces: {sample: 1}}")
		a.ask()
	})
	t.Run("silent", func(t *testing.T) {
		c := otlptest.New(t)
		c.Hold(true)
		a := startTraced(t, "{otlp_endpoint: "+c.URL+", traces: {sample: 1}}")
		began := time.Now()
		for range 50 {
			a.ask()
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("50 requests took %v", took)
		}
		began = time.Now()
		if err := a.Shutdown(t.Context(), nil); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > tracesPatience+2*time.Second {
			t.Errorf("the shutdown took %v", took)
		}
		a.done = true
		// What was on its way is given up, though the collector still holds it.
		began = time.Now()
		for a.tracing.pipe.pending.Load() > 0 {
			if time.Since(began) > time.Second {
				t.Fatalf("%d spans are still on their way", a.tracing.pipe.pending.Load())
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// What the queue does not hold is dropped and counted, and whoever ends a span never waits.
func TestSpanQueueIsBounded(t *testing.T) {
	c := otlptest.New(t)
	c.Hold(true)
	a := startTraced(t, "{otlp_endpoint: "+c.URL+", traces: {sample: 0}}")
	tracer := a.tracing.tracer()
	const more = 1000
	began := time.Now()
	for range spanQueue + more {
		_, span := tracer.Start(context.Background(), "x", trace.WithNewRoot())
		span.End()
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("%d spans took %v", spanQueue+more, took)
	}
	// One place is the start's, whose span came first.
	if n := a.count("dropped"); n != more+1 {
		t.Errorf("%d spans were dropped, want %d", n, more+1)
	}
	c.Hold(false)
	c.Answer(http.StatusBadRequest)
	for deadline := time.Now().Add(10 * time.Second); a.tracing.pipe.pending.Load() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d spans still count as pending", a.tracing.pipe.pending.Load())
		}
	}
}

func TestFailedExportsAreLoggedOnce(t *testing.T) {
	c := otlptest.New(t)
	c.Answer(http.StatusBadRequest)
	var log strings.Builder
	tracing, err := newTracing(noop.Meter{}, "", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer tracing.shutdown(t.Context())
	settings := config.Traces{Endpoint: c.URL}
	to, err := tracing.open(settings)
	if err != nil {
		t.Fatal(err)
	}
	tracing.use(settings, to)
	export := func() {
		t.Helper()
		_, span := tracing.tracer().Start(context.Background(), "x")
		span.End()
		if err := tracing.provider.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		export()
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "400") || strings.Contains(got, c.URL) {
		t.Errorf("logged %q", got)
	}
	c.Answer(0)
	export()
	export()
	if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "sent again") {
		t.Errorf("logged %q", got)
	}
}
