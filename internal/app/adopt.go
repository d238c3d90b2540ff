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

// leftover is a replica of an earlier gateway that there is a place for.
type leftover struct {
	process.Record
	model *config.Model
	// outdated: it is of another spec, and serves until it is replaced.
	outdated bool
}

// sortLeftovers ends the replicas of an earlier gateway that this configuration has no place for, and returns the others.
func (a *App) sortLeftovers(ctx context.Context) []leftover {
	models := make(map[string]*config.Model)
	for i := range a.config.Models {
		models[a.config.Models[i].Name] = &a.config.Models[i]
	}
	places := make(map[string]int) // that are taken
	var kept, changed []leftover
	var ends sync.WaitGroup
	drop := func(r process.Record, reason string) { ends.Go(func() { a.endLeftover(ctx, r, reason) }) }
	for _, r := range a.process.Leftovers() {
		switch m := models[r.Model]; {
		case m == nil || m.Spec.Driver != backends.DriverProcess:
			drop(r, "the configuration does not have its model any more")
		case m.Spec.Hash() != r.SpecHash && r.State == process.StateReady:
			changed = append(changed, leftover{r, m, true})
		case m.Spec.Hash() != r.SpecHash:
			drop(r, "its model has changed")
		case places[r.Model] >= m.Activator.Max:
			drop(r, "there are more than the model may have")
		default:
			places[r.Model]++
			kept = append(kept, leftover{r, m, false})
		}
	}
	for _, l := range changed {
		if places[l.Model] >= l.model.Activator.Max+1 {
			drop(l.Record, "its model has changed")
			continue
		}
		places[l.Model]++
		kept = append(kept, l)
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
func (a *App) takeOver(ctx context.Context, left []leftover) map[string][]activator.Adopted {
	found := make([]*activator.Adopted, len(left))
	var work sync.WaitGroup
	for i, l := range left {
		work.Go(func() {
			r := l.Record
			if err := a.holdDevices(l); err != nil {
				a.endLeftover(ctx, r, err.Error())
				return
			}
			f := activator.Adopted{ID: r.ID, Began: r.StartedAt, Outdated: l.outdated}
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

// errNoBoth: nobody knows whether there is room for its successor beside it.
var errNoBoth = errors.New("its model has changed")

// holdDevices enters a replica's GPUs into the account.
func (a *App) holdDevices(l leftover) error {
	switch {
	case l.outdated && !a.lifeOf(l.model).Surge:
		return errNoBoth
	case a.ledger == nil:
		return nil
	case len(l.Devices) == 0 && l.model.Spec.Devices.Count > 0:
		return errNoAccount
	}
	return a.ledger.Adopt(l.Model, l.ID, l.Devices, l.Share)
}
