package activator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// mutant is one small fault, switched on in the world's copies of what the owner and the requests do, or
// between the machine and them. The zero value is no fault.
type mutant struct {
	name     string
	scenario string // where it shows

	ignoresLimit, ignoresFence, storesBlindly      bool // entering
	fencesAnyWord, fencesBusy, fenceAlwaysOK       bool // fencing an idle replica
	closesNothing, closeSeesZero                   bool // closing a busy one
	touchesLate, silentAtZero, silentToQueue       bool // releasing
	overtakes, countsLate, leaksRoom, ignoresBound bool // queueing
	grantsTheGone, pokedStays, neverWatches        bool // the owner
	timeBeforeWord, reopensOldWord, knowsUnknown   bool

	event    func(w *world, e *event) bool // before a step; false drops the event
	effect   func(w *world, f effect) []effect
	after    func(w *world, e event) // after a step
	deadline func(w *world) moment
}

// exploration is the result of visiting every world that can come of a first one.
type exploration struct {
	states, steps int
	bad           string
	trace         []string
	capped        bool
	seen          Counters // the highest of each
}

type visited struct {
	parent int32
	next   int32 // where progress leads; −1: nowhere
	by     action
}

// raceWorlds bounds each exploration under the race detector.
const raceWorlds = 15_000

// explore visits every reachable world, breadth first, so that what it finds is a shortest way to it. Every
// world is checked after every action; every world that nothing happens in any more is checked as an end; and
// in the end the way that progress leads from every world is followed, so that none runs in circles.
func explore(sc *scenario, mut *mutant, limit int) exploration {
	if mut == nil {
		mut = &mutant{}
	}
	sc.prepare()
	var (
		found = map[[2]uint64]int32{}
		nodes []visited
		todo  []*world
		first = 0 // index of todo[0] among nodes
		buf   []byte
		list  []action
		spare *world // its memory is used again
		r     exploration
	)
	fail := func(at int32, last action, text string) exploration {
		r.bad = text
		r.trace = append(r.trace, last.String())
		for ; at > 0; at = nodes[at].parent {
			r.trace = append(r.trace, nodes[at].by.String())
		}
		slices.Reverse(r.trace)
		r.states = len(nodes)
		return r
	}
	start := newWorld(sc, mut)
	key, buf := start.key(buf)
	found[key] = 0
	nodes = append(nodes, visited{parent: -1, next: -1})
	todo = append(todo, start)
	for len(todo) > 0 {
		w := todo[0]
		todo[0] = nil
		todo = todo[1:]
		at := int32(first)
		first++
		list = w.actions(list[:0])
		if len(list) == 0 || !list[0].progress() {
			w.checkEnd()
			if w.bad != "" {
				return fail(at, action{}, w.bad)
			}
		}
		for i, a := range list {
			n := w // the last action may use up the world
			if i < len(list)-1 {
				if n = spare; n == nil {
					n = &world{}
				}
				spare = nil
				w.copyTo(n)
			}
			n.apply(a)
			r.steps++
			if n.bad != "" {
				return fail(at, a, n.bad)
			}
			n.tidy()
			r.seen.raise(n.core.counters)
			key, buf = n.key(buf)
			to, ok := found[key]
			if !ok {
				if len(nodes) >= limit {
					r.capped, r.states = true, len(nodes)
					return r
				}
				to = int32(len(nodes))
				found[key] = to
				nodes = append(nodes, visited{parent: at, next: -1, by: a})
				todo = append(todo, n)
			} else {
				spare = n
			}
			if i == 0 && a.progress() {
				nodes[at].next = to
			}
		}
	}
	r.states = len(nodes)
	if at := circle(nodes); at >= 0 {
		return fail(at, action{}, "liveness: from here things go round in circles")
	}
	return r
}

// circle finds a world from which progress never ends; −1 if there is none.
func circle(nodes []visited) int32 {
	const fresh, onPath, good = 0, 1, 2
	mark := make([]uint8, len(nodes))
	var path []int32
	for i := range nodes {
		path = path[:0]
		at := int32(i)
		for at >= 0 && mark[at] == fresh {
			mark[at] = onPath
			path = append(path, at)
			at = nodes[at].next
		}
		if at >= 0 && mark[at] == onPath {
			return at
		}
		for _, p := range path {
			mark[p] = good
		}
	}
	return -1
}

func (r exploration) String() string {
	return fmt.Sprintf("%s\nafter %d worlds, by:\n  %s", r.bad, r.states, strings.Join(r.trace, "\n  "))
}

// The times are in arbitrary units: only their order matters to the machine.
func exploreConfig(limits ...int) Config {
	c := Config{Min: 0, Max: 1, ScaledownAfter: 1, DrainTimeout: 1, BackoffMin: 1, BackoffMax: 1, Concurrency: 1}
	if len(limits) > 0 {
		c.Max = limits[0]
	}
	if len(limits) > 1 {
		c.Concurrency = limits[1]
	}
	return c
}

func scenarios() []*scenario {
	with := func(c Config, change func(*Config)) Config { change(&c); return c }
	surge := func(c *Config) { c.Surge = true }
	return []*scenario{
		{
			name: "idle", tenants: []string{"a", "b"}, budget: budget{crash: 1, cancel: 1}, config: exploreConfig(1, 1),
		},
		{
			name: "shared", tenants: []string{"a", "a", "a"}, budget: budget{crash: 1}, config: exploreConfig(1, 2),
		},
		{
			name: "cancels", tenants: []string{"a", "b", "a"}, budget: budget{cancel: 2}, config: exploreConfig(1, 1),
		},
		{
			name: "priorities", tenants: []string{"a", "A", "b"}, budget: budget{cancel: 1}, config: exploreConfig(1, 1),
		},
		{
			name: "charges", tenants: []string{"a", "b", "a"}, charges: true, budget: budget{crash: 1}, config: exploreConfig(1, 1),
		},
		{
			name: "scale", tenants: []string{"a", "a", "a"}, budget: budget{scale: 1}, scaleTo: 2, config: exploreConfig(2, 1),
		},
		{
			name: "scale and back", tenants: []string{"a"}, budget: budget{scale: 2, crash: 1}, scaleTo: 2,
			config: with(exploreConfig(2, 1), func(c *Config) { c.Min = 1 }),
		},
		{
			name: "surplus", tenants: []string{"a", "a"}, budget: budget{scale: 2}, scaleTo: 2, config: exploreConfig(2, 1),
		},
		{
			name: "surplus of one that hangs", tenants: []string{"a", "a"}, hung: 2, budget: budget{scale: 2}, scaleTo: 2, config: exploreConfig(2, 1),
		},
		{
			name: "surplus of two", tenants: []string{"a"}, budget: budget{scale: 2}, scaleTo: 3, config: exploreConfig(3, 1),
		},
		{
			name: "no room for one more", tenants: []string{"a"}, budget: budget{scale: 2, deny: 1, yield: 1}, scaleTo: 2, ledger: true, unwanted: true, config: exploreConfig(2, 1),
		},
		{
			name: "one more fails", tenants: []string{"a"}, budget: budget{scale: 1, startFail: 1, crash: 1}, scaleTo: 2, mayFail: true, permanent: true, config: exploreConfig(2, 1),
		},
		{
			name: "scale and update", tenants: []string{"a"}, budget: budget{scale: 2, update: 1}, scaleTo: 2, config: with(exploreConfig(2, 1), func(c *Config) { c.Min, c.Surge = 1, true }),
		},
		{
			name: "scale and sleep", tenants: []string{"a", "a"}, budget: budget{scale: 2}, scaleTo: 2,
			config: with(exploreConfig(2, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "bound", tenants: []string{"a", "a", "a"}, bound: 1, budget: budget{cancel: 1}, config: exploreConfig(1, 1), mayFail: true,
		},
		{
			name: "start failures", tenants: []string{"a", "a"}, budget: budget{startFail: 2, cancel: 1, crash: 1}, config: exploreConfig(1, 1), mayFail: true,
		},
		{
			name: "long backoff", tenants: []string{"a", "a"}, budget: budget{startFail: 1, crash: 1, retry: 1}, mayFail: true,
			config: with(exploreConfig(1, 1), func(c *Config) { c.BackoffMin, c.BackoffMax = 2*patience, 2*patience }),
		},
		{
			name: "permanent failure", tenants: []string{"a", "a"}, budget: budget{startFail: 1, retry: 1, scale: 1}, scaleTo: 2, mayFail: true, permanent: true,
			config: with(exploreConfig(2, 1), func(c *Config) { c.Min = 1 }),
		},
		{
			name: "failure and update", tenants: []string{"a", "a"}, budget: budget{startFail: 1, update: 1}, mayFail: true, permanent: true,
			config: exploreConfig(1, 1),
		},
		{
			name: "failing stops", tenants: []string{"a", "a"}, budget: budget{stopFail: stopTries - 1}, config: exploreConfig(1, 1),
		},
		{
			name: "sleep", tenants: []string{"a", "a"}, budget: budget{sleepFail: 1, wakeFail: 1, crash: 1},
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "sleep goes wrong", tenants: []string{"a", "a", "a"}, budget: budget{sleepFail: 2, wakeFail: 2, retry: 1},
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "two sleepers", tenants: []string{"a", "a"}, budget: budget{scale: 2, wakeFail: 1}, scaleTo: 2,
			config: with(exploreConfig(2, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "sleep and update", tenants: []string{"a", "a"}, budget: budget{update: 1, sleepFail: 1, wakeFail: 1, crash: 1},
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "sleep and yield", tenants: []string{"a", "a"}, budget: budget{yield: 1, preempt: 1, deny: 1, wakeFail: 1}, ledger: true, unwanted: true,
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "unload of a sleeper", tenants: []string{"a", "a"}, budget: budget{unload: 1, cancel: 1, sleepFail: 1, wakeFail: 1}, mayFail: true,
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "adopt and sleep", tenants: []string{"a", "a"}, budget: budget{adopt: 1, crash: 1, sleepFail: 1},
			config: with(exploreConfig(1, 2), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "sleep and preemption", tenants: []string{"a", "a"}, budget: budget{preempt: 2}, ledger: true,
			config: with(exploreConfig(2, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "devices", tenants: []string{"a", "a"}, budget: budget{preempt: 1, deny: 1, update: 1}, ledger: true, mayFail: true, config: exploreConfig(1, 1),
		},
		{
			name: "yield", tenants: []string{"a", "a"}, budget: budget{yield: 1, preempt: 1, update: 1, deny: 1}, ledger: true, unwanted: true, config: exploreConfig(1, 1),
		},
		{
			name: "yield of one that hangs", tenants: []string{"a", "a"}, hung: 1, budget: budget{yield: 1, unload: 1, crash: 1}, mayFail: true, ledger: true, config: exploreConfig(2, 2),
		},
		{
			name: "update", tenants: []string{"a", "a"}, budget: budget{update: 2, crash: 1}, config: exploreConfig(1, 1),
		},
		{
			name: "update of two", tenants: []string{"a", "a"}, budget: budget{update: 1}, hung: 1, config: with(exploreConfig(2, 2), func(c *Config) { c.Min = 1 }),
		},
		{
			name: "replace", tenants: []string{"a", "a"}, budget: budget{update: 1, startFail: 1, crash: 1}, mayFail: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "replace again", tenants: []string{"a"}, budget: budget{update: 2, startFail: 1}, mayFail: true,
			config: with(exploreConfig(1, 1), func(c *Config) { c.Min, c.Surge = 1, true }),
		},
		{
			name: "replace in vain", tenants: []string{"a", "a"}, budget: budget{update: 1, startFail: 1, retry: 1}, mayFail: true, permanent: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "replace where there is room", tenants: []string{"a", "a"}, budget: budget{update: 1, deny: 1, preempt: 1}, ledger: true, mayFail: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "replace one who yields", tenants: []string{"a", "a"}, budget: budget{update: 1, deny: 1, yield: 1}, ledger: true, unwanted: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "replace two", tenants: []string{"a"}, budget: budget{update: 1, crash: 1},
			config: with(exploreConfig(2, 1), func(c *Config) { c.Min, c.Surge = 2, true }),
		},
		{
			name: "replace two one by one", tenants: []string{"a"}, budget: budget{update: 1, crash: 1}, config: with(exploreConfig(2, 1), func(c *Config) { c.Min = 2 }),
		},
		{
			name: "roll back", tenants: []string{"a", "a"}, budget: budget{update: 1, startFail: 1}, permanent: true, failNew: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "roll back after some tries", tenants: []string{"a", "a"}, budget: budget{update: 1, startFail: rollTries + 1}, failNew: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "roll back without room", tenants: []string{"a", "a"}, budget: budget{update: 1, startFail: 1, crash: 1}, failNew: true,
			config: with(exploreConfig(1, 1), func(c *Config) { c.Min = 1 }),
		},
		{
			name: "roll two back", tenants: []string{"a"}, budget: budget{update: 1, startFail: 1, deny: 1}, permanent: true, failNew: true, ledger: true, unwanted: true,
			config: with(exploreConfig(2, 1), func(c *Config) { c.Min, c.Surge = 2, true }),
		},
		{
			name: "there and back", tenants: []string{"a", "a"}, budget: budget{update: 2, startFail: 1}, back: true, failNew: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "two there and back", tenants: []string{"a"}, budget: budget{update: 2}, back: true,
			config: with(exploreConfig(2, 1), func(c *Config) { c.Min = 2 }),
		},
		{
			name: "replace and unload", tenants: []string{"a", "a"}, budget: budget{update: 1, unload: 1}, hung: 1, mayFail: true, config: with(exploreConfig(1, 2), surge),
		},
		{
			name: "replace those found", tenants: []string{"a"}, budget: budget{adopt: 2, deny: 1}, ledger: true, mayFail: true, config: with(exploreConfig(1, 1), surge),
		},
		{
			name: "replace sleepers", tenants: []string{"a", "a"}, budget: budget{update: 1, wakeFail: 1},
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter, c.Surge = 1, 2, true }),
		},
		{
			name: "unload", tenants: []string{"a", "a", "a"}, budget: budget{unload: 1, startFail: 1}, hung: 1, mayFail: true, config: exploreConfig(1, 1),
		},
		{
			name: "close sleepers", tenants: []string{"a", "a"}, budget: budget{close: 1, crash: 1}, mayFail: true, ledger: true,
			config: with(exploreConfig(1, 1), func(c *Config) { c.SleepAfter, c.ScaledownAfter = 1, 2 }),
		},
		{
			name: "adopt", tenants: []string{"a", "a"}, budget: budget{adopt: 1, preempt: 1, update: 1}, ledger: true, config: exploreConfig(1, 2),
		},
		{
			name: "close", tenants: []string{"a", "a", "a"}, budget: budget{unload: 1, close: 1, hurry: 1}, hung: 1, mayFail: true, config: exploreConfig(1, 1),
		},
		{
			// The one that closes 3 requests × 2 replicas × 2 crashes. Without pauses after crashes, which
			// "idle" has; with them it is five times as large.
			name: "crashes", coarse: true, tenants: []string{"a", "a", "a"}, budget: budget{crash: 2},
			config: with(exploreConfig(2, 1), func(c *Config) { c.Min, c.BackoffMin, c.BackoffMax = 2, 0, 0 }),
		},
	}
}

func (c *Counters) raise(o Counters) {
	for _, p := range [...]struct{ to, from *uint64 }{
		{&c.Starts, &o.Starts}, {&c.StartFailures, &o.StartFailures}, {&c.Crashes, &o.Crashes}, {&c.Evictions, &o.Evictions},
		{&c.Sleeps, &o.Sleeps}, {&c.BadSleeps, &o.BadSleeps}, {&c.Wakes, &o.Wakes}, {&c.Preemptions, &o.Preemptions}, {&c.Revoked, &o.Revoked}, {&c.RollBacks, &o.RollBacks}, {&c.Ignored, &o.Ignored},
	} {
		*p.to = max(*p.to, *p.from)
	}
}

// TestExplore closes the state space of every scenario: whatever the order of steps, the invariants
// (I1 to I14 in world_test.go and world_actions_test.go) hold, and every request is served or told why not. Under the race
// detector, which has nothing to find in one goroutine and makes this ten times slower, each scenario ends
// at raceWorlds worlds; being breadth first, these are all the short interleavings.
func TestExplore(t *testing.T) {
	var seen Counters
	ran := 0
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			began, limit := time.Now(), 3_000_000
			if raceEnabled {
				limit = raceWorlds
			}
			r := explore(sc, nil, limit)
			if r.bad != "" {
				t.Fatal(r)
			}
			if r.capped && !raceEnabled {
				t.Errorf("not closed after %d worlds", limit)
			}
			seen.raise(r.seen)
			ran++
			t.Logf("%d worlds, %d steps, %v, %+v", r.states, r.steps, time.Since(began).Round(time.Millisecond), r.seen)
		})
	}
	if ran < len(scenarios()) {
		return // only some were asked for
	}
	// What never happened was not tested.
	for name, n := range map[string]uint64{
		"starts": seen.Starts, "failed starts": seen.StartFailures, "crashes": seen.Crashes, "evictions": seen.Evictions, "revoked evictions": seen.Revoked,
		"sleeps": seen.Sleeps, "bad sleeps": seen.BadSleeps, "wakes": seen.Wakes, "preemptions": seen.Preemptions, "roll-backs": seen.RollBacks,
	} {
		if n == 0 {
			t.Errorf("no scenario had %s", name)
		}
	}
}
