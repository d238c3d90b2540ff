package process

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"pilotlight/backends"
	"pilotlight/backends/sglang"
)

// Replica is one engine process with everything that belongs to it. Its methods are safe for concurrent
// use; those that tell about a life's end make sense whatever the order of calls.
type Replica struct {
	driver *Driver
	logger *slog.Logger
	child  *child
	out    *output
	args   []string // its command line; nil if it is not known any more. It holds the API key

	// record's State, PID, StartTicks and Concurrency change under recording, the rest never.
	record    *Record
	recording sync.Mutex // serialises writes of the record's file; guards erased
	erased    bool

	adopted bool // from an earlier gateway

	endpoint    backends.Endpoint // set before Launch returns
	concurrency atomic.Int64
	lines       atomic.Int64 // of output so far
	kills       int64        // by the kernel for want of memory, before it was started; negative: not known

	sleep sleeper

	mu     sync.Mutex        // guards the fields below
	reason *backends.Failure // why it is ended by us; nil: it was not
	cause  *backends.Failure // why it ended; set before exited is closed
	swept  error             // what could not be cleaned up

	exited  chan struct{}
	watched chan struct{} // closed: watch has returned, at the replica's end or because it was let go
}

func (d *Driver) newReplica(rec *Record) *Replica {
	return &Replica{
		driver: d, record: rec, kills: -1, logger: d.logger.With("model", rec.Model, "replica", rec.ID),
		exited: make(chan struct{}), watched: make(chan struct{}),
	}
}

// Endpoint is how to reach the replica. Valid from the moment that Launch has returned it.
func (r *Replica) Endpoint() backends.Endpoint { return r.endpoint }

// PID is the main process.
func (r *Replica) PID() int { return r.child.pid }

// Exited is closed once the replica is gone, whoever ended it: its main process has ended, the rest of its
// group was killed, and its port, record and temporary folder are given back.
func (r *Replica) Exited() <-chan struct{} { return r.exited }

// Cause says why the replica is gone, as a *backends.Failure, of class stopped if it was asked to go. It is
// nil until Exited is closed.
func (r *Replica) Cause() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause == nil {
		return nil
	}
	return r.cause
}

// Tail returns the last n lines of output, oldest first, at most a few hundred. Keys, tokens and the
// model's secrets are masked.
func (r *Replica) Tail(n int) []string { return r.out.tail(n) }

// Stop ends the replica and returns when nothing of it is left. SIGTERM goes to the main process alone;
// after the grace for idle replicas (idle: no request is in flight), or that for busy ones, or when ctx
// ends, SIGKILL follows, and then the whole group is swept. The error is nil even if SIGKILL was needed, and
// tells what is left otherwise. Calls beyond the first wait like it.
func (r *Replica) Stop(ctx context.Context, idle bool) error {
	return r.end(ctx, idle, &backends.Failure{Class: backends.ClassStopped, Message: "the replica was stopped"})
}

// end is Stop for any reason; the first one given counts.
func (r *Replica) end(ctx context.Context, idle bool, reason *backends.Failure) error {
	r.mu.Lock()
	if r.reason == nil {
		r.reason = reason
	}
	r.mu.Unlock()

	grace := r.driver.opts.StopGrace
	if idle {
		grace = r.driver.opts.IdleGrace
	}
	// The next gateway must not take it over, should this one die now.
	if err := r.recordStopping(); err != nil {
		r.logger.WarnContext(ctx, "a replica's end is not recorded", "error", err)
	}
	problem := r.child.signal(unix.SIGTERM)
	if problem == nil && r.goneWithin(ctx, grace) {
		return r.leftover()
	}
	// The caller may give up waiting for a clean end, not for the end.
	problem = errors.Join(problem, r.child.signal(unix.SIGKILL))
	// Sweeping has its own limit; twice as long means that the main process itself does not die.
	if !r.goneWithin(context.WithoutCancel(ctx), 2*r.driver.opts.sweepLimit) {
		return errors.Join(errNotGone, problem)
	}
	return r.leftover()
}

func (r *Replica) goneWithin(ctx context.Context, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-r.exited:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func (r *Replica) leftover() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.swept
}

// watch waits for the end and cleans up. It is the only place where a replica ends.
func (r *Replica) watch() {
	defer close(r.watched)
	problem := r.child.wait()
	if errors.Is(problem, os.ErrDeadlineExceeded) {
		r.release()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.driver.opts.sweepLimit)
	defer cancel()
	swept := r.child.kin.sweep(ctx)
	status, err := r.child.reap()
	problem = errors.Join(problem, err, r.out.close())

	if swept == nil {
		problem = errors.Join(problem, r.eraseRecord(), r.driver.ports.release(r.record.Port))
	} // else the record stays for the next gateway, and the port, which they may hold, stays taken
	r.driver.forget(r.record.name())

	r.mu.Lock()
	r.swept = swept
	r.cause = r.reason
	if r.cause == nil {
		r.cause = r.explain(status)
	}
	cause := r.cause
	r.mu.Unlock()

	level := slog.LevelInfo
	if cause.Class != backends.ClassStopped || swept != nil || problem != nil {
		level = slog.LevelWarn
	}
	attrs := []any{"class", cause.Class, "status", status.String(),
		"lifetime", time.Since(r.record.StartedAt).Round(time.Millisecond), "left_over", swept, "error", problem}
	if cause.Class != backends.ClassStopped {
		attrs = append(attrs, "message", cause.Message, "advice", cause.Advice, "permanent", cause.Permanent, "last_lines", cause.Lines)
	}
	r.logger.Log(ctx, level, "engine process ended", attrs...)
	close(r.exited)
}

// fullDisk is the free space below which an engine's silence about its end is put down to a full disk: the
// line that would have told could not be written.
const fullDisk = 64 << 10

// explain names the cause of an end that nobody here asked for.
func (r *Replica) explain(status sglang.ExitStatus) *backends.Failure {
	var f *backends.Failure
	if lines := r.out.tail(ringLines); r.record.Engine == backends.EngineSGLang {
		f = sglang.Classify(lines, status, r.args...)
	} else {
		f = sglang.ClassifyAny(lines, status)
	}
	if f.Class == backends.ClassKilled && r.kills >= 0 {
		if now, err := r.driver.opts.oomKills(); err == nil && now > r.kills {
			f.Message = "the kernel killed a process, most likely the engine's, because the machine or the engine's control group ran out of memory"
			f.Advice = "give the model more memory, or run fewer models beside it"
		}
	}
	if f.Class == backends.ClassExited || f.Class == backends.ClassKilled {
		if free, err := r.driver.opts.freeBytes(r.driver.logDir()); err == nil && free < fullDisk {
			full := diskFull(unix.ENOSPC)
			full.Lines, full.Err = f.Lines, errors.Join(full.Err, f.Err)
			return full
		}
	}
	return f
}
