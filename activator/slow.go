package activator

import (
	"slices"
	"time"
)

const (
	// slowFactor is how much longer than learned a start may take before it counts as slow.
	slowFactor = 2
	// slowAtLeast is the shortest start that anybody minds; below it a phase of half the start is a matter of seconds, and twice of nothing is noise.
	slowAtLeast = 10 * time.Second
)

// SlowStart says what a start spent its time on: one that took more than twice as long as learned, or most of which was one phase.
type SlowStart struct {
	// Total is the whole start, or as much of it as has passed while Running. Learned is what earlier ones took; 0: there were none.
	Total, Learned time.Duration
	Running        bool
	// Phase is the one to look at: that which took longer than it used to by most, or that which took most of the start.
	Phase string
	// Took is the phase's share of Total, Usual what it took in earlier starts; 0: not known.
	Took, Usual time.Duration
	// ReadBytes is what the engine read during the phase; 0: not known.
	ReadBytes int64
}

// Slower: the start took longer than learned, and not only most of it in one phase.
func (s SlowStart) Slower() bool { return s.Learned > 0 && s.Total > slowFactor*s.Learned }

// BytesPerSecond is how fast the engine read during the phase; 0: not known.
func (s SlowStart) BytesPerSecond() float64 {
	if s.Took <= 0 {
		return 0
	}
	return float64(s.ReadBytes) / s.Took.Seconds()
}

// diagnose judges a start by earlier ones. A running one has not had its later phases, so only its length can tell.
func diagnose(r StartRecord, past []StartRecord, running bool) *SlowStart {
	known := len(r.Phases)
	for _, p := range past {
		known = max(known, len(p.Phases))
	}
	if r.Total < slowAtLeast || len(r.Phases) == 0 || known < 2 { // engines that show no phases
		return nil
	}
	s := SlowStart{Total: r.Total, Running: running}
	if len(past) > 0 {
		totals := make([]time.Duration, 0, len(past))
		for _, p := range past {
			totals = append(totals, p.Total)
		}
		s.Learned = median(totals)
	}
	worst := -1
	var excess time.Duration
	for i := range r.Phases {
		took, usual := r.end(i)-r.Phases[i].At, usually(r.Phases[i].Phase, past)
		by := took
		if s.Slower() {
			by -= usual
		}
		if worst < 0 || by > excess {
			worst, excess = i, by
			s.Phase, s.Took, s.Usual, s.ReadBytes = r.Phases[i].Phase, took, usual, r.Phases[i].ReadBytes
		}
	}
	if !s.Slower() && (running || s.Took <= r.Total/2) {
		return nil
	}
	return &s
}

// usually is what a phase took in earlier starts; 0: they had none.
func usually(phase string, past []StartRecord) time.Duration {
	var took []time.Duration
	for _, r := range past {
		if i := slices.IndexFunc(r.Phases, func(p PhaseStart) bool { return p.Phase == phase }); i >= 0 {
			took = append(took, r.end(i)-r.Phases[i].At)
		}
	}
	if len(took) == 0 {
		return 0
	}
	return median(took)
}

// Slow tells whether the latest start was slow by those before it, and on what it spent its time; nil: it was not, or there was none.
func (d *Durations) Slow(of Subject) *SlowStart {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.models[of.Model], func(s specStarts) bool { return s.Spec == of.Spec })
	if i < 0 {
		return nil
	}
	starts := d.models[of.Model][i].Starts
	last := len(starts) - 1
	return diagnose(starts[last], starts[:last], false)
}

// slow is the same of a start in progress.
func (f *forecast) slow(elapsed time.Duration) *SlowStart {
	return diagnose(f.course.record(elapsed), f.past, true)
}
