package router

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"pilotlight/router/prefix"
)

// Policy names a way to choose among replicas.
type Policy string

const (
	// PolicyPrefix takes the replica that will be done first, given what each has cached and has to do. The default.
	PolicyPrefix Policy = "prefix"
	// PolicyLeastRequests takes the one with the fewest requests in flight.
	PolicyLeastRequests Policy = "least_requests"
	// PolicyRoundRobin takes one after the other.
	PolicyRoundRobin Policy = "round_robin"
)

// Policies are all there are.
var Policies = []Policy{PolicyPrefix, PolicyLeastRequests, PolicyRoundRobin}

// Reason is why a request went where it did: a word for headers, logs and labels.
type Reason string

const (
	ReasonOnly       Reason = "only"     // there was no other
	ReasonPrefix     Reason = "prefix"   // it has the beginning of the prompt, and will be done first
	ReasonLoad       Reason = "load"     // it has the least to do
	ReasonSticky     Reason = "sticky"   // it served the session before
	ReasonResponse   Reason = "response" // it keeps the previous response
	ReasonRoundRobin Reason = "round_robin"
	ReasonRoom       Reason = "room"  // the one that was chosen had become full
	ReasonTrial      Reason = "trial" // it was taken out, and is tried again
)

const (
	// stickyKeys and responseKeys are how many sessions and responses are remembered per model, the longest unused going first: about 100
	// bytes each. A session that is forgotten is placed anew; a response that is forgotten cannot be continued.
	stickyKeys   = 1 << 16
	responseKeys = 1 << 16
	// firstOutput is how many tokens an answer is thought to have before any was seen. outputOver is about how many the mean is of.
	firstOutput = 256
	outputOver  = 64
)

// Balancer chooses among the replicas of one model, and keeps account of what they have to do, have cached, and how they fare. Safe for
// concurrent use. Choosing takes one lock, so that of a burst each request sees the ones before it.
type Balancer struct {
	index  *prefix.Index
	seed   maphash.Seed
	policy atomic.Pointer[Policy]
	turn   atomic.Uint64
	output atomic.Int64 // mean tokens of an answer, in thousandths; 0: none seen

	mu        sync.Mutex // guards the fields below
	version   uint64     // of the set that members are of
	members   map[uint64]*member
	eligible  []prefix.Candidate
	indices   []int
	sessions  *places
	responses *places
	matched   uint64 // bytes of prompts that were thought to be cached where they went
	asked     uint64 // bytes of prompts
}

// member is one replica.
type member struct {
	breaker breaker
	reports bool // its engine tells how much of a prompt was cached
	present bool // in the latest set
	chosen  map[Reason]uint64
}

// Candidate is a replica that may be chosen.
type Candidate struct {
	ID              uint64
	InFlight, Limit int // Limit 0: none
	Closed          bool
}

// NewBalancer makes one that knows no replica yet. The empty policy is PolicyPrefix.
func NewBalancer(p Policy) *Balancer {
	b := &Balancer{index: prefix.New(prefix.Config{}), seed: maphash.MakeSeed(), members: make(map[uint64]*member),
		sessions: newPlaces(stickyKeys), responses: newPlaces(responseKeys)}
	b.SetPolicy(p)
	return b
}

// SetPolicy changes how the next requests are placed.
func (b *Balancer) SetPolicy(p Policy) {
	if p == "" {
		p = PolicyPrefix
	}
	b.policy.Store(&p)
}

// Asked is one request, as far as choosing goes. It belongs to one goroutine at a time. Use Describe to begin.
type Asked struct {
	blocks  prefix.Blocks
	output  int
	session uint64 // 0: none
	claim   prefix.Claim
	chosen  uint64 // what Choose answered last; 0: nothing
	reason  Reason
	at      uint64 // where it is; 0: nowhere
	trial   uint64 // the replica that it is the one trial of
	// Avoid is a replica that has failed the request already; it is chosen only if there is no other. 0: none.
	Avoid uint64
}

// Reason is why the request is where it is; empty before it was placed.
func (a *Asked) Reason() Reason { return a.reason }

// Matched is the share of the prompt that the replica is thought to have cached, 0 to 1.
func (a *Asked) Matched() float64 {
	if a.blocks.Bytes() == 0 {
		return 0
	}
	return float64(a.claim.Matched) / float64(a.blocks.Bytes())
}

// Describe begins a request: limit is the most tokens that it asks for, 0 if it does not say. session is who or what it belongs to; empty:
// nothing. Nothing of it is kept but hashes.
func (b *Balancer) Describe(a *Asked, limit int, session []byte, salt string, prompt ...[]byte) {
	*a = Asked{blocks: a.blocks}
	b.index.Hash(&a.blocks, salt, prompt...)
	a.output = b.expected(limit)
	if len(session) > 0 {
		a.session = b.key(session)
	}
}

// Again makes to the same request as from, for another attempt.
func (b *Balancer) Again(to, from *Asked) {
	*to = Asked{output: from.output, session: from.session, Avoid: from.at}
	to.blocks = from.blocks.Clone()
}

func (b *Balancer) key(session []byte) uint64 {
	if h := maphash.Bytes(b.seed, session); h != 0 {
		return h
	}
	return 1
}

func (b *Balancer) expected(limit int) int {
	mean := int(b.output.Load() / 1000)
	if mean == 0 {
		mean = firstOutput
	}
	if limit > 0 {
		mean = min(mean, limit)
	}
	return mean
}

// What Choose answers instead of an index.
const (
	ChooseAny  = -1 // no preference
	ChooseNone = -2 // those that may be chosen are all full
)

// Choose picks one of the candidates and counts the request as its own; Place or Leave follows. version tells sets of replicas apart, and
// grows.
func (b *Balancer) Choose(a *Asked, version uint64, candidates []Candidate, now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leaveLocked(a)
	a.reason = ""
	b.syncLocked(version, candidates)
	if !b.eligibleLocked(a, candidates, now) {
		return ChooseAny
	}
	chosen, reason := -1, ReasonLoad
	switch *b.policy.Load() {
	case PolicyRoundRobin:
		chosen, reason = b.nextLocked(), ReasonRoundRobin
	case PolicyLeastRequests:
		chosen = b.leastLocked()
	default:
		preferred := uint64(0)
		if a.session != 0 {
			preferred = b.sessions.get(a.session)
		}
		if i, claim, err := b.index.Prefer(&a.blocks, a.output, preferred, b.eligible); err == nil {
			chosen, a.claim = i, claim
			switch {
			case claim.Replica == preferred:
				reason = ReasonSticky
			case claim.Matched > 0:
				reason = ReasonPrefix
			}
		}
	}
	if chosen < 0 {
		return ChooseNone
	}
	a.chosen, a.reason = b.eligible[chosen].ID, reason
	if m := b.members[a.chosen]; m.breaker.open {
		m.breaker.trial, a.trial, a.reason = true, a.chosen, ReasonTrial
	}
	return b.indices[chosen]
}

// eligibleLocked leaves out who is closed, taken out, or to be avoided; but never all who are there. false: nobody is.
func (b *Balancer) eligibleLocked(a *Asked, candidates []Candidate, now time.Time) bool {
	for _, strict := range [...]bool{true, false} {
		b.eligible, b.indices = b.eligible[:0], b.indices[:0]
		avoided := -1
		for i, c := range candidates {
			if c.Closed || strict && b.members[c.ID].breaker.shut(now) {
				continue
			}
			if c.ID == a.Avoid {
				avoided = i
				continue
			}
			b.eligible = append(b.eligible, prefix.Candidate{ID: c.ID, InFlight: c.InFlight, Limit: c.Limit})
			b.indices = append(b.indices, i)
		}
		if len(b.eligible) > 0 {
			return true
		}
		if avoided >= 0 {
			c := candidates[avoided]
			b.eligible = append(b.eligible, prefix.Candidate{ID: c.ID, InFlight: c.InFlight, Limit: c.Limit})
			b.indices = append(b.indices, avoided)
			return true
		}
	}
	return false
}

func (b *Balancer) nextLocked() int {
	n := len(b.eligible)
	first := int(b.turn.Add(1) % uint64(n))
	for k := range n {
		i := (first + k) % n
		if c := b.eligible[i]; c.Limit == 0 || c.InFlight < c.Limit {
			return i
		}
	}
	return -1
}

func (b *Balancer) leastLocked() int {
	n := len(b.eligible)
	first, best := int(b.turn.Add(1)%uint64(n)), -1
	for k := range n {
		i := (first + k) % n
		if c := b.eligible[i]; (c.Limit == 0 || c.InFlight < c.Limit) && (best < 0 || c.InFlight < b.eligible[best].InFlight) {
			best = i
		}
	}
	return best
}

// syncLocked makes the members those of a set of replicas. One that is not in it any more has lost its cache: it is gone, or asleep.
func (b *Balancer) syncLocked(version uint64, candidates []Candidate) {
	if version == b.version {
		return
	}
	late := version < b.version
	if !late {
		for _, m := range b.members {
			m.present = false
		}
		b.version = version
	}
	for _, c := range candidates {
		b.memberLocked(c.ID).present = true
	}
	if late {
		return // whoever has left since is found with the next set
	}
	for id, m := range b.members {
		if !m.present {
			delete(b.members, id)
			b.index.Remove(id)
		}
	}
}

func (b *Balancer) memberLocked(id uint64) *member {
	m := b.members[id]
	if m == nil {
		m = &member{chosen: make(map[Reason]uint64)}
		b.members[id] = m
	}
	return m
}

// Place tells where the request is.
func (b *Balancer) Place(a *Asked, id uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.chosen != id {
		switch {
		case a.chosen != 0:
			b.leaveLocked(a)
			a.reason = ReasonRoom
		case a.reason == "":
			a.reason = ReasonOnly
		}
	}
	if a.claim == (prefix.Claim{}) {
		a.claim = b.index.Dispatch(&a.blocks, a.output, id)
	}
	a.at = id
	m := b.memberLocked(id)
	m.chosen[a.reason]++
	b.matched += uint64(a.claim.Matched)
	b.asked += uint64(a.blocks.Bytes())
	if a.session != 0 {
		b.sessions.set(a.session, id)
	}
}

// Leave tells that the request is not there any more. Whoever knows how it fared calls Report before.
func (b *Balancer) Leave(a *Asked) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leaveLocked(a)
}

func (b *Balancer) leaveLocked(a *Asked) {
	b.index.Done(a.claim)
	a.claim, a.chosen = prefix.Claim{}, 0
	if a.trial != 0 {
		if m := b.members[a.trial]; m != nil {
			m.breaker.trial = false // it has told nothing: the next one is the trial
		}
		a.trial = 0
	}
}

// FirstToken tells that the prompt is computed.
func (b *Balancer) FirstToken(a *Asked) { b.index.Computed(a.claim, a.output) }

// Usage is what an engine tells of a request.
type Usage struct {
	Prompt, Cached, Output int
	Told                   bool // Cached was told, be it as nothing
}

// Learn takes what the engine has told of the request, before it leaves.
func (b *Balancer) Learn(a *Asked, u Usage) {
	if u.Output > 0 {
		b.learnOutput(u.Output)
	}
	if a.at == 0 || u.Prompt <= 0 {
		return
	}
	b.mu.Lock()
	m := b.members[a.at]
	told := m != nil && (u.Told || m.reports) // engines leave it out where nothing was cached
	if m != nil && u.Told {
		m.reports = true
	}
	b.mu.Unlock()
	if told {
		b.index.Learn(&a.blocks, a.claim, float64(u.Cached)/float64(u.Prompt))
	}
}

func (b *Balancer) learnOutput(tokens int) {
	for {
		was := b.output.Load()
		is := int64(tokens) * 1000
		if was != 0 {
			is = was + (is-was)/outputOver
		}
		if b.output.CompareAndSwap(was, max(is, 1000)) {
			return
		}
	}
}

// Report tells how the request fared where it is. A replica is taken out only while another one is in.
func (b *Balancer) Report(a *Asked, o Outcome, now time.Time) {
	if a.at == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.members[a.at]
	if m == nil {
		return
	}
	if a.trial == a.at && o != Unknown {
		a.trial, m.breaker.trial = 0, false
		if o == Answered {
			m.breaker.close()
		} else {
			m.breaker.trip(now)
		}
	}
	if m.breaker.note(o) && !m.breaker.open && b.othersLocked(a.at) {
		m.breaker.trip(now)
	}
}

// othersLocked tells whether a replica beside this one is in.
func (b *Balancer) othersLocked(id uint64) bool {
	for other, m := range b.members {
		if other != id && m.present && !m.breaker.open {
			return true
		}
	}
	return false
}

// Keep remembers which replica has a response. owner keeps those of different callers apart.
func (b *Balancer) Keep(owner string, response []byte, id uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.responses.set(b.responseKey(owner, response), id)
}

// Keeper finds the replica that has a response; 0 if it is not known any more.
func (b *Balancer) Keeper(owner string, response []byte) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.responses.get(b.responseKey(owner, response))
}

func (b *Balancer) responseKey(owner string, response []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(b.seed)
	_, _ = h.WriteString(owner)
	_ = h.WriteByte(0)
	_, _ = h.Write(response)
	return h.Sum64()
}

// To makes Place say that the request went where its previous response is.
func (a *Asked) To(reason Reason) { a.reason = reason }

// ReplicaStatus is what is known of one replica.
type ReplicaStatus struct {
	prefix.Known
	Out      bool      // taken out for failures, or on trial
	Until    time.Time // when it is tried again; zero if it is not out
	Failures uint64
	Trips    uint64
	Chosen   map[Reason]uint64 // requests by why they went there
}

// Status describes a replica; false if no request was placed on it by choice.
func (b *Balancer) Status(id uint64) (ReplicaStatus, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.members[id]
	if m == nil {
		return ReplicaStatus{}, false
	}
	s := ReplicaStatus{Known: b.index.Known(id), Out: m.breaker.open, Failures: m.breaker.failed, Trips: m.breaker.trips, Chosen: make(map[Reason]uint64, len(m.chosen))}
	if m.breaker.open {
		s.Until = m.breaker.until
	}
	for reason, n := range m.chosen {
		s.Chosen[reason] = n
	}
	return s, true
}

// Matched is how many bytes of prompts were thought to be cached where they went, of how many in all.
func (b *Balancer) Matched() (matched, of uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.matched, b.asked
}
