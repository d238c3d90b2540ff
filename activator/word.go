package activator

// word is a replica's admission word: everything that decides whether one more request may enter.
//
//	bit  63     fenced    no request may enter; never taken back (a woken replica gets a new word)
//	bit  62     unknown   adopted: requests we did not admit may be in flight, so zero proves nothing
//	bit  61     watched   the owner wants to hear when in flight reaches zero
//	bits 32–60  entries   counts admissions, so that a word seen idle and an equal word seen later mean
//	                      that nobody came in between: a compare-and-swap from an observed word cannot be
//	                      fooled by a request that came and went (2^29 admissions between two
//	                      instructions would be needed)
//	bits 0–31   in flight
//
// The functions are pure: the owner and the warm path apply them to an atomic, the explorer test to its
// own memory, one micro-step at a time.
type word uint64

const (
	wordFenced  word = 1 << 63
	wordUnknown word = 1 << 62
	wordWatched word = 1 << 61

	wordEntry        word = 1 << 32
	wordEntries      word = wordWatched - wordEntry
	wordInFlightMask word = wordEntry - 1
)

// entriesMask is what is left of a count of entries.
const entriesMask = uint64(wordEntries / wordEntry)

func (w word) inFlight() int   { return int(w & wordInFlightMask) }
func (w word) entries() uint64 { return uint64(w&wordEntries) / uint64(wordEntry) }
func (w word) fenced() bool    { return w&wordFenced != 0 }

// idle: nothing is in flight, for certain.
func (w word) idle() bool { return w&(wordInFlightMask|wordUnknown) == 0 }

// enter is the word after one more admission; false if the replica is fenced or at its limit.
func (w word) enter(limit int) (word, bool) {
	if w.fenced() || w.inFlight() >= limit {
		return w, false
	}
	return w&^wordEntries | (w+wordEntry)&wordEntries + 1, true
}

// leave is the word after one request ended.
func (w word) leave() word { return w - 1 }

// reportsZero: whoever just made this word by leaving must tell the owner.
func (w word) reportsZero() bool {
	return w.inFlight() == 0 && w&(wordFenced|wordWatched) != 0
}

// fenceIdle is the word that closes an idle replica; false if this word is not idle and open.
// Swapped in from the very word that was judged, it proves that nobody entered in between.
func (w word) fenceIdle() (word, bool) {
	if !w.idle() || w.fenced() {
		return w, false
	}
	return w | wordFenced, true
}

// fence closes the replica whatever is in flight.
func (w word) fence() word { return w | wordFenced }

// watch asks for a report at zero; false if there is nothing to wait for.
func (w word) watch() (word, bool) {
	if w.inFlight() == 0 {
		return w &^ wordWatched, false
	}
	return w | wordWatched, true
}
