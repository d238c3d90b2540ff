package activator

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrQueueFull: the model's queue, or the total of all queues, is at its bound of requests or bytes, or the rest is kept for other tenants.
	ErrQueueFull = errors.New("queue is full")
	// ErrShuttingDown: the gateway is going away; requests in flight go on, waiting ones do not.
	ErrShuttingDown = errors.New("shutting down")
	// ErrUnloaded: the model was taken out of service.
	ErrUnloaded = errors.New("model is unloaded")
	// ErrWaitTimeout: no replica took the request within Request.MaxWait.
	ErrWaitTimeout = errors.New("wait for a replica timed out")
	// ErrCancelled: the ticket was cancelled before a replica took it.
	ErrCancelled = errors.New("wait for a replica cancelled")
	// ErrBusy: the replica has requests in flight (or may have), or has to stay; it was not preempted.
	ErrBusy = errors.New("replica is busy")
	// ErrUnwanted: a Ledger's answer to a start that no request waits for any more.
	ErrUnwanted = errors.New("nobody waits for the replica")
	// ErrNoReplica: the model has no replica by that id, or no slot for one more.
	ErrNoReplica = errors.New("no such replica")
)

// StartFailedError is why a waiting request was given up: no replica could be started, and no other one is left.
type StartFailedError struct {
	Model string
	// Cause is the launcher's own error.
	Cause error
	// Permanent: another try without a change of configuration, or Model.Retry, would end the same way.
	Permanent bool
	// RetryAfter is the rest of the pause before the next try; 0 where Permanent, or where one may come at once.
	RetryAfter time.Duration
}

func (e *StartFailedError) Error() string {
	return fmt.Sprintf("starting %s: %v", e.Model, e.Cause)
}

func (e *StartFailedError) Unwrap() error { return e.Cause }

// isPermanent asks the launcher's error whether another try can help. An error that does not say is transient.
func isPermanent(err error) bool {
	var p interface{ IsPermanent() bool }
	return errors.As(err, &p) && p.IsPermanent()
}
