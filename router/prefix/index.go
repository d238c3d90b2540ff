package prefix

import (
	"hash/maphash"
	"math/bits"
	"sync"
)

// MaxReplicas is how many replicas an Index remembers. What is beyond is chosen by its work alone.
const MaxReplicas = 128

// DefaultCapacity is how many blocks are remembered per replica: 8 MiB of prompt, about 2 million tokens, more than the cache of most
// models on one GPU. Remembering too much makes a replica look better than it is, which Learn corrects.
const DefaultCapacity = 16384

// leastCapacity is what Learn leaves.
const leastCapacity = 64

// DefaultBound is how much more than the average a replica may have to do before it is passed over, whatever it has cached; the
// figure is that of consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016) as deployed by others.
const DefaultBound = 1.25

// Config of an Index. The zero value is complete.
type Config struct {
	Capacity int     // blocks remembered per replica; 0: DefaultCapacity
	Bound    float64 // 0: DefaultBound; otherwise at least 1
	// OutputCost is what one token of output costs, in bytes of prompt computed; 0: DefaultOutputCost.
	OutputCost float64
}

// DefaultOutputCost: decoding is bound by memory and shared by all that run, so a token of output costs a replica about as much as four
// tokens of prompt, 4 bytes each. An estimate, to be replaced by what an engine is measured to do.
const DefaultOutputCost = 16

// set is a set of replicas, by place.
type set [MaxReplicas / 64]uint64

func (s *set) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }
func (s *set) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *set) drop(i int)     { s[i/64] &^= 1 << (i % 64) }
func (s *set) empty() bool    { return *s == set{} }

// block is what is known of one block: who has it, and who used it since the clock's hand came by.
type block struct {
	hash   uint64
	owners set
	used   set
}

// place is one replica. Its ring lists the blocks that it owns; hand goes round it, and takes the first that was not used since it
// was last there. That is close to the longest unused, and costs no list to keep in order.
type place struct {
	id       uint64 // 0: free
	ring     []uint32
	hand     int
	capacity int
	trust    float64 // share of what was matched that the engine really had, of late
}

// Index remembers what each replica of one model has cached, and how much each has to do.
type Index struct {
	config Config
	seed   maphash.Seed

	mu        sync.Mutex // guards the fields below
	byHash    map[uint64]uint32
	blocks    []block
	free      []uint32 // of blocks
	places    [MaxReplicas]place
	byID      map[uint64]*member
	claims    []pending
	unclaimed []uint32 // of claims
	turn      uint     // who is looked at first among equals
}

// member is a replica that is known, whether it has a place or not.
type member struct {
	place int     // −1: none was free
	work  float64 // dispatched and not done, in bytes of prompt computed
}

// New makes an empty Index.
func New(c Config) *Index {
	if c.Capacity <= 0 {
		c.Capacity = DefaultCapacity
	}
	c.Capacity = max(c.Capacity, leastCapacity)
	if c.Bound <= 0 {
		c.Bound = DefaultBound
	}
	c.Bound = max(c.Bound, 1)
	if c.OutputCost <= 0 {
		c.OutputCost = DefaultOutputCost
	}
	return &Index{config: c, seed: maphash.MakeSeed(), byHash: map[uint64]uint32{}, byID: map[uint64]*member{}}
}

// Add makes a replica known, with nothing cached and nothing to do. One that is known already stays as it is. An id is not 0.
func (x *Index) Add(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.memberLocked(id)
}

func (x *Index) memberLocked(id uint64) *member {
	if m := x.byID[id]; m != nil {
		return m
	}
	m := &member{place: -1}
	x.byID[id] = m
	for i := range x.places {
		if x.places[i].id == 0 {
			x.places[i] = place{id: id, capacity: x.config.Capacity, trust: 1}
			m.place = i
			break
		}
	}
	return m
}

// Remove forgets a replica. What it still had to do ends with it.
func (x *Index) Remove(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.byID[id]
	if m == nil {
		return
	}
	delete(x.byID, id)
	if m.place >= 0 {
		x.clearLocked(m.place)
		x.places[m.place] = place{}
	}
}

// Forget empties what is remembered of a replica's cache: it was flushed, or lost in sleep.
func (x *Index) Forget(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if m := x.byID[id]; m != nil && m.place >= 0 {
		x.clearLocked(m.place)
	}
}

func (x *Index) clearLocked(at int) {
	p := &x.places[at]
	for _, i := range p.ring {
		x.disownLocked(i, at)
	}
	p.ring, p.hand = p.ring[:0], 0
}

// disownLocked takes a block from a replica, and forgets it when nobody has it.
func (x *Index) disownLocked(i uint32, at int) {
	b := &x.blocks[i]
	b.owners.drop(at)
	b.used.drop(at)
	if b.owners.empty() {
		delete(x.byHash, b.hash)
		x.free = append(x.free, i)
	}
}

// Known is what is known of one replica.
type Known struct {
	Work   float64 // dispatched and not done, in bytes of prompt computed
	Blocks int     // remembered
	Trust  float64 // share of what was matched that the engine really had, of late; 1: all, or it has not told yet
}

// Known describes a replica; the zero value if it was never seen.
func (x *Index) Known(id uint64) Known {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.byID[id]
	if m == nil {
		return Known{}
	}
	k := Known{Work: m.work}
	if m.place >= 0 {
		p := &x.places[m.place]
		k.Blocks, k.Trust = len(p.ring), p.trust
	}
	return k
}

// Len is how many different blocks are remembered.
func (x *Index) Len() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.byHash)
}

// walkLocked finds for each place how many blocks of the prompt it has, from the beginning on. It stops where nobody has the next. What
// is written to matched is valid for the places in the returned set.
func (x *Index) walkLocked(b *Blocks, matched *[MaxReplicas]uint16) (known set) {
	var alive set
	depth := 0
	for ; depth < len(b.hashes); depth++ {
		i, ok := x.byHash[b.hashes[depth]]
		if !ok {
			break
		}
		next := x.blocks[i].owners
		if depth == 0 {
			alive, known = next, next
		}
		for w := range alive {
			for left := alive[w] &^ next[w]; left != 0; left &= left - 1 {
				matched[w*64+bits.TrailingZeros64(left)] = uint16(depth)
			}
			alive[w] &= next[w]
		}
		if alive.empty() {
			return known
		}
	}
	for w := range alive {
		for left := alive[w]; left != 0; left &= left - 1 {
			matched[w*64+bits.TrailingZeros64(left)] = uint16(depth)
		}
	}
	return known
}

// recordLocked remembers that a replica now has the prompt. The end goes first into the ring, so that the hand takes it before the
// beginning, without which it could not be found.
func (x *Index) recordLocked(b *Blocks, at int) {
	p := &x.places[at]
	for k := min(len(b.hashes), p.capacity) - 1; k >= 0; k-- {
		i, ok := x.byHash[b.hashes[k]]
		if ok && x.blocks[i].owners.has(at) {
			x.blocks[i].used.add(at)
			continue
		}
		slot := len(p.ring)
		if slot >= p.capacity {
			slot = x.evictLocked(at) // not this block, of which others are the owners
		} else {
			p.ring = append(p.ring, 0)
		}
		if !ok {
			i = x.newBlockLocked(b.hashes[k])
		}
		x.blocks[i].owners.add(at)
		p.ring[slot] = i
	}
}

// evictLocked takes from a full ring what the hand finds unused, and returns where it was. Two rounds at most: the first clears the marks.
func (x *Index) evictLocked(at int) int {
	p := &x.places[at]
	for {
		if p.hand >= len(p.ring) {
			p.hand = 0
		}
		slot := p.hand
		i := p.ring[slot]
		p.hand++
		if x.blocks[i].used.has(at) {
			x.blocks[i].used.drop(at)
			continue
		}
		x.disownLocked(i, at)
		return slot
	}
}

// shrinkLocked makes a replica's bound smaller.
func (x *Index) shrinkLocked(at, capacity int) {
	p := &x.places[at]
	p.capacity = max(capacity, leastCapacity)
	for len(p.ring) > p.capacity {
		slot, last := x.evictLocked(at), len(p.ring)-1
		p.ring[slot] = p.ring[last]
		p.ring = p.ring[:last]
	}
}

func (x *Index) newBlockLocked(hash uint64) uint32 {
	var i uint32
	if n := len(x.free); n > 0 {
		i, x.free = x.free[n-1], x.free[:n-1]
		x.blocks[i] = block{hash: hash}
	} else {
		i = uint32(len(x.blocks))
		x.blocks = append(x.blocks, block{hash: hash})
	}
	x.byHash[hash] = i
	return i
}
