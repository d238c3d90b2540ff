package store

import "time"

const (
	// firstConnections is how many a download begins with: twice as many as the hub's own client (snapshot_download's max_workers).
	firstConnections = 16
	// defaultConnections is how many it grows to while that helps. At the 4 MB/s that some servers allow a connection it is 384 MB/s; with
	// their buffers they take about 20 MiB of memory.
	defaultConnections = 96
	// rampEvery is how often the rate is looked at, and rampPatience how many such times a step has to show that it helps: a far server takes
	// most of a second to open a connection and to come up to speed, a near one a few milliseconds.
	rampEvery    = 250 * time.Millisecond
	rampPatience = 4
	// rampRest is how many such times pass before more connections are tried again, once more did not help.
	rampRest = 40
)

// ramp finds how many connections are worth having: more, as long as each step brings at least half of what it would if all connections
// had the rate of those before.
type ramp struct {
	most, target int
	fewer        int     // connections before the last step
	before       float64 // bytes a second that they brought; 0: there was no step yet
	misses       int     // times in a row that the step has not helped yet
	rest         int
}

func newRamp(most int) *ramp {
	n := min(firstConnections, most)
	return &ramp{most: most, target: n, fewer: n}
}

// step is called every rampEvery with the rate since the last time; pressed says that the server asked for less. It returns the connections
// to have from now on.
func (r *ramp) step(rate float64, pressed bool) int {
	switch {
	case pressed:
		r.target = max(1, r.target/2)
		r.fewer, r.before, r.misses, r.rest = r.target, 0, 0, rampRest
	case r.rest > 0:
		r.rest--
	case rate <= 0: // nothing has come yet, or all wait: neither speaks for more connections
	case r.before > 0 && rate < r.before*(1+0.5*float64(r.target-r.fewer)/float64(r.fewer)):
		if r.misses++; r.misses == rampPatience {
			r.target, r.before, r.misses, r.rest = r.fewer, 0, 0, rampRest
		}
	case r.target < r.most:
		r.fewer, r.before, r.misses = r.target, rate, 0
		r.target = min(r.most, 2*r.target)
	}
	return r.target
}
