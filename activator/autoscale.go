package activator

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"time"

	"pilotlight/activator/scaling"
)

const (
	// looksPerWindow is how often a model is looked at that may have several replicas: once a second, unless Config.Window says otherwise. It is
	// not looked at while it has none and nobody waits.
	looksPerWindow = 60
	// rememberEvery and rememberChange say when a new time in flight is worth a write.
	rememberEvery  = time.Minute
	rememberChange = 0.1
)

// Scaling is how many replicas a model's load asks for, and why.
type Scaling struct {
	Want   int
	Reason string // a word from a fixed set; see scaling.Reason
	// Load is what arrives, averaged over the last minute: by concurrency the requests that this makes in flight at a time, by rate requests per
	// second. Target is what one replica is meant to have of it.
	Load, Target float64
	// ByRate: the model scales by Config.RequestRate.
	ByRate bool
	// Service is how long a request is in flight; 0: not known yet.
	Service time.Duration
}

// Scaling is what was last decided; nil for a model whose number of replicas is not a matter of load. Safe for concurrent use.
func (m *Model) Scaling() *Scaling { return m.scaling.Load() }

// autoscale says how many replicas a model's load asks for. It is the owner's.
type autoscale struct {
	scaler *scaling.Scaler
	config scaling.Config
	want   int
	next   moment // when to look again; 0: when there is something to see
	flow   flow

	remembered   time.Duration // Scaler.Service as it was last written down
	rememberedAt moment
}

// flow counts the requests of a model without being told of them: each place taken has left its mark in an admission word.
type flow struct {
	entered  uint64            // places taken
	read     map[uint64]uint64 // of that, what a replica's word said last
	enqueued uint64            // came into the queue
	granted  uint64            // got their place from there
}

// count adds what the word of a replica says since it was last read.
func (f *flow) count(id uint64, w word) {
	is := w.entries()
	f.entered += (is - f.read[id]) & entriesMask
	f.read[id] = is
}

// begin: the replica has a new word. end: it has none any more.
func (a *autoscale) begin(id uint64) {
	if a != nil {
		a.flow.read[id] = 0
	}
}

func (a *autoscale) end(id uint64, g *replica) {
	if a != nil && g != nil {
		a.flow.count(id, g.load())
		delete(a.flow.read, id)
	}
}

// scaled: how many replicas there are depends on load.
func (c Config) scaled() bool { return c.Max > max(1, c.Min) }

// autoscale looks at the model if it is time, and has the machine follow.
func (o *owner) autoscale() {
	m, c := o.model, o.core.config
	if !c.scaled() || o.core.leaving != staying {
		if o.auto != nil {
			o.remember(true)
			o.auto = nil
			m.scaling.Store(nil)
			o.handle(event{kind: evScale, n: -1})
		}
		return
	}
	now := m.now()
	busy := o.core.occupied() > 0 || o.core.queue.len() > 0
	switch a := o.auto; {
	case a == nil && !busy:
		return
	case a == nil:
		o.auto = &autoscale{flow: flow{read: map[uint64]uint64{}}}
		for id, g := range o.gates { // what they had before is no load
			o.auto.flow.read[id] = g.load().entries()
		}
		o.auto.flow.enqueued = uint64(o.core.queue.len())
		if m.durations != nil {
			o.auto.remembered = m.durations.Service(o.subject)
		}
	case a.next == 0 && !busy, now < a.next:
		return
	}
	seen := o.look(now)
	o.adjust(seen)
	d := o.auto.scaler.Observe(seen)
	o.note(d, seen)
	o.handle(event{kind: evScale, n: d.Want})
	o.auto.next = now + cmp.Or(c.Window, scaling.DefaultWindow)/looksPerWindow
	if !busy && d.Want <= c.Min {
		o.auto.next = 0
	}
	o.remember(o.auto.next == 0)
}

// look is what the autoscaler is told.
func (o *owner) look(now moment) scaling.Observation {
	m, f := o.model, &o.auto.flow
	seen := scaling.Observation{At: now, Queued: o.core.queue.len()}
	for id, g := range o.gates {
		w := g.load()
		f.count(id, w)
		seen.InFlight += w.inFlight()
	}
	if m.durations != nil {
		seen.StartTime, _ = m.durations.Estimate(o.subject)
	}
	soonest := moment(math.MaxInt64)
	for i := range o.core.slots {
		s := &o.core.slots[i]
		switch {
		case !o.core.alive(s) || o.core.heir(s) || s.ending():
		case s.state == Ready:
			seen.Ready++
		case s.state == Starting, s.work == workWake:
			seen.Starting++
			left := seen.StartTime // of one that waits for devices at least
			if e := o.forecast(s); e.known() {
				left = e.left(now)
			}
			soonest = min(soonest, left)
		}
	}
	if seen.Starting > 0 {
		seen.StartLeft = soonest
	}
	seen.Arrived = f.entered - f.granted + f.enqueued
	seen.Finished = f.entered - uint64(seen.InFlight)
	if have := seen.Ready + seen.Starting; m.ledger != nil && !o.core.rolling() { // while replicas are replaced, their devices are not free and yet theirs
		if room := m.ledger.Room(m.name, o.core.config.Max); room < o.core.config.Max {
			seen.Ceiling = max(1, have+room)
		}
	}
	return seen
}

// adjust makes the scaler that of the present configuration and engine.
func (o *owner) adjust(seen scaling.Observation) {
	a, c := o.auto, o.core.config
	want := scaling.Config{Min: c.Min, Max: c.Max, RequestRate: c.RequestRate, Window: c.Window, ScaledownAfter: c.ScaledownAfter,
		Service: a.remembered, Have: seen.Ready + seen.Starting}
	// Who keeps replicas for less than a window does not mean to wait for one between any two of them.
	want.GiveUpEvery = max(time.Second, min(c.ScaledownAfter, cmp.Or(c.Window, scaling.DefaultWindow)))
	if c.RequestRate == 0 {
		want.Concurrency = o.target()
	}
	if a.scaler != nil && want.Window == a.config.Window { // these are for a new one
		want.Service, want.Have = a.config.Service, a.config.Have
	}
	if a.scaler != nil && want == a.config {
		return
	}
	s, err := a.scaler, error(nil)
	if s == nil || want.Window != a.config.Window {
		s, err = scaling.New(want)
	} else {
		err = s.Adjust(want)
	}
	if err != nil { // Config.validate has let something through
		panic("BUG: " + err.Error())
	}
	a.scaler, a.config = s, want
}

// target is how many requests in flight a replica is meant to have. Where an engine takes very many, and nobody has said how many are well served,
// it is DefaultConcurrency.
func (o *owner) target() float64 {
	if n := o.core.config.Concurrency; n > 0 {
		return float64(n)
	}
	n := DefaultConcurrency
	for i := range o.core.slots {
		if limit := o.core.slots[i].limit; limit > 0 {
			n = min(n, limit)
		}
	}
	return float64(n)
}

// note shows a decision, and logs it if it is another than before.
func (o *owner) note(d scaling.Decision, seen scaling.Observation) {
	m, a := o.model, o.auto
	shown := &Scaling{Want: d.Want, Reason: d.Reason.String(), Load: d.Load, ByRate: a.config.RequestRate > 0, Service: a.scaler.Service()}
	shown.Target = max(a.config.RequestRate, a.config.Concurrency)
	m.scaling.Store(shown)
	if d.Want == a.want {
		return
	}
	m.log.LogAttrs(context.Background(), slog.LevelInfo, "another number of replicas is wanted", slog.String("model", m.name), slog.Int("from", a.want), slog.Int("to", d.Want),
		slog.String("reason", shown.Reason), slog.Float64("load", d.Load), slog.Float64("target", shown.Target), slog.Int("in_flight", seen.InFlight), slog.Int("queued", seen.Queued),
		slog.Int("ready", seen.Ready), slog.Int("starting", seen.Starting))
	a.want = d.Want
}

// remember writes down how long requests are in flight, if that is news: the next start of the model knows what its queue means then.
func (o *owner) remember(now bool) {
	m, a := o.model, o.auto
	if m.durations == nil || a.scaler == nil || !now && m.now()-a.rememberedAt < rememberEvery {
		return
	}
	is, was := a.scaler.Service(), a.remembered
	if is == 0 || math.Abs(float64(is-was)) <= rememberChange*float64(was) {
		return
	}
	a.remembered, a.rememberedAt = is, m.now()
	m.durations.RecordService(o.subject, is)
}
