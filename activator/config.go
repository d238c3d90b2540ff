package activator

import (
	"errors"
	"fmt"
	"time"
)

// Config is one model's share of the activator.
type Config struct {
	// Min replicas are kept, Max are never exceeded. Min ≤ Max, Max ≥ 1.
	Min, Max int
	// Surge allows one replica beyond Max while those of an old spec are replaced: each of them serves until another is ready in its place,
	// if there are devices for one more. Without, they leave first.
	Surge bool
	// ScaledownAfter is how long a replica stays after the last byte of its last response, or after it
	// became ready if none came. 0 means at once.
	ScaledownAfter time.Duration
	// SleepAfter is how long a replica is idle until it is put to sleep: device memory is freed and the process kept.
	// 0, and anything not below ScaledownAfter, means never.
	SleepAfter time.Duration
	// SleepTimeout bounds falling asleep and waking up, each. 0 means DefaultSleepTimeout.
	SleepTimeout time.Duration
	// Concurrency is the number of requests that one replica gets at once. 0 means the engine's own limit,
	// or DefaultConcurrency where it has told none. Between Min and Max there are as many replicas as it takes for each to have no more.
	Concurrency int
	// RequestRate, in requests per second, is what one replica is meant to take: the number of replicas follows it, and not Concurrency. 0: it
	// does not.
	RequestRate float64
	// Window is what load is averaged over where it decides on the number of replicas. 0 means scaling.DefaultWindow, a minute.
	Window time.Duration
	// MaxQueuedRequests and MaxQueuedBytes bound this model's queue. 0 means no bound of its own.
	MaxQueuedRequests int
	MaxQueuedBytes    int64
	// DrainTimeout bounds how long requests in flight may go on once a replica must leave.
	DrainTimeout time.Duration
	// BackoffMin and BackoffMax bound the pause after a failed start; it doubles in between.
	BackoffMin, BackoffMax time.Duration
	// Kin is common to models whose starts take about as long: what was learned of theirs is the guess for one that was never started.
	// Empty: there are none.
	Kin string
}

// DefaultConcurrency is used where neither the configuration nor the engine says more.
const DefaultConcurrency = 32

// DefaultSleepTimeout leaves room for large weights: 44 GB came and went in 0.2 s on an H200, but the first sleep also claims as
// much memory of the machine.
const DefaultSleepTimeout = time.Minute

// DefaultConfig is what an empty scaling block means: Flyte's replicas (0, 1), DESIGN.md's limits.
func DefaultConfig() Config {
	return Config{
		Min: 0, Max: 1,
		ScaledownAfter:    10 * time.Minute,
		MaxQueuedRequests: 2000,
		MaxQueuedBytes:    256 << 20,
		DrainTimeout:      5 * time.Minute,
		BackoffMin:        time.Second,
		BackoffMax:        5 * time.Minute,
	}
}

// leastWindow is that of tests.
const leastWindow = time.Second

// validate refuses what the machine cannot work with. The configuration file's own checks are stricter and
// speak of lines and fields.
func (c Config) validate() error {
	switch {
	case c.Min < 0 || c.Max < 1 || c.Min > c.Max:
		return fmt.Errorf("activator: replicas [%d, %d]: need 0 ≤ min ≤ max and max ≥ 1", c.Min, c.Max)
	case c.ScaledownAfter < 0 || c.SleepAfter < 0 || c.SleepTimeout < 0 || c.DrainTimeout < 0 || c.Window < 0:
		return errors.New("activator: a negative duration")
	case c.Window != 0 && c.Window < leastWindow:
		return fmt.Errorf("activator: a window of %v: need at least %v", c.Window, leastWindow)
	case c.BackoffMin < 0 || c.BackoffMax < c.BackoffMin:
		return fmt.Errorf("activator: backoff [%v, %v]: need 0 ≤ min ≤ max", c.BackoffMin, c.BackoffMax)
	case c.Concurrency < 0 || !(c.RequestRate >= 0) || c.MaxQueuedRequests < 0 || c.MaxQueuedBytes < 0:
		return errors.New("activator: a negative limit")
	}
	return nil
}
