package gateway

import (
	"context"
	"errors"
	"strconv"
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
	active    metric.Int64UpDownCounter
	retries   metric.Int64Counter
	beats     metric.Int64Counter
}

var (
	// Cold starts exceed the conventions' largest bucket of 81.92 s.
	durationBuckets = []float64{.01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 160, 320, 640}
	ttftBuckets     = []float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640}
)

func newInstruments(m metric.Meter, open *atomic.Int64) (*instruments, error) {
	var in instruments
	var errs [7]error
	in.duration, errs[0] = m.Float64Histogram("gen_ai.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from a request's arrival to the last byte of its response."), metric.WithExplicitBucketBoundaries(durationBuckets...))
	in.firstByte, errs[1] = m.Float64Histogram("gen_ai.server.time_to_first_token", metric.WithUnit("s"),
		metric.WithDescription("Time from a streaming request's arrival to its first event, cold starts included."), metric.WithExplicitBucketBoundaries(ttftBuckets...))
	in.queued, errs[2] = m.Float64Histogram("pilotlight.request.queued", metric.WithUnit("s"),
		metric.WithDescription("Time that requests waited for a place on a replica."), metric.WithExplicitBucketBoundaries(durationBuckets...))
	in.active, errs[3] = m.Int64UpDownCounter("pilotlight.requests.active", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that have a model and are not answered yet."))
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
	return &in, errors.Join(errs[:]...)
}

func (in *instruments) began(m *Model)   { in.active.Add(context.Background(), 1, m.attributes()) }
func (in *instruments) retried(m *Model) { in.retries.Add(context.Background(), 1, m.attributes()) }
func (in *instruments) beat(m *Model)    { in.beats.Add(context.Background(), 1, m.attributes()) }

// ended records a request that had a model.
func (in *instruments) ended(r *record, code string) {
	ctx := context.Background()
	if r.attempted {
		in.active.Add(ctx, -1, r.model.attributes())
	}
	in.duration.Record(ctx, r.duration.Seconds(), r.model.attributes(
		attribute.String("gen_ai.operation.name", r.route.metric),
		attribute.String("http.response.status_code", strconv.Itoa(r.status)),
		attribute.String("error.type", code)))
	if !r.firstByte.IsZero() {
		in.firstByte.Record(ctx, r.firstByte.Sub(r.start).Seconds(), r.model.attributes())
	}
	if r.waited > 0 {
		in.queued.Record(ctx, r.waited.Seconds(), r.model.attributes(attribute.Bool("cold", r.cold)))
	}
}
