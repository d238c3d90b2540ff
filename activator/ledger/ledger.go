// Package ledger shares the devices of this machine out among replicas. It implements activator.Ledger.
//
// A replica gets devices of its own, or a share of one. Where none are free, those of idle replicas are asked back, the cheapest to
// bring back first; a busy one is left alone for a turn, then takes no more requests, and goes when those in flight have
// ended: no request is ever cut for another model's sake. Who waits longest is served first, priority counting as time waited, and
// nothing that an earlier one waits for is given to a later one. How long replicas stay, and why models cannot swap each other out
// for ever, is in turn.go.
//
// Devices whose memory can be measured are given out again only once it has come back; memory.go.
//
// What decides is pure (core.go): Ledger feeds it with events and with what is seen of the models, and acts. It knows no command
// and no file. Exported methods are safe for concurrent use.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"pilotlight/activator"
)

// Device is one thing that can be shared out.
type Device struct {
	// ID is unique; Label is for people.
	ID, Label string
	// Kind is what a model may ask for; empty: only models that take any kind get it.
	Kind string
	// Group: replicas of several devices get such of one group. Devices of one Kind are one group; those without are by Group.
	Group string
	// Alone: it is given to replicas of one device only.
	Alone bool
	// Memory is its size in bytes; 0: not known.
	Memory int64
	// Measured: Options.Used tells of it.
	Measured bool
	// Missing: it is not there, and never given out.
	Missing bool
}

// Terms are what one model's replicas get, and how.
type Terms struct {
	// Count devices of one kind; 0: none, and the ledger has nothing to do with the model.
	Count int
	// Kind is empty for any.
	Kind string
	// Share of one device in thousandths, with Count 1; 0 means whole devices.
	Share int
	// Memory is what each device must have at least, in bytes, as far as its size is known; 0: any.
	Memory int64
	// Priority counts among those who wait, and against those who hold: a point is worth Priority's 30 s of waiting.
	Priority int
	// Pinned replicas are never asked to leave.
	Pinned bool
	// Keep replicas are never asked to leave either: as many as the model always has.
	Keep int
}

// Options of a Ledger. Devices and Models are required.
type Options struct {
	Devices []Device
	// Models are those by that name: the one in service, and others that are leaving.
	Models func(name string) []*activator.Model
	// StartTime is how long a start of the model is expected to take; 0: not known. nil: never known.
	StartTime func(model string) time.Duration
	// Used tells how much memory of the Measured devices is in use, in bytes by ID. nil: none is Measured.
	Used   func(ctx context.Context) (map[string]int64, error)
	Logger *slog.Logger // nil: nothing is logged
}

// Ledger gives devices to replicas. Make one with New, and Close it.
type Ledger struct {
	opts   Options
	log    *slog.Logger
	kick   chan struct{} // holds one: there is something to decide
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	core    core
	waiting map[Replica]*waiter
	polling bool
	polled  time.Time
}

// Replica names one.
type Replica struct {
	Model string
	ID    uint64
}

// waiter is one Reserve in progress.
type waiter struct {
	done    chan error // holds one: the outcome
	because func(string)
	told    string
}

const (
	// lookEvery is how often holders are looked at while somebody waits for what they hold.
	lookEvery = 50 * time.Millisecond
	// measureEvery is how often memory is measured while devices wait for that, and remeasureEvery where they have
	// long not come back.
	measureEvery   = 100 * time.Millisecond
	remeasureEvery = 5 * time.Second
)

// New starts a ledger. Measured devices are given out once they have been measured for the first time.
func New(o Options) (*Ledger, error) {
	if len(o.Devices) == 0 || o.Models == nil {
		return nil, errors.New("ledger: needs devices and models")
	}
	seen := map[string]bool{}
	for _, d := range o.Devices {
		if d.ID == "" || seen[d.ID] {
			return nil, fmt.Errorf("ledger: device %q has no id of its own", d.ID)
		}
		seen[d.ID] = true
		if d.Measured && o.Used == nil {
			return nil, fmt.Errorf("ledger: device %q cannot be measured", d.ID)
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.StartTime == nil {
		o.StartTime = func(string) time.Duration { return 0 }
	}
	l := &Ledger{opts: o, log: o.Logger, kick: make(chan struct{}, 1), core: newCore(o.Devices, time.Now()), waiting: map[Replica]*waiter{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(l.run)
	l.wake()
	return l, nil
}

// Close ends the ledger's goroutines. Nobody may be waiting any more.
func (l *Ledger) Close() {
	l.cancel()
	l.wg.Wait()
}

// SetTerms changes what a model's replicas get from now on. What waits and what holds keeps the devices of its time, and follows
// the rest.
func (l *Ledger) SetTerms(model string, t Terms) {
	l.mu.Lock()
	l.core.setTerms(model, t)
	l.mu.Unlock()
	l.wake()
}

// Reserve is activator.Ledger's. It returns at once for a model that asks for no devices; with activator.ErrUnwanted if nobody
// wants the replica any more, with an *UnfitError if it can never have what it asks for, and with a *KeptError if models that always
// run have it.
func (l *Ledger) Reserve(ctx context.Context, model string, replica uint64, because func(string)) error {
	who := Replica{model, replica}
	w := &waiter{done: make(chan error, 1), because: because}
	l.mu.Lock()
	if !l.core.reserve(who, time.Now()) {
		l.mu.Unlock()
		return nil
	}
	l.waiting[who] = w
	l.mu.Unlock()
	l.wake()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
	}
	l.mu.Lock()
	select {
	case err := <-w.done:
		if err == nil {
			l.core.release(who, time.Now())
		}
	default:
		l.core.giveUp(who, time.Now())
		delete(l.waiting, who)
	}
	l.mu.Unlock()
	l.wake()
	return ctx.Err()
}

// ReserveNow is activator.Ledger's: devices that are free and that nobody waits for, or activator.ErrNoRoom.
func (l *Ledger) ReserveNow(model string, replica uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.core.reserveNow(Replica{model, replica}, time.Now())
}

// Room is activator.Ledger's.
func (l *Ledger) Room(model string, atMost int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.core.room(model, atMost, time.Now())
}

// Adopt enters a replica of an earlier gateway on the devices that it has: share is its thousandths of the only one, 0 means whole devices.
// It is an error if they are not there, or others have them. Before the model that the replica belongs to is made, and before anybody
// calls Reserve.
func (l *Ledger) Adopt(model string, replica uint64, devices []string, share int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.core.adopt(Replica{model, replica}, devices, share, time.Now())
}

// Release is activator.Ledger's.
func (l *Ledger) Release(model string, replica uint64) {
	l.mu.Lock()
	l.core.release(Replica{model, replica}, time.Now())
	l.mu.Unlock()
	l.wake()
}

// Placement is what a replica holds.
type Placement struct {
	Devices []Device
	// Share of the only device in thousandths; 0: whole devices.
	Share int
	// Left is what of the shared device is nobody else's, in thousandths; 0 without Share.
	Left int
	// Reserved are the bytes of the shared device that others than replicas have had since the beginning; shares are of the rest.
	Reserved int64
}

// Placement tells what a replica holds; false if it holds nothing.
func (l *Ledger) Placement(model string, replica uint64) (Placement, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.core.placement(Replica{model, replica})
}

// wake makes run decide again.
func (l *Ledger) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

func (l *Ledger) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.kick:
		case <-timer.C:
		}
		if next := l.round(time.Now()); next > 0 {
			timer.Reset(next)
		} else {
			timer.Stop()
		}
	}
}

// round decides once and acts. It returns when to do so again although nothing happens; 0: not needed.
func (l *Ledger) round(now time.Time) time.Duration {
	type told struct {
		because func(string)
		reason  string
	}
	var tell []told
	l.mu.Lock()
	d := l.core.decide(now, l)
	l.endLocked(d.ends)
	for who, w := range l.waiting {
		if reason := l.core.reasonOf(who); reason != w.told {
			w.told = reason
			tell = append(tell, told{w.because, reason})
		}
	}
	next := l.measureLocked(now)
	if len(l.waiting) > 0 && (next == 0 || next > lookEvery) {
		next = lookEvery
	}
	l.mu.Unlock()
	for _, t := range tell {
		t.because(t.reason)
	}
	for _, a := range d.asks {
		l.wg.Go(func() { l.ask(a) })
	}
	return next
}

func (l *Ledger) endLocked(ends []end) {
	for _, end := range ends {
		w := l.waiting[end.who]
		delete(l.waiting, end.who)
		w.done <- end.err
	}
}

// ask asks a replica to leave.
func (l *Ledger) ask(a ask) {
	err := activator.ErrNoReplica
	for _, m := range l.opts.Models(a.who.Model) {
		if a.yield {
			err = m.Yield(l.ctx, a.who.ID)
		} else {
			err = m.Preempt(l.ctx, a.who.ID)
		}
		if !errors.Is(err, activator.ErrNoReplica) {
			break
		}
	}
	if err == nil { // one that turns out busy is asked ten times a second
		l.log.Info("a replica gives its devices back", slog.String("model", a.who.Model), slog.Uint64("replica", a.who.ID), slog.Bool("busy", a.yield),
			slog.String("for", a.forModel))
	}
	l.mu.Lock()
	l.core.answered(a.who, err == nil, time.Now())
	l.mu.Unlock()
	l.wake()
}

// Look is core's view of a replica.
func (l *Ledger) look(who Replica) (look, bool) {
	for _, m := range l.opts.Models(who.Model) {
		s := m.Status()
		for _, r := range s.Replicas {
			if r.ID == who.ID {
				return look{state: r.State, moving: r.State == activator.Asleep && r.Phase != "", since: r.Since, idleSince: r.IdleSince, inFlight: r.InFlight, unknown: r.Unknown,
					queued: s.QueuedRequests, startTime: l.opts.StartTime(who.Model)}, true
			}
		}
	}
	return look{}, false
}

// demand is the number of requests that wait for a model.
func (l *Ledger) demand(model string) int {
	n := 0
	for _, m := range l.opts.Models(model) {
		n += m.Status().QueuedRequests
	}
	return n
}
