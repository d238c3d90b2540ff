package app

import (
	"time"

	"pilotlight/internal/config"
	"pilotlight/router"
)

// balance gives the model what chooses among its replicas, once it may have several. What that has learned outlives reloads. The caller
// holds App.mu.
func (m *model) balance(c *config.Model) {
	switch {
	case m.balancer != nil:
		m.balancer.SetPolicy(c.Routing.Policy)
	case c.Activator.Max > 1:
		m.balancer = router.NewBalancer(c.Routing.Policy)
	}
}

// ChoiceState is what is known of a replica for choosing it.
type ChoiceState struct {
	// Work is what was sent there and is not done, in bytes of prompt to be computed.
	Work int64 `json:"work"`
	// Blocks of 512 bytes of prompts are remembered as cached there; Trust is the share of them that the engine really had, of late.
	Blocks int     `json:"blocks"`
	Trust  float64 `json:"trust"`
	// Chosen counts requests by why they went there.
	Chosen map[router.Reason]uint64 `json:"chosen"`
	// Failures counts broken connections, 5xx and silence; Out is set while the replica gets no requests for them, until Until.
	Failures uint64     `json:"failures"`
	Out      bool       `json:"out"`
	Until    *time.Time `json:"until,omitempty"`
	Trips    uint64     `json:"trips"` // how often it was taken out
}

// choiceState describes a replica; nil if none was ever chosen by the balancer, which may be nil.
func choiceState(b *router.Balancer, replica uint64) *ChoiceState {
	if b == nil {
		return nil
	}
	s, ok := b.Status(replica)
	if !ok {
		return nil
	}
	c := &ChoiceState{Work: int64(s.Work), Blocks: s.Blocks, Trust: s.Trust, Chosen: s.Chosen, Failures: s.Failures, Out: s.Out, Trips: s.Trips}
	if s.Out {
		c.Until = &s.Until
	}
	return c
}
