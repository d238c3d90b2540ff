package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

const (
	// settleLimit is how long memory may take to come back. A killed engine's is back within 0.5 s, a stopped one's with its
	// process, which is waited for before (docs/facts/sglang.md, section 13).
	settleLimit = 30 * time.Second
	// firstLimit is how long a device that is in use when the gateway starts may become free: an earlier gateway's
	// engines have just been killed. After that it is somebody else's, and counts as always in use.
	firstLimit = 10 * time.Second
	// fresh is how long a measurement of a device that nobody holds is good for.
	fresh = 5 * time.Second
	// slack is what may be in use beyond what is accounted for: a driver's own and another process's context.
	slack = 1 << 30
)

const othersUse = "a GPU is used by other programs; its models get the rest"

// event is a change of a device that operators should hear of.
type event struct {
	device  string
	message string
	detail  string
	level   slog.Level
}

// unsettled tells whether some device waits for its memory, and whether one has waited in vain.
func (c *core) unsettled() (settling, quarantined bool) {
	for _, d := range c.devices {
		settling = settling || d.condition == Settling
		quarantined = quarantined || d.condition == Quarantined
	}
	return settling, quarantined
}

// measured is what was found in use at a time, or why nothing was found out.
func (c *core) measured(used map[string]int64, err error, began, now time.Time) {
	for i := range c.devices {
		d := &c.devices[i]
		if !d.Measured {
			continue
		}
		if d.condition == Usable && len(c.on(i)) > 0 || began.Before(d.since) && d.condition != Quarantined {
			continue // measured before the last one left
		}
		n, ok := used[d.ID]
		d.measured = now
		if d.looks || d.condition == Usable { // nothing of ours is to come back; what is in use is others'
			if ok && n > max(0, d.baseline)+slack {
				c.log = append(c.log, event{d.Label, othersUse, gib(n) + " in use", slog.LevelWarn})
			}
			if ok {
				d.baseline = n
			}
			if d.looks {
				d.become(Usable, now)
			}
			continue
		}
		if !ok {
			c.notBack(d, "its memory in use is unknown", err, now)
			continue
		}
		allowed := c.allowed(i)
		switch {
		case n <= allowed+slack:
			if len(c.on(i)) == 0 && (d.baseline < 0 || n < d.baseline) {
				d.baseline = n
			}
			if d.condition == Quarantined {
				c.log = append(c.log, event{d.Label, "a GPU's memory is back, and it is given out again", "", slog.LevelInfo})
			}
			d.become(Usable, now)
		case d.baseline < 0 && now.Sub(d.since) >= firstLimit:
			d.baseline = n
			c.log = append(c.log, event{d.Label, othersUse, gib(n) + " in use", slog.LevelWarn})
			d.become(Usable, now)
		default:
			c.notBack(d, gib(n-allowed)+" more in use than expected", nil, now)
		}
	}
}

// others is what programs of others have of a device, beyond what any driver has.
func (d *device) others() int64 {
	if d.baseline <= slack {
		return 0
	}
	return d.baseline
}

// allowed is what those who hold a device, and others from the beginning, may have in use of it.
func (c *core) allowed(i int) int64 {
	d := &c.devices[i]
	others := max(0, d.baseline)
	return others + (d.Memory-others)*int64(c.used(i))/whole
}

func (c *core) notBack(d *device, problem string, cause error, now time.Time) {
	if d.condition == Quarantined {
		d.problem, d.cause = problem, cause
		return
	}
	if now.Sub(d.since) < settleLimit {
		return
	}
	d.become(Quarantined, now)
	d.problem, d.cause = problem, cause
	c.log = append(c.log, event{d.Label, "a GPU's memory has not come back; it is not given out until it has", d.detail(), slog.LevelError})
}

// detail is the problem and its cause, for operators.
func (d *device) detail() string {
	if d.cause == nil {
		return d.problem
	}
	return d.problem + ": " + d.cause.Error()
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }

// measureLocked has memory measured if a device waits for that and it is time. It returns when to look again; 0: not needed.
func (l *Ledger) measureLocked(now time.Time) time.Duration {
	settling, quarantined := l.core.unsettled()
	for _, e := range l.core.log {
		l.log.Log(l.ctx, e.level, e.message, slog.String("gpu", e.device), slog.String("detail", e.detail))
	}
	l.core.log = nil
	every := measureEvery
	switch {
	case l.polling || !settling && !quarantined:
		return 0
	case !settling:
		every = remeasureEvery
	}
	if wait := l.polled.Add(every).Sub(now); wait > 0 {
		return wait
	}
	l.polling, l.polled = true, now
	l.wg.Go(func() { l.measure(now) })
	return 0
}

func (l *Ledger) measure(began time.Time) {
	ctx, cancel := context.WithTimeout(l.ctx, settleLimit)
	defer cancel()
	used, err := l.opts.Used(ctx)
	l.mu.Lock()
	l.polling = false
	if l.ctx.Err() == nil { // else it was cut short
		l.core.measured(used, err, began, time.Now())
	}
	l.mu.Unlock()
	l.wake()
}
