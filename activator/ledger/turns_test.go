package ledger

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pilotlight/activator"
)

// played is a replica in a simulation of the core: what it does next, and when.
type played struct {
	until  time.Time // Starting, Draining: the end of it
	asked  time.Time // when it answers whether it leaves; zero: nobody asks
	yields bool      // it was asked to leave although busy
}

// TestEverybodyHasTheirTurn plays random models on random devices without an idle moment, second by second, with questions that are
// answered late, memory that comes back late, and starts that fail. Whatever the models' needs, nobody waits for longer than it takes
// that everybody else has a turn, drains, and starts, and no device changes hands before a stay is over.
func TestEverybodyHasTheirTurn(t *testing.T) {
	for seed := range uint64(20) {
		if turns(t, seed); t.Failed() {
			t.Fatalf("by seed %d", seed)
		}
	}
}

func turns(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	seconds := func(least, most int) time.Duration { return time.Duration(least+r.IntN(most-least+1)) * time.Second }
	const drains, settles, answers = 20, 3, 2 // seconds at most
	s := onStage(t, make([]string, 1+r.IntN(4))...)
	for i := range s.core.devices {
		s.core.devices[i].Measured = true
	}
	takes := map[string]time.Duration{}
	var names []string
	longest := time.Duration(0)
	for i := range 2 + r.IntN(4) {
		name := fmt.Sprint("m", i)
		terms := Terms{Count: 1 + r.IntN(len(s.core.devices))}
		if terms.Count == 1 && r.IntN(2) == 0 {
			terms.Share = 100 * (2 + r.IntN(8))
		}
		s.terms(name, terms)
		names = append(names, name)
		takes[name] = seconds(2, 40)
		longest = max(longest, takes[name])
	}
	most := time.Duration(len(names))*((busyTurn+2)*longest+(drains+settles+answers)*time.Second) + 5*time.Second
	plays := map[Replica]*played{}
	since := map[string]time.Time{} // when a model was left without a replica
	settled := make([]time.Time, len(s.core.devices))
	next := uint64(0)
	end := func(who Replica) {
		for _, i := range s.core.holdOf(who).devices {
			settled[i] = s.now.Add(seconds(0, settles))
		}
		s.gone(who)
		delete(plays, who)
	}
	for range 2000 {
		s.pass(time.Second)
		for _, name := range names {
			has := func(h *hold) bool { return h.who.Model == name }
			if slices.ContainsFunc(s.core.holds, has) || slices.ContainsFunc(s.core.wants, func(w *want) bool { return w.who.Model == name }) {
				continue
			}
			next++
			s.wants(name, next)
			since[name] = s.now
		}
		for _, h := range slices.Clone(s.core.holds) {
			who, l := h.who, s.looks[h.who]
			p := plays[who]
			switch {
			case p == nil:
				plays[who] = &played{until: s.now.Add(takes[who.Model])}
				s.looks[who] = look{state: activator.Starting, since: s.now, startTime: takes[who.Model]}
				continue
			case l.state == activator.Starting && !s.now.Before(p.until):
				if r.IntN(8) == 0 {
					end(who) // it failed, and its model begins again
					continue
				}
				l.state, l.since, l.inFlight = activator.Ready, s.now, 1
			case l.state == activator.Ready:
				l.inFlight = 1
				if r.IntN(30) == 0 { // a moment without a request
					l.inFlight, l.idleSince = 0, s.now
				}
				if !p.asked.IsZero() && !s.now.Before(p.asked) {
					p.asked = time.Time{}
					leaves := p.yields || l.inFlight == 0
					if leaves {
						l.state, p.until = activator.Draining, s.now.Add(seconds(0, drains))
					}
					s.core.answered(who, leaves, s.now)
				}
			case l.state == activator.Draining && !s.now.Before(p.until):
				end(who)
				continue
			}
			s.looks[who] = l
		}
		used := map[string]int64{}
		for i, d := range s.core.devices {
			used[d.ID] = s.core.allowed(i)
			if s.now.Before(settled[i]) {
				used[d.ID] += 2 * slack
			}
		}
		s.core.measured(used, nil, s.now, s.now)
		for _, name := range names { // those that wait for a replica
			s.queued[name] = 0
			if slices.ContainsFunc(s.core.wants, func(w *want) bool { return w.who.Model == name }) {
				s.queued[name] = 1
			}
		}
		d := s.decide()
		for _, e := range d.ends {
			if e.err != nil {
				t.Errorf("%v: %v", e.who, e.err)
				continue
			}
			if waited := s.now.Sub(since[e.who.Model]); waited > most {
				t.Errorf("%v waited for %v, want at most %v", e.who, waited, most)
			}
			for _, i := range s.core.holdOf(e.who).devices {
				if s.now.Before(settled[i]) {
					t.Errorf("%v has device %d, whose memory is not back", e.who, i)
				}
			}
		}
		for _, a := range d.asks {
			p, l := plays[a.who], s.looks[a.who]
			stay := takes[a.who.Model]
			if a.yield {
				stay *= busyTurn
			}
			switch {
			case l.state != activator.Ready || s.now.Sub(l.since) < stay:
				t.Errorf("%v is asked, yield %t, in state %v since %v, and starts in %v", a.who, a.yield, l.state, s.now.Sub(l.since), takes[a.who.Model])
			case !p.asked.IsZero():
				t.Errorf("%v is asked twice", a.who)
			}
			p.asked, p.yields = s.now.Add(seconds(0, answers)), a.yield
		}
		for _, w := range s.core.wants {
			if waits := s.now.Sub(since[w.who.Model]); waits > most {
				t.Errorf("%v has waited for %v, want at most %v: %s", w.who, waits, most, w.reason)
			}
		}
		if t.Failed() {
			return
		}
	}
}
