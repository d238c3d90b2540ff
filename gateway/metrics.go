package gateway

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"pilotlight/gateway/histogram"
	"pilotlight/router"
)

// instruments are the edge's metrics, with the names of OpenTelemetry's GenAI conventions where there is one.
// Labels come from the configuration, never from what a client sent.
type instruments struct {
	duration  *histogram.Histogram
	firstByte *histogram.Histogram
	queued    *histogram.Histogram
	tenants   tenantWaits
	retries   metric.Int64Counter
	beats     metric.Int64Counter

	mu     sync.Mutex // guards the field below
	models map[string]*modelMetrics
}

// modelMetrics are the labels of one model's measurements, made once: to sort and compare them for each request would cost more than
// to measure. They outlive the reload that replaces a Model.
type modelMetrics struct {
	model     attribute.KeyValue
	adds      []metric.AddOption
	active    atomic.Int64  // requests
	budget    router.Budget // of retries
	firstByte *histogram.Series
	waits     [2]*histogram.Series // warm, cold
	mu        sync.Mutex           // held while durations is replaced
	durations atomic.Pointer[map[result]*histogram.Series]
}

// result is what distinguishes the durations of one model's requests.
type result struct {
	route  *route
	status int
	code   string
}

var (
	// Cold starts exceed the conventions' largest bucket of 81.92 s.
	durationBuckets = []float64{.01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 160, 320, 640}
	ttftBuckets     = []float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640}
)

func newInstruments(m metric.Meter, h *histogram.Set, open *atomic.Int64) (*instruments, error) {
	in := &instruments{models: make(map[string]*modelMetrics)}
	var errs [8]error
	in.duration, errs[0] = h.Float64Histogram("gen_ai.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from a request's arrival to the last byte of its response."), metric.WithExplicitBucketBoundaries(durationBuckets...))
	in.firstByte, errs[1] = h.Float64Histogram("gen_ai.server.time_to_first_token", metric.WithUnit("s"),
		metric.WithDescription("Time from a streaming request's arrival to its first event, cold starts included."), metric.WithExplicitBucketBoundaries(ttftBuckets...))
	in.queued, errs[2] = h.Float64Histogram("pilotlight.request.queued", metric.WithUnit("s"),
		metric.WithDescription("Time that requests waited for a place on a replica."), metric.WithExplicitBucketBoundaries(durationBuckets...))
	_, errs[3] = m.Int64ObservableUpDownCounter("pilotlight.requests.active", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that have a model and are not answered yet."),
		metric.WithInt64Callback(in.observeActive))
	in.retries, errs[4] = m.Int64Counter("pilotlight.retries", metric.WithUnit("{request}"),
		metric.WithDescription("Requests sent again because their replica was gone before it had answered."))
	in.beats, errs[5] = m.Int64Counter("pilotlight.heartbeats", metric.WithUnit("{heartbeat}"),
		metric.WithDescription("Heartbeats sent to waiting clients."))
	_, errs[6] = m.Int64ObservableGauge("pilotlight.connections", metric.WithUnit("{connection}"),
		metric.WithDescription("Client connections open now."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(open.Load())
			return nil
		}))
	errs[7] = in.tenants.init(h)
	return in, errors.Join(errs[:]...)
}

func (in *instruments) observeActive(_ context.Context, o metric.Int64Observer) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, mm := range in.models {
		o.Observe(mm.active.Load(), metric.WithAttributes(mm.model))
	}
	return nil
}

// of gives the labels of the model with this id.
func (in *instruments) of(id string) *modelMetrics {
	in.mu.Lock()
	defer in.mu.Unlock()
	mm := in.models[id]
	if mm == nil {
		mm = &modelMetrics{model: attribute.String("gen_ai.request.model", id)}
		plain := attribute.NewSet(mm.model)
		mm.adds = []metric.AddOption{metric.WithAttributeSet(plain)}
		mm.firstByte = in.firstByte.Series(plain)
		for i, cold := range []bool{false, true} {
			mm.waits[i] = in.queued.Series(attribute.NewSet(mm.model, attribute.Bool("cold", cold)))
		}
		mm.durations.Store(&map[result]*histogram.Series{})
		in.models[id] = mm
	}
	return mm
}

// durationOf is the model's series for a result. There are few: routes, the statuses that the edge answers with, a bounded set of codes.
func (in *instruments) durationOf(mm *modelMetrics, r result) *histogram.Series {
	if s := (*mm.durations.Load())[r]; s != nil {
		return s
	}
	mm.mu.Lock()
	defer mm.mu.Unlock()
	next := maps.Clone(*mm.durations.Load())
	s := in.duration.Series(attribute.NewSet(mm.model,
		attribute.String("gen_ai.operation.name", r.route.metric),
		attribute.String("http.response.status_code", strconv.Itoa(r.status)),
		attribute.String("error.type", r.code)))
	next[r] = s
	mm.durations.Store(&next)
	return s
}

func (in *instruments) began(m *Model) {
	m.metrics.active.Add(1)
	m.metrics.budget.Earn()
}

func (in *instruments) retried(m *Model) { in.retries.Add(context.Background(), 1, m.metrics.adds...) }
func (in *instruments) beat(m *Model)    { in.beats.Add(context.Background(), 1, m.metrics.adds...) }

// ended records a request that had a model.
func (in *instruments) ended(r *record, code string) {
	mm := r.model.metrics
	if r.attempted {
		mm.active.Add(-1)
	}
	in.durationOf(mm, result{r.route, r.status, code}).Record(r.duration)
	if !r.firstByte.IsZero() {
		mm.firstByte.Record(r.firstByte.Sub(r.start))
	}
	if r.waited > 0 {
		cold := 0
		if r.cold {
			cold = 1
		}
		mm.waits[cold].Record(r.waited)
		in.tenants.record(r.identity.Tenant, r.waited)
	}
}
