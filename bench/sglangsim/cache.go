package sglangsim

import (
	"container/list"
	"hash/maphash"
	"sync"
	"time"
)

// pageBytes is how much text a page of the cache holds, about 16 tokens.
const pageBytes = 64

// prefixCache is the timing model of RadixAttention: what of a prompt lies in the KV pool needs no prefill, the longest unused goes first, and prefill is
// one thing after another, in order of arrival, since it fills the device. The real tree is kept by tokens and shared pages; here it is a chain
// of hashes over pages of text, which finds the same prefixes to within a page.
type prefixCache struct {
	seed  maphash.Seed
	pages int // that it holds

	mu     sync.Mutex // guards the fields below
	byHash map[uint64]*list.Element
	order  *list.List // of hashes, the latest used in front
	free   time.Time  // when prefill is done with all that came
	counts CacheCounts
}

// CacheCounts is what a cache has seen so far.
type CacheCounts struct {
	Requests             int
	PromptTokens, Cached int
}

func newPrefixCache(tokens int) *prefixCache {
	return &prefixCache{seed: maphash.MakeSeed(), pages: max(1, tokens*4/pageBytes), byHash: map[uint64]*list.Element{}, order: list.New()}
}

// enter takes a prompt of so many tokens in at now: how many of them were cached, and when its prefill is done at rate tokens a second (0: at
// once).
func (c *prefixCache) enter(text string, tokens int, rate float64, now time.Time) (cached int, done time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	hit := c.touchLocked(text)
	if len(text) > 0 {
		cached = min(tokens*min(hit*pageBytes, len(text))/len(text), tokens-1) // the last token is always computed
	}
	cached = max(cached, 0)
	c.counts.Requests++
	c.counts.PromptTokens += tokens
	c.counts.Cached += cached
	if c.free.Before(now) {
		c.free = now
	}
	if rate > 0 {
		c.free = c.free.Add(time.Duration(float64(tokens-cached) / rate * float64(time.Second)))
	}
	return cached, c.free
}

// keep adds what was generated after a prompt.
func (c *prefixCache) keep(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touchLocked(text)
}

// touchLocked puts all whole pages of a text in, and returns how many at its beginning were there.
func (c *prefixCache) touchLocked(text string) (hit int) {
	var hashes []uint64
	var h maphash.Hash
	h.SetSeed(c.seed)
	for ; len(text) >= pageBytes && len(hashes) < c.pages; text = text[pageBytes:] {
		_, _ = h.WriteString(text[:pageBytes]) // never fails
		hashes = append(hashes, h.Sum64())     // of all up to here
	}
	known := true
	for _, hash := range hashes {
		if _, ok := c.byHash[hash]; !ok {
			known = false
		}
		if known {
			hit++
		}
	}
	for i := len(hashes) - 1; i >= 0; i-- { // the beginning last, so that it is the last to go
		if at, ok := c.byHash[hashes[i]]; ok {
			c.order.MoveToFront(at)
			continue
		}
		c.byHash[hashes[i]] = c.order.PushFront(hashes[i])
	}
	for c.order.Len() > c.pages {
		last := c.order.Back()
		hash, _ := c.order.Remove(last).(uint64)
		delete(c.byHash, hash)
	}
	return hit
}

func (c *prefixCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.byHash)
	c.order.Init()
}

func (c *prefixCache) seen() CacheCounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// Cache tells what the prefix cache has seen; the zero value without one.
func (s *Server) Cache() CacheCounts {
	if s.cache == nil {
		return CacheCounts{}
	}
	return s.cache.seen()
}
