package config

import (
	"time"

	"pilotlight/gateway"
)

// leastPause is the least that a timer which repeats, or ends a request, may be set to: a smaller one is a
// unit mistaken, such as 5ns for 5s.
const leastPause = 10 * time.Millisecond

// defaultStartTimeout is backends.Spec's own default, written out so that check can show it.
const defaultStartTimeout = 20 * time.Minute

func (r *reader) timeouts(m *Model, v value) {
	m.Timeouts = gateway.DefaultTimeouts()
	f := v.fields("request", "start", "first_byte", "idle_stream", "drain")
	m.Timeouts.Request = f.get("request").duration(m.Timeouts.Request, leastPause)
	m.Timeouts.FirstByte = f.get("first_byte").duration(m.Timeouts.FirstByte, leastPause)
	m.Timeouts.IdleStream = f.get("idle_stream").duration(m.Timeouts.IdleStream, leastPause)
	m.Spec.StartTimeout = f.get("start").duration(defaultStartTimeout, leastPause)
	m.Activator.DrainTimeout = f.get("drain").duration(m.Activator.DrainTimeout, 0)
}
