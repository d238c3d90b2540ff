package prefix

import (
	"hash/maphash"
	"slices"
)

// BlockBytes is how much of a prompt one block covers: about 128 tokens of English, so that a shared system prompt is found to within a
// fiftieth of a second of prefill.
const BlockBytes = 512

// MaxBlocks of a prompt are told apart, 256 KiB; what comes after them counts as not cached.
const MaxBlocks = 512

// Blocks are the hashes of a prompt's beginning. The zero value is an empty prompt. It is reused by Hash, which keeps its memory, and is not
// safe for concurrent use while that runs.
type Blocks struct {
	hashes []uint64
	bytes  int // of the whole prompt
}

// Len is the number of blocks.
func (b *Blocks) Len() int { return len(b.hashes) }

// Bytes is the length of the whole prompt.
func (b *Blocks) Bytes() int { return b.bytes }

// Hash cuts a prompt, which comes in one part or in several that follow each other; what is left of a part but the last is a block of its
// own. Prompts with different salts (an adapter's name, a cache salt) share nothing. It does not keep any of them.
func (x *Index) Hash(b *Blocks, salt string, parts ...[]byte) {
	b.hashes, b.bytes = b.hashes[:0], 0
	before := maphash.String(x.seed, salt)
	for i, part := range parts {
		b.bytes += len(part)
		for len(part) > 0 && len(b.hashes) < MaxBlocks {
			size := BlockBytes
			if len(part) < BlockBytes {
				if i == len(parts)-1 {
					break
				}
				size = len(part)
			}
			before = mix(before, maphash.Bytes(x.seed, part[:size]))
			b.hashes = append(b.hashes, before)
			part = part[size:]
		}
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

// Clone is a copy that shares no memory.
func (b *Blocks) Clone() Blocks { return Blocks{hashes: slices.Clone(b.hashes), bytes: b.bytes} }
