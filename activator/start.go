package activator

import (
	"context"
	"errors"
	"sync"
	"time"
)

// startRun is one start in progress.
type startRun struct {
	id     uint64
	began  moment
	of     Subject
	found  bool // begun by an earlier gateway: nothing can be learned of its times
	cancel context.CancelFunc
	ctx    context.Context

	mu       sync.Mutex // guards the fields below
	latest   Progress
	course   course
	told     float64 // the largest percentage that was told
	reason   string  // why it waits for devices
	noted    moment  // when latest was reported, while it is prepared; 0: it is not
	reported bool    // an evProgress is in the mailbox
}

// newStart opens the books on a start, or continues those of its reservation. A start belongs to no request:
// its context ends only when the machine says so.
func (o *owner) newStart(id uint64, now moment) *startRun {
	if s := o.starts[id]; s != nil && s.found {
		return s
	} else if s != nil {
		s.granted()
		s.began = now // the wait for devices is no part of how long a start takes
		return s
	}
	return o.openStart(id, now)
}

func (o *owner) openStart(id uint64, began moment) *startRun {
	s := &startRun{id: id, began: began, of: o.subject}
	s.ctx, s.cancel = context.WithCancel(o.detached)
	o.starts[id] = s
	return s
}

func (o *owner) launch(run *startRun, launcher Launcher, start Start) {
	m := o.model
	began := run.began
	defer o.watchPace(run)()
	instance, err := launcher.Launch(run.ctx, start, func(p Progress) {
		if run.note(p, m.now()-began) {
			m.mail.send(event{kind: evProgress, id: run.id})
		}
	})
	if err == nil && instance == nil {
		err = errors.New("launcher returned neither a replica nor an error")
	}
	if err != nil {
		m.mail.send(event{kind: evFailed, id: start.ID, err: err})
		return
	}
	m.mail.send(event{kind: evStarted, id: start.ID, instance: instance, limit: instance.Concurrency()})
}

// watchPace tells the observer when a start has taken twice as long as learned. The func ends that.
func (o *owner) watchPace(run *startRun) (stop func()) {
	m := o.model
	if m.durations == nil || m.observer.SlowStart == nil {
		return func() {}
	}
	learned, ok := m.durations.Estimate(run.of)
	if !ok {
		return func() {}
	}
	late := max(slowFactor*learned, slowAtLeast) + time.Millisecond // a moment later it is slow for certain
	timer := time.AfterFunc(late-(m.now()-run.began), func() {
		if f := m.durations.forecast(run.of, run.progress()); f != nil {
			if s := f.slow(m.now() - run.began); s != nil {
				m.observer.SlowStart(m.name, run.id, *s)
			}
		}
	})
	return func() { timer.Stop() }
}

// note records progress; true if the owner has to be told.
func (s *startRun) note(p Progress, elapsed time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Phase != "" {
		s.course = s.course.with(p.ReadBytes).note(p.Phase, p.Share, elapsed)
	}
	s.latest = p
	tell := !s.reported
	s.reported = true
	return tell
}

// reserve prepares the start, and waits for devices; beside another replica, which has its own for longer than anybody should wait, it does
// not wait.
func (o *owner) reserve(run *startRun, launcher Launcher, start Start, beside bool) {
	m := o.model
	if p, ok := launcher.(Preparer); ok {
		err := p.Prepare(run.ctx, start, func(p Progress) {
			if run.prepare(p, m.now()) {
				m.mail.send(event{kind: evProgress, id: run.id})
			}
		})
		run.prepared()
		if err != nil {
			m.mail.send(event{kind: evReserved, id: run.id, err: err})
			return
		}
		m.mail.send(event{kind: evProgress, id: run.id})
	}
	if m.ledger == nil {
		m.mail.send(event{kind: evReserved, id: run.id})
		return
	}
	if beside {
		m.mail.send(event{kind: evReserved, id: run.id, err: m.ledger.ReserveNow(m.name, run.id)})
		return
	}
	err := m.ledger.Reserve(run.ctx, m.name, run.id, func(reason string) {
		run.mu.Lock()
		run.reason, run.latest = reason, Progress{Phase: phaseQueued}
		run.mu.Unlock()
		m.mail.send(event{kind: evProgress, id: run.id})
	})
	m.mail.send(event{kind: evReserved, id: run.id, err: err})
}

// prepare records progress before the start proper, of which nothing is learned; true if the owner has to be told.
func (s *startRun) prepare(p Progress, now moment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest, s.noted = p, now
	tell := !s.reported
	s.reported = true
	return tell
}

// prepared: what it waits for from now on is devices.
func (s *startRun) prepared() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest, s.noted = Progress{Phase: phaseQueued}, 0
}

// preparing is how long the preparation was said to take, and when; false if it was not.
func (s *startRun) preparing() (left time.Duration, at moment, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest.Left, s.noted, s.noted != 0 && s.latest.Left > 0
}

// detail is more about the present phase.
func (s *startRun) detail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest.Detail
}

// waitsFor is why the start waits for devices; empty once it has some.
func (s *startRun) waitsFor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// granted: it waits for devices no more.
func (s *startRun) granted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason, s.latest = "", Progress{}
}

func (s *startRun) read() (phase string, percent float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reported = false
	return s.latest.Phase, s.latest.Percent
}

// progress is how far it has come.
func (s *startRun) progress() course {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.course
}

// atLeast is percent, or the largest that was told before: an estimate may grow, but nobody likes to see a bar go back.
func (s *startRun) atLeast(percent float64) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = max(s.told, percent)
	return s.told
}

// endStart closes the books on a start that has reported.
func (o *owner) endStart(id uint64, err error) {
	s := o.starts[id]
	if s == nil {
		return
	}
	delete(o.starts, id)
	s.cancel()
	m := o.model
	took := m.now() - s.began
	if err == nil && m.durations != nil && !s.found {
		m.durations.Record(s.of, s.progress().record(took))
		if slow := m.durations.Slow(s.of); slow != nil && m.observer.SlowStart != nil {
			m.observer.SlowStart(m.name, id, *slow)
		}
	}
	if m.observer.ColdStart != nil {
		m.observer.ColdStart(ColdStart{Model: m.name, Replica: id, Duration: took, Err: err})
	}
}

// watch reports the end of an instance.
func (o *owner) watch(id uint64, instance Instance) {
	m := o.model
	o.wg.Go(func() {
		select {
		case <-instance.Exited():
			m.mail.send(event{kind: evExited, id: id, err: instance.Cause()})
		case <-o.detached.Done():
		}
	})
}
