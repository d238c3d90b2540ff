package prefix

import (
	"container/list"
	"math/rand/v2"
	"slices"
	"testing"
)

// engine is a replica in virtual time: it computes one prompt at a time, leaves out what its cache has, and forgets the longest unused.
type engine struct {
	freeAt   float64
	inFlight []float64 // when its requests end
	cached   map[uint64]*list.Element
	order    *list.List
	capacity int
}

const bytesPerSecond = 32000 // 8,000 tokens

// serve returns when the prompt is computed, and how many blocks were cached.
func (e *engine) serve(now float64, b *Blocks) (float64, int) {
	hit := 0
	for hit < len(b.hashes) && e.cached[b.hashes[hit]] != nil {
		hit++
	}
	for k := len(b.hashes) - 1; k >= 0; k-- { // the end is older than the beginning, as in a tree of which leaves go first
		if at := e.cached[b.hashes[k]]; at != nil {
			e.order.MoveToFront(at)
			continue
		}
		e.cached[b.hashes[k]] = e.order.PushFront(b.hashes[k])
		if e.order.Len() > e.capacity {
			last := e.order.Back()
			delete(e.cached, e.order.Remove(last).(uint64))
		}
	}
	e.freeAt = max(e.freeAt, now) + float64(b.bytes-hit*BlockBytes)/bytesPerSecond
	return e.freeAt, hit
}

// turn is a request of a conversation.
type turn struct {
	at     float64
	prompt []byte
}

// chats are conversations that come at random, of a few turns each that grow, and begin with one of some system prompts.
func chats(r *rand.Rand, systems, systemBlocks, conversations, turns int, rate float64) []turn {
	heads := make([][]byte, systems)
	for i := range heads {
		heads[i] = text(r, systemBlocks)
	}
	var all []turn
	at := 0.0
	for range conversations {
		at += r.ExpFloat64() / rate * float64(turns)
		prompt, when := []byte(nil), at
		if systems > 0 {
			prompt = slices.Clone(heads[r.IntN(systems)])
		}
		for range turns {
			prompt = append(slices.Clone(prompt), text(r, 4+r.IntN(24))...)
			all = append(all, turn{when, prompt})
			when += 5 + 10*r.ExpFloat64()
		}
	}
	slices.SortStableFunc(all, func(a, b turn) int {
		if a.at < b.at {
			return -1
		}
		return 1
	})
	return all
}

const replicas, answer = 8, 1.0 // seconds of an answer after its first token

// route plays turns and returns the 95th percentile of the time to the first token, and the share of blocks that were cached.
func route(t *testing.T, turns []turn, capacity int, rule string) (p95, hits float64) {
	t.Helper()
	x, all := New(Config{Capacity: capacity}), candidates(replicas)
	engines := make([]*engine, replicas)
	for i := range engines {
		engines[i] = &engine{cached: map[uint64]*list.Element{}, order: list.New(), capacity: capacity}
	}
	type open struct {
		computed float64
		claim    Claim
	}
	var claims []*open
	var waits []float64
	hit, blocks := 0, 0
	for k, q := range turns {
		claims = slices.DeleteFunc(claims, func(o *open) bool {
			if o.computed <= q.at {
				x.Computed(o.claim, 50)
			}
			if o.computed+answer <= q.at {
				x.Done(o.claim)
				return true
			}
			return false
		})
		for i, e := range engines {
			e.inFlight = slices.DeleteFunc(e.inFlight, func(end float64) bool { return end <= q.at })
			all[i].InFlight = len(e.inFlight)
		}
		b := x.hashed(q.prompt)
		i := k % replicas
		switch rule {
		case "least":
			for j := range all {
				if all[(k+j)%replicas].InFlight < all[i].InFlight {
					i = (k + j) % replicas
				}
			}
		case "prefix":
			var claim Claim
			var err error
			if i, claim, err = x.Choose(b, 50, all); err != nil {
				t.Fatal(err)
			}
			claims = append(claims, &open{claim: claim})
		}
		computed, had := engines[i].serve(q.at, b)
		if rule == "prefix" {
			last := claims[len(claims)-1]
			last.computed = computed
			x.Learn(b, last.claim, float64(had*BlockBytes)/float64(b.bytes))
		}
		engines[i].inFlight = append(engines[i].inFlight, computed+answer)
		waits = append(waits, computed-q.at)
		hit, blocks = hit+had, blocks+len(b.hashes)
	}
	slices.Sort(waits)
	return waits[len(waits)*95/100], float64(hit) / float64(blocks)
}

// TestBeatsBlindRules compares with turns and with fewest in flight: better with shared prefixes, not worse by a tenth without, also
// where engines keep much less than is remembered of them.
func TestBeatsBlindRules(t *testing.T) {
	r := random(t)
	for _, c := range []struct {
		name     string
		turns    []turn
		capacity int
		shared   bool
	}{
		{"chat", chats(r, 0, 0, 250, 6, 10), 4000, true},
		{"chat, shared system prompts", chats(r, 12, 30, 250, 6, 10), 4000, true},
		{"chat, small caches", chats(r, 12, 30, 250, 6, 10), 600, true},
		{"nothing shared", chats(r, 0, 0, 1500, 1, 40), 4000, false},
	} {
		turnwise, turnHits := route(t, c.turns, c.capacity, "turns")
		least, leastHits := route(t, c.turns, c.capacity, "least")
		got, hits := route(t, c.turns, c.capacity, "prefix")
		t.Logf("%-28s p95 to the first token, blocks cached: turns %.3f s %2.0f %%, least %.3f s %2.0f %%, prefix %.3f s %2.0f %%",
			c.name, turnwise, 100*turnHits, least, 100*leastHits, got, 100*hits)
		if c.shared && (got >= turnwise || got >= least || hits <= max(turnHits, leastHits)) {
			t.Errorf("%s: no better than a blind rule", c.name)
		}
		if got > 1.1*turnwise {
			t.Errorf("%s: worse than taking turns", c.name)
		}
	}
}
