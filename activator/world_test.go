package activator

import (
	"errors"
	"fmt"
	"slices"
)

// world is everything that a model's machine can meet, in one value that can be copied: the machine, the memory
// that it shares with the requests, the mailbox, the requests themselves one atomic access at a time, and
// the replicas. The explorer (explore_test.go) takes it through every order of steps.
//
// The machine, the queue and the admission word are the production code. What stands in for the rest of
// production is here: the owner's effects (owner.go), TryAcquire, Enqueue, Cancel and Release (lease.go,
// ticket.go), cut at every access to shared memory.
type world struct {
	sc  *scenario
	mut *mutant

	core machine
	now  moment

	// Shared memory.
	queued int
	poked  bool
	open   []int // indices into gates
	gates  []gate
	mail   []event

	// The owner between two accesses to shared memory.
	effs    []effect
	results []event
	asking  ownerGrant
	looking ownerLook

	procs     []proc
	threads   []thread
	left      budget
	badSleeps int8 // sleeps and wakes that the machine knows to have gone wrong, in a row
	fallback  bool // when the spec was changed, another served, and none of the new one has since
	over      bool // the machine said that it is done
	bad       string
}

// gate is one admission word, and what only the explorer knows about it.
type gate struct {
	id       uint64
	word     word
	last     moment // as written by releases
	readyAt  moment
	limit    int
	trueLast moment // when the last response really ended
	ended    bool   // stopped or put to sleep: nobody may enter any more
}

// proc is one replica outside the machine.
type proc struct {
	id        uint64
	slot      int
	op        work // in progress
	cancelled bool
	alive     bool
	exited    bool
	asleep    bool
	broken    bool // its sleep or wake went wrong: only a stop may follow
	beside    bool // devices now or not at all
	foreign   bool // requests that the machine does not know may be in flight
	devices   bool
	spec      uint64 // that it was started with
}

type pc uint8

const (
	pcNew    pc = iota
	pcSnap      // found no queue; reads the snapshot next
	pcLoad      // has chosen a replica; loads its word next
	pcSwap      // has computed the next word
	pcTake      // takes room in the queue
	pcSend      // sends the arrival
	pcWait      // in the queue
	pcLeave     // cancelled: frees the room
	pcTell      // cancelled: tells the owner
	pcServed    // holds a place
	pcGiveUp    // time of the last byte is written; gives the place up next
	pcLook      // gave it up; reads the queue next
	pcPoke      // pokes next
	pcTouch     // (mutants only) writes the time after giving up
	pcDone
)

type thread struct {
	pc       pc
	ticket   uint32
	gate     int
	next     word
	seen     word
	outcome  Outcome
	outcomes int
	skipped  bool // went past a queue
}

type ownerGrant struct {
	stage uint8 // 0 none, 1 choose and load, 2 swap, 3 decide
	t     int
	cost  int64
	gate  int
	seen  word
	next  word
}

type ownerLook struct {
	stage uint8 // 0 none, 1 word, 2 time
	id    uint64
	word  word
	since moment
}

// budget is how often the surroundings may do something.
type budget struct {
	cancel, crash, startFail, stopFail, sleepFail, wakeFail, deny int8
	update, unload, close, hurry, preempt, scale, adopt, retry    int8
	yield                                                         int8
}

type scenario struct {
	name      string
	config    Config
	ledger    bool
	permanent bool     // failed starts are
	failNew   bool     // only starts of a new spec fail
	back      bool     // the second update goes back to the first spec
	coarse    bool     // see world.thread
	tenants   []string // those in capital letters have a higher priority
	charges   bool     // answers are longer than expected
	hung      int      // this many requests, from the last, never end by themselves
	bound     int
	budget    budget
	scaleTo   int
	unwanted  bool // devices are denied because nobody wants them any more
	mayFail   bool // requests may fail (a start failed or the model left)
	tickets   []*Ticket
	lines     int // different tenants
}

func (sc *scenario) prepare() {
	sc.tickets = nil
	names := map[string]bool{}
	for _, tenant := range sc.tenants {
		priority := 0
		if tenant < "a" { // a capital letter
			priority = 1
		}
		sc.tickets = append(sc.tickets, &Ticket{request: Request{Tenant: tenant, Priority: priority}})
		names[tenant] = true
	}
	sc.lines = len(names)
}

func newWorld(sc *scenario, mut *mutant) *world {
	w := &world{sc: sc, mut: mut, now: 1, left: sc.budget, threads: make([]thread, len(sc.tenants))}
	w.core = newMachine(sc.config, sc.ledger, 1)
	if sc.config.Min > 0 {
		w.mail = append(w.mail, event{kind: evTick})
	}
	return w
}

// copyTo makes dst a copy of w, in dst's memory.
func (w *world) copyTo(dst *world) {
	old := *dst
	*dst = *w
	dst.core.slots = append(old.core.slots[:0], w.core.slots...)
	dst.core.out = old.core.out[:0]
	dst.core.queue.nodes = append(old.core.queue.nodes[:0], w.core.queue.nodes...)
	dst.core.queue.strands = append(old.core.queue.strands[:0], w.core.queue.strands...)
	dst.core.queue.lines = append(old.core.queue.lines[:0], w.core.queue.lines...)
	dst.core.queue.levels = old.core.queue.levels[:0]
	for i, l := range w.core.queue.levels {
		var heap []int32
		if i < len(old.core.queue.levels) {
			heap = old.core.queue.levels[i].heap
		}
		l.heap = append(heap[:0], l.heap...)
		dst.core.queue.levels = append(dst.core.queue.levels, l)
	}
	dst.core.queue.where = copyMap(old.core.queue.where, w.core.queue.where)
	dst.core.queue.keys = copyMap(old.core.queue.keys, w.core.queue.keys)
	dst.core.queue.names = copyMap(old.core.queue.names, w.core.queue.names)
	dst.open = append(old.open[:0], w.open...)
	dst.gates = append(old.gates[:0], w.gates...)
	dst.mail = append(old.mail[:0], w.mail...)
	dst.effs = append(old.effs[:0], w.effs...)
	dst.results = append(old.results[:0], w.results...)
	dst.procs = append(old.procs[:0], w.procs...)
	dst.threads = append(old.threads[:0], w.threads...)
}

func copyMap[K comparable, V any](dst, src map[K]V) map[K]V {
	if dst == nil {
		dst = make(map[K]V, len(src))
	}
	clear(dst)
	for k, v := range src {
		dst[k] = v
	}
	return dst
}

func (w *world) fail(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
	}
}

func (w *world) proc(id uint64) *proc {
	for i := range w.procs {
		if w.procs[i].id == id {
			return &w.procs[i]
		}
	}
	return nil
}

// gateOf is the latest word of a replica.
func (w *world) gateOf(id uint64) int {
	for i := len(w.gates) - 1; i >= 0; i-- {
		if w.gates[i].id == id {
			return i
		}
	}
	return -1
}

func (w *world) ticketIndex(t *Ticket) int { return slices.Index(w.sc.tickets, t) }

// holders counts the requests that really are on a replica.
func (w *world) holders(id uint64) int {
	n := 0
	for _, t := range w.threads {
		if (t.pc == pcServed || t.pc == pcGiveUp) && w.gates[t.gate].id == id {
			n++
		}
	}
	return n
}

// enter swaps a gate's word for one with one more in flight, and checks that this was allowed.
func (w *world) enter(g int, next word) {
	gt := &w.gates[g]
	gt.word = next
	if gt.ended {
		w.fail("I1: a request entered replica %d after its end", gt.id)
	}
	if gt.word.inFlight() > gt.limit {
		w.fail("I4: %d in flight on replica %d, limit %d", gt.word.inFlight(), gt.id, gt.limit)
	}
}

// room computes the word after one more admission.
func (w *world) room(g int) (word, bool) {
	gt := &w.gates[g]
	limit := gt.limit
	wd := gt.word
	if w.mut.ignoresLimit {
		limit = 1 << 20
	}
	if w.mut.ignoresFence {
		wd &^= wordFenced
	}
	return wd.enter(limit)
}

func (w *world) send(e event) {
	if !w.over {
		w.mail = append(w.mail, e)
	}
}

// ownerIdle: it waits for its mailbox.
func (w *world) ownerIdle() bool {
	return len(w.effs) == 0 && len(w.results) == 0 && w.asking.stage == 0 && w.looking.stage == 0
}

// staying counts the replicas that take requests, or will.
func (w *world) staying() int {
	n := 0
	for i := range w.core.slots {
		s := &w.core.slots[i]
		g := w.gateOf(s.id)
		if s.state == Starting && !s.cancelled && !w.core.heir(s) || s.state == Ready && g >= 0 && !w.gates[g].word.fenced() || s.work == workWake {
			n++
		}
	}
	return n
}

// fallingAsleep counts those that will be woken up again if there is demand, rather than others started.
func (w *world) fallingAsleep() int {
	n := 0
	for i := range w.core.slots {
		if s := &w.core.slots[i]; s.state == Asleep && s.work == workSleep {
			n++
		}
	}
	return n
}

func (w *world) conclude(t *thread, o Outcome) {
	t.outcomes++
	t.outcome = o
	if t.outcomes > 1 {
		w.fail("I2: a request got a second outcome, %s", o)
	}
	if o == OutcomeGranted {
		return
	}
	t.pc = pcDone
	if o == OutcomeFailed && w.sc.failNew && !w.fallback {
		return // nothing was ever known to work
	}
	if o == OutcomeFailed && !w.sc.mayFail {
		w.fail("I10: a request failed although nothing did")
	}
}

func (w *world) poke() {
	if !w.poked {
		w.poked = true
		w.send(event{kind: evPoke})
	}
}

var (
	errLaunch    = errors.New("launch failed")
	errLaunchEnd = permanentError{errors.New("launch can not succeed")}
	errDenied    = errors.New("no devices")
	errStop      = errors.New("stop failed")
	errSleep     = errors.New("sleep failed")
	errWake      = errors.New("wake failed")
	errCrash     = errors.New("crashed")
)

type permanentError struct{ error }

func (permanentError) IsPermanent() bool { return true }
