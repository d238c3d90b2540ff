package prefix

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// text is a prompt of random bytes that no other has.
func text(r *rand.Rand, blocks int) []byte {
	b := make([]byte, blocks*BlockBytes)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func random(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func candidates(n int) []Candidate {
	c := make([]Candidate, n)
	for i := range c {
		c[i].ID = uint64(i + 1)
	}
	return c
}

func (x *Index) hashed(prompt []byte) *Blocks {
	b := new(Blocks)
	x.Hash(b, "", prompt)
	return b
}

func TestGoesWhereThePrefixIs(t *testing.T) {
	r, x, all := random(t), New(Config{}), candidates(8)
	prompt := text(r, 20)
	first, claim, err := x.Choose(x.hashed(prompt), 0, all)
	if err != nil || claim.Matched != 0 {
		t.Fatalf("got %+v, %v for a first prompt", claim, err)
	}
	x.Done(claim)
	for range 5 {
		prompt = append(prompt, text(r, 2)...)
		i, claim, err := x.Choose(x.hashed(prompt), 0, all)
		if err != nil || i != first || claim.Matched != len(prompt)-2*BlockBytes {
			t.Fatalf("got replica %d, %+v, %v; want %d and all but the last turn", i, claim, err, first)
		}
		x.Done(claim)
	}
	var salted Blocks
	x.Hash(&salted, "adapter", prompt)
	if claim := x.Dispatch(&salted, 0, all[first].ID); claim.Matched != 0 {
		t.Errorf("another salt matched %d bytes", claim.Matched)
	}
}

func TestLeavesTheOwnerWhenItIsBusy(t *testing.T) {
	r, x, all := random(t), New(Config{}), candidates(4)
	prompt := text(r, 20)
	seen := map[int]int{}
	for range 40 {
		i, _, err := x.Choose(x.hashed(prompt), 200, all)
		if err != nil {
			t.Fatal(err)
		}
		seen[i]++
	}
	if len(seen) != 4 || seen[0] < 5 || seen[1] < 5 || seen[2] < 5 || seen[3] < 5 {
		t.Errorf("40 equal prompts at once went to %v", seen)
	}
}

// TestBound: whatever was asked, nobody gets more than Bound times the average and two requests in full, and all work ends at 0.
func TestBound(t *testing.T) {
	r := random(t)
	for range 30 {
		n := 1 + r.IntN(12)
		x, all := New(Config{Capacity: 100, Bound: 1 + r.Float64()}), candidates(n)
		stems := [][]byte{text(r, 30), text(r, 10), text(r, 3)}
		var claims, ended []Claim
		largest := 0.0
		for range 400 {
			if len(claims) > 0 && r.IntN(3) == 0 {
				k := r.IntN(len(claims))
				ended = append(ended, claims[k])
				x.Done(claims[k])
				x.Done(ended[r.IntN(len(ended))]) // a copy of one that has ended, whose place may be used again
				claims = append(claims[:k], claims[k+1:]...)
				continue
			}
			b, output := x.hashed(append(append([]byte(nil), stems[r.IntN(3)]...), text(r, r.IntN(10))...)), r.IntN(50)
			total, due := 0.0, 0.0
			for _, m := range x.byID {
				total += m.work
			}
			for _, c := range claims {
				due += x.claims[c.number].work
			}
			if total-due > 1 || due-total > 1 {
				t.Fatalf("%v is to be done, %v of it is claimed", total, due)
			}
			_, claim, err := x.Choose(b, output, all)
			if err != nil {
				t.Fatal(err)
			}
			claims = append(claims, claim)
			largest = max(largest, x.cost(b, 0, 0, output))
			if got, most := x.byID[claim.Replica].work, x.config.Bound*total/float64(n)+2*largest; got > most+1 {
				t.Fatalf("a replica of %d has %v to do, bound %v", n, got, most)
			}
		}
		for i := range claims {
			x.Done(claims[i])
			x.Done(claims[i])
		}
		for id, m := range x.byID {
			if m.work != 0 {
				t.Errorf("%v of replica %d's work is left over", m.work, id)
			}
		}
	}
}

// check holds the index against itself.
func (x *Index) check() error {
	pairs := map[[2]int]bool{}
	for at := range x.places {
		p := &x.places[at]
		if len(p.ring) > p.capacity {
			return fmt.Errorf("%d blocks at a bound of %d", len(p.ring), p.capacity)
		}
		for _, i := range p.ring {
			if pairs[[2]int{at, int(i)}] {
				return fmt.Errorf("block %d twice in ring %d", i, at)
			}
			pairs[[2]int{at, int(i)}] = true
			if !x.blocks[i].owners.has(at) {
				return fmt.Errorf("ring %d has block %d, which does not know it", at, i)
			}
		}
	}
	owned := 0
	for hash, i := range x.byHash {
		b := &x.blocks[i]
		if b.hash != hash || b.owners.empty() {
			return fmt.Errorf("block %d: hash %x, listed as %x, owners %v", i, b.hash, hash, b.owners)
		}
		for at := range MaxReplicas {
			if b.owners.has(at) {
				owned++
			} else if b.used.has(at) {
				return fmt.Errorf("block %d is used at %d, which does not have it", i, at)
			}
		}
	}
	if owned != len(pairs) || len(x.byHash)+len(x.free) != len(x.blocks) {
		return fmt.Errorf("%d owners for %d places in rings; %d blocks are %d known and %d free", owned, len(pairs), len(x.blocks), len(x.byHash), len(x.free))
	}
	return nil
}

// TestStaysConsistent does everything at random, and compares each match with what a plain list of what was sent says: never more than
// was sent, and all of it while nothing had to go.
func TestStaysConsistent(t *testing.T) {
	r := random(t)
	for _, capacity := range []int{leastCapacity, 100, 1 << 20} {
		x := New(Config{Capacity: capacity})
		stems := [][]byte{text(r, 5), text(r, 40)}
		sent := map[uint64]map[string]bool{}
		for range 1500 {
			id := 1 + r.Uint64N(6)
			switch r.IntN(40) {
			case 0:
				x.Remove(id)
				delete(sent, id)
			case 1:
				x.Forget(id)
				delete(sent, id)
			default:
				prompt := append(append([]byte(nil), stems[r.IntN(2)][:r.IntN(5)*BlockBytes]...), text(r, r.IntN(6))...)
				if r.IntN(3) > 0 {
					prompt = stems[r.IntN(2)]
				}
				want := 0
				for (want+1)*BlockBytes <= len(prompt) && sent[id][string(prompt[:(want+1)*BlockBytes])] {
					want++
				}
				b := x.hashed(prompt)
				claim := x.Dispatch(b, 0, id)
				got := claim.Matched / BlockBytes
				if got > want || capacity > 1000 && got != want {
					t.Fatalf("capacity %d: matched %d blocks, %d were sent", capacity, got, want)
				}
				if sent[id] == nil {
					sent[id] = map[string]bool{}
				}
				for k := range b.Len() {
					sent[id][string(prompt[:(k+1)*BlockBytes])] = true
				}
				if capacity < 1000 && r.IntN(4) == 0 { // it makes the bound smaller
					x.Learn(b, claim, r.Float64())
				}
				x.Done(claim)
			}
			if err := x.check(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestKeepsWhatIsUsed(t *testing.T) {
	r, x := random(t), New(Config{Capacity: 100})
	stem := x.hashed(text(r, 20))
	for range 200 {
		x.Dispatch(stem, 0, 1)
		x.Dispatch(x.hashed(text(r, 10)), 0, 1)
	}
	if claim := x.Dispatch(stem, 0, 1); claim.Matched != 20*BlockBytes {
		t.Errorf("%d bytes of the prompt that is always used are left", claim.Matched)
	}
	if x.Len() > 100 {
		t.Errorf("%d blocks, bound 100", x.Len())
	}
}

func TestTheEndGoesBeforeTheBeginning(t *testing.T) {
	r, x := random(t), New(Config{Capacity: 100})
	first := x.hashed(text(r, 80))
	x.Dispatch(first, 0, 1)
	x.Dispatch(x.hashed(text(r, 50)), 0, 1)
	if claim := x.Dispatch(first, 0, 1); claim.Matched != 50*BlockBytes {
		t.Errorf("%d blocks can be found of the 50 that fit beside 50 newer ones", claim.Matched/BlockBytes)
	}
}

func TestLearnsFromTheEngine(t *testing.T) {
	r, x := random(t), New(Config{Capacity: 1000})
	b := x.hashed(text(r, 100))
	for range 5 {
		x.Dispatch(x.hashed(text(r, 100)), 0, 1)
	}
	x.Dispatch(b, 0, 1)
	right := x.Dispatch(b, 0, 1)
	if x.claims[right.number].work != 0 || right.Matched != 100*BlockBytes {
		t.Fatalf("got %+v for a prompt that is known", right)
	}
	for range 100 {
		x.Learn(b, right, 0.75)
	}
	if got := x.claims[x.Dispatch(b, 0, 1).number].work / float64(b.bytes); got < 0.24 || got > 0.26 {
		t.Errorf("counts %v of the prompt as work where the engine has computed 0.25 each time", got)
	}
	if x.Len() != 600 {
		t.Errorf("%d of 600 blocks are left of an engine that had most", x.Len())
	}
	x.Learn(b, right, 0)
	if x.Len() != 525 {
		t.Errorf("%d blocks are left, want seven eighths of 600", x.Len())
	}
}

func TestEqualsTakeTurns(t *testing.T) {
	r, x, all := random(t), New(Config{}), candidates(5)
	seen := map[int]int{}
	for range 50 {
		i, claim, err := x.Choose(x.hashed(text(r, 3)), 1, all)
		if err != nil {
			t.Fatal(err)
		}
		x.Done(claim)
		seen[i]++
	}
	for i := range all {
		if seen[i] != 10 {
			t.Errorf("replica %d of 5 idle ones got %d of 50 requests", i, seen[i])
		}
	}
}

func TestFullAndUnknown(t *testing.T) {
	r, x := random(t), New(Config{})
	b := x.hashed(text(r, 4))
	if _, _, err := x.Choose(b, 0, nil); !errors.Is(err, ErrNoCandidate) {
		t.Errorf("no candidates: %v", err)
	}
	if i, _, err := x.Choose(b, 0, []Candidate{{1, 2, 2}, {2, 1, 2}, {3, 2, 2}}); i != 1 || err != nil {
		t.Errorf("got %d, %v; only 1 has room", i, err)
	}
	if _, _, err := x.Choose(b, 0, []Candidate{{1, 2, 2}}); !errors.Is(err, ErrNoCandidate) {
		t.Errorf("full: %v", err)
	}
	many, seen := candidates(MaxReplicas+20), map[uint64]bool{}
	for range len(many) {
		i, _, err := x.Choose(x.hashed(text(r, 4)), 10, many)
		if err != nil {
			t.Fatal(err)
		}
		seen[many[i].ID] = true
	}
	if len(seen) < MaxReplicas+19 { // one of them has had a request before
		t.Errorf("%d of %d replicas were used for as many requests at once", len(seen), len(many))
	}
}

func TestConcurrentUse(t *testing.T) {
	x, all := New(Config{Capacity: 200}), candidates(10)
	stem := text(random(t), 10)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			var b Blocks
			for range 300 {
				x.Hash(&b, "", append(append([]byte(nil), stem...), text(r, 3)...))
				_, claim, err := x.Choose(&b, 5, all)
				if err != nil {
					t.Error(err)
					return
				}
				x.Learn(&b, claim, r.Float64())
				x.Computed(claim, 5)
				x.Done(claim)
			}
		})
	}
	wg.Wait()
	if err := x.check(); err != nil {
		t.Error(err)
	}
	for id, m := range x.byID {
		if m.work != 0 {
			t.Errorf("%v of replica %d's work is left over", m.work, id)
		}
	}
}
