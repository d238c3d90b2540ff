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

func (c *Counters) raise(o Counters) {
	for _, p := range [...]struct{ to, from *uint64 }{
		{&c.Starts, &o.Starts}, {&c.StartFailures, &o.StartFailures}, {&c.Crashes, &o.Crashes}, {&c.Evictions, &o.Evictions},
		{&c.Sleeps, &o.Sleeps}, {&c.BadSleeps, &o.BadSleeps}, {&c.Wakes, &o.Wakes}, {&c.Preemptions, &o.Preemptions}, {&c.Revoked, &o.Revoked}, {&c.RollBacks, &o.RollBacks}, {&c.Ignored, &o.Ignored},
	} {
		*p.to = max(*p.to, *p.from)
	}
}

// TestExplore closes the state space of every scenario: whatever the order of steps, the invariants
// (I1 to I14 in world_checks_test.go and world_owner_test.go) hold, and every request is served or told why not. Under the race
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
