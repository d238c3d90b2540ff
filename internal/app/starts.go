package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
	"go.opentelemetry.io/otel/trace"

	"pilotlight/activator"
	"pilotlight/gateway"
)

// starts remembers the traces of one model's latest starts, for the requests that waited for them. A start is a trace of its own, since
// it belongs to no request, and is always recorded while traces are configured: starts are rare. Safe for concurrent use.
type starts struct {
	tracing *tracing

	mu     sync.Mutex     // guards the field below
	latest []*tracedStart // newest last
}

// keptStarts is more than a model starts at a time, and bounds what one remembers.
const keptStarts = 64

// tracedStart is one start. mu of its starts guards trace.
type tracedStart struct {
	replica uint64
	span    trace.Span
	trace   gateway.StartTrace
}

// launcher traces what l starts.
func (s *starts) launcher(modelID string, l activator.Launcher) activator.Launcher {
	return tracedLauncher{Launcher: l, modelID: modelID, starts: s}
}

// tracedLauncher is the decorator.
type tracedLauncher struct {
	activator.Launcher
	modelID string
	starts  *starts
}

func (l tracedLauncher) Launch(ctx context.Context, start activator.Start, progress func(activator.Progress)) (activator.Instance, error) {
	tracer := l.starts.tracing.tracer()
	if tracer == nil {
		return l.Launcher.Launch(ctx, start, progress)
	}
	t := l.starts.begin(tracer, l.modelID, start.ID)
	instance, err := l.Launcher.Launch(ctx, start, func(p activator.Progress) {
		l.starts.note(t, p.Phase)
		progress(p)
	})
	l.starts.end(t, err)
	return instance, err
}

// Prepare is activator.Preparer's. It is no part of the trace, which begins with the start proper.
func (l tracedLauncher) Prepare(ctx context.Context, start activator.Start, progress func(activator.Progress)) error {
	if p, ok := l.Launcher.(activator.Preparer); ok {
		return p.Prepare(ctx, start, progress)
	}
	return nil
}

func (s *starts) begin(tracer trace.Tracer, modelID string, replica uint64) *tracedStart {
	_, span := tracer.Start(context.Background(), "start "+modelID,
		trace.WithAttributes(semconv.GenAIRequestModel(modelID), attribute.Int64("pilotlight.replica", int64(replica))))
	t := &tracedStart{replica: replica, span: span, trace: gateway.StartTrace{Span: span.SpanContext()}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.latest) == keptStarts {
		s.latest = slices.Delete(s.latest, 0, 1)
	}
	s.latest = append(s.latest, t)
	return t
}

// note makes an event of each phase that is new. Phases are few: an engine's output names them.
func (s *starts) note(t *tracedStart, phase string) {
	if phase == "" {
		return
	}
	now := time.Now()
	s.mu.Lock()
	known := slices.ContainsFunc(t.trace.Phases, func(p gateway.StartPhase) bool { return p.Phase == phase })
	if !known {
		t.trace.Phases = append(t.trace.Phases, gateway.StartPhase{Phase: phase, At: now})
	}
	s.mu.Unlock()
	if !known {
		t.span.AddEvent(phase, trace.WithTimestamp(now))
	}
}

func (s *starts) end(t *tracedStart, err error) {
	s.mu.Lock()
	t.trace.Ended = time.Now()
	s.mu.Unlock()
	if err != nil {
		class := "cancelled"
		if !errors.Is(err, context.Canceled) {
			class = string(failureClass(err))
			t.span.SetStatus(codes.Error, "")
		}
		t.span.SetAttributes(semconv.ErrorTypeKey.String(class))
	}
	t.span.End(trace.WithTimestamp(t.trace.Ended))
}

// find is gateway.Model's StartTrace.
func (s *starts) find(replica uint64) (gateway.StartTrace, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range slices.Backward(s.latest) {
		if replica == 0 || t.replica == replica {
			found := t.trace
			found.Phases = slices.Clone(found.Phases)
			return found, true
		}
	}
	return gateway.StartTrace{}, false
}
