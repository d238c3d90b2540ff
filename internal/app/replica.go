package app

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"pilotlight/activator"
	"pilotlight/activator/ledger"
	"pilotlight/backends"
	"pilotlight/backends/gpu"
	"pilotlight/backends/process"
	"pilotlight/backends/static"
	"pilotlight/backends/transport"
	"pilotlight/backends/weights"
)

// replica is what the two drivers have in common.
type replica interface {
	Endpoint() backends.Endpoint
	Exited() <-chan struct{}
	Cause() error
	Stop(ctx context.Context, idle bool) error
}

// sleeper is a replica that can be put to sleep; see process.Replica.
type sleeper interface {
	Sleep(ctx context.Context) error
	Wake(ctx context.Context) error
}

// instance joins a driver's replica with the connections to it. It is what the activator keeps, and what the gateway
// finds behind a lease.
type instance struct {
	replica
	pool   *transport.Pool
	memory memory       // of its GPUs
	freed  atomic.Int64 // bytes of it that it gave back, while it sleeps
	keep   *atomic.Bool // the next gateway shall have it; nil: never
	held   *weights.Held
}

func newInstance(r replica, keep *atomic.Bool) *instance {
	return &instance{replica: r, pool: transport.New(transport.Options{Endpoint: r.Endpoint()}), keep: keep}
}

// Transport is gateway.Target's.
func (i *instance) Transport() *transport.Pool { return i.pool }

func (i *instance) Concurrency() int { return i.Endpoint().Concurrency }

// Stop leaves a replica running that the next gateway shall have and can take over: it takes no more requests from here, and those in
// flight have ended, or are cut with the gateway.
func (i *instance) Stop(ctx context.Context, idle bool) error {
	defer i.pool.Close()
	if r, ok := i.replica.(*process.Replica); ok && i.keep != nil && i.keep.Load() && r.Adoptable() {
		return i.held.Close() // the engine has inherited them
	}
	if err := i.replica.Stop(ctx, idle); err != nil {
		return err
	}
	return i.held.Close()
}

// Settle is activator.Settler's. Servers that somebody else runs are not adopted.
func (i *instance) Settle(ctx context.Context) error {
	if r, ok := i.replica.(*process.Replica); ok {
		return r.Settle(ctx)
	}
	return nil
}

// launcher starts one model's replicas with the driver that its spec asks for.
type launcher struct {
	spec     backends.Spec
	keeper   *weights.Keeper // nil: there is no store
	cutter   *Cutter         // nil: as keeper
	prepared prepared
	log      *slog.Logger
	process  *process.Driver
	static   *static.Driver
	ledger   *ledger.Ledger // nil: GPUs are not shared out
	// noDevices is why it is not known which GPUs there are.
	noDevices error
	smi       gpu.SMI
	keep      *atomic.Bool                        // what is started shall outlive the gateway
	guard     func(r *process.Replica, id uint64) // watches it from when it is ready
}

func (l *launcher) Launch(ctx context.Context, start activator.Start, progress func(activator.Progress)) (activator.Instance, error) {
	report := func(p backends.Progress) {
		progress(activator.Progress{Phase: string(p.Phase), Share: p.Share, Percent: p.Percent, ReadBytes: p.ReadBytes})
	}
	if l.spec.Driver == backends.DriverStatic {
		r, err := l.static.Launch(ctx, &l.spec, uint64(start.Slot), report)
		if err != nil {
			return nil, err
		}
		return newInstance(r, nil), nil
	}
	held := l.prepared.take(start.ID)
	if held == nil { // of a start that an earlier gateway began, or whose model has another spec since it was prepared
		var err error
		if held, err = l.hold(ctx, start.ID, progress); err != nil {
			return nil, err
		}
	}
	r, err := l.launch(ctx, start.ID, held, progress, report)
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	i := newInstance(r, l.keep)
	i.held = held
	i.memory = memoryOf(l.ledger, l.smi, l.spec.Model, start.ID)
	l.guard(r, start.ID)
	return i, nil
}

// launch starts an engine on the devices that were reserved for it, with weights of the store if it has any.
func (l *launcher) launch(ctx context.Context, id uint64, held *weights.Held, progress func(activator.Progress), report func(backends.Progress)) (_ *process.Replica, err error) {
	on, err := l.placement(ctx, id)
	if err != nil {
		return nil, err
	}
	place(&on, &l.spec, held)
	release, err := l.cut(ctx, id, &on, held, progress)
	defer func() {
		if e := release(); e != nil {
			l.log.WarnContext(ctx, "sharded weights", "model", l.spec.Model, "error", e)
		}
	}()
	if err != nil {
		return nil, err
	}
	return l.process.LaunchOn(ctx, &l.spec, on, id, report)
}
