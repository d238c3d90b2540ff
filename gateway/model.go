package gateway

import (
	"time"

	"pilotlight/activator"
	"pilotlight/auth/limits"
	"pilotlight/backends"
	"pilotlight/backends/transport"
	"pilotlight/router"
)

// Model is what the edge knows of one model. It does not change once it is in a table; a reload makes another.
type Model struct {
	// ID is what clients send and what answers show; Aliases are more names for it.
	ID      string
	Aliases []string
	// RequiresAuth false opens the model to callers without a key.
	RequiresAuth bool
	Cold         Cold
	Timeouts     Timeouts
	Routing      Routing
	// Split gives a share of the requests for this model's names to other models, Fallback those that it cannot answer. Parameters are members
	// that its requests get.
	Split      []Share
	Fallback   Fallback
	Parameters []Parameter
	// Shadow gets copies of a share of the requests, whose answers are dropped; without a Model there are none.
	Shadow Share
	// Created is shown in /v1/models: when the model came into the configuration, in Unix seconds.
	Created int64
	// Activator gives leases on replicas.
	Activator *activator.Model
	// Balancer chooses among replicas; nil: there is never more than one, or any will do. It outlives the Model, as Activator does.
	Balancer *router.Balancer
	// StartTrace finds the trace of a replica's start; of the latest one if replica is 0. nil: starts are not traced.
	StartTrace func(replica uint64) (StartTrace, bool)

	metrics *modelMetrics
	account *limits.Account // nil: no limits
}

// Target is what the edge needs of the instance behind a lease.
type Target interface {
	Transport() *transport.Pool
	// Exited is closed once the replica is gone.
	Exited() <-chan struct{}
}

func (m *Model) names() []string { return append([]string{m.ID}, m.Aliases...) }

// usesRID tells whether the engine takes our request id, and can be told to abort by it.
func usesRID(e backends.Endpoint) bool { return e.Engine == backends.EngineSGLang }

// waitBudget is how long a request may wait for a replica: the smallest of the model's limit, the client's own wish, and, for an
// answer in one piece, what its client and the proxies in between bear in silence (facts/clients.md §2.3).
func (m *Model) waitBudget(stream bool, wish, hint time.Duration) time.Duration {
	budget := m.Cold.MaxWait
	if wish >= 0 {
		budget = min(budget, wish)
	}
	if stream {
		return budget
	}
	if !m.Cold.KeepAliveJSON {
		budget = min(budget, silentHold)
	}
	if hint >= 0 {
		budget = min(budget, max(0, hint-hintMargin))
	}
	return budget
}

const (
	// silentHold stays below the 300 s after which Node's fetch drops a request without headers.
	silentHold = 290 * time.Second
	// hintMargin is how long before the client's own time-out an answer must be on its way.
	hintMargin = 5 * time.Second
)
