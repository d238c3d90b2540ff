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

// owner does one access to shared memory, and everything private that follows.
func (w *world) owner() {
	switch {
	case w.asking.stage != 0:
		w.grantStep()
	case w.looking.stage != 0:
		w.lookStep()
	case len(w.effs) > 0:
		e := w.effs[0]
		w.effs = slices.Delete(w.effs, 0, 1)
		w.shared(e)
	default:
		e := w.mail[0]
		w.mail = slices.Delete(w.mail, 0, 1)
		switch e.kind {
		case evPoke:
			if !w.mut.pokedStays {
				w.poked = false
			}
		case evExited:
			if g := w.gateOf(e.id); g >= 0 {
				e.ok = w.gates[g].last != 0
			}
		}
		w.stepOn(e)
	}
	w.private()
}

func (w *world) stepOn(e event) {
	if w.mut.event != nil && !w.mut.event(w, &e) {
		return
	}
	var due [4]uint64 // replicas whose drain time is up
	for i := range w.core.slots {
		if s := &w.core.slots[i]; s.state == Draining && s.drainBy != 0 && s.drainBy <= w.now && w.core.mustLeave(s) {
			due[i] = s.id
		}
	}
	w.countBadSleeps(&e)
	newest := w.core.nextID
	if e.kind == evUpdate && e.change.spec != w.core.spec {
		w.fallback = w.core.serving(w.core.spec)
	}
	late := e.kind == evHurry || w.core.leaving != staying && w.core.leaveBy <= w.now
	effs := w.core.step(e, w.now)
	if w.mut.after != nil {
		w.mut.after(w, e)
	}
	for _, f := range effs {
		if f.kind == effGrant && w.granting() {
			w.fail("I2: two grants at once")
		}
		if f.kind == effGrant {
			for t := range w.core.queue.where {
				if t.request.Priority > f.ticket.request.Priority {
					w.fail("order: a request of a lower priority is granted first")
				}
			}
		}
		if f.kind == effClose {
			w.checkClosing(f.id, newest)
			w.checkSurplus(f.id)
		}
		if f.kind == effGiveUp && f.err == nil && w.core.live() {
			w.fail("I10: a request was given up although another replica may serve it")
		}
		if f.kind == effStop && !f.idle {
			if !late && !slices.Contains(due[:], f.id) {
				w.fail("I1: replica %d stopped in mid-flight before its drain time", f.id)
			}
		}
		if w.mut.effect != nil {
			w.effs = append(w.effs, w.mut.effect(w, f)...)
		} else {
			w.effs = append(w.effs, f)
		}
	}
}

// countBadSleeps counts on its own what speaks against putting replicas to sleep.
func (w *world) countBadSleeps(e *event) {
	s := w.core.byID(e.id)
	switch {
	case e.kind == evRetry, e.kind == evUpdate && w.core.leaving == staying:
		w.badSleeps = 0
	case s == nil || s.spec != w.core.spec || s.state != Asleep:
	case e.kind == evExited, (e.kind == evSlept || e.kind == evWoken) && e.err != nil:
		w.badSleeps = min(w.badSleeps+1, sleepTries)
	case e.kind == evWoken && !w.core.mustLeave(s):
		w.badSleeps = 0
	}
}

// checkClosing: what serves an old spec is not told to leave before another serves in its place, or, where that cannot be, before the last one
// who left has a successor that serves. What is of the present spec does not leave because of another.
func (w *world) checkClosing(id, newest uint64) {
	c := &w.core
	s := c.byID(id)
	if s == nil || s.state != Ready || s.extra || c.leaving != staying || w.sc.budget.yield > 0 {
		return
	}
	if s.spec == c.spec {
		if p := w.proc(id); c.indexOf(s) < c.config.Max && p != nil && p.spec == c.spec && !c.surplus(s) {
			w.fail("update: replica %d leaves, which is of the present spec", id)
		}
		return
	}
	if c.config.Surge && !c.crowded {
		if !c.serving(c.spec) {
			w.fail("update: replica %d leaves, and none serves in its place", id)
		}
		return
	}
	for i := range c.slots {
		o := &c.slots[i]
		if old := o.spec != c.spec; o != s && (old && (o.state == Draining || o.state == Stopping || o.look == lookClose) || !old && o.state == Starting && !o.cancelled && o.id < newest) {
			w.fail("update: replica %d leaves beside replica %d, which is %v", id, o.id, o.state)
		}
	}
}

// checkSurplus: what is more than needed goes when nobody waits, and leaves as many as are needed to serve.
func (w *world) checkSurplus(id uint64) {
	c := &w.core
	if s := c.byID(id); s == nil || !s.extra || s.state != Ready {
		return
	}
	serving := 0
	for i := range c.slots {
		if o := &c.slots[i]; o.state == Ready && o.id != id && !o.ending() {
			serving++
		}
	}
	if keep := max(1, c.floor()); serving < keep || c.queue.len() > 0 {
		w.fail("I14: surplus replica %d leaves, and %d stay of %d wanted while %d wait", id, serving, keep, c.queue.len())
	}
}

// granting: a grant has been asked for, and the machine does not know its result.
func (w *world) granting() bool {
	return w.asking.stage != 0 ||
		slices.ContainsFunc(w.effs, func(f effect) bool { return f.kind == effGrant }) ||
		slices.ContainsFunc(w.results, func(e event) bool { return e.kind == evGranted })
}

// private does what touches no shared memory, up to the next thing that does.
func (w *world) private() {
	for w.bad == "" && w.asking.stage == 0 && w.looking.stage == 0 {
		if len(w.effs) > 0 {
			f := w.effs[0]
			switch f.kind {
			case effPublish, effGrant, effObserve, effFence, effKnown, effClose, effSurvey, effGiveUp:
				return
			}
			w.effs = slices.Delete(w.effs, 0, 1)
			w.begin(f)
			continue
		}
		if len(w.results) == 0 {
			return
		}
		e := w.results[0]
		w.results = slices.Delete(w.results, 0, 1)
		w.stepOn(e)
	}
}

// shared does an immediate effect on shared memory, or the first part of one.
func (w *world) shared(f effect) {
	switch f.kind {
	case effPublish:
		w.open = w.open[:0]
		for i := range w.core.slots {
			s := &w.core.slots[i]
			if g := w.gateOf(s.id); s.state == Ready && g >= 0 {
				w.open = append(w.open, g)
				w.gates[g].limit = w.core.limitOf(s)
			}
		}
	case effGrant:
		w.asking = ownerGrant{stage: 1, t: w.ticketIndex(f.ticket), cost: f.cost}
		w.grantStep()
	case effObserve:
		w.looking = ownerLook{stage: 1, id: f.id}
		w.lookStep()
	case effFence:
		w.fence(f)
	case effKnown:
		g := &w.gates[w.gateOf(f.id)]
		g.last, g.trueLast = w.now, w.now
		g.word &^= wordUnknown
	case effClose:
		g := &w.gates[w.gateOf(f.id)]
		if !w.mut.closesNothing {
			g.word = g.word.fence()
		}
		result := g.word.fence()
		if w.mut.closeSeesZero {
			result &^= wordInFlightMask
		}
		w.results = append(w.results, event{kind: evClosed, id: f.id, word: result})
	case effSurvey:
		id := w.core.cheapest(func(id uint64) (int, moment) {
			g := &w.gates[w.gateOf(id)]
			return g.word.inFlight(), max(g.readyAt, g.last)
		})
		w.results = append(w.results, event{kind: evSurveyed, id: id})
	case effGiveUp:
		t := &w.threads[w.ticketIndex(f.ticket)]
		if t.ticket == ticketWaiting {
			t.ticket = ticketFailed
			w.queued--
			w.conclude(t, OutcomeFailed)
		}
	}
}

func (w *world) fence(f effect) {
	g := &w.gates[w.gateOf(f.id)]
	from := f.word
	if w.mut.fencesAnyWord {
		from = g.word
	}
	to, ok := from.fenceIdle()
	if w.mut.fencesBusy {
		to, ok = g.word.fence(), true
		from = g.word
	}
	ok = ok && g.word == from
	if ok {
		g.word = to
		s := w.core.byID(f.id)
		if since := max(g.readyAt, g.trueLast); s != nil && !s.preempt && w.now-since < w.core.idleAfter() {
			w.fail("I8: replica %d fenced after %d of idleness", f.id, w.now-since)
		}
		if s != nil && !s.preempt && w.staying() < w.core.floor() {
			w.fail("I12: replica %d was fenced, and %d stay of %d wanted", f.id, w.staying(), w.core.floor())
		}
	}
	if w.mut.fenceAlwaysOK {
		ok = true
	}
	w.results = append(w.results, event{kind: evFenced, id: f.id, ok: ok})
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

// grantStep is owner.grant, cut at its accesses.
func (w *world) grantStep() {
	a := &w.asking
	t := &w.threads[a.t]
	end := func(r grantResult) {
		w.results = append(w.results, event{kind: evGranted, ticket: w.sc.tickets[a.t], grant: r, cost: a.cost})
		*a = ownerGrant{}
	}
	switch a.stage {
	case 1:
		if t.ticket != ticketWaiting && !w.mut.grantsTheGone {
			end(grantGone)
			return
		}
		best := -1
		for _, g := range w.open {
			if next, ok := w.room(g); ok && (best < 0 || w.gates[g].word.inFlight() < w.gates[best].word.inFlight()) {
				best, a.gate, a.seen, a.next = g, g, w.gates[g].word, next
			}
		}
		if best < 0 {
			end(grantFull)
			return
		}
		a.stage = 2
	case 2:
		if w.gates[a.gate].word != a.seen {
			a.stage = 1
			return
		}
		w.enter(a.gate, a.next)
		a.stage = 3
	case 3:
		if t.ticket != ticketWaiting && !w.mut.grantsTheGone {
			w.gates[a.gate].word = w.gates[a.gate].word.leave()
			if w.gates[a.gate].word.reportsZero() || w.queued != 0 {
				w.poke()
			}
			end(grantGone)
			return
		}
		if t.pc != pcWait {
			w.fail("I6: a cancelled request was granted")
		}
		t.ticket = ticketGranted
		t.gate = a.gate
		t.pc = pcServed
		w.queued--
		w.conclude(t, OutcomeGranted)
		end(grantOK)
	}
}

// lookStep is owner.observe: the word, then the time.
func (w *world) lookStep() {
	l := &w.looking
	g := &w.gates[w.gateOf(l.id)]
	word1 := func() {
		next, _ := g.word.watch()
		if w.mut.neverWatches {
			next = g.word
		}
		g.word, l.word = next, next
	}
	time1 := func() { l.since = max(g.readyAt, g.last) }
	first, second := word1, time1
	if w.mut.timeBeforeWord {
		first, second = time1, word1
	}
	if l.stage == 1 {
		first()
		l.stage = 2
		return
	}
	second()
	e := event{kind: evObserved, id: l.id, word: l.word, since: l.since}
	*l = ownerLook{}
	w.results = append(w.results, e)
}

func (w *world) poke() {
	if !w.poked {
		w.poked = true
		w.send(event{kind: evPoke})
	}
}

// begin does an effect that touches nothing shared: it sets something going.
func (w *world) begin(f effect) {
	p := w.proc(f.id)
	switch f.kind {
	case effChanged, effReply:
	case effDone:
		w.over = true
	case effOpen:
		if p == nil {
			w.fail("BUG: opened unknown replica %d", f.id)
			return
		}
		if p.cancelled {
			w.fail("cancel: replica %d was opened although its start was cancelled", f.id)
		}
		if !p.alive || p.op != workNone || p.asleep || p.broken {
			w.fail("I1: opened replica %d, which does not serve", f.id)
		}
		w.fallback = w.fallback && p.spec != w.core.spec
		if w.mut.reopensOldWord && w.gateOf(f.id) >= 0 {
			return
		}
		g := gate{id: f.id, readyAt: w.now, limit: DefaultConcurrency}
		if old := w.gateOf(f.id); old >= 0 {
			g.last, g.trueLast = w.gates[old].last, w.gates[old].trueLast
		}
		if !f.idle {
			g.last, g.trueLast = w.now, w.now
			if !w.mut.knowsUnknown {
				g.word = wordUnknown
			}
		}
		w.gates = append(w.gates, g)
	case effReserve, effLaunch:
		op := workLaunch
		if f.kind == effReserve {
			op = workReserve
		}
		if p == nil {
			for _, o := range w.procs {
				if o.slot == f.slot {
					w.fail("I3: slot %d starts replica %d beside %d", f.slot, f.id, o.id)
				}
			}
			if n := w.staying() + w.fallingAsleep(); n > w.core.want() && w.core.before(f.id) == nil {
				w.fail("I3: %d replicas serve or will with the start of replica %d, %d wanted", n, f.id, w.core.want())
			}
			w.procs = append(w.procs, proc{id: f.id, slot: f.slot})
			p = &w.procs[len(w.procs)-1]
		}
		if p.op != workNone || p.alive {
			w.fail("I3: replica %d started twice", f.id)
		}
		if !p.devices && w.core.failure.forbids(w.now) {
			w.fail("backoff: replica %d is started before its end", f.id)
		}
		if op == workLaunch && w.sc.ledger && !p.devices {
			w.fail("devices: replica %d launched without", f.id)
		}
		p.op, p.spec, p.beside = op, w.core.spec, f.beside
		most := w.sc.config.Max
		if w.sc.config.Surge && slices.ContainsFunc(w.procs, func(p proc) bool { return p.spec != w.core.spec }) {
			most++
		}
		if len(w.procs) > most {
			w.fail("I12: %d replicas, at most %d allowed", len(w.procs), most)
		}
	case effCancel:
		if p != nil {
			p.cancelled = true
		}
	case effSleep, effWake, effStop:
		w.beginWork(f, p)
	case effGone:
		if p == nil {
			w.fail("BUG: replica %d gone twice", f.id)
			return
		}
		if p.alive || p.op != workNone {
			w.fail("I1: replica %d forgotten while it is there", f.id)
		}
		if f.held != p.devices {
			w.fail("devices: replica %d gave back %v, held %v", f.id, f.held, p.devices)
		}
		w.procs = slices.DeleteFunc(w.procs, func(o proc) bool { return o.id == f.id })
	}
}

func (w *world) beginWork(f effect, p *proc) {
	if p == nil || p.op != workNone {
		w.fail("BUG: effect %d on replica %d, which is busy or gone", f.kind, f.id)
		return
	}
	if f.kind == effWake {
		if !p.asleep || p.broken {
			w.fail("wake: replica %d is not asleep", f.id)
		}
		p.op = workWake
		return
	}
	if g := w.gateOf(f.id); g >= 0 {
		w.gates[g].ended = true
	}
	n := w.holders(f.id)
	gentle := f.kind == effSleep || f.idle
	if gentle && !p.exited && (n > 0 || p.foreign) {
		w.fail("I1, I7: replica %d stopped or put to sleep as idle with %d in flight (unknown: %v)", f.id, n, p.foreign)
	}
	p.op = workStop
	if f.kind == effSleep {
		if p.asleep || p.broken {
			w.fail("sleep: replica %d is asleep", f.id)
		}
		if w.badSleeps >= sleepTries {
			w.fail("I13: replica %d is put to sleep, which went wrong before", f.id)
		}
		p.op = workSleep
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
