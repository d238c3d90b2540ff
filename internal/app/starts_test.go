package app

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"go.opentelemetry.io/otel/metric/noop"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/internal/config"
	"pilotlight/internal/testtools/otlptest"
)

// launch is an activator.Launcher that is a function.
type launch func(ctx context.Context, progress func(activator.Progress)) error

func (l launch) Launch(ctx context.Context, _ activator.Start, progress func(activator.Progress)) (activator.Instance, error) {
	return nil, l(ctx, progress)
}

func TestStartsAreTraced(t *testing.T) {
	c := otlptest.New(t)
	tracing, err := newTracing(noop.Meter{}, "v1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer tracing.shutdown(t.Context())
	s := &starts{tracing: tracing}
	run := func(id uint64, l launch) {
		t.Helper()
		told := 0
		_, err := s.launcher("m", l).Launch(t.Context(), activator.Start{ID: id}, func(activator.Progress) { told++ })
		if told != 3 && err == nil {
			t.Errorf("%d reports of progress were passed on", told)
		}
	}
	ready := func(_ context.Context, progress func(activator.Progress)) error {
		for _, phase := range []string{"launch", "weights", "weights"} {
			progress(activator.Progress{Phase: phase})
		}
		return nil
	}
	run(1, ready) // there is no collector yet
	if _, ok := s.find(0); ok {
		t.Error("a start is remembered that was not traced")
	}
	settings := config.Traces{Endpoint: c.URL}
	to, err := tracing.open(settings)
	if err != nil {
		t.Fatal(err)
	}
	tracing.use(settings, to)
	run(2, func(ctx context.Context, progress func(activator.Progress)) error {
		if live, ok := s.find(2); !ok || !live.Ended.IsZero() || !live.Span.IsSampled() {
			t.Errorf("while it starts: %v, %v", live, ok)
		}
		return ready(ctx, progress)
	})
	run(3, func(context.Context, func(activator.Progress)) error {
		return fmt.Errorf("starting: %w", &backends.Failure{Class: backends.ClassOutOfMemory})
	})
	run(4, func(context.Context, func(activator.Progress)) error { return context.Canceled })

	for replica, phases := range map[uint64]int{2: 2, 3: 0, 4: 0} {
		if found, ok := s.find(replica); !ok || found.Ended.IsZero() || len(found.Phases) != phases {
			t.Errorf("replica %d: %v, %v", replica, found, ok)
		}
	}
	latest, _ := s.find(0)
	if last, _ := s.find(4); latest.Span.SpanID() != last.Span.SpanID() || !latest.Span.IsValid() {
		t.Error("the latest start is not the last one")
	}
	byReplica := map[string]otlptest.Span{}
	for _, span := range c.Wait(3, func() {
		if err := tracing.provider.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}) {
		byReplica[otlptest.Attributes(span.Attributes)["pilotlight.replica"]] = span
		if span.Name != "start m" || span.Resource["service.version"] != "v1" {
			t.Errorf("span %q of %v", span.Name, span.Resource)
		}
	}
	if events := byReplica["2"].Events; len(events) != 2 || events[0].Name != "launch" || events[1].Name != "weights" {
		t.Errorf("events %v", events)
	}
	for replica, class := range map[string]string{"2": "", "3": "out_of_memory", "4": "cancelled"} {
		span := byReplica[replica]
		failed := span.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR
		if otlptest.Attributes(span.Attributes)["error.type"] != class || failed != (replica == "3") {
			t.Errorf("replica %s: %v", replica, span)
		}
	}

	for id := range uint64(3 * keptStarts) {
		run(100+id, ready)
	}
	if _, ok := s.find(2); ok || len(s.latest) != keptStarts {
		t.Errorf("%d starts are remembered", len(s.latest))
	}
}
