package sglangsim

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errQueueFull    = errors.New("The request queue is full.")
	errDuplicateRID = errors.New("Duplicate request ID detected")
)

// outcome is how a generation ended.
type outcome int

const (
	outcomeDone    outcome = iota
	outcomeAborted         // by /abort_request or by a pause: the answer ends with finish_reason abort
	outcomeLeft            // the client went away
	outcomeCut             // a fault ended the stream
	outcomeError           // a fault put an error into the stream
	outcomeDead            // the server died
)

// job is one request on its way through the engine.
type job struct {
	rid          string
	promptTokens int
	length       int // decode steps of the longest choice
	choices      int // sequences decoded together
	stream       bool

	aborted  chan struct{} // closed by abort, once
	abortOne sync.Once
	admitted chan struct{} // closed when the job leaves the waiting line
}

func newJob(rid string, promptTokens int, plans []plan, stream bool) *job {
	j := &job{
		rid: rid, promptTokens: promptTokens, choices: len(plans), stream: stream,
		aborted: make(chan struct{}), admitted: make(chan struct{}),
	}
	for _, p := range plans {
		j.length = max(j.length, len(p.pieces))
	}
	return j
}

func (j *job) abort() { j.abortOne.Do(func() { close(j.aborted) }) }

// engine is the scheduler: who generates, who waits, and what state the weights are in. It has no goroutine of its
// own: each request's handler generates its tokens and takes its place here.
type engine struct {
	maxRunning, maxQueued int

	mu      sync.Mutex // guards the fields below
	live    map[string]*job
	running int
	waiting []*job
	blocked int // requests that a pause keeps out
	paused  string
	gate    chan struct{}   // closed while not paused
	idle    chan struct{}   // closed whenever nothing is live; replaced by the next request
	asleep  map[string]bool // tags that were released
	garbage bool            // weights came back without a backup

	batch  atomic.Int64 // running, for the pace of decoding
	frozen atomic.Bool  // a pause stopped the running ones too
}

func newEngine(maxRunning, maxQueued int) *engine {
	open := make(chan struct{})
	close(open)
	return &engine{
		maxRunning: maxRunning, maxQueued: maxQueued, live: map[string]*job{}, gate: open, idle: open,
		asleep: map[string]bool{},
	}
}

// admit registers the job and tells whether it may run at once; if not, j.admitted is closed later.
func (e *engine) admit(j *job) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.live[j.rid]; ok {
		return false, errDuplicateRID
	}
	runs := e.running < e.maxRunning && len(e.waiting) == 0
	if !runs && e.maxQueued > 0 && len(e.waiting) >= e.maxQueued {
		return false, errQueueFull
	}
	if len(e.live) == 0 {
		e.idle = make(chan struct{})
	}
	e.live[j.rid] = j
	if runs {
		e.running++
		e.batch.Store(int64(e.running))
		close(j.admitted)
	} else {
		e.waiting = append(e.waiting, j)
	}
	return runs, nil
}

// leave takes the job out, wherever it is, and lets the next one run.
func (e *engine) leave(j *job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.live, j.rid)
	if i := slices.Index(e.waiting, j); i >= 0 {
		e.waiting = slices.Delete(e.waiting, i, i+1)
	} else {
		e.running--
	}
	for e.running < e.maxRunning && len(e.waiting) > 0 {
		next := e.waiting[0]
		e.waiting = slices.Delete(e.waiting, 0, 1)
		e.running++
		close(next.admitted)
	}
	e.batch.Store(int64(e.running))
	if len(e.live) == 0 {
		close(e.idle)
	}
}

// abort ends every job whose rid begins with prefix, as the real scheduler does; an empty prefix ends none.
func (e *engine) abort(prefix string) int {
	if prefix == "" {
		return 0
	}
	return e.abortWhere(func(rid string) bool { return strings.HasPrefix(rid, prefix) })
}

func (e *engine) abortWhere(match func(rid string) bool) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for rid, j := range e.live {
		if match(rid) {
			j.abort()
			n++
		}
	}
	return n
}

// load tells how many requests run, wait in line and are kept out by a pause.
func (e *engine) load() (running, waiting, blocked int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.paused == "retract" { // running ones went back to the line
		return 0, len(e.waiting) + e.running, e.blocked
	}
	return e.running, len(e.waiting), e.blocked
}

func (e *engine) rids() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var rids []string
	for rid := range e.live {
		rids = append(rids, rid)
	}
	return rids
}

// pause closes the gate for new requests and, in modes retract and in_place, stops those that run.
func (e *engine) pause(mode string) (idle <-chan struct{}) {
	e.mu.Lock()
	if e.paused == "" {
		e.gate = make(chan struct{})
	}
	e.paused = mode
	e.frozen.Store(mode == "retract" || mode == "in_place")
	idle = e.idle
	e.mu.Unlock()
	if mode == "abort" {
		e.abortWhere(func(string) bool { return true })
	}
	return idle
}

func (e *engine) resume() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.paused != "" {
		e.paused = ""
		e.frozen.Store(false)
		close(e.gate)
	}
}

// thaw is the gate that a running request must wait for; it is open if nothing is paused.
func (e *engine) thaw() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.gate
}

// generation drives one job; emit is called with each range of decode steps, on the same goroutine, and is not called
// after the client left. An error from emit counts as a client that left.
type generation struct {
	s      *Server
	j      *job
	faults streamFaults
	emit   func(from, to int) error

	client <-chan struct{} // nil once the client left
	left   <-chan time.Time
	gone   bool
	timer  *time.Timer
}

// generate runs the job to its end. The error is errQueueFull or errDuplicateRID, before anything was emitted.
func (s *Server) generate(ctx context.Context, j *job, faults streamFaults, emit func(from, to int) error) (outcome, error) {
	g := &generation{s: s, j: j, faults: faults, emit: emit, client: ctx.Done(), timer: time.NewTimer(time.Hour)}
	defer g.timer.Stop()
	s.stats.received(s.draining.Load())
	if out, ok := g.enterGate(); !ok {
		s.stats.ended(out)
		return out, nil
	}
	_, err := s.engine.admit(j)
	if err != nil {
		s.stats.refused()
		return outcomeDone, err
	}
	out := g.run()
	s.engine.leave(j)
	s.stats.ended(out)
	return out, nil
}

// enterGate waits while the server is paused: in the API process, where neither an abort finds the request nor anybody looks
// whether its client is still there.
func (g *generation) enterGate() (outcome, bool) {
	e := g.s.engine
	client := g.client
	g.client = nil
	defer func() { g.client = client }()
	e.mu.Lock()
	for e.paused != "" {
		gate := e.gate
		e.blocked++
		e.mu.Unlock()
		out, ok := g.wait(gate, 0)
		e.mu.Lock()
		e.blocked--
		if !ok {
			e.mu.Unlock()
			return out, false
		}
	}
	e.mu.Unlock()
	return 0, true
}

// wait returns true when ch is closed or delay has passed (0: never), whichever comes first, and false with the outcome when
// the job ends before.
func (g *generation) wait(ch <-chan struct{}, delay time.Duration) (outcome, bool) {
	var timeout <-chan time.Time
	if delay > 0 {
		g.timer.Reset(delay)
		timeout = g.timer.C
	}
	for {
		select {
		case <-ch:
			return 0, true
		case <-timeout:
			return 0, true
		case <-g.j.aborted:
			return outcomeAborted, false
		case <-g.s.dead:
			return outcomeDead, false
		case <-g.client:
			g.clientLeft()
		case <-g.left:
			return outcomeLeft, false
		}
	}
}

// clientLeft starts the time for which the engine goes on regardless.
func (g *generation) clientLeft() {
	if g.gone {
		return
	}
	g.gone, g.client = true, nil
	g.s.stats.disconnected()
	g.left = time.After(g.s.opts.DisconnectDelay)
}

func (g *generation) run() outcome {
	o := &g.s.opts
	if out, ok := g.wait(g.j.admitted, 0); !ok {
		return out
	}
	g.s.stats.peak(g.s.engine.batch.Load())
	if g.s.stuck() { // a hung scheduler, or unmapped weights: nothing comes any more
		out, _ := g.wait(nil, 0)
		return out
	}
	ttft := o.TTFT
	if o.PrefillRate > 0 {
		ttft += time.Duration(float64(g.j.promptTokens) / o.PrefillRate * float64(time.Second))
	}
	ttft += g.faults.headersDelay
	if out, ok := g.pass(ttft); !ok {
		return out
	}
	g.s.logPrefill(g.j)
	return g.decode()
}

// pass lets d go by; unlike wait it takes 0 as no time.
func (g *generation) pass(d time.Duration) (outcome, bool) {
	if d <= 0 {
		select {
		case <-g.j.aborted:
			return outcomeAborted, false
		case <-g.s.dead:
			return outcomeDead, false
		case <-g.s.hung:
			g.s.stuck()
			return g.wait(nil, 0)
		default:
			return 0, true
		}
	}
	out, ok := g.wait(g.s.hung, d)
	if ok && g.s.isHung() {
		g.s.stuck()
		return g.wait(nil, 0)
	}
	return out, ok
}

// decode emits the answer. A handler that falls behind its schedule emits what is due in one piece, as SGLang's
// detokenizer does when it falls behind the scheduler.
func (g *generation) decode() outcome {
	o := &g.s.opts
	interval := max(o.StreamInterval, 1)
	due := time.Now()
	for step := 0; step < g.j.length; {
		if g.s.engine.frozen.Load() {
			if out, ok := g.wait(g.s.engine.thaw(), 0); !ok {
				return out
			}
			due = time.Now()
		}
		itl := o.ITL + time.Duration(g.s.engine.batch.Load()-1)*o.ITLPerRunning
		next := min(step+interval, g.j.length)
		if step == 0 {
			next = 1 // the first token comes with the prefill
		} else {
			due = due.Add(time.Duration(next-step) * itl)
		}
		if itl > 0 {
			for behind := time.Since(due); behind > itl && next < g.j.length && step > 0; behind -= itl {
				next++
				due = due.Add(itl)
			}
		}
		if out, ok := g.pass(time.Until(due)); !ok {
			return out
		}
		if n := g.s.opts.Faults.CrashTokens; n > 0 && next >= n {
			next = min(next, n)
		}
		if g.j.stream {
			for _, n := range []int{g.faults.cutTokens, g.faults.errorTokens} {
				if n > 0 && step < n {
					next = min(next, n)
				}
			}
		}
		if err := g.produce(step, next); err != nil {
			g.clientLeft()
		}
		step = next
		switch {
		case o.Faults.CrashTokens > 0 && step >= o.Faults.CrashTokens:
			g.s.die(ErrDied)
			return outcomeDead
		case g.j.stream && g.faults.cutTokens > 0 && step >= g.faults.cutTokens:
			return outcomeCut
		case g.j.stream && g.faults.errorTokens > 0 && step >= g.faults.errorTokens:
			return outcomeError
		}
	}
	if g.gone {
		return outcomeLeft
	}
	return outcomeDone
}

func (g *generation) produce(from, to int) error {
	g.s.stats.generated((to - from) * g.j.choices)
	if g.gone {
		return nil
	}
	return g.emit(from, to)
}
