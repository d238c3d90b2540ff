package scaling

import (
	"errors"
	"fmt"
	"time"
)

// Defaults of Config. Window, burst window and burst factor are Knative's (stable window 60 s, panic window 10 % of it, panic threshold
// 200 %), so that who comes from there finds what they know.
const (
	DefaultWindow      = 60 * time.Second
	DefaultBurstFactor = 2.0
	DefaultPatience    = 2.0
)

// windowTicks is how finely a window is kept: its end is sharp to a sixtieth. The burst window is the newest burstTicks of them.
const (
	windowTicks = 60
	burstTicks  = windowTicks / 10
	// burstOutliers of the burst window's ticks, the fullest, do not count: what came all at once is a backlog, not a rate, and
	// an instant can fall on the border of two ticks.
	burstOutliers = 2
)

// Config says how many replicas a load needs. Exactly one of Concurrency and RequestRate is set.
type Config struct {
	Min, Max int // Max at least 1

	Concurrency float64 // requests in flight that one replica is meant to have
	RequestRate float64 // requests per second that one replica is meant to take

	// Service is how long a request is in flight, as an earlier Scaler's Service has said: without it, the first start of a model is not
	// followed by others until that is known. 0: not known. Not used with RequestRate.
	Service time.Duration

	// Have is how many replicas there are to begin with. They count as needed then.
	Have int

	// Window is what load is averaged over; 0: DefaultWindow.
	Window time.Duration
	// BurstFactor: a load over the burst window (a tenth of Window) of at least so many times what the replicas are meant for
	// counts at once. 0: DefaultBurstFactor; below 0: never.
	BurstFactor float64
	// Patience is how many times as long as a start what waits may take before it asks for more replicas; 0: DefaultPatience; below 0: it
	// never does.
	Patience float64
	// ScaledownAfter is how long a replica has not been needed when it is given up; 0: at once.
	ScaledownAfter time.Duration
	// GiveUpEvery is the least time between two that are given up; 0: Window.
	GiveUpEvery time.Duration
}

// check fills the defaults in and names every problem.
func (c *Config) check() error {
	var problems []error
	if c.Max < 1 {
		problems = append(problems, fmt.Errorf("max is %d; a model needs at least 1 replica", c.Max))
	}
	if c.Min < 0 || c.Min > c.Max {
		problems = append(problems, fmt.Errorf("min is %d; it must be between 0 and max, %d", c.Min, c.Max))
	}
	if (c.Concurrency > 0) == (c.RequestRate > 0) {
		problems = append(problems, errors.New("exactly one of concurrency and request rate must be above 0"))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"time in flight", c.Service}, {"window", c.Window}, {"scale-down time", c.ScaledownAfter}, {"pause between two given up", c.GiveUpEvery}} {
		if d.value < 0 {
			problems = append(problems, fmt.Errorf("the %s is %v; it cannot be negative", d.name, d.value))
		}
	}
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.Window > 0 && c.Window < windowTicks*time.Millisecond {
		problems = append(problems, fmt.Errorf("the window is %v; it must be at least %v", c.Window, windowTicks*time.Millisecond))
	}
	if c.BurstFactor == 0 {
		c.BurstFactor = DefaultBurstFactor
	}
	if c.Patience == 0 {
		c.Patience = DefaultPatience
	}
	if c.GiveUpEvery == 0 {
		c.GiveUpEvery = c.Window
	}
	return errors.Join(problems...)
}

// target is what one replica is meant to carry, in the unit of the metric.
func (c *Config) target() float64 { return max(c.Concurrency, c.RequestRate) }
