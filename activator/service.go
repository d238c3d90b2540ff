package activator

import (
	"slices"
	"time"
)

// RecordService remembers how long a request of the model is in flight. Of a spec that was never started nothing is remembered.
func (d *Durations) RecordService(of Subject, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.setServiceLocked(of.Model, of.Spec, took) {
		d.saveLocked()
	}
}

// setServiceLocked reports whether the spec is known and the time can be true, which that of a damaged file need not be.
func (d *Durations) setServiceLocked(model, spec string, took time.Duration) bool {
	specs := d.models[model]
	i := slices.IndexFunc(specs, func(s specStarts) bool { return s.Spec == spec })
	if i < 0 || took <= 0 {
		return false
	}
	specs[i].Service = took
	return true
}

// Service is how long a request of the spec was in flight, or of the model's latest other spec that knows; 0: none does.
func (d *Durations) Service(of Subject) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	var took time.Duration
	for _, s := range d.models[of.Model] {
		if s.Spec == of.Spec && s.Service > 0 {
			return s.Service
		}
		if s.Service > 0 {
			took = s.Service
		}
	}
	return took
}
