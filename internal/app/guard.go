package app

import (
	"pilotlight/activator"
	"pilotlight/backends/process"
)

// guard watches a replica of a model for hangs, until it is gone or the App goes.
func (a *App) guard(model string, r *process.Replica, id uint64) {
	a.guards.Go(func() { r.Guard(a.guarding, a.watchOf(model, id)) })
}

// watchOf tells of the requests at a replica. They are the present model's by that name: while it is being made there are none, and once it was
// removed it drains, which has a limit of its own.
func (a *App) watchOf(model string, id uint64) process.Watch {
	running := func() *activator.Model {
		a.mu.Lock()
		defer a.mu.Unlock()
		if m := a.models[model]; m != nil {
			return m.activator
		}
		return nil
	}
	return process.Watch{
		InFlight: func() int {
			if m := running(); m != nil {
				return m.InFlight(id)
			}
			return 0
		},
		Hold: func() (func(), bool) {
			if m := running(); m != nil {
				return m.Hold(id)
			}
			return nil, false
		},
	}
}
