package sglangsim

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	text         string // of the prompt, as far as the cache goes; empty: it is not cached
	cached       int    // tokens
	answer       string // text of the first choice
	report       bool   // answers tell of them
	length       int    // decode steps of the longest choice
	choices      int    // sequences decoded together
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
	if len(plans) > 0 {
		j.answer = plans[0].text()
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
	doomed  bool            // the next generation kills

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
