package prefix

import "hash/maphash"

// BlockBytes is how much of a prompt one block covers: about 64 tokens of English, so that a shared system prompt is found to within a
// fiftieth of a second of prefill.
const BlockBytes = 256

// MaxBlocks of a prompt are told apart, 128 KiB; what comes after them counts as not cached.
const MaxBlocks = 512

// Blocks are the hashes of a prompt's beginning. The zero value is an empty prompt. It is reused by Hash, and is not safe for concurrent
// use while that runs.
type Blocks struct {
	hashes [MaxBlocks]uint64
	n      int
	bytes  int // of the whole prompt
}

// Len is the number of whole blocks.
func (b *Blocks) Len() int { return b.n }

// Hash cuts a prompt. Prompts with different salts (an adapter's name, a cache salt) share nothing. It does not keep either.
func (x *Index) Hash(b *Blocks, salt string, prompt []byte) {
	b.n, b.bytes = 0, len(prompt)
	before := maphash.String(x.seed, salt)
	for len(prompt) >= BlockBytes && b.n < MaxBlocks {
		before = mix(before, maphash.Bytes(x.seed, prompt[:BlockBytes]))
		b.hashes[b.n] = before
		b.n++
		prompt = prompt[BlockBytes:]
	}
}

// mix makes one hash of two, of which the order matters: the finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) over a sum whose
// first part is multiplied by an odd number.
func mix(before, block uint64) uint64 {
	h := before*0x9e3779b97f4a7c15 + block
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
