package scaling

import "time"

// tick is what happened in one windowTicks-th of the window.
type tick struct {
	busy     float64 // request-seconds in flight
	ready    float64 // replica-seconds
	arrived  float64
	started  float64 // went from the queue to a replica
	finished float64
}

// window keeps the last windowTicks ticks, the newest of them unfinished, in a ring.
type window struct {
	length time.Duration // of a tick
	ticks  [windowTicks]tick
	newest int64 // number of the newest tick, from time 0
	at     time.Duration
	sum    tick
}

// advance moves to now with so many in flight on so many replicas on the way, and drops what is older than the window.
func (w *window) advance(now time.Duration, inFlight, ready int) {
	for w.at < now {
		end := min(now, time.Duration(w.newest+1)*w.length)
		for _, t := range []*tick{w.current(), &w.sum} {
			t.busy += float64(inFlight) * (end - w.at).Seconds()
			t.ready += float64(ready) * (end - w.at).Seconds()
		}
		w.at = end
		if end < now {
			w.turn(now)
		}
	}
}

// turn begins the next tick. A pause longer than the window is the caller's not having looked, and is skipped.
func (w *window) turn(now time.Duration) {
	if behind := int64(now/w.length) - w.newest; behind > windowTicks {
		*w = window{length: w.length, newest: int64(now / w.length), at: now}
		return
	}
	w.newest++
	gone := w.current()
	*gone = tick{}
	// Summed anew: taking away what was added would leave rounding errors behind for ever.
	w.sum = tick{}
	for i := range w.ticks {
		w.sum.busy += w.ticks[i].busy
		w.sum.ready += w.ticks[i].ready
		w.sum.arrived += w.ticks[i].arrived
		w.sum.started += w.ticks[i].started
		w.sum.finished += w.ticks[i].finished
	}
}

func (w *window) current() *tick { return &w.ticks[w.newest%windowTicks] }

func (w *window) count(arrived, started, finished float64) {
	for _, t := range []*tick{w.current(), &w.sum} {
		t.arrived += arrived
		t.started += started
		t.finished += finished
	}
}

// seconds is the length of the whole window.
func (w *window) seconds() float64 { return (w.length * windowTicks).Seconds() }

// rate is arrivals per second over the window.
func (w *window) rate() float64 { return w.sum.arrived / w.seconds() }

// burstRate is arrivals per second over the newest whole ticks, without the fullest ones.
func (w *window) burstRate() float64 {
	var fullest [burstOutliers]float64 // ascending
	sum := 0.0
	for i := range int64(burstTicks) {
		n := w.ticks[(w.newest+windowTicks-1-i)%windowTicks].arrived
		sum += n
		for k := burstOutliers - 1; k >= 0; k-- {
			if n > fullest[k] {
				fullest[k], n = n, fullest[k]
			}
		}
	}
	for _, n := range fullest {
		sum -= n
	}
	return sum / ((burstTicks - burstOutliers) * w.length.Seconds())
}
