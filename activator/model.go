package activator

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Options make a Model. Name and Launcher are required; everything else has a useful zero value.
type Options struct {
	Name     string
	Config   Config
	Launcher Launcher
	// SpecHash identifies what Launcher runs: replicas of equal hashes are interchangeable, and start
	// times are learned per hash.
	SpecHash string
	// Totals bounds the queues of all models together; nil: no common bound.
	Totals *Totals
	// Ledger hands out devices; nil: they are always granted.
	Ledger Ledger
	// Durations learns start times; nil: nothing is learned, ETAs are unknown.
	Durations *Durations
	// Logger gets state changes; nil: they are not logged.
	Logger   *slog.Logger
	Observer Observer
	// Jitter returns a number in [0, 1) for each backoff; nil: math/rand/v2.
	Jitter func() float64
	// FirstID is the id of the first replica; 0 means 1. It keeps ids apart from those of an earlier process.
	FirstID uint64
	// Adopted are replicas that an earlier gateway has left, at most Config.Max. No start is begun for what they make up for.
	Adopted []Adopted
}

// Model is one model's activator. It runs a goroutine until Unload or Close has ended it.
type Model struct {
	name      string
	base      time.Time // moments count from here
	totals    *Totals
	ledger    Ledger
	durations *Durations
	log       *slog.Logger
	observer  Observer
	jitter    func() float64

	queued  bounds                  // what waits; not zero also holds the warm path back
	open    atomic.Pointer[openSet] // replicas that may be entered
	view    atomic.Pointer[view]
	scaling atomic.Pointer[Scaling] // nil: its number of replicas is no matter of load
	mail    *mailbox
	poked   atomic.Bool // a poke is in the mailbox
	gone    chan struct{}

	owner owner
}

// New starts the owner of one model, and the replicas that Config.Min asks for.
func New(o Options) (*Model, error) {
	if o.Name == "" || o.Launcher == nil {
		return nil, errors.New("activator: a model needs a name and a launcher")
	}
	if err := o.Config.validate(); err != nil {
		return nil, err
	}
	m := &Model{
		name: o.Name, base: time.Now(),
		totals: o.Totals, ledger: o.Ledger, durations: o.Durations, log: o.Logger,
		observer: o.Observer, jitter: o.Jitter,
		mail: newMailbox(), gone: make(chan struct{}),
	}
	if m.totals == nil {
		m.totals = NewTotals(0, 0)
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.jitter == nil {
		m.jitter = rand.Float64
	}
	if err := checkAdopted(o.Adopted, o.Config); err != nil {
		return nil, err
	}
	m.queued.setLimits(o.Config.MaxQueuedRequests, o.Config.MaxQueuedBytes)
	m.open.Store(&openSet{})
	m.owner.init(m, o)
	m.owner.adopt(o.Adopted)
	m.owner.publish()
	go m.owner.run()
	return m, nil
}

// Name is the model's name.
func (m *Model) Name() string { return m.name }

// now is the time since the model was made, and a nanosecond, so that 0 can mean never.
func (m *Model) now() moment { return time.Since(m.base) + 1 }

// at is the moment as wall clock time.
func (m *Model) at(t moment) time.Time { return m.base.Add(t - 1) }

// poke makes the owner look again. Pokes that it has not read yet are one.
func (m *Model) poke() {
	if !m.poked.Swap(true) {
		m.mail.send(event{kind: evPoke})
	}
}

// Update changes what the model is. With another specHash than before, replicas of the old one stop taking
// requests, are drained and stopped, an old start in progress is cancelled, and what waits keeps its place
// and gets a replica of the new one. It also forgets earlier failures then. Nothing happens to a model that
// is being unloaded or closed.
func (m *Model) Update(c Config, l Launcher, specHash string) error {
	if l == nil {
		return errors.New("activator: a model needs a launcher")
	}
	if err := c.validate(); err != nil {
		return err
	}
	m.mail.send(event{kind: evUpdate, change: &change{config: c, launcher: l, subject: Subject{Model: m.name, Spec: specHash, Kin: c.Kin}}})
	return nil
}

// Retry forgets the last failure and its backoff, permanent or not.
func (m *Model) Retry() { m.mail.send(event{kind: evRetry}) }

// Preempt asks an idle replica to leave, because its devices are wanted elsewhere. It returns nil once that is
// decided (the ledger hears when the devices are back), ErrBusy if the replica is in use, may be, or has to
// stay, ErrNoReplica if there is none by that id.
func (m *Model) Preempt(ctx context.Context, replica uint64) error {
	return m.ask(ctx, event{kind: evPreempt, id: replica})
}

// Yield asks a replica to leave although it is in use, because its devices are wanted elsewhere: it takes no more requests,
// and is stopped when those in flight have ended, however long they take. The answers are Preempt's; ErrBusy only from one that has
// to stay, or is in between two states.
func (m *Model) Yield(ctx context.Context, replica uint64) error {
	return m.ask(ctx, event{kind: evPreempt, id: replica, ok: true})
}

// Unload takes the model out of service: new requests get ErrUnloaded, those that wait are still served, then
// replicas drain and stop. What is left after Config.DrainTimeout is cut off. It returns when nothing is
// left, or with ctx's error, while unloading goes on.
func (m *Model) Unload(ctx context.Context) error {
	m.mail.send(event{kind: evUnload})
	select {
	case <-m.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close shuts the model down: what waits gets ErrShuttingDown, starts are cancelled, requests in flight may go
// on until Config.DrainTimeout or the end of ctx, then replicas are stopped. It returns when nothing is
// left, with ctx's error if that cut requests off.
func (m *Model) Close(ctx context.Context) error {
	m.mail.send(event{kind: evClose})
	select {
	case <-m.gone:
		return nil
	case <-ctx.Done():
		m.mail.send(event{kind: evHurry})
		<-m.gone
		return ctx.Err()
	}
}

// Gone is closed when the model has been unloaded or closed and nothing of it is left.
func (m *Model) Gone() <-chan struct{} { return m.gone }

// ask sends a question to the owner and waits for the answer.
func (m *Model) ask(ctx context.Context, e event) error {
	e.reply = make(chan error, 1)
	if !m.mail.send(e) {
		return m.ended()
	}
	select {
	case err := <-e.reply:
		return err
	case <-m.gone:
		return m.ended()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ended is the error for whoever comes after the end.
func (m *Model) ended() error {
	if err := m.view.Load().leaving; err != nil {
		return err
	}
	return ErrShuttingDown
}
