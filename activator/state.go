package activator

import "fmt"

// State is where a replica slot is in its life.
type State uint8

// A model has Config.Max slots; each runs at most one replica at a time. The diagram shows one slot:
//
//	        demand              ready             idle: fence from zero
//	Cold ──────────▶ Starting ──────────▶ Ready ─────────────────────────────▶ Stopping ──▶ Cold
//	 ▲                  │ │              ▲  │ │ unload, new spec, surplus:         ▲
//	 │ backoff over     │ │ cancelled    │  │ │ fence with work in flight          │
//	 │ or none needed   │ └──▶ Cold      │  │ └──────▶ Draining ───────────────────┤
//	 │                  ▼                │  │ idle:       in flight 0, or time up  │
//	Failed ◀── error ───┘          woken │  ▼ fence, sleep                         │
//	 ▲                                 Asleep ── idle longer, preempted, unload, ──┘
//	 │                                             sleep or wake failed
//	 └── exit seen while Ready, Asleep or Draining (its remains are still swept by Stop)
//
// A replica that an earlier gateway left enters at Starting or Ready. One of an old spec is told to leave when another is ready in its
// place, or at once; see replace.go.
//
// What an event does in a state. "·" is ignored and counted; every step ends in decide (decide.go), which
// starts, wakes, grants and gives up according to what is wanted then.
//
//	            started  failed   observed/fenced  slept/woken     stopped  exited   told to leave
//	Cold        ·        ·        ·                ·               ·        ·        stays
//	Starting    Ready    Failed¹  ·                ·               ·        ·        start cancelled → Cold
//	Ready       ·        ·        Asleep/Stopping  ·               ·        Failed²  Draining/Stopping
//	Asleep      ·        ·        ·                stays/Ready³    ·        Failed²  Stopping
//	Draining    ·        ·        Stopping⁴        ·               ·        Failed²  stays
//	Stopping    ·        ·        ·                ·               Cold     ·        stays
//	Failed      ·        ·        ·                ·               Cold⁵    ·        Cold⁵
//
//	¹ Cold, if the start was cancelled. ² Failed only until swept, unless it counts as a failure. ³ Stopping, if
//	it went wrong. ⁴ at zero in flight. ⁵ once swept and the backoff is over.
const (
	Cold     State = iota // no replica
	Starting              // waits for devices, or its start is in progress
	Ready                 // takes requests
	Asleep                // process kept, device memory given back, or on the way into or out of that
	Draining              // takes no more requests; those in flight go on for a while
	Stopping              // is being stopped; done when its memory is back
	Failed                // its start failed, or it died; waits for the sweep and the backoff
)

var stateNames = [...]string{"cold", "starting", "ready", "asleep", "draining", "stopping", "failed"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText makes states words in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
