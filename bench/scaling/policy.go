package main

import (
	"fmt"
	"math"
	"time"

	"pilotlight/activator/scaling"
)

// policy says how many replicas are wanted. It is asked once a second.
type policy interface{ want(scaling.Observation) int }

// contender is a policy with a name.
type contender struct {
	Name string
	New  func() (policy, error)
}

// limits are what all policies are held to.
type limits struct {
	Max         int
	Concurrency float64
	Rate        float64 // requests per second that one replica is meant to take, in place of Concurrency; 0: by Concurrency
	Scaledown   time.Duration
	Service     time.Duration // of a request that is alone at its replica; only one of the contenders knows it from the beginning
}

// contenders are the policies that are compared; the first is the product's default.
func contenders(l limits) []contender {
	ours := func(mutate func(*scaling.Config)) func() (policy, error) {
		return func() (policy, error) {
			c := scaling.Config{Max: l.Max, Concurrency: l.Concurrency, ScaledownAfter: l.Scaledown}
			if l.Rate > 0 {
				c.Concurrency, c.RequestRate = 0, l.Rate
			}
			mutate(&c)
			s, err := scaling.New(c)
			return scaler{s}, err
		}
	}
	plain := func(p func() policy) func() (policy, error) { return func() (policy, error) { return p(), nil } }
	return []contender{
		{"pilotlight", ours(func(*scaling.Config) {})},
		{"  patience 1", ours(func(c *scaling.Config) { c.Patience = 1 })},
		{"  patience 4", ours(func(c *scaling.Config) { c.Patience = 4 })},
		{"  no backlog", ours(func(c *scaling.Config) { c.Patience = -1 })},
		{"  no burst", ours(func(c *scaling.Config) { c.BurstFactor = -1 })},
		{"  neither", ours(func(c *scaling.Config) { c.BurstFactor, c.Patience = -1, -1 })},
		{"  knows the service time", ours(func(c *scaling.Config) { c.Service = l.Service })},
		{"  surplus 10 s apart", ours(func(c *scaling.Config) { c.GiveUpEvery = 10 * time.Second })},
		{"queue is load", plain(func() policy { return &queueIsLoad{limits: l} })},
		{"stable and panic", plain(func() policy { return &panicMode{limits: l} })},
		{"one, on demand", plain(func() policy {
			return &queueIsLoad{limits: limits{Max: 1, Concurrency: l.Concurrency, Scaledown: l.Scaledown}}
		})},
		{fmt.Sprintf("always %d", l.Max), plain(func() policy { return always(l.Max) })},
	}
}

type scaler struct{ *scaling.Scaler }

func (s scaler) want(o scaling.Observation) int { return s.Observe(o).Want }

type always int

func (a always) want(scaling.Observation) int { return int(a) }

// queueIsLoad wants what would take everything that is here at this moment, and keeps it for as long as it is told.
type queueIsLoad struct {
	limits   limits
	neededAt []time.Duration
}

func (q *queueIsLoad) want(o scaling.Observation) int {
	if q.neededAt == nil {
		q.neededAt = make([]time.Duration, q.limits.Max)
		for i := range q.neededAt {
			q.neededAt[i] = math.MinInt64 / 2
		}
	}
	n := min(q.limits.Max, int(math.Ceil(float64(o.InFlight+o.Queued)/q.limits.Concurrency)))
	for i := range n {
		q.neededAt[i] = o.At
	}
	for n < q.limits.Max && o.At-q.neededAt[n] < q.limits.Scaledown {
		n++
	}
	return n
}

// panicMode is how Knative's autoscaler is described to decide: what is here, queue and all, averaged over 60 s; over 6 s where that asks
// for twice what is ready, and then nothing is taken away for 60 s. What is taken away goes when it has not been needed for as
// long as it is told (its scale-down delay).
type panicMode struct {
	limits limits
	seen   []float64
	until  time.Duration
	most   int
	down   queueIsLoad
}

func (p *panicMode) want(o scaling.Observation) int {
	p.seen = append(p.seen, float64(o.InFlight+o.Queued))
	p.seen = p.seen[max(0, len(p.seen)-60):]
	wanted := func(last int) int {
		part, sum := p.seen[max(0, len(p.seen)-last):], 0.0
		for _, n := range part {
			sum += n
		}
		return int(math.Ceil(sum / float64(len(part)) / p.limits.Concurrency))
	}
	n, burst := wanted(60), wanted(6)
	if burst >= 2*max(1, o.Ready) {
		if o.At >= p.until {
			p.most = 0
		}
		p.until = o.At + time.Minute
	}
	if o.At < p.until {
		p.most = max(p.most, n, burst)
		n = p.most
	}
	// The delay is the other policy's own: it is given a load that asks for just n.
	p.down.limits = p.limits
	return p.down.want(scaling.Observation{At: o.At, InFlight: int(float64(n) * p.limits.Concurrency)})
}
