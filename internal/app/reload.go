package app

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"pilotlight/activator"
	"pilotlight/activator/ledger"
	"pilotlight/auth"
	"pilotlight/auth/jwt"
	"pilotlight/internal/config"
)

// errNoReload is for an App that was given its configuration by a program.
var errNoReload = errors.New("this gateway has no configuration file to reload")

// watch follows the configuration file, if asked to.
func (a *App) watch() error {
	if !a.opts.Watch {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.watchEnd = cancel
	loaded := a.config
	ready := make(chan error, 1)
	a.serving.Go(func() {
		if err := config.Watch(ctx, loaded.Source, loaded, func() {
			if err := a.reload(false); err != nil {
				a.log.Error("configuration not reloaded; the one before stays in force", "error", err.Error())
			}
		}); err != nil && ctx.Err() == nil {
			ready <- err
		}
		close(ready)
	})
	select {
	case err := <-ready:
		cancel()
		return fmt.Errorf("watching the configuration: %w", err)
	case <-time.After(50 * time.Millisecond): // a folder that cannot be watched says so at once
		return nil
	}
}

// Reload reads the configuration again and applies what changed. A configuration with errors changes nothing. It is
// also an operator's word: permanent failures of unchanged models are forgotten.
func (a *App) Reload() error { return a.reload(true) }

func (a *App) reload(asked bool) error {
	if a.opts.Load == nil {
		return errNoReload
	}
	a.reloading.Lock()
	defer a.reloading.Unlock()
	next, err := a.opts.Load()
	if err == nil {
		err = a.apply(next, asked)
	}
	result := "applied"
	a.mu.Lock()
	a.configError = ""
	if err != nil {
		result, a.configError = "refused", err.Error()
	}
	a.mu.Unlock()
	a.telemetry.reloads.Add(context.Background(), 1, metric.WithAttributes(attribute.String("result", result)))
	return err
}

// apply changes what differs between the configuration in force and next. Models go out of the edge's table before they are
// unloaded and come into it after they exist, so a request always finds a model that takes it. What can fail comes first, and is
// undone: a configuration that is refused has changed nothing.
func (a *App) apply(next *config.Config, asked bool) (err error) {
	a.mu.Lock()
	old, stopping := a.config, a.stopping
	a.mu.Unlock()
	if stopping {
		return errors.New("shutting down")
	}
	changes := config.Diff(old, next)
	var keys *auth.Keys
	var tokens *jwt.Verifier
	var undo []*model
	defer func() {
		if err == nil {
			return
		}
		if keys != nil {
			keys.Close()
		}
		if tokens != nil {
			tokens.Close()
		}
		for _, m := range undo {
			a.dropModel(m)
		}
	}()
	if a.keysFile != nil && next.KeysFile != old.KeysFile {
		if keys, err = a.keysFile.open(next.KeysFile); err != nil {
			return err
		}
	}
	issuers := a.keysFile != nil && !reflect.DeepEqual(next.Issuers, old.Issuers)
	if issuers {
		if tokens, err = a.keysFile.trust(next.Issuers); err != nil {
			return err
		}
	}
	var shown *pair
	if a.cert != nil && next.TLS != (config.TLS{}) && (asked || next.TLS != old.TLS) {
		if shown, err = loadPair(next.TLS); err != nil {
			return err
		}
	}
	collector, err := a.tracing.open(next.Traces)
	if err != nil {
		return err
	}
	for _, c := range changes.Added {
		m, err := a.addModel(c)
		if err != nil {
			return err
		}
		undo = append(undo, m)
	}
	for _, m := range slices.Concat(changes.Replaced, changes.Adjusted) {
		a.mu.Lock()
		running := a.models[m.Name]
		running.id, running.specHash = m.ModelID, m.Spec.Hash()
		a.mu.Unlock()
		a.setTerms(m)
		if err := running.activator.Update(a.lifeOf(m), a.launcher(m, running.starts, running.keep), m.Spec.Hash()); err != nil {
			return fmt.Errorf("model %s: %w", m.Name, err)
		}
	}
	if err := a.tenancy.registry.Adjust(next.Tenants); err != nil {
		return err
	}
	if err := a.publish(next); err != nil { // models take their limits from the registry
		return err
	}
	if keys != nil {
		a.keysFile.follow(keys)
	}
	if issuers {
		a.keysFile.accept(tokens)
	}
	if shown != nil {
		a.cert.follow(shown)
	}
	a.totals.SetLimits(next.Queue.MaxRequests, next.Queue.MaxBytes)
	a.gateway.Adjust(next.Gateway)
	a.gateway.SetTracing(a.tracing.use(next.Traces, collector))
	a.admin.SetToken(next.Admin.Token)
	a.prefetch.use(next, asked)
	a.mu.Lock()
	a.config, a.loaded, a.needsRestart = next, time.Now(), changes.NeedRestart
	for _, removed := range changes.Removed {
		m := a.models[removed.Name]
		delete(a.models, removed.Name)
		a.leaving = append(a.leaving, m)
		a.unloads.Go(func() { a.unload(m) })
	}
	for _, m := range a.models {
		if asked || !changes.Empty() && lacksOnly(m.activator.Status().LastFailure) {
			m.activator.Retry()
		}
	}
	a.mu.Unlock()
	if !changes.Empty() {
		a.log.Info("configuration reloaded", "added", len(changes.Added), "removed", len(changes.Removed),
			"replaced", len(changes.Replaced), "adjusted", len(changes.Adjusted), "settings", changes.Settings)
	}
	for _, setting := range changes.NeedRestart {
		a.log.Warn("a changed setting needs a restart to take effect", "setting", setting)
	}
	return nil
}

// lacksOnly: a start failed because of other models, which may have changed.
func lacksOnly(f *activator.FailureStatus) bool {
	var kept *ledger.KeptError
	return f != nil && errors.As(f.Cause, &kept)
}

// dropModel takes back what addModel did for a configuration that was refused. No request has met the model.
func (a *App) dropModel(m *model) {
	a.mu.Lock()
	delete(a.models, m.name)
	a.leaving = append(a.leaving, m)
	a.mu.Unlock()
	a.unloads.Go(func() { a.unload(m) })
}

// unload lets a removed model serve what it has admitted, and stops it.
func (a *App) unload(m *model) {
	err := m.activator.Unload(context.Background())
	a.mu.Lock()
	for i, l := range a.leaving {
		if l == m {
			a.leaving = append(a.leaving[:i], a.leaving[i+1:]...)
			break
		}
	}
	a.mu.Unlock()
	if err != nil {
		a.log.Warn("a removed model was not unloaded cleanly", "model", m.name, "error", err)
		return
	}
	a.log.Info("model removed", "model", m.name)
}
