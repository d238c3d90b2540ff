package gateway

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// instruments are the edge's metrics, with the names of OpenTelemetry's GenAI conventions where there is one.
// Labels come from the configuration, never from what a client sent.
type instruments struct {
	duration  metric.Float64Histogram
	firstByte metric.Float64Histogram
	queued    metric.Float64Histogram
	retries   metric.Int64Counter
	beats     metric.Int64Counter

	mu     sync.Mutex // guards the field below
	models map[string]*modelMetrics
}

// modelMetrics are the labels of one model's measurements, made once: to sort and compare them for each request would cost more than
// to measure. They outlive the reload that replaces a Model.
type modelMetrics struct {
	model   attribute.KeyValue
	plain   []metric.RecordOption
	adds    []metric.AddOption
	active  atomic.Int64 // requests
	waits   [2][]metric.RecordOption
	mu      sync.Mutex // held while results is replaced
	results atomic.Pointer[map[result][]metric.RecordOption]
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

func newInstruments(m metric.Meter, open *atomic.Int64) (*instruments, error) {
	in := &instruments{models: make(map[string]*modelMetrics)}
	var errs [7]error
	in.duration, errs[0] = m.Float64Histogram("gen_ai.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from a request's arrival to the last byte of its response."), metric.WithExplicitBucketBoundaries(durationBuckets...))
	in.firstByte, errs[1] = m.Float64Histogram("gen_ai.server.time_to_first_token", metric.WithUnit("s"),
		metric.WithDescription("Time from a streaming request's arrival to its first event, cold starts included."), metric.WithExplicitBucketBoundaries(ttftBuckets...))
	in.queued, errs[2] = m.Float64Histogram("pilotlight.request.queued", metric.WithUnit("s"),
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
		set := metric.WithAttributeSet(attribute.NewSet(mm.model))
		mm.plain, mm.adds = []metric.RecordOption{set}, []metric.AddOption{set}
		for i, cold := range []bool{false, true} {
			mm.waits[i] = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(mm.model, attribute.Bool("cold", cold)))}
		}
		mm.results.Store(&map[result][]metric.RecordOption{})
		in.models[id] = mm
	}
	return mm
}

// options are the labels of a result. There are few: routes, the statuses that the edge answers with, a bounded set of codes.
func (mm *modelMetrics) options(r result) []metric.RecordOption {
	if o := (*mm.results.Load())[r]; o != nil {
		return o
	}
	mm.mu.Lock()
	defer mm.mu.Unlock()
	old := *mm.results.Load()
	if o := old[r]; o != nil {
		return o
	}
	o := []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(mm.model,
		attribute.String("gen_ai.operation.name", r.route.metric),
		attribute.String("http.response.status_code", strconv.Itoa(r.status)),
		attribute.String("error.type", r.code)))}
	next := make(map[result][]metric.RecordOption, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	next[r] = o
	mm.results.Store(&next)
	return o
}

func (in *instruments) began(m *Model)   { m.metrics.active.Add(1) }
func (in *instruments) retried(m *Model) { in.retries.Add(context.Background(), 1, m.metrics.adds...) }
func (in *instruments) beat(m *Model)    { in.beats.Add(context.Background(), 1, m.metrics.adds...) }

// ended records a request that had a model.
func (in *instruments) ended(r *record, code string) {
	ctx := context.Background()
	mm := r.model.metrics
	if r.attempted {
		mm.active.Add(-1)
	}
	in.duration.Record(ctx, r.duration.Seconds(), mm.options(result{r.route, r.status, code})...)
	if !r.firstByte.IsZero() {
		in.firstByte.Record(ctx, r.firstByte.Sub(r.start).Seconds(), mm.plain...)
	}
	if r.waited > 0 {
		cold := 0
		if r.cold {
			cold = 1
		}
		in.queued.Record(ctx, r.waited.Seconds(), mm.waits[cold]...)
	}
}
