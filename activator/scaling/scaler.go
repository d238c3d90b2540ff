package scaling

import (
	"fmt"
	"math"
	"time"
)

// Observation is what is seen of a model at one moment.
type Observation struct {
	At time.Duration // since whenever the caller counts from; never less than the one before, never negative

	InFlight int // requests that replicas work on
	Queued   int // requests that wait for a replica

	// Arrived and Finished count requests since the Scaler was made: those that came, and those that replicas are done with. Whoever left
	// the queue without having been served is in neither Finished nor Queued.
	Arrived, Finished uint64

	Ready    int // replicas that serve
	Starting int // replicas that will

	// StartTime is what one more replica would take to be ready, StartLeft what the next of those Starting still needs. 0: not known, or none.
	StartTime, StartLeft time.Duration

	// Ceiling is how many replicas the devices allow, those at hand counted; 0: no bound is known.
	Ceiling int
}

// Reason says what a Decision rests on.
type Reason uint8

// The reasons, in the order in which they are looked at: a later one prevails if it asks for more.
const (
	ReasonIdle    Reason = iota // nothing came for as long as a replica is kept
	ReasonMin                   // configured
	ReasonDemand                // somebody is or was there a short while ago, and one is enough
	ReasonLoad                  // the average over the window
	ReasonBacklog               // what waits would take longer than a start
	ReasonBurst                 // sudden load
	ReasonHeld                  // was needed a short while ago
	ReasonMax                   // more would be wanted than is configured
	ReasonDevices               // more would be wanted than there are devices for
)

var reasonNames = [...]string{"idle", "min", "demand", "load", "backlog", "burst", "held", "max", "devices"}

func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", r)
}

// Decision is how many replicas are wanted, and why.
type Decision struct {
	Want   int
	Reason Reason
	Load   float64 // the average over the window, in the unit of the metric
	Burst  float64 // the same over the burst window
}

// Scaler keeps what a decision needs of the past: a window of ticks, and one moment per replica.
type Scaler struct {
	config     Config
	window     window
	last       Observation
	begun      bool
	crowdedEnd time.Duration // when nobody will have waited for a Window
	calm       calm
	service    float64 // seconds that a request is in flight, as last measured; 0: not known
	busyAt     time.Duration
	wasBusy    bool
	neededAt   []time.Duration // [n−1]: when n replicas were last needed
	held       int             // what was last decided, without the bound of devices
	gaveUpAt   time.Duration
	burstEnd   time.Duration
	standing   time.Duration // since when somebody has been waiting all the time for replicas that serve; below 0: not
}

// New returns an error that names every value that cannot be.
func New(c Config) (*Scaler, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &Scaler{config: c, neededAt: make([]time.Duration, c.Max), held: min(c.Max, max(c.Min, c.Have)), gaveUpAt: -c.GiveUpEvery, standing: -1}
	s.window.length = c.Window / windowTicks
	s.service = c.Service.Seconds()
	return s, nil
}

// Adjust changes what load asks for, and keeps what was seen of it. Window stays as it is; Service and Have are of no account. The error is New's, and
// then nothing has changed.
func (s *Scaler) Adjust(c Config) error {
	c.Window = s.config.Window
	if err := c.check(); err != nil {
		return err
	}
	s.neededAt = append(s.neededAt, make([]time.Duration, max(0, c.Max-len(s.neededAt)))...)[:c.Max]
	s.held = min(c.Max, max(c.Min, s.held))
	s.config = c
	return nil
}

// Service is how long a request is in flight, as measured last; 0: not known yet.
func (s *Scaler) Service() time.Duration { return time.Duration(s.service * float64(time.Second)) }

// Observe takes what is seen now and decides. Counters that went backwards count as unchanged.
func (s *Scaler) Observe(o Observation) Decision {
	s.take(o)
	d := s.needed(o)
	s.hold(&d, o.At)
	s.held = d.Want
	if o.Ceiling > 0 && d.Want > o.Ceiling {
		d.Want, d.Reason = o.Ceiling, ReasonDevices
	}
	return d
}

// take adds the observation to the window and measures the time in flight.
func (s *Scaler) take(o Observation) {
	if !s.begun {
		s.begun = true
		for n := range s.held {
			s.neededAt[n] = o.At
		}
		s.window.newest, s.window.at = int64(o.At/s.window.length), o.At
	}
	elapsed := o.At - s.last.At
	s.window.advance(o.At, s.last.InFlight, s.last.Ready)
	arrived, finished := since(o.Arrived, s.last.Arrived), since(o.Finished, s.last.Finished)
	started := max(0, finished+float64(o.InFlight-s.last.InFlight))
	s.window.count(arrived, started, finished)
	if o.InFlight > 0 || o.Queued > 0 || arrived > 0 {
		s.busyAt, s.wasBusy = o.At, true
	}
	if o.Queued == 0 && s.last.Queued == 0 {
		s.calm.add(float64(s.last.InFlight)*elapsed.Seconds(), started, finished, math.Exp2(-elapsed.Seconds()/s.config.Window.Seconds()))
	}
	if o.Queued > 0 {
		s.crowdedEnd = o.At + s.config.Window
	}
	if started > 0 || finished > 0 || o.InFlight > 0 { // or the end of a window would hold requests without the time that they took
		s.measure(o.At < s.crowdedEnd)
	}
	s.last = o
}

// measure finds out how long a request is in flight. By those that were started, where they are more than those that are finished: of the
// many that a new replica gets at once few are done at first, and each of those would seem to have taken all the time. What is too
// short so is so only until as many are done.
//
// While somebody waits, replicas are as full as they may be, which can be more than they are meant to be, and then each request
// takes longer than it would if there were enough of them. So as long as the window holds such a time, it is what it was when nobody
// waited, or what would make a replica as fast with what it is meant to have as it is now, whichever is more: requests may really
// have become longer.
func (s *Scaler) measure(crowded bool) {
	sum := &s.window.sum
	n := max(sum.started, sum.finished)
	if n == 0 || sum.busy == 0 {
		return
	}
	s.service = sum.busy / n
	if crowded {
		s.service = min(s.service, max(s.calm.service(), s.service*s.config.Concurrency*sum.ready/sum.busy))
	}
}

// calm is what was measured while nobody waited; the past weighs half as much after each Window.
type calm struct{ busy, started, finished float64 }

func (c *calm) add(busy, started, finished, keep float64) {
	c.busy, c.started, c.finished = c.busy*keep+busy, c.started*keep+started, c.finished*keep+finished
}

// service is 0 if it is not known, or too little to go by.
func (c *calm) service() float64 {
	if n := max(c.started, c.finished); n >= 1 {
		return c.busy / n
	}
	return 0
}

func since(now, before uint64) float64 {
	if now < before {
		return 0
	}
	return float64(now - before)
}

// load is a rate of arrivals in the unit of the metric.
func (s *Scaler) load(rate float64) float64 {
	if s.config.RequestRate > 0 {
		return rate
	}
	return rate * s.service
}

// needed is what the present asks for, between Min and Max.
func (s *Scaler) needed(o Observation) Decision {
	c, target := &s.config, s.config.target()
	have := o.Ready + o.Starting
	d := Decision{Want: c.Min, Reason: ReasonMin, Load: s.load(s.window.rate()), Burst: s.load(s.window.burstRate())}
	if c.Min == 0 {
		d.Reason = ReasonIdle
	}
	raise := func(n int, r Reason) {
		if n > d.Want {
			d.Want, d.Reason = n, r
		}
	}
	if s.wasBusy && o.At-s.busyAt <= c.ScaledownAfter {
		raise(1, ReasonDemand)
	}
	// What is in flight can say that the replicas at hand are needed, but not that more are: it may be a backlog that is being worked
	// off, and what is in flight already cannot move to a new replica.
	if c.Concurrency > 0 {
		raise(count(min(s.window.sum.busy/s.window.seconds(), float64(o.Ready)*target), target), ReasonLoad)
	}
	raise(count(d.Load, target), ReasonLoad)
	raise(s.backlog(o, d.Burst), ReasonBacklog)
	if s.stands(o) {
		raise(have+1, ReasonBacklog)
	}
	// It stays a burst for a window, or the replicas that it got first would end it half way.
	if c.BurstFactor > 0 && d.Burst >= c.BurstFactor*target*float64(max(1, have)) {
		s.burstEnd = o.At + c.Window
	}
	if o.At < s.burstEnd {
		raise(count(d.Burst, target), ReasonBurst)
	}
	if d.Want > c.Max {
		d.Want, d.Reason = c.Max, ReasonMax
	}
	return d
}

// count is load/target rounded up, but not for the sake of rounding errors.
func count(load, target float64) int {
	return int(min(math.Ceil(load/target-1e-9), math.MaxInt32))
}

// backlog is how many replicas are needed for what waits, while load keeps coming: none beyond those at hand if they are done with it
// in Patience times a start, else as many as work the rest off in one more.
func (s *Scaler) backlog(o Observation, load float64) int {
	unit := s.service // what one waiting request adds to the load, times seconds
	if s.config.RequestRate > 0 {
		unit = 1
	}
	if o.Queued == 0 || o.Ready+o.Starting == 0 || o.StartTime <= 0 || unit == 0 || s.config.Patience < 0 {
		return 0
	}
	target, start := s.config.target(), o.StartTime.Seconds()
	horizon := start * s.config.Patience
	capacity := target * (float64(o.Ready)*horizon + float64(o.Starting)*max(0, horizon-o.StartLeft.Seconds()))
	rest := float64(o.Queued)*unit - max(0, capacity-load*horizon)
	if rest <= 0 {
		return 0
	}
	return count(load+rest/start, target)
}

// stands: somebody has been waiting for as long as a backlog may take to be worked off, and it is not. So much for what was foreseen. Those
// who ask again only when they have been answered never make more load than the replicas take, and all the same there are too few.
func (s *Scaler) stands(o Observation) bool {
	switch {
	case o.Queued == 0 || o.Ready == 0 || o.Starting > 0 || s.config.Patience < 0:
		s.standing = -1
	case s.standing < 0:
		s.standing = o.At
	}
	start := o.StartTime
	if start == 0 {
		start = s.config.Window
	}
	return s.standing >= 0 && (o.At-s.standing).Seconds() >= start.Seconds()*s.config.Patience
}

// hold keeps what was needed less than ScaledownAfter ago, and gives up one at a time. The last one goes without that: whether the
// model idles has been seen already.
func (s *Scaler) hold(d *Decision, now time.Duration) {
	for n := range d.Want {
		s.neededAt[n] = now
	}
	if d.Want >= s.held || s.held <= 1 {
		return
	}
	keep := s.held
	if now-s.neededAt[s.held-1] >= s.config.ScaledownAfter && now-s.gaveUpAt >= s.config.GiveUpEvery {
		keep--
		s.gaveUpAt = now
	}
	if keep > d.Want {
		d.Want, d.Reason = keep, ReasonHeld
	}
}
