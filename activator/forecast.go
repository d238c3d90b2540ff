package activator

import (
	"slices"
	"time"
)

// course is how far a start has come, in the terms of a StartRecord. Immutable once it is handed out.
type course struct {
	phases []PhaseStart // that have begun; the last one is the present
	share  float64      // of the present one
	at     time.Duration
	before int64 // bytes read when the present one began
	read   int64 // bytes read up to now
}

// with is the course after more bytes were read.
func (c course) with(read int64) course {
	c.read = max(c.read, read)
	return c
}

// record is the start's when it is over.
func (c course) record(total time.Duration) StartRecord {
	r := StartRecord{Total: total, Phases: slices.Clone(c.phases)}
	if n := len(r.Phases); n > 0 {
		r.Phases[n-1].ReadBytes = c.read - c.before
	}
	return r
}

// forecast tells how long a start still takes, from how earlier ones went. It is a function of time alone, so whoever asks need not
// ask the owner. Immutable.
type forecast struct {
	past   []StartRecord // one at least
	course course
}

// remaining is the time to readiness once the start has taken elapsed: what most of the earlier starts say.
func (f *forecast) remaining(elapsed time.Duration) time.Duration {
	rests := make([]time.Duration, 0, startsKept)
	for _, r := range f.past {
		rests = append(rests, r.remaining(f.course, elapsed))
	}
	return median(rests)
}

// remaining is what is left of another start after this one's example: the rest of its present phase at the pace that it keeps, and then
// what comes after. A pace is one phase's alone: slow weights say nothing of graphs.
func (r StartRecord) remaining(c course, elapsed time.Duration) time.Duration {
	if len(c.phases) == 0 {
		return r.Total - elapsed
	}
	present := c.phases[len(c.phases)-1]
	i := slices.IndexFunc(r.Phases, func(p PhaseStart) bool { return p.Phase == present.Phase })
	if i < 0 {
		return r.after(c) + present.extrapolate(c, elapsed)
	}
	begin, end := r.Phases[i].At, r.end(i)
	here, next := r.Phases[i].reached(c.share, end)
	// The first steps are too short to tell a pace: it counts as the earlier one's over the first tenth of the phase.
	calm := max(float64(end-begin)/10, 1)
	pace := (float64(c.at-present.At) + calm) / (float64(here-begin) + calm)
	left := pace*float64(end-here) - float64(elapsed-c.at)
	// When the next step is overdue, its delay is the best that is known of the pace; by much, and it is not to be expected at once.
	if late := (float64(elapsed-present.At) + calm) / (float64(next-begin) + calm); late > pace {
		step := pace * float64(next-here)
		left = late*float64(end-next) + max(0, float64(elapsed-c.at)-1.5*step)/2
	}
	return time.Duration(left) + r.Total - end
}

// end is when the i-th phase was over.
func (r StartRecord) end(i int) time.Duration {
	if i+1 < len(r.Phases) {
		return r.Phases[i+1].At
	}
	return r.Total
}

// reached is when a share of the phase was over, and when the next step after it was seen.
func (p PhaseStart) reached(share float64, end time.Duration) (here, next time.Duration) {
	from, to := Mark{At: p.At}, Mark{Share: 1, At: end}
	for _, m := range p.Marks {
		if m.Share > share {
			to = m
			break
		}
		from = m
	}
	if to.Share <= from.Share { // the last mark is the end of the phase, as the engine counts it
		return from.At, end
	}
	way := (share - from.Share) / (to.Share - from.Share)
	return from.At + time.Duration(way*float64(to.At-from.At)), to.At
}

// after is how long this start took from the first phase on that the other one has not seen yet.
func (r StartRecord) after(c course) time.Duration {
	begun := 0
	for i, p := range r.Phases {
		if slices.ContainsFunc(c.phases, func(o PhaseStart) bool { return o.Phase == p.Phase }) {
			begun = i + 1
		}
	}
	if begun == len(r.Phases) {
		return 0
	}
	return r.Total - r.Phases[begun].At
}

// extrapolate is the rest of a phase without example, such as the one download after many starts from disk: in proportion where shares are
// told, and else as long again as it has taken.
func (p PhaseStart) extrapolate(c course, elapsed time.Duration) time.Duration {
	const telling = 0.01
	if c.share < telling {
		return elapsed - p.At
	}
	left := float64(c.at-p.At)/c.share*(1-c.share) - float64(elapsed-c.at)
	return max(0, time.Duration(left))
}

const (
	// marksApart is how much of a phase lies between two marks that are kept, at least.
	marksApart = 0.049 // shares such as 0.45 − 0.4 are a little less than they look
	// phasesKept bounds what one start may record; SGLang's has seven.
	phasesKept = 32
)

// note is the course after one more report. A phase that begins again takes the place of its earlier beginning: SGLang says that it loads
// weights before it knows whether it has to fetch them first.
func (c course) note(phase string, share float64, at time.Duration) course {
	share = min(max(share, 0), 1)
	n := len(c.phases)
	if n == 0 || c.phases[n-1].Phase != phase {
		if n == phasesKept {
			return c
		}
		phases := slices.Clone(c.phases)
		if n > 0 {
			phases[n-1].ReadBytes = c.read - c.before
		}
		phases = slices.DeleteFunc(phases, func(p PhaseStart) bool { return p.Phase == phase })
		c = course{phases: append(phases, PhaseStart{Phase: phase, At: at}), at: at, before: c.read, read: c.read}
		n = len(c.phases)
	}
	if share <= c.share {
		return c
	}
	c.share, c.at = share, at
	p := &c.phases[n-1]
	last := Mark{}
	if len(p.Marks) > 0 {
		last = p.Marks[len(p.Marks)-1]
	}
	if share-last.Share >= marksApart || share == 1 {
		c.phases = slices.Clone(c.phases) // others hold the old one
		c.phases[n-1].Marks = append(slices.Clone(p.Marks), Mark{Share: share, At: at})
	}
	return c
}
