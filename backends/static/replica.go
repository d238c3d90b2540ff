package static

import (
	"context"
	"sync"
	"time"

	"pilotlight/backends"
)

// Replica is one claimed URL. Its methods are safe for concurrent use.
type Replica struct {
	target *target
	cancel context.CancelFunc

	exited chan struct{}
	mu     sync.Mutex // guards cause
	cause  *backends.Failure
}

// watch begins the checks of a URL that was just claimed.
func (d *Driver) watch(spec *backends.Spec, id uint64, t *target) *Replica {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Replica{target: t, cancel: cancel, exited: make(chan struct{})}
	logger := d.logger.With("model", spec.Model, "replica", id, "addr", t.endpoint.Addr)
	logger.Info("server is healthy")
	go func() {
		defer cancel()
		cause := d.checkUntilDown(ctx, t)
		if cause.Class == backends.ClassUnreachable {
			logger.Warn("server is down", "error", cause.Err)
		}
		d.unclaim(spec.Model, t)
		r.mu.Lock()
		r.cause = cause
		r.mu.Unlock()
		close(r.exited)
	}()
	return r
}

// checkUntilDown returns when ctx has ended (class stopped) or enough checks in a row have failed.
func (d *Driver) checkUntilDown(ctx context.Context, t *target) *backends.Failure {
	last := time.Now() // it was found healthy
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return &backends.Failure{Class: backends.ClassStopped, Message: "the replica was stopped"}
		case <-time.After(d.opts.Jitter(d.opts.Interval)):
		}
		err := d.look(ctx, t, &last, d.opts.Interval)
		switch {
		case err == nil:
			failures = 0
		case ctx.Err() != nil: // the check was cut short by Stop
		default:
			if failures++; failures >= d.opts.Failures {
				return unreachable(err)
			}
		}
	}
}

// Endpoint is how to reach the replica.
func (r *Replica) Endpoint() backends.Endpoint { return r.target.endpoint }

// Exited is closed once the server counts as down, or after Stop.
func (r *Replica) Exited() <-chan struct{} { return r.exited }

// Cause says why, as a *backends.Failure: unreachable, or stopped if Stop was asked for. It is nil until
// Exited is closed.
func (r *Replica) Cause() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause == nil {
		return nil
	}
	return r.cause
}

// Stop ends the checks and gives the URL free; the server goes on. It returns once that is done, or ctx's
// error if ctx ends before. idle makes no difference.
func (r *Replica) Stop(ctx context.Context, idle bool) error {
	r.cancel()
	select {
	case <-r.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
