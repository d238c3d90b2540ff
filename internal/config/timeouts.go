package config

import (
	"time"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/gateway"
)

// leastPause is the least that a timer which repeats, or ends a request, may be set to: a smaller one is a
// unit mistaken, such as 5ns for 5s.
const leastPause = 10 * time.Millisecond

const (
	// defaultStartTimeout is backends.Spec's own default, written out so that check can show it.
	defaultStartTimeout = 20 * time.Minute
	// A server that somebody else runs is not being started: if it is away for so long, its clients should hear of it, and
	// it is looked at again soon, not after the growing pauses that spare a device from doomed starts.
	staticStartTimeout = 30 * time.Second
	staticBackoff      = 2 * time.Second
)

// timeouts reads the block; the backend is known already.
func (r *reader) timeouts(m *Model, v value) {
	m.Timeouts = gateway.DefaultTimeouts()
	f := v.fields("request", "start", "first_byte", "first_token", "idle_stream", "drain", "sleep")
	m.Timeouts.Request = f.get("request").duration(m.Timeouts.Request, leastPause)
	m.Timeouts.FirstByte = f.get("first_byte").duration(m.Timeouts.FirstByte, leastPause)
	if first := f.get("first_token"); first.given() {
		m.Timeouts.FirstToken = first.duration(0, leastPause)
		if m.Timeouts.FirstToken > m.Timeouts.FirstByte {
			first.warn("is more than first_byte, which ends the request before", "lower it, or raise timeouts.first_byte")
		}
	}
	m.Timeouts.IdleStream = f.get("idle_stream").duration(m.Timeouts.IdleStream, leastPause)
	def := defaultStartTimeout
	if m.Spec.Driver == backends.DriverStatic {
		def = staticStartTimeout
		m.Activator.BackoffMax = staticBackoff
	}
	m.Spec.StartTimeout = f.get("start").duration(def, leastPause)
	m.Activator.SleepTimeout = f.get("sleep").duration(activator.DefaultSleepTimeout, leastPause)
	m.Activator.DrainTimeout = f.get("drain").duration(m.Activator.DrainTimeout, 0)
}
