package limits

import "time"

const (
	slotLength = time.Second
	minute     = 60 // slots
	// live slots are counted: those of the last 60 s and the one that began before them, which is counted whole. So a limit holds in
	// any 60 s, wherever they begin, and at worst a place comes back a second late.
	live  = minute + 1
	slots = 64 // a power of two, no less than live
)

// window counts what happened in the last minute. The zero value is empty.
type window struct {
	sum    int64
	head   int64        // the newest slot: time since the book's epoch in slots
	counts [slots]int64 // those that are not live are zero
}

// advance makes slot the newest. An earlier one changes nothing: time does not go back.
func (w *window) advance(slot int64) {
	if slot <= w.head {
		return
	}
	if w.sum == 0 {
		w.head = slot
		return
	}
	if slot-w.head >= live {
		*w = window{head: slot}
		return
	}
	for w.head < slot {
		w.head++
		out := &w.counts[(w.head-live)&(slots-1)]
		w.sum -= *out
		*out = 0
	}
}

// add counts n in the newest slot and returns the slot, for giveBack.
func (w *window) add(n int64) int64 {
	w.counts[w.head&(slots-1)] += n
	w.sum += n
	return w.head
}

// giveBack takes n back out of a slot. What has left the window is no longer counted, so there is nothing to take.
func (w *window) giveBack(slot, n int64) {
	if slot > w.head || w.head-slot >= live {
		return
	}
	w.counts[slot&(slots-1)] -= n
	w.sum -= n
}

// room is when n more will fit below limit, as time since the epoch, if nothing is given back; n must not be above limit.
func (w *window) room(n, limit int64) time.Duration {
	over := w.sum + n - limit
	for slot := w.head - live + 1; slot <= w.head; slot++ {
		if over <= 0 {
			return leaves(slot - 1)
		}
		over -= w.counts[slot&(slots-1)]
	}
	return leaves(w.head)
}

// empty is when nothing will be counted any more, as time since the epoch; zero if nothing is.
func (w *window) empty() time.Duration {
	if w.sum == 0 {
		return 0
	}
	for slot := w.head; ; slot-- {
		if w.counts[slot&(slots-1)] != 0 {
			return leaves(slot)
		}
	}
}

func leaves(slot int64) time.Duration { return time.Duration(slot+live) * slotLength }
