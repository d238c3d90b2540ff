package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// A connection is asked for this many chunks at once: many while there is much to fetch, because asking costs time; few towards the
	// end, so that all connections are busy till then and the check of contents, which goes in order, is not left behind.
	mostChunks, fewestChunks = 16, 2
	// A connection that has this long to go when others have nothing left to do shares with them what it was asked for.
	shareAfter = 2 * time.Second
	// bufferSize is what a worker reads and writes at a time.
	bufferSize = 128 << 10
)

// gap is the chunks from a number on and before another.
type gap struct{ from, to int }

// run is what a worker does next.
type run struct {
	t     *transfer
	begin bool  // open the file
	whole []gap // get these from a server that gives whole files only
	gap         // else get these; to is guarded by download.mu, because another worker may take from the end

	at    int // the chunk that is being fetched; guarded by download.mu
	since time.Time
}

// left is how long a run takes at the rate it has had, and how many chunks nobody has begun of it.
func (r *run) left(now time.Time) (time.Duration, int) {
	chunks := r.to - r.at - 1
	took := now.Sub(r.since)
	if done := r.at - r.from; done > 0 {
		return took * time.Duration(chunks) / time.Duration(done), chunks
	}
	return took * time.Duration(chunks), chunks // not even one chunk yet: at best it comes now
}

// workers are the goroutines of a download, of which each has at most one connection.
type workers struct {
	all     sync.WaitGroup
	n       int       // guarded by download.mu, as are the following
	waiting int       // of these, for other processes
	target  int       // how many there are to be that do not wait
	busy    int       // doing what next gave them
	runs    []*run    // parts of files that are being fetched
	over    chan bool // closed when nothing is left to do
	pressed bool      // a server asked for fewer requests
}

// work runs workers until all is fetched or ctx ends. fail is told of errors.
func (d *download) work(ctx context.Context, opened chan<- *transfer, fail func(error)) {
	ramp := newRamp(d.store.connections)
	d.workers.target, d.workers.over = ramp.target, make(chan bool)
	spawn := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		for ; d.workers.n-min(d.workers.waiting, d.store.connections) < d.workers.target; d.workers.n++ {
			d.workers.all.Go(func() { d.worker(ctx, opened, fail) })
		}
	}
	// This goroutine is one of those waited for, so that others may be added while it runs.
	d.workers.all.Go(func() {
		tick := time.NewTicker(rampEvery)
		defer tick.Stop()
		spawn()
		before, last := d.meter.came(), time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-d.workers.over:
				return
			case now := <-tick.C:
				came := d.meter.came()
				rate := float64(came-before) / max(now.Sub(last), time.Millisecond).Seconds()
				before, last = came, now
				d.mu.Lock()
				d.workers.target = ramp.step(rate, d.workers.pressed)
				d.workers.pressed = false
				d.changed.Broadcast() // some may be too many, and others may have something to share by now
				d.mu.Unlock()
				spawn()
			}
		}
	})
	defer context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.changed.Broadcast()
	})()
	d.workers.all.Wait()
}

func (d *download) worker(ctx context.Context, opened chan<- *transfer, fail func(error)) {
	buffer := make([]byte, bufferSize)
	for {
		r := d.next(ctx)
		if r == nil {
			return
		}
		var err error
		switch {
		case r.begin:
			err = d.begin(ctx, r.t, opened)
		case r.whole != nil:
			err = d.fetchWhole(ctx, r, buffer)
		default:
			err = d.fetchRun(ctx, r, buffer)
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = fmt.Errorf("%w: %w", ErrDiskFull, err)
		}
		if err != nil {
			fail(fmt.Errorf("%s: %w", r.t.Path, err))
		}
		d.mu.Lock()
		d.workers.busy--
		d.changed.Broadcast()
		d.mu.Unlock()
	}
}

// next waits for something to do; nil means that this worker is not needed any more.
func (d *download) next(ctx context.Context) *run {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		w := &d.workers
		if ctx.Err() != nil || w.n-w.waiting > w.target {
			w.n--
			return nil
		}
		r := d.offered()
		if r == nil && len(d.todo) > 0 {
			r = &run{t: d.todo[0], begin: true}
			d.todo = d.todo[1:]
		}
		if r == nil {
			r = d.share(time.Now())
		}
		if r != nil {
			w.busy++
			return r
		}
		if w.busy == 0 {
			w.n--
			select {
			case <-w.over:
			default:
				close(w.over)
			}
			d.changed.Broadcast()
			return nil
		}
		d.changed.Wait()
	}
}

// offered takes from the files that are open. The caller holds mu.
func (d *download) offered() *run {
	for _, t := range d.open {
		r := &run{t: t}
		if t.single {
			if t.active > 0 {
				continue // till those that asked for parts have given them back
			}
			r.whole, t.wait = t.wait, nil
		} else {
			// By guided self-scheduling: half of an equal share of what is left.
			n := int(d.unclaimed / chunk / int64(2*max(1, d.workers.target)))
			g := t.wait[0]
			r.gap = gap{g.from, min(g.to, g.from+min(max(n, fewestChunks), mostChunks))}
			if t.wait[0].from = r.to; r.to == g.to {
				t.wait = t.wait[1:]
			}
			r.at, r.since = r.from, time.Now()
			d.workers.runs = append(d.workers.runs, r)
		}
		for _, g := range append(r.whole, r.gap) {
			d.unclaimed -= int64(g.to-g.from) * chunk
		}
		t.active++
		if len(t.wait) == 0 {
			d.open = slices.DeleteFunc(d.open, func(o *transfer) bool { return o == t })
		}
		return r
	}
	return nil
}

// share takes the second half of what the slowest run has before it, if that would take long. The caller holds mu.
func (d *download) share(now time.Time) *run {
	var slowest *run
	longest := shareAfter
	for _, r := range d.workers.runs {
		if r.t.partial.step() > 1 {
			continue // it may be further than its last mark
		}
		if left, chunks := r.left(now); chunks > 0 && left > longest {
			slowest, longest = r, left
		}
	}
	if slowest == nil {
		return nil
	}
	half := slowest.to - (slowest.to-slowest.at)/2
	r := &run{t: slowest.t, gap: gap{half, slowest.to}, at: half, since: now}
	slowest.to = half
	r.t.active++
	d.workers.runs = append(d.workers.runs, r)
	return r
}

// press notes that a server asked for fewer requests.
func (d *download) press(err error) {
	status, ok := errors.AsType[*StatusError](err)
	if !ok || status.Status != http.StatusTooManyRequests && (status.Status != http.StatusServiceUnavailable || status.RetryAfter == 0) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.workers.pressed = true
}
