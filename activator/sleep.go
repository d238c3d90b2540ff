package activator

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"
)

// bounded begins an instance's sleep or wake. What takes longer than Config.SleepTimeout has failed.
func (o *owner) bounded(kind eventKind, id uint64, do func(context.Context) error) {
	limit := cmp.Or(o.core.config.SleepTimeout, DefaultSleepTimeout)
	o.wg.Go(func() {
		ctx, cancel := context.WithTimeout(o.detached, limit)
		defer cancel()
		o.model.mail.send(event{kind: kind, id: id, err: do(ctx)})
	})
}

// noteSleep tells of a sleep or wake that has ended, and learns how long waking takes.
func (o *owner) noteSleep(e *event) {
	m := o.model
	s := o.core.byID(e.id)
	if s == nil {
		return
	}
	took, wake := m.now()-s.movedAt, e.kind == evWoken
	if wake && e.err == nil && s.spec == o.core.spec && m.durations != nil {
		m.durations.RecordWake(o.subject, took)
	}
	if m.observer.Sleep != nil {
		m.observer.Sleep(Sleep{Model: m.name, Replica: e.id, Wake: wake, Duration: took, Err: e.err})
	}
}

// noteSleepless tells once that the model is not put to sleep any more.
func (o *owner) noteSleepless() {
	gaveUp := o.core.sleepless >= sleepTries
	if gaveUp && !o.sleepless {
		o.model.log.Warn("sleeping went wrong twice in a row; idle replicas of the model stay awake until it is configured anew or retried",
			slog.String("model", o.model.name))
	}
	o.sleepless = gaveUp
}

// RecordWake remembers how long a replica took to wake up. Of a spec that was never started nothing is remembered.
func (d *Durations) RecordWake(of Subject, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if took <= 0 || !d.addWakesLocked(of.Model, of.Spec, took) {
		return
	}
	d.saveLocked()
}

// addWakesLocked reports whether the spec is known.
func (d *Durations) addWakesLocked(model, spec string, took ...time.Duration) bool {
	specs := d.models[model]
	i := slices.IndexFunc(specs, func(s specStarts) bool { return s.Spec == spec })
	if i < 0 {
		return false
	}
	for _, t := range took {
		if t > 0 { // others are those of a damaged file
			specs[i].Wakes = append(specs[i].Wakes, t)
		}
	}
	specs[i].Wakes = lastN(specs[i].Wakes, startsKept)
	return true
}

// EstimateWake is how long earlier replicas of the spec took to wake up; 0 if none ever did.
func (d *Durations) EstimateWake(of Subject) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.models[of.Model] {
		if s.Spec == of.Spec && len(s.Wakes) > 0 {
			return median(slices.Clone(s.Wakes))
		}
	}
	return 0
}
