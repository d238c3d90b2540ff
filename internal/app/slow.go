package app

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/backends/sglang"
)

// SlowState is what made a model's start slow.
type SlowState struct {
	Text      string  `json:"text"`
	Remedy    string  `json:"remedy,omitempty"`
	Phase     string  `json:"phase"`
	Seconds   float64 `json:"seconds"` // in that phase
	Total     float64 `json:"total_seconds"`
	Learned   float64 `json:"learned_seconds,omitempty"` // that a whole start takes; 0: there were none
	MBPerS    float64 `json:"mb_per_s,omitempty"`        // read during the phase; 0: not known
	IsRunning bool    `json:"running,omitempty"`         // the start is in progress
}

// DescribeSlow puts a slow start into words.
func DescribeSlow(s *activator.SlowStart) *SlowState {
	state := &SlowState{
		Phase: s.Phase, Seconds: s.Took.Seconds(), Total: s.Total.Seconds(), Learned: s.Learned.Seconds(),
		MBPerS: s.BytesPerSecond() / 1e6, IsRunning: s.Running,
		Remedy: sglang.Remedy(backends.Phase(s.Phase), s.BytesPerSecond()),
	}
	var text strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&text, format, args...) }
	if s.Running {
		say("the start has taken %s", rounded(s.Total))
	} else {
		say("the latest start took %s", rounded(s.Total))
	}
	if s.Slower() {
		say(", more than twice the usual %s", rounded(s.Learned))
	}
	say("; %s of it in phase %s", rounded(s.Took), s.Phase)
	switch {
	case s.Slower() && s.Usual > 0:
		say(" (usually %s)", rounded(s.Usual))
	case s.Took > s.Total/2:
		say(" (%.0f %%)", 100*float64(s.Took)/float64(s.Total))
	}
	if state.MBPerS >= 1 { // below, it was not reading that took the time, or nobody saw it
		say(", reading %.0f MB/s", state.MBPerS)
	}
	state.Text = text.String()
	return state
}

func rounded(d time.Duration) time.Duration { return d.Round(time.Second) }

// noteSlow is activator.Observer's SlowStart.
func (a *App) noteSlow(model string, replica uint64, s activator.SlowStart) {
	level := slog.LevelInfo // a phase that is long each time is worth knowing, and nothing to be woken up for
	if s.Slower() {
		level = slog.LevelWarn
	}
	d := DescribeSlow(&s)
	a.log.Log(context.Background(), level, "start is slow", "model", model, "replica", replica, "running", s.Running, "total", rounded(s.Total), "learned", rounded(s.Learned),
		"phase", s.Phase, "phase_took", rounded(s.Took), "phase_usual", rounded(s.Usual), "mb_per_s", int64(d.MBPerS), "remedy", d.Remedy)
}
