package prefix

import "errors"

// ErrNoCandidate says that every candidate is full, or that there is none.
var ErrNoCandidate = errors.New("no replica has room")

// Candidate is a replica that may be chosen.
type Candidate struct {
	ID              uint64
	InFlight, Limit int // Limit 0: none
}

// Claim is what a dispatched request adds to its replica's work, until Done. The zero value holds nothing. It can be copied: what it stands
// for is in the Index, and ends once.
type Claim struct {
	Replica uint64
	Matched int // bytes of the prompt that the replica is thought to have cached
	number  uint32
	serial  uint32 // 0: none
}

// pending is what a claim stands for. Its place is used again, with the next serial.
type pending struct {
	member *member
	work   float64
	serial uint32
}

// Choose picks the candidate that will be done first with the prompt and output tokens of answer, remembers that it has the prompt from
// now on, and counts the work as its own until Done. It returns the index in candidates; ErrNoCandidate if none has room. It waits for
// nothing but the lock, and allocates only for blocks and replicas that were never seen, until the bound is reached.
//
// Passed over is who has more to do than Bound times the average of all candidates plus this request in full, so one replica never
// gets everything for the sake of its cache. Somebody always has no more than the average. Among equals it takes turns.
func (x *Index) Choose(b *Blocks, output int, candidates []Candidate) (int, Claim, error) {
	return x.Prefer(b, output, 0, candidates)
}

// Prefer is Choose for a request that would rather go to one replica, whatever that has cached: it does, unless the replica is not among the
// candidates, is full, or is passed over for what it has to do. 0: none is preferred.
func (x *Index) Prefer(b *Blocks, output int, preferred uint64, candidates []Candidate) (int, Claim, error) {
	var matched [MaxReplicas]uint16
	x.mu.Lock()
	defer x.mu.Unlock()
	known := x.walkLocked(b, &matched)
	total := 0.0
	for i := range candidates {
		total += x.memberLocked(candidates[i].ID).work
	}
	full := x.cost(b, 0, 0, output)
	most := x.config.Bound*total/float64(max(1, len(candidates))) + full
	best, bestBlocks, bestEnd, bestOver := -1, 0, 0.0, false
	x.turn++
	for k := range candidates {
		i := int((x.turn + uint(k)) % uint(len(candidates)))
		c := &candidates[i]
		if c.Limit > 0 && c.InFlight >= c.Limit {
			continue
		}
		m := x.byID[c.ID]
		blocks, trust := 0, 0.0
		if m.place >= 0 && known.has(m.place) {
			blocks, trust = int(matched[m.place]), x.places[m.place].trust
		}
		// Those with room may all be over the bound, if the others are full: then it does not bind.
		end, over := m.work+x.cost(b, blocks, trust, output), m.work > most
		if c.ID == preferred && !over {
			best, bestBlocks = i, blocks
			break
		}
		if best < 0 || bestOver && !over || over == bestOver && end < bestEnd {
			best, bestBlocks, bestEnd, bestOver = i, blocks, end, over
		}
	}
	if best < 0 {
		return -1, Claim{}, ErrNoCandidate
	}
	return best, x.claimLocked(b, candidates[best].ID, bestBlocks, output), nil
}

// Dispatch is Choose when another rule has chosen already.
func (x *Index) Dispatch(b *Blocks, output int, id uint64) Claim {
	var matched [MaxReplicas]uint16
	x.mu.Lock()
	defer x.mu.Unlock()
	known := x.walkLocked(b, &matched)
	blocks := 0
	if m := x.memberLocked(id); m.place >= 0 && known.has(m.place) {
		blocks = int(matched[m.place])
	}
	return x.claimLocked(b, id, blocks, output)
}

func (x *Index) claimLocked(b *Blocks, id uint64, blocks, output int) Claim {
	m := x.byID[id]
	trust := 0.0
	if m.place >= 0 {
		trust = x.places[m.place].trust
	}
	work := x.cost(b, blocks, trust, output)
	m.work += work
	if m.place >= 0 {
		x.recordLocked(b, m.place)
	}
	c := Claim{Replica: id, Matched: min(blocks*BlockBytes, b.bytes)}
	if n := len(x.unclaimed); n > 0 {
		c.number, x.unclaimed = x.unclaimed[n-1], x.unclaimed[:n-1]
	} else {
		c.number = uint32(len(x.claims))
		x.claims = append(x.claims, pending{})
	}
	p := &x.claims[c.number]
	p.member, p.work = m, work
	if p.serial++; p.serial == 0 {
		p.serial = 1
	}
	c.serial = p.serial
	return c
}

// cost is what a replica has to do for a prompt of which it is thought to have so many blocks, in bytes of prompt computed.
func (x *Index) cost(b *Blocks, blocks int, trust float64, output int) float64 {
	return float64(b.bytes) - trust*float64(min(blocks*BlockBytes, b.bytes)) + float64(output)*x.config.OutputCost
}

// Computed takes the prompt's part off the claim: the first token has come, what remains is the output. After Done it does nothing.
func (x *Index) Computed(c Claim, output int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p := x.pendingLocked(c); p != nil {
		x.settleLocked(p, float64(output)*x.config.OutputCost)
	}
}

// Done ends a claim. Once it has, it does nothing, by whichever copy.
func (x *Index) Done(c Claim) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p := x.pendingLocked(c); p != nil {
		x.settleLocked(p, 0)
		p.member = nil
		x.unclaimed = append(x.unclaimed, c.number)
	}
}

// pendingLocked is nil for a claim that has ended.
func (x *Index) pendingLocked(c Claim) *pending {
	if c.serial == 0 || x.claims[c.number].serial != c.serial || x.claims[c.number].member == nil {
		return nil
	}
	return &x.claims[c.number]
}

// settleLocked leaves at most rest of what is pending.
func (x *Index) settleLocked(p *pending, rest float64) {
	rest = min(rest, p.work)
	p.member.work -= p.work - rest
	p.work = rest
	if p.member.work < 0.5 { // rounding errors; no work is that small
		p.member.work = 0
	}
}

// learnOver is about how many requests trust is an average of.
const learnOver = 16

// Learn tells how much of a prompt the engine really had, as a share of its tokens, 0 to 1. Where that is less than what was matched,
// the replica keeps less than was thought: what it is thought to have counts for less in the next choices, and where it is less
// than half, an eighth of what is remembered of it goes. Otherwise its bound grows back slowly.
func (x *Index) Learn(b *Blocks, c Claim, share float64) {
	if c.Matched == 0 || b.bytes == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.byID[c.Replica]
	if m == nil || m.place < 0 {
		return
	}
	p := &x.places[m.place]
	expected := float64(c.Matched) / float64(b.bytes)
	p.trust += (min(1, max(0, share)/expected) - p.trust) / learnOver
	if share < expected/2 {
		x.shrinkLocked(m.place, len(p.ring)-len(p.ring)/8)
		return
	}
	p.capacity = min(x.config.Capacity, p.capacity+max(1, p.capacity/256))
}
