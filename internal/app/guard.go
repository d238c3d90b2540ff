package app

import (
	"pilotlight/activator"
	"pilotlight/backends/process"
)

// guard watches a replica of a model for hangs, until it is gone or the App goes.
func (a *App) guard(model string, r *process.Replica, id uint64) {
	running := func() *activator.Model {
		a.mu.Lock()
		defer a.mu.Unlock()
		if m := a.models[model]; m != nil {
			return m.activator
		}
		return nil // it is being made, or was removed: then it drains, which has a limit of its own
	}
	a.guards.Go(func() {
		r.Guard(a.guarding, process.Watch{
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
		})
	})
}
