package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"pilotlight/bench/mockengine"
	"pilotlight/bench/wire"
)

// outcome counts one kind of request.
type outcome struct {
	Kind   string `json:"kind"`
	Whole  bool   `json:"whole"` // an engine finished the answers that were right
	Right  int64  `json:"right"`
	Absent int64  `json:"absent,omitempty"` // refused because a reload had taken the model away
	Wrong  int64  `json:"wrong"`
}

// tally is an outcome that many callers write.
type tally struct {
	name                 string
	whole                bool // see kind
	right, absent, wrong atomic.Int64
}

// traffic is all clients of a run.
type traffic struct {
	addr, key string
	workers   int
	rest      time.Duration // of a worker between two requests
	limit     int64         // requests

	id   atomic.Uint64 // of the last request
	done atomic.Int64  // requests that have ended

	tallies      []*tally // as in mix
	bursts, slow tally
	wrong        atomic.Int64

	stopped chan struct{}
	stop    func()

	mu     sync.Mutex // guards wrongs
	wrongs []string   // the first of what was wrong
}

const (
	slowReaders   = 8
	burst         = 24   // requests at once for a cold model
	wrongsTold    = 20   // of what was wrong
	wrongsTooMany = 1000 // end a run
)

func newTraffic(g *gateway, o options) *traffic {
	t := &traffic{
		addr: g.addr, key: g.key, workers: o.Workers, rest: o.Pause, limit: o.Requests, stopped: make(chan struct{})}
	t.stop = sync.OnceFunc(func() { close(t.stopped) })
	for _, k := range mix {
		t.tallies = append(t.tallies, &tally{name: k.name, whole: k.whole})
	}
	t.bursts.name, t.bursts.whole = "burst for a cold model", true
	t.slow.name, t.slow.whole = "slow reader", true
	return t
}

// caller makes a client whose address is one of many, so that connections that are over do not use up one address's ports.
func (t *traffic) caller(n int) *caller { return newCaller(t.from(n)) }

func (t *traffic) from(n int) wire.Options {
	return wire.Options{Addr: t.addr, Key: t.key, Local: net.IPv4(127, 0, 1, byte(1+n%200))}
}

// ended notes how a request ended; it tells whether its client may go on.
func (t *traffic) ended(to *tally, id uint64, err error) {
	if t.done.Add(1) >= t.limit {
		t.stop()
	}
	switch {
	case err == nil:
		to.right.Add(1)
	case errors.Is(err, errAbsent):
		to.absent.Add(1)
	default:
		to.wrong.Add(1)
		if t.wrong.Add(1) >= wrongsTooMany {
			t.stop()
		}
		t.mu.Lock()
		if len(t.wrongs) < wrongsTold {
			t.wrongs = append(t.wrongs, fmt.Sprintf("%s, request %d: %v", to.name, id, err))
		}
		t.mu.Unlock()
	}
}

// run asks until the limit, stop or the end of ctx.
func (t *traffic) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, t.stop)
	defer stop()
	var wg sync.WaitGroup
	for n := range t.workers {
		wg.Go(func() { t.work(ctx, n) })
	}
	for n := range slowReaders {
		wg.Go(func() { t.readSlowly(n) })
	}
	for n := range cycles {
		wg.Go(func() { t.wake(ctx, n) })
	}
	wg.Wait()
}

func (t *traffic) over() bool {
	select {
	case <-t.stopped:
		return true
	default:
		return false
	}
}

func (t *traffic) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.stopped:
	}
}

// work asks again and again.
func (t *traffic) work(ctx context.Context, n int) {
	c := t.caller(n)
	defer c.hangUp()
	for !t.over() {
		i, ticket := 0, c.rng.IntN(1000)
		for ; ticket >= mix[i].weight; i++ {
			ticket -= mix[i].weight
		}
		id := t.id.Add(1)
		t.ended(t.tallies[i], id, mix[i].play(context.WithoutCancel(ctx), c, id)) // a request that has begun is answered
		if t.rest > 0 {
			t.pause(t.rest)
		}
	}
}

// each asks once for everything, so that what first requests make is there before anything is measured.
func (t *traffic) each(ctx context.Context) error {
	c := t.caller(0)
	defer c.hangUp()
	for _, k := range mix {
		if err := k.play(ctx, c, t.id.Add(1)); err != nil && !errors.Is(err, errAbsent) {
			return fmt.Errorf("%s: %w", k.name, err)
		}
	}
	for n := range cycles {
		if err := c.answered(fmt.Sprint(cycling, n), scriptOf(t.id.Add(1), 5), true); err != nil {
			return err
		}
	}
	return nil
}

// readSlowly takes streams in small pieces, more slowly than the engine writes.
func (t *traffic) readSlowly(n int) {
	o := t.from(n)
	o.Slow, o.SlowPause = 2048, 10*time.Millisecond
	c := newCaller(o)
	defer c.hangUp()
	for !t.over() {
		id := t.id.Add(1)
		t.ended(&t.slow, id, c.answered(steady, mockengine.Script{ID: id, Frames: 60, Pad: 4096}, true))
	}
}

// wake wakes a model with many requests at once, and lets it go to rest.
func (t *traffic) wake(ctx context.Context, n int) {
	model := fmt.Sprint(cycling, n)
	for !t.over() {
		var wg sync.WaitGroup
		for i := range burst {
			wg.Go(func() {
				c := t.caller(n*burst + i)
				defer c.hangUp()
				id := t.id.Add(1)
				t.ended(&t.bursts, id, c.answered(model, mockengine.Script{ID: id, Frames: 4, Gap: time.Millisecond}, i%2 == 0))
			})
		}
		wg.Wait()
		t.pause(idleAfter + rand.N(idleAfter))
	}
}

func (t *traffic) outcomes() (all []outcome) {
	for _, k := range append(t.tallies, &t.bursts, &t.slow) {
		all = append(all, outcome{k.name, k.whole, k.right.Load(), k.absent.Load(), k.wrong.Load()})
	}
	return all
}
