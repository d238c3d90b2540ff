package activator

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// dropping makes a mutant's effect hook that loses effects.
func dropping(kinds ...effectKind) func(*world, effect) []effect {
	return func(_ *world, f effect) []effect {
		for _, k := range kinds {
			if f.kind == k {
				return nil
			}
		}
		return []effect{f}
	}
}

// losing makes a mutant's event hook that loses events.
func losing(kind eventKind) func(*world, *event) bool {
	return func(_ *world, e *event) bool { return e.kind != kind }
}

// tampering makes a mutant's after hook that changes every slot after events of a kind.
func tampering(kind eventKind, change func(*world, *slot)) func(*world, event) {
	return func(w *world, e event) {
		if e.kind != kind {
			return
		}
		for i := range w.core.slots {
			change(w, &w.core.slots[i])
		}
	}
}

// mutants are the faults that the explorer has to find, each in one scenario. caught is part of what it says.
var mutants = []struct {
	mutant
	caught string
}{
	// The admission word.
	{mutant{name: "entering ignores the fence", scenario: "idle", ignoresFence: true}, "I1"},
	{mutant{name: "entering ignores the limit", scenario: "idle", ignoresLimit: true}, "I4"},
	{mutant{name: "entering stores without comparing", scenario: "shared", storesBlindly: true}, ""},
	{mutant{name: "the fence is swapped in from any idle word", scenario: "shared", fencesAnyWord: true}, "I8"},
	{mutant{name: "the fence ignores who is in flight", scenario: "idle", fencesBusy: true}, ""},
	{mutant{name: "a failed fence counts as done", scenario: "idle", fenceAlwaysOK: true}, "I1"},
	{mutant{name: "two fences at once forget each other", scenario: "scale and update", event: func(w *world, e *event) bool {
		for i := range w.core.slots {
			if s := &w.core.slots[i]; e.kind == evObserved && s.id != e.id && s.look == lookFence {
				s.look = lookNone
			}
		}
		return true
	}}, "I12"},
	{mutant{name: "closing sets no fence", scenario: "update", closesNothing: true}, ""},
	{mutant{name: "closing overlooks who is in flight", scenario: "update", closeSeesZero: true}, "I1"},
	{mutant{name: "the time is written after the place is given up", scenario: "idle", touchesLate: true}, "I8"},
	{mutant{name: "the time is read before the word", scenario: "shared", timeBeforeWord: true}, "I8"},
	{mutant{name: "unknown requests count as none", scenario: "adopt", knowsUnknown: true}, "I7"},
	{mutant{name: "what is known is not written into the word", scenario: "adopt", effect: dropping(effKnown)}, "I7"},
	{mutant{name: "a start that was taken over is not watched", scenario: "adopt", effect: func(w *world, f effect) []effect {
		if s := w.core.byID(f.id); f.kind == effLaunch && s != nil && s.unknown {
			return nil
		}
		return []effect{f}
	}}, ""},
	{mutant{name: "a woken replica keeps its fenced word", scenario: "sleep", reopensOldWord: true}, ""},

	// Pokes.
	{mutant{name: "reaching zero is not reported", scenario: "idle", silentAtZero: true}, "I8"},
	{mutant{name: "a free place is not reported", scenario: "idle", silentToQueue: true}, "I9"},
	{mutant{name: "busy replicas are not watched", scenario: "idle", neverWatches: true}, "I8"},
	{mutant{name: "the poked mark stays", scenario: "cancels", pokedStays: true}, ""},
	{mutant{name: "a request is counted after it is sent", scenario: "idle", countsLate: true}, ""},
	{mutant{name: "a poke does not unblock", scenario: "idle", after: func(w *world, e event) {
		if e.kind == evPoke {
			w.core.blocked, w.core.asking = true, false
			w.core.out = w.core.out[:0]
		}
	}, effect: func(w *world, f effect) []effect {
		if f.kind == effGrant && w.core.blocked {
			return nil
		}
		return []effect{f}
	}}, "I9"},
	{mutant{name: "an arrival does not unblock", scenario: "cancels", event: func(w *world, e *event) bool {
		if e.kind == evArrive && w.core.blocked {
			w.core.queue.push(e.ticket, w.now)
			return false
		}
		return true
	}}, "I9"},

	// The queue.
	{mutant{name: "the warm path overtakes", scenario: "cancels", overtakes: true}, "order"},
	{mutant{name: "the bound is ignored", scenario: "bound", ignoresBound: true}, "I5"},
	{mutant{name: "a cancelled request keeps its room", scenario: "cancels", leaksRoom: true}, "I5"},
	{mutant{name: "a cancelled request is granted", scenario: "cancels", grantsTheGone: true}, "I6"},
	{mutant{name: "a cancellation is not told", scenario: "start failures", event: losing(evCancel)}, ""},
	{mutant{name: "a grant is done twice", scenario: "shared", grantsTheGone: true, effect: func(_ *world, f effect) []effect {
		if f.kind == effGrant {
			return []effect{f, f}
		}
		return []effect{f}
	}}, "I6"},
	{mutant{name: "priorities are ignored", scenario: "priorities", after: func(w *world, e event) {
		for i := range w.core.queue.levels {
			w.core.queue.levels[i].priority = 0
		}
	}}, "order"},
	{mutant{name: "waiters do not hear of a failed start", scenario: "permanent failure", effect: dropping(effGiveUp)}, ""},
	{mutant{name: "waiters are turned away by a crash", scenario: "idle", after: func(w *world, e event) {
		if e.kind == evExited && w.core.queue.len() > 0 {
			w.core.giveUpAll(w.now)
			w.effs = append(w.effs, w.core.out[len(w.core.out)-1])
		}
	}}, ""},

	{mutant{name: "the machine forgets that it asked", scenario: "idle", after: func(w *world, _ event) { w.core.asking = false }}, "I2"},

	// Timers.
	{mutant{name: "no idle timer after ready", scenario: "cancels", after: tampering(evStarted, func(_ *world, s *slot) { s.check = 0 })}, "I8"},
	{mutant{name: "no idle timer after a look", scenario: "idle", after: tampering(evObserved, func(_ *world, s *slot) { s.check = 0 })}, "I8"},
	{mutant{name: "no timer for the end of a backoff", scenario: "idle", deadline: func(w *world) moment {
		if w.core.failure.retryAt > w.now {
			return 0
		}
		return w.core.nextDeadline(w.now)
	}}, ""},
	{mutant{name: "no end to draining", scenario: "close", deadline: func(w *world) moment {
		for i := range w.core.slots {
			if w.core.slots[i].state == Draining {
				return 0
			}
		}
		return w.core.nextDeadline(w.now)
	}}, ""},
	{mutant{name: "sleepers are kept for ever", scenario: "sleep", after: tampering(evSlept, func(_ *world, s *slot) { s.check = 0 })}, "I8"},

	// Slots.
	{mutant{name: "a start is begun twice", scenario: "idle", effect: func(_ *world, f effect) []effect {
		if f.kind == effLaunch {
			return []effect{f, f}
		}
		return []effect{f}
	}}, "I3"},
	{mutant{name: "a slot is free before its replica has stopped", scenario: "idle", after: func(w *world, e event) {
		for i := range w.core.slots {
			if s := &w.core.slots[i]; s.state == Stopping && e.kind == evArrive {
				*s = slot{}
			}
		}
	}}, ""},
	{mutant{name: "a crashed replica stays open", scenario: "shared", effect: dropping(effClose)}, "I1"},
	{mutant{name: "a crashed replica is not swept", scenario: "idle", effect: func(w *world, f effect) []effect {
		if p := w.proc(f.id); f.kind == effStop && p != nil && p.exited {
			return nil
		}
		return []effect{f}
	}}, ""},
	{mutant{name: "a crash goes unnoticed", scenario: "idle", event: losing(evExited)}, "crash"},
	{mutant{name: "a new spec leaves old replicas alone", scenario: "update of two", event: func(w *world, e *event) bool {
		for i := range w.core.slots {
			if e.kind == evUpdate {
				w.core.slots[i].spec = w.core.spec + 1
			}
		}
		return true
	}}, "update"},
	{mutant{name: "an old replica leaves before its heir serves", scenario: "replace", after: tampering(evUpdate, func(w *world, s *slot) {
		s.outlived = s.spec != w.core.spec
	})}, "update"},
	{mutant{name: "an old replica stays beside its heir", scenario: "replace", after: func(w *world, _ event) {
		for i := range w.core.slots {
			w.core.slots[i].outlived = false
		}
	}, effect: func(w *world, f effect) []effect {
		if s := w.core.byID(f.id); f.kind == effClose && s != nil && s.state == Ready && s.spec != w.core.spec {
			s.look = lookNone
			return nil
		}
		return []effect{f}
	}}, ""},
	{mutant{name: "an heir that failed is waited for", scenario: "replace again", after: tampering(evFailed, func(w *world, s *slot) {
		if w.core.stays(s) {
			s.heir = 1 << 20
		}
	})}, ""},
	{mutant{name: "who found no room beside is in the way", scenario: "replace where there is room", after: func(w *world, e event) {
		if e.kind == evReserved && errors.Is(e.err, ErrNoRoom) {
			w.core.crowded = false
			for i := range w.core.slots {
				if s := &w.core.slots[i]; w.core.stays(s) {
					s.heir = 1 << 20
				}
			}
		}
	}}, ""},
	{mutant{name: "nothing is rolled back", scenario: "roll back without room", after: func(w *world, e event) {
		if e.kind == evUpdate {
			w.core.fallback = 0
		}
	}}, "I10"},
	{mutant{name: "what is rolled back is forgotten", scenario: "roll two back", after: func(w *world, e event) {
		if w.core.refused.cause != nil && e.kind == evFailed {
			w.core.spec = 9
		}
	}}, ""},
	{mutant{name: "all of an old spec leave at once", scenario: "replace two one by one", after: tampering(evUpdate, func(w *world, s *slot) {
		s.outlived = s.spec != w.core.spec
	})}, "update"},
	{mutant{name: "a cancelled start is not cancelled", scenario: "close", effect: dropping(effCancel)}, "cancel"},
	{mutant{name: "devices are not given back", scenario: "devices", effect: dropping(effGone)}, ""},
	{mutant{name: "devices are held by nobody", scenario: "devices", after: tampering(evReserved, func(_ *world, s *slot) { s.held = false })}, "devices"},
	{mutant{name: "preemption does not look", scenario: "adopt", event: func(w *world, e *event) bool {
		if s := w.core.byID(e.id); e.kind == evPreempt && s != nil && s.state == Ready {
			e.kind, e.ok = evFenced, true
			s.look, s.preempt = lookFence, true
		}
		return true
	}}, "I1"},
	{mutant{name: "yielding cuts requests", scenario: "yield of one that hangs", after: tampering(evClosed, func(w *world, s *slot) {
		if s.state == Draining {
			s.drainBy = w.now
		}
	})}, "I1"},
	{mutant{name: "who yields drains for ever", scenario: "yield of one that hangs", after: func(w *world, _ event) {
		for i := range w.core.slots {
			if s := &w.core.slots[i]; s.state == Draining {
				s.drainBy = 0
			}
		}
	}}, "leaving"},
	{mutant{name: "sleep does not wait for its end", scenario: "sleep", after: tampering(evArrive, func(_ *world, s *slot) {
		if s.work == workSleep {
			s.work = workNone
		}
	})}, ""},
	{mutant{name: "a failed sleep counts as one", scenario: "sleep goes wrong", event: func(_ *world, e *event) bool {
		if e.kind == evSlept {
			e.err = nil
		}
		return true
	}}, "wake"},
	{mutant{name: "a failed wake counts as one", scenario: "sleep goes wrong", event: func(_ *world, e *event) bool {
		if e.kind == evWoken {
			e.err = nil
		}
		return true
	}}, "I1"},
	{mutant{name: "a sleeper is put to sleep", scenario: "sleep", after: func(w *world, e event) {
		for i := range w.core.slots {
			if s := &w.core.slots[i]; e.kind == evSlept && s.state == Asleep && s.work == workNone {
				s.work = workSleep
				w.effs = append(w.effs, effect{kind: effSleep, id: s.id})
			}
		}
	}}, "sleep"},
	{mutant{name: "who falls asleep is woken at once", scenario: "sleep", after: func(w *world, e event) {
		for i := range w.core.slots {
			if s := &w.core.slots[i]; e.kind == evArrive && s.work == workSleep {
				s.work = workWake
				w.effs = append(w.effs, effect{kind: effWake, id: s.id})
			}
		}
	}}, ""},
	{mutant{name: "who is awake is woken", scenario: "two sleepers", after: func(w *world, e event) {
		for i := range w.core.slots {
			if s := &w.core.slots[i]; e.kind == evScale && s.state == Ready {
				w.effs = append(w.effs, effect{kind: effWake, id: s.id})
			}
		}
	}}, "wake"},
	{mutant{name: "a waking replica is open already", scenario: "sleep", effect: func(w *world, f effect) []effect {
		if f.kind == effWake {
			return []effect{f, {kind: effOpen, id: f.id, idle: true}}
		}
		return []effect{f}
	}}, "I1"},
	{mutant{name: "falling asleep closes nothing", scenario: "sleep", ignoresFence: true}, "I1"},
	{mutant{name: "nobody is woken", scenario: "sleep", effect: dropping(effWake)}, ""},
	{mutant{name: "the end of a sleep is not told", scenario: "sleep", event: losing(evSlept)}, ""},
	{mutant{name: "the end of a wake is not told", scenario: "sleep", event: losing(evWoken)}, ""},
	{mutant{name: "bad sleeps are forgotten", scenario: "sleep goes wrong", after: func(w *world, _ event) { w.core.sleepless = 0 }}, "I13"},
	{mutant{name: "a bad wake turns waiters away", scenario: "sleep goes wrong", after: func(w *world, e event) {
		if e.kind == evWoken && e.err != nil && w.core.queue.len() > 0 {
			w.core.giveUpAll(w.now)
			w.effs = append(w.effs, w.core.out[len(w.core.out)-1])
		}
	}}, ""},
	{mutant{name: "a sleeper's check is stale", scenario: "unload of a sleeper", after: tampering(evWoken, func(_ *world, s *slot) { s.check = 0 })}, "I8"},
	{mutant{name: "more replicas than allowed", scenario: "update", after: func(w *world, e event) {
		if e.kind == evUpdate {
			w.core.config.Max = 2
			w.core.resize()
		}
	}}, ""},
	{mutant{name: "surplus stays", scenario: "surplus", effect: dropping(effSurvey)}, "I14"},
	{mutant{name: "surplus is cut off", scenario: "surplus of one that hangs", after: tampering(evClosed, func(w *world, s *slot) {
		if s.state == Draining && s.extra {
			s.drainBy = w.now
		}
	})}, "I1"},
	{mutant{name: "who found no room for one more tries for ever", scenario: "no room for one more", after: func(w *world, e event) {
		if e.kind == evReserved && errors.Is(e.err, ErrNoRoom) {
			w.left.deny++
			w.core.tight = false
		}
	}}, ""},
	{mutant{name: "leaving never ends", scenario: "close sleepers", effect: dropping(effDone)}, "leaving"},
}

// TestExplorerFindsEveryMutant proves that the explorer has teeth: it must find each of the faults above. A mutant
// that survives fails the test.
func TestExplorerFindsEveryMutant(t *testing.T) {
	byName := map[string]*scenario{}
	for _, sc := range scenarios() {
		byName[sc.name] = sc
	}
	for i := range mutants {
		m := &mutants[i]
		t.Run(m.name, func(t *testing.T) {
			sc := byName[m.scenario]
			if sc == nil {
				t.Fatalf("no scenario %q", m.scenario)
			}
			began := time.Now()
			r := exploreMutant(sc, &m.mutant)
			if r.bad == "" {
				t.Fatalf("survived %d worlds of %q", r.states, sc.name)
			}
			if !strings.Contains(r.bad, m.caught) {
				t.Errorf("caught by %q, want %q", r.bad, m.caught)
			}
			t.Logf("%s (%d worlds, %d actions, %v)", r.bad, r.states, len(r.trace), time.Since(began).Round(time.Millisecond))
		})
	}
}

// exploreMutant also counts a panic as a find: a mutant may take the machine where production cannot go.
func exploreMutant(sc *scenario, m *mutant) (r exploration) {
	defer func() {
		if p := recover(); p != nil {
			r.bad = "panic"
		}
	}()
	return explore(sc, m, 1_000_000)
}
