package app

import (
	"context"
	"errors"
	"sync"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/backends/process"
	"pilotlight/internal/config"
)

// sortLeftovers ends the replicas of an earlier gateway that this configuration has no place for, and returns the others.
func (a *App) sortLeftovers(ctx context.Context) []process.Record {
	models := make(map[string]*config.Model)
	for i := range a.config.Models {
		models[a.config.Models[i].Name] = &a.config.Models[i]
	}
	taken := make(map[string]int)
	var kept []process.Record
	var ends sync.WaitGroup
	for _, r := range a.process.Leftovers() {
		m := models[r.Model]
		reason := ""
		switch {
		case m == nil || m.Spec.Driver != backends.DriverProcess:
			reason = "the configuration does not have its model any more"
		case m.Spec.Hash() != r.SpecHash:
			reason = "its model has changed"
		case taken[r.Model] >= m.Activator.Max:
			reason = "there are more than the model may have"
		}
		if reason == "" {
			taken[r.Model]++
			kept = append(kept, r)
			continue
		}
		ends.Go(func() { a.endLeftover(ctx, r, reason) })
	}
	ends.Wait()
	return kept
}

func (a *App) endLeftover(ctx context.Context, r process.Record, reason string) {
	if err := a.process.End(ctx, r.Model, r.ID, reason); err != nil {
		a.log.Error("a replica of an earlier gateway is not ended", "model", r.Model, "replica", r.ID, "error", err)
	}
}

// errNoAccount: nobody knows which GPUs it uses, so they might be given out a second time.
var errNoAccount = errors.New("it was started while GPUs were not shared out")

// takeOver adopts the replicas that sortLeftovers kept, by model. One that turns out not to serve is ended instead; the model starts another
// when it is wanted.
func (a *App) takeOver(ctx context.Context, left []process.Record) map[string][]activator.Adopted {
	found := make([]*activator.Adopted, len(left))
	var work sync.WaitGroup
	for i, r := range left {
		work.Go(func() {
			if err := a.holdDevices(r); err != nil {
				a.endLeftover(ctx, r, err.Error())
				return
			}
			f := activator.Adopted{ID: r.ID, Began: r.StartedAt}
			if r.State == process.StateReady {
				ready, err := a.process.Adopt(ctx, r.Model, r.ID)
				if err != nil {
					a.log.Warn("a replica of an earlier gateway is not taken over", "model", r.Model, "replica", r.ID, "error", err)
					if a.ledger != nil {
						a.ledger.Release(r.Model, r.ID)
					}
					return
				}
				instance := newInstance(ready, nil) // addModel knows whether it is to be kept
				instance.memory = memoryOf(a.ledger, a.opts.SMI, r.Model, r.ID)
				f.Instance = instance
				a.guard(r.Model, ready, r.ID)
			}
			found[i] = &f
		})
	}
	work.Wait()
	adopted := make(map[string][]activator.Adopted)
	for i, r := range left {
		if found[i] != nil {
			adopted[r.Model] = append(adopted[r.Model], *found[i])
		}
	}
	return adopted
}

// holdDevices enters a replica's GPUs into the account.
func (a *App) holdDevices(r process.Record) error {
	if a.ledger == nil {
		return nil
	}
	if len(r.Devices) == 0 {
		for i := range a.config.Models {
			if m := &a.config.Models[i]; m.Name == r.Model && m.Spec.Devices.Count > 0 {
				return errNoAccount
			}
		}
	}
	return a.ledger.Adopt(r.Model, r.ID, r.Devices, r.Share)
}
