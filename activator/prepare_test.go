package activator

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// preparer is a launcher that fetches for a while first, ten steps of it.
type preparer struct {
	fakeLauncher
	prepares time.Duration
	fails    error

	mu       sync.Mutex // guards the fields below
	prepared []context.Context
}

func (p *preparer) Prepare(ctx context.Context, start Start, progress func(Progress)) error {
	p.mu.Lock()
	p.prepared = append(p.prepared, ctx)
	p.mu.Unlock()
	for i := range 10 {
		progress(Progress{Phase: "download", Percent: float64(i) * 10, Detail: "fast", Left: p.prepares * time.Duration(10-i) / 10})
		select {
		case <-time.After(p.prepares / 10):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return p.fails
}

func TestPreparationComesBeforeDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		durations, err := OpenDurations(filepath.Join(t.TempDir(), "durations.json"), slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ledger := &fakeLedger{free: make(chan struct{}, 1)}
		l := &preparer{fakeLauncher: fakeLauncher{takes: 20 * time.Second, phases: []string{"weights"}}, prepares: 100 * time.Second}
		m := newTestModel(t, testConfig(), l, func(o *Options) { o.Ledger, o.Durations = ledger, durations })
		defer durations.Close()
		defer closeModel(t, m)

		k := enqueue(t, m, Request{})
		time.Sleep(35 * time.Second)
		synctest.Wait()
		if s := k.Status(); s.State != Starting || s.Phase != "download" || s.Percent != 30 || s.Detail != "fast" || s.Reason != "" || s.ETA != 0 {
			t.Errorf("while it is prepared, without a start before: %+v", s)
		}
		if r := m.Status().Replicas; len(r) != 1 || r[0].Phase != "download" || r[0].Percent != 30 || r[0].Detail != "fast" {
			t.Errorf("replicas: %+v", r)
		}
		time.Sleep(66 * time.Second)
		synctest.Wait()
		if s := k.Status(); s.Phase != "queued" || s.Percent != 0 || s.Reason != "held by somebody" || s.Detail != "" {
			t.Errorf("while it waits for devices: %+v", s)
		}
		ledger.free <- struct{}{}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if s := k.Status(); s.Phase != "weights" || s.Percent != 50 {
			t.Errorf("while it starts: %+v", s)
		}
		wait(t, k).Release()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		wantState(t, m, Cold)
		if took, ok := durations.Estimate(Subject{Model: "m", Spec: "spec1"}); !ok || took != 20*time.Second {
			t.Errorf("learned: %v, %v; the preparation is no part of a start", took, ok)
		}

		// Now it is known what comes after the preparation.
		k = enqueue(t, m, Request{})
		time.Sleep(25 * time.Second)
		synctest.Wait()
		if s := k.Status(); s.ETA != 95*time.Second {
			t.Errorf("ready in %v, want 75 s of preparation and 20 s of start", s.ETA)
		}
		k.Cancel()
		for _, ctx := range l.prepared[:1] {
			if ctx.Err() == nil {
				t.Error("the context of a start that is over lives on")
			}
		}
	})
}

func TestPreparationWithoutDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &preparer{fakeLauncher: fakeLauncher{takes: time.Second}, prepares: 10 * time.Second}
		m := newTestModel(t, testConfig(), l)
		defer closeModel(t, m)
		began := time.Now()
		wait(t, enqueue(t, m, Request{})).Release()
		if took := time.Since(began); took != 11*time.Second {
			t.Errorf("ready after %v", took)
		}
	})
}

func TestAFailedPreparationIsAFailedStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &preparer{fakeLauncher: fakeLauncher{takes: time.Second}, prepares: 10 * time.Second, fails: errTest}
		m := newTestModel(t, testConfig(), l, func(o *Options) { o.Ledger = &fakeLedger{free: make(chan struct{}, 1)} })
		defer closeModel(t, m)
		if f := failed(t, enqueue(t, m, Request{})); !errors.Is(f, errTest) || f.Permanent {
			t.Errorf("got %+v", f)
		}
		if l.count() != 0 {
			t.Error("it was launched all the same")
		}
	})
}

func TestShutdownEndsAPreparation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &preparer{fakeLauncher: fakeLauncher{takes: time.Second}, prepares: time.Hour}
		m := newTestModel(t, testConfig(), l, func(o *Options) { o.Ledger = &fakeLedger{free: make(chan struct{}, 1)} })
		k := enqueue(t, m, Request{})
		time.Sleep(time.Minute)
		began := time.Now()
		closeModel(t, m)
		if took := time.Since(began); took > time.Second {
			t.Errorf("closing took %v", took)
		}
		if _, err := k.Lease(); !errors.Is(err, ErrShuttingDown) {
			t.Errorf("the waiter got %v", err)
		}
	})
}
