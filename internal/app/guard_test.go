package app

import (
	"testing"
	"testing/synctest"
	"time"

	"pilotlight/activator"
)

// What the guard of a replica hears of its requests, from before its model exists until after it is gone.
func TestWatchOfAReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &App{models: map[string]*model{}}
		w := a.watchOf("m", 7)
		nothing := func(when string) {
			t.Helper()
			if _, held := w.Hold(); held || w.InFlight() != 0 {
				t.Errorf("%s: %d in flight, held %v", when, w.InFlight(), held)
			}
		}
		nothing("before the model exists")
		l := &scripted{next: func() script { return script{ready: time.Second} }, began: make(chan script, 1)}
		m, err := activator.New(activator.Options{Name: "m", Config: activator.DefaultConfig(), Launcher: l, FirstID: 7})
		if err != nil {
			t.Fatal(err)
		}
		a.models["m"] = &model{name: "m", activator: m}
		ticket, err := m.Enqueue(activator.Request{})
		if err != nil {
			t.Fatal(err)
		}
		nothing("while it starts")
		<-ticket.Done()
		lease, err := ticket.Lease()
		if err != nil {
			t.Fatal(err)
		}
		release, held := w.Hold()
		if !held || w.InFlight() != 2 {
			t.Errorf("with a request: %d in flight, held %v", w.InFlight(), held)
		}
		release()
		if w.InFlight() != 1 {
			t.Errorf("%d in flight after the release", w.InFlight())
		}
		if _, held := a.watchOf("m", 8).Hold(); held {
			t.Error("another replica is held")
		}
		lease.Release()
		nothing("idle")
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
		nothing("gone")
	})
}
