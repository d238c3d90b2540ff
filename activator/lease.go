package activator

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// replica is one open (or once open) replica as the warm path sees it. A replica that wakes up again gets
// a new one, so that a fence is for ever.
type replica struct {
	word atomic.Uint64 // a word
	// lastActivity is the end of the last request, as a moment; 0: none ended yet. It is written before
	// the word says so, and is therefore final when a fence from zero succeeds.
	lastActivity atomic.Int64

	id       uint64
	slot     int
	readyAt  moment
	instance Instance
	exited   <-chan struct{} // the instance's
}

func (r *replica) load() word { return word(r.word.Load()) }

func (r *replica) swap(from, to word) bool { return r.word.CompareAndSwap(uint64(from), uint64(to)) }

// enter takes a place, unless the replica is fenced, full, or known to be gone: between its exit and the fence that
// follows it lie the owner's mailbox and a few scheduler turns, in which every request would be lost on it.
func (r *replica) enter(limit int) bool {
	if r.gone() {
		return false
	}
	for {
		w := r.load()
		next, ok := w.enter(limit)
		if !ok {
			return false
		}
		if r.swap(w, next) {
			return true
		}
	}
}

func (r *replica) gone() bool {
	select {
	case <-r.exited:
		return true
	default:
		return false
	}
}

// leave gives a place back and returns the word that it made.
func (r *replica) leave() word {
	w := word(r.word.Add(^uint64(0)))
	if w.inFlight() == int(wordInFlightMask) {
		r.word.Add(1)
		panic("BUG: lease released twice")
	}
	return w
}

// touch moves the last activity forward, never back: of two that end together the later one counts.
func (r *replica) touch(now moment) {
	for {
		last := r.lastActivity.Load()
		if int64(now) <= last || r.lastActivity.CompareAndSwap(last, int64(now)) {
			return
		}
	}
}

// idleSince is the moment from which idleness counts, if the replica is idle.
func (r *replica) idleSince() moment { return max(r.readyAt, moment(r.lastActivity.Load())) }

// openSet is the snapshot of the replicas that may be entered, with the limit of each. Immutable.
type openSet struct {
	version  uint64 // grows with each set that is published
	replicas []*replica
	limits   []int
}

// Choices is what a Hint chooses from: the open replicas, loads read as they are asked for.
type Choices struct{ set *openSet }

// Len is the number of open replicas.
func (c Choices) Len() int { return len(c.set.replicas) }

// At describes one of them. InFlight and Closed may change at any time.
func (c Choices) At(i int) Candidate {
	r := c.set.replicas[i]
	w := r.load()
	return Candidate{ReplicaID: r.id, Instance: r.instance, InFlight: w.inFlight(), Limit: c.set.limits[i], Closed: w.fenced() || r.gone()}
}

// Version tells sets apart: where it is the same, so are the replicas and their limits, and a later set has a greater one.
func (c Choices) Version() uint64 { return c.set.version }

// Candidate is one open replica.
type Candidate struct {
	ReplicaID       uint64
	Instance        Instance
	InFlight, Limit int
	Closed          bool // about to leave, or known to be gone: it will not take the request
}

// What a Hint may answer instead of an index.
const (
	PickAny  = -1 // no preference
	PickNone = -2 // rather wait until another place is free
)

// pickTries bounds how often a hint is asked again because its choice was taken meanwhile.
const pickTries = 3

// Hint chooses a replica for one request, where several are open, and keeps account of where it is. Its methods are called one at a time:
// by whoever acquires, then, if the request is queued, by the owner until the ticket is done, then by whoever has the lease. They are on
// the request path, so they must be fast and must not block.
type Hint interface {
	// Pick chooses an index into choices, or answers PickAny or PickNone. It is asked again if its choice has become full or is about to
	// leave, and where that does not help, the replica with the fewest requests in flight is taken. Placed or Left follows. PickNone is for
	// when somebody will leave an open replica and thereby look again: when one of them is full.
	Pick(choices Choices) int
	// Placed tells which replica the request has been given a place on.
	Placed(replica uint64)
	// Left tells that it has no place, or no longer: the lease was released, or Pick came to nothing.
	Left()
}

// enter takes a place on one of the set's replicas, or returns nil if none has room: the picked one, else
// the one with the fewest requests in flight, any of those that have equally few. hint may be nil.
func (s *openSet) enter(hint Hint) *replica {
	if hint == nil {
		return s.enterAny()
	}
	var r *replica
	n := len(s.replicas)
	for try := 0; n > 1 && r == nil && try < pickTries; try++ {
		i := hint.Pick(Choices{s})
		if i == PickNone {
			hint.Left()
			return nil
		}
		if i < 0 || i >= n {
			break
		}
		if s.replicas[i].enter(s.limits[i]) {
			r = s.replicas[i]
		}
	}
	if r == nil {
		r = s.enterAny()
	}
	if r == nil {
		hint.Left()
		return nil
	}
	hint.Placed(r.id)
	return r
}

func (s *openSet) enterAny() *replica {
	n := len(s.replicas)
	switch n {
	case 0:
		return nil
	case 1:
		if s.replicas[0].enter(s.limits[0]) {
			return s.replicas[0]
		}
		return nil
	}
	// Any of the equals: a counter that takes turns costs 200 ns more where two cores share it.
	first := rand.IntN(n)
	for {
		best, bestLoad := -1, 0
		for k := range n {
			i := (first + k) % n
			w := s.replicas[i].load()
			if _, ok := w.enter(s.limits[i]); ok && (best < 0 || w.inFlight() < bestLoad) {
				if best, bestLoad = i, w.inFlight(); bestLoad == 0 {
					break // none has fewer: with a hundred replicas, to look at them all would cost more than all else here
				}
			}
		}
		if best < 0 {
			return nil
		}
		if s.replicas[best].enter(s.limits[best]) {
			return s.replicas[best]
		}
	}
}

// Lease is one admitted request's hold on one replica. The zero value holds nothing. It has one owner at a
// time and is not safe for concurrent use; hand it over whole, do not keep a copy.
type Lease struct {
	model   *Model
	replica *replica
	hint    Hint // nil: nobody keeps account
	waited  time.Duration
	cold    bool
	ticket  *Ticket // nil: it never waited
	cost    int64   // what its tenant was charged, in tokens
}

// Release gives the hold back, after the last byte of the response. Once it has, it does nothing.
// Releasing two copies of one lease panics.
func (l *Lease) Release() {
	if l.replica != nil {
		l.release(l.model.now())
	}
}

// ReleaseAt is Release for a caller that knows what time it is: the replica counts as active until then.
func (l *Lease) ReleaseAt(now time.Time) {
	if l.replica != nil {
		l.release(now.Sub(l.model.base) + 1)
	}
}

func (l *Lease) release(now moment) {
	r := l.replica
	l.replica = nil
	if l.hint != nil {
		l.hint.Left()
		l.hint = nil
	}
	r.touch(now)
	l.model.afterLeave(r.leave())
}

// afterLeave tells the owner, if somebody waits for the place or for the replica to be empty. The queue is
// read after the place was given back, and the owner tries a place after the queue was counted up: one of
// the two sees the other.
func (m *Model) afterLeave(w word) {
	if w.reportsZero() || m.queued.requests.Load() != 0 {
		m.poke()
	}
}

// Settle tells what the request has turned out to be: tokens of the prompt, and of the answer as far as it came. whole: it came to its end, so
// that the tenant's next ones may be expected to be as long. A tenant's share of the replicas is then corrected, if the request
// waited for its place; what found a place at once took nobody's. Call it once, before Release.
func (l *Lease) Settle(prompt, output int64, whole bool) {
	if l.replica == nil || l.ticket == nil {
		return
	}
	prompt, output = min(max(0, prompt), maxCost), min(max(0, output), maxCost)
	e := event{kind: evCharge, ticket: l.ticket, cost: max(1, prompt+output) - l.cost}
	if whole {
		e.output = output
	}
	l.model.mail.send(e)
	l.ticket = nil
}

// Queued tells whether the request waited, so that Settle has a use.
func (l *Lease) Queued() bool { return l.ticket != nil }

// Instance is the replica's instance; nil for a lease that holds nothing.
func (l *Lease) Instance() Instance {
	if l.replica == nil {
		return nil
	}
	return l.replica.instance
}

// ReplicaID is the replica's id; 0 for a lease that holds nothing.
func (l *Lease) ReplicaID() uint64 {
	if l.replica == nil {
		return 0
	}
	return l.replica.id
}

// Held tells whether the lease holds a replica.
func (l *Lease) Held() bool { return l.replica != nil }

// Cold tells whether the request waited for its replica to become ready or to wake up.
func (l *Lease) Cold() bool { return l.cold }

// Waited is the time spent in the queue; 0 on the warm path.
func (l *Lease) Waited() time.Duration { return l.waited }

// TryAcquire takes a place on an open replica without waiting, locking or allocating. It refuses when no
// replica has room, and when requests are queued: they came first. A refused caller goes to Enqueue.
func (m *Model) TryAcquire() (Lease, bool) { return m.TryAcquireFor(nil) }

// TryAcquireFor is TryAcquire with a hint, which may be nil.
func (m *Model) TryAcquireFor(hint Hint) (Lease, bool) {
	if m.queued.requests.Load() != 0 {
		return Lease{}, false
	}
	r := m.open.Load().enter(hint)
	if r == nil {
		return Lease{}, false
	}
	return Lease{model: m, replica: r, hint: hint}, true
}

// TryAcquireOn takes a place on one replica, for a request that no other can answer. It does not wait, and passes those who are queued:
// they can go elsewhere. there: the replica takes requests, even if it has no room now.
func (m *Model) TryAcquireOn(id uint64, hint Hint) (lease Lease, there bool) {
	set := m.open.Load()
	for i, r := range set.replicas {
		if r.id != id {
			continue
		}
		if !r.enter(set.limits[i]) {
			return Lease{}, !r.load().fenced()
		}
		if hint != nil {
			hint.Placed(id)
		}
		return Lease{model: m, replica: r, hint: hint}, true
	}
	return Lease{}, false
}

// Open is the number of replicas that take requests.
func (m *Model) Open() int { return len(m.open.Load().replicas) }
