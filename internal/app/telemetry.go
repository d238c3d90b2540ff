package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"pilotlight/activator"
	"pilotlight/gateway/histogram"
)

// telemetry is the one set of instruments: OpenTelemetry's API, read by Prometheus.
type telemetry struct {
	provider *sdkmetric.MeterProvider
	page     http.Handler
	meter    metric.Meter

	histograms *histogram.Set // of meterName, too

	transitions metric.Int64Counter
	coldStarts  metric.Float64Histogram
	sleeps      metric.Float64Histogram
	reloads     metric.Int64Counter
	rollBacks   metric.Int64Counter
}

const meterName = "pilotlight"

// startBuckets reach from a simulator's start to a large model's first one (15 minutes and more: facts/sglang.md §4.3).
var startBuckets = []float64{.1, .5, 1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200}

// sleepBuckets reach from a small cache on an H200 (20 ms) to the default of timeouts.sleep.
var sleepBuckets = []float64{.02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60}

func newTelemetry() (*telemetry, error) {
	registry := prometheus.NewRegistry()
	// Not instruments of ours: what any Go program shows (go_goroutines, process_open_fds, process_resident_memory_bytes, …).
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	histograms := histogram.NewSet(meterName)
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo(), otelprometheus.WithProducer(histograms))
	if err != nil {
		return nil, fmt.Errorf("prometheus exporter: %w", err)
	}
	t := &telemetry{
		provider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)),
		page:     promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),

		histograms: histograms,
	}
	t.meter = t.provider.Meter(meterName)
	var errs [5]error
	t.transitions, errs[0] = t.meter.Int64Counter("pilotlight.replica.transitions", metric.WithUnit("{transition}"),
		metric.WithDescription("Changes of replicas' states, by the state entered."))
	t.coldStarts, errs[1] = t.meter.Float64Histogram("pilotlight.start.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of replicas' starts, by result."), metric.WithExplicitBucketBoundaries(startBuckets...))
	t.reloads, errs[2] = t.meter.Int64Counter("pilotlight.config.reloads", metric.WithUnit("{reload}"),
		metric.WithDescription("Attempts to reload the configuration, by result."))
	t.sleeps, errs[3] = t.meter.Float64Histogram("pilotlight.sleep.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of falling asleep and of waking up, by result."), metric.WithExplicitBucketBoundaries(sleepBuckets...))
	t.rollBacks, errs[4] = t.meter.Int64Counter("pilotlight.rollbacks", metric.WithUnit("{rollback}"),
		metric.WithDescription("Changed models of which no replica became ready and that stay as they were, by why."))
	return t, errors.Join(errs[:]...)
}

// observer feeds one model's life into the instruments.
func (t *telemetry) observer(modelID string) activator.Observer {
	model := attribute.String("gen_ai.request.model", modelID)
	return activator.Observer{
		Transition: func(tr activator.Transition) {
			t.transitions.Add(context.Background(), 1, metric.WithAttributes(model, attribute.String("state", tr.To.String())))
		},
		ColdStart: func(c activator.ColdStart) {
			result := "ready"
			switch {
			case errors.Is(c.Err, context.Canceled), errors.Is(c.Err, activator.ErrUnwanted), errors.Is(c.Err, activator.ErrNoRoom):
				result = "cancelled"
			case c.Err != nil:
				result = string(failureClass(c.Err))
			}
			t.coldStarts.Record(context.Background(), c.Duration.Seconds(), metric.WithAttributes(model, attribute.String("result", result)))
		},
		RollBack: func(_, _ string, err error) {
			t.rollBacks.Add(context.Background(), 1, metric.WithAttributes(model, attribute.String("result", string(failureClass(err)))))
		},
		Sleep: func(s activator.Sleep) {
			result := "asleep"
			switch {
			case s.Wake && s.Err != nil:
				result = "wake_failed"
			case s.Wake:
				result = "awake"
			case s.Err != nil:
				result = "sleep_failed"
			}
			t.sleeps.Record(context.Background(), s.Duration.Seconds(), metric.WithAttributes(model, attribute.String("result", result)))
		},
	}
}

// watch adds the gauges that are read at each scrape.
func (t *telemetry) watch(a *App) error {
	replicas, err1 := t.meter.Int64ObservableGauge("pilotlight.replicas", metric.WithUnit("{replica}"),
		metric.WithDescription("Replicas by state."))
	inFlight, err2 := t.meter.Int64ObservableGauge("pilotlight.replicas.in_flight", metric.WithUnit("{request}"),
		metric.WithDescription("Requests in flight at replicas."))
	wanted, err7 := t.meter.Int64ObservableGauge("pilotlight.replicas.wanted", metric.WithUnit("{replica}"),
		metric.WithDescription("Replicas that load asks for, by reason."))
	asked, err8 := t.meter.Float64ObservableGauge("pilotlight.scaling.load", metric.WithUnit("1"),
		metric.WithDescription("Load over what one replica is meant to have: replicas' worth of it, on average over a minute."))
	queue, err3 := t.meter.Int64ObservableGauge("pilotlight.queue.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that wait for a replica."))
	bytes, err4 := t.meter.Int64ObservableGauge("pilotlight.queue.size", metric.WithUnit("By"),
		metric.WithDescription("Bytes of the bodies that wait for a replica."))
	valid, err5 := t.meter.Int64ObservableGauge("pilotlight.config.valid", metric.WithUnit("1"),
		metric.WithDescription("1 while the configuration file's present version is the one in force, 0 while an older one is."))
	gpus, err6 := t.meter.Int64ObservableGauge("pilotlight.gpus", metric.WithUnit("{gpu}"),
		metric.WithDescription("GPUs that are shared out, by state."))
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8); err != nil {
		return err
	}
	_, err := t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		state := a.State()
		for _, m := range state.Models {
			model := attribute.String("gen_ai.request.model", m.ModelID)
			count := map[string]int64{"starting": 0, "ready": 0, "asleep": 0, "draining": 0, "stopping": 0, "failed": 0}
			flying := int64(0)
			for _, r := range m.Replicas {
				count[r.State]++
				flying += int64(r.InFlight)
			}
			for s, n := range count {
				o.ObserveInt64(replicas, n, metric.WithAttributes(model, attribute.String("state", s)))
			}
			if d := m.Scaling; d != nil {
				o.ObserveInt64(wanted, int64(d.Want), metric.WithAttributes(model, attribute.String("reason", d.Reason)))
				o.ObserveFloat64(asked, d.Load/d.Target, metric.WithAttributes(model))
			}
			o.ObserveInt64(inFlight, flying, metric.WithAttributes(model))
			o.ObserveInt64(queue, int64(m.QueuedRequests), metric.WithAttributes(model))
			o.ObserveInt64(bytes, m.QueuedBytes, metric.WithAttributes(model))
		}
		if state.Devices != nil {
			count := map[string]int64{"free": 0, "held": 0, "settling": 0, "quarantined": 0, "missing": 0}
			for _, d := range state.Devices {
				switch {
				case d.State != "usable":
					count[d.State]++
				case len(d.Holders) > 0:
					count["held"]++
				default:
					count["free"]++
				}
			}
			for s, n := range count {
				o.ObserveInt64(gpus, n, metric.WithAttributes(attribute.String("state", s)))
			}
		}
		ok := int64(1)
		if state.Config.Error != "" {
			ok = 0
		}
		o.ObserveInt64(valid, ok)
		return nil
	}, replicas, wanted, asked, inFlight, queue, bytes, valid, gpus)
	return err
}
