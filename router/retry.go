package router

import (
	"errors"

	"pilotlight/backends/transport"
)

// MaxAttempts bounds how many replicas one request may be sent to.
const MaxAttempts = 3

// MayRetry is the retry rule (DESIGN.md §7): a request that failed with err, and of whose response the client has got nothing, may be sent
// again if the replica will surely not answer it: nobody listened, or the replica is known to be dead. (The third case, a reused
// idle connection that the engine had closed, is settled inside transport.) A generation is not idempotent in cost: doubt means no.
func MayRetry(err error, replicaDead bool) bool {
	var te *transport.Error
	return errors.As(err, &te) && (te.Refused || replicaDead)
}
