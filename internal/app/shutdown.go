package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Shutdown takes the gateway down in steps, last started first stopped. ctx bounds how long requests in flight may go on; after it
// they are cut, and replicas are still stopped properly. step, if not nil, is told what begins.
//
//  1. readiness says no, and waiting requests are refused with advice to try again
//  2. requests in flight end, replicas drain and stop (with Options.KeepReplicas, those that are ready are left), connections close
//  3. the admin listener, the watchers and the files
func (a *App) Shutdown(ctx context.Context, step func(n, of int, what string)) error {
	const steps = 3
	tell := func(n int, what string) {
		if step != nil {
			step(n, steps, what)
		}
	}
	a.mu.Lock()
	if a.stopping {
		a.mu.Unlock()
		return errors.New("already shutting down")
	}
	a.stopping = true
	a.mu.Unlock()

	tell(1, "taking no more requests")
	if a.watchEnd != nil {
		a.watchEnd()
	}
	a.reloading.Lock() // a reload in progress ends first, and none follows
	defer a.reloading.Unlock()

	if a.opts.KeepReplicas {
		a.keepReplicas()
		tell(2, "waiting for requests in flight; replicas that are ready stay")
	} else {
		tell(2, "waiting for requests in flight, then stopping replicas")
	}
	var edge error
	var wg sync.WaitGroup
	wg.Go(func() { edge = a.gateway.Shutdown(ctx) })
	models := a.closeModels(ctx)
	wg.Wait()
	a.prefetch.close()
	a.closeRemote()
	a.endGuards()
	a.guards.Wait()
	a.closeLedger()

	tell(3, "closing the admin listener and files")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	admin := a.admin.Shutdown(ctx)
	a.serving.Wait()
	if a.keysFile != nil {
		a.keysFile.close()
	}
	if a.cert != nil {
		a.cert.close()
	}
	if edge != nil {
		edge = fmt.Errorf("requests were cut: %w", edge)
	}
	spent := a.tenancy.close()
	a.durations.Close()
	a.endTracing()
	return errors.Join(edge, models, spent, admin, a.process.Close(), a.telemetry.provider.Shutdown(ctx))
}

// keepReplicas lets what is ready outlive the gateway. Models that leave the configuration have no next one.
func (a *App) keepReplicas() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.models {
		m.keep.Store(true)
	}
}

// tracesPatience is how long a shutdown waits for the collector to take the last spans.
const tracesPatience = 3 * time.Second

func (a *App) endTracing() {
	ctx, cancel := context.WithTimeout(context.Background(), tracesPatience)
	defer cancel()
	a.tracing.shutdown(ctx)
}

// closeModels stops all models at once; each drains until ctx ends, and is stopped then.
func (a *App) closeModels(ctx context.Context) error {
	a.mu.Lock()
	models := make([]*model, 0, len(a.models)+len(a.leaving))
	for _, m := range a.models {
		models = append(models, m)
	}
	models = append(models, a.leaving...)
	a.mu.Unlock()
	errs := make([]error, len(models))
	var wg sync.WaitGroup
	for i, m := range models {
		wg.Go(func() {
			if err := m.activator.Close(ctx); err != nil {
				errs[i] = fmt.Errorf("model %s: %w", m.name, err)
			}
		})
	}
	wg.Wait()
	a.unloads.Wait()
	return errors.Join(errs...)
}
