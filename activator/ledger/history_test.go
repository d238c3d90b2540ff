package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pilotlight/activator"
)

// TestHistories plays random histories on the core alone, and checks after each step that nothing is given out twice, nothing is
// taken from who may keep it, and nobody who could be served is passed over for ever.
func TestHistories(t *testing.T) {
	for seed := range uint64(100) {
		if history(t, seed); t.Failed() {
			t.Fatalf("by seed %d", seed)
		}
	}
}

func history(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	kinds := []string{"A", "A", "A", "B", "B", ""}[:1+r.IntN(6)]
	s := onStage(t, kinds...)
	var names []string
	for i := range 2 + r.IntN(4) {
		terms := Terms{Count: 1 + r.IntN(2), Kind: []string{"", "A", "B"}[r.IntN(3)], Priority: r.IntN(3)}
		if terms.Count == 1 && r.IntN(2) == 0 {
			terms.Share = 100 * (1 + r.IntN(9))
		}
		if r.IntN(6) == 0 {
			terms.Pinned = true
		}
		names = append(names, fmt.Sprint("m", i))
		s.terms(names[i], terms)
	}
	next := uint64(0)
	waiting := map[Replica]time.Time{}
	steps := 300
	for step := range steps + 2000 {
		s.pass(time.Duration(1+r.IntN(10)) * time.Second)
		if step < steps && r.IntN(3) == 0 { // one more, unless the model has a replica
			name := names[r.IntN(len(names))]
			if !slices.ContainsFunc(s.core.holds, func(h *hold) bool { return h.who.Model == name }) && !slices.ContainsFunc(s.core.wants, func(w *want) bool { return w.who.Model == name }) {
				next++
				waiting[s.wants(name, next)] = s.now
				s.queued[name] = 1
			}
		}
		for _, h := range s.core.holds { // what engines do by themselves
			l, ok := s.looks[h.who]
			switch {
			case !ok:
				s.looks[h.who] = look{state: activator.Starting, since: s.now, startTime: time.Duration(1+r.IntN(100)) * time.Second}
			case l.state == activator.Starting && r.IntN(4) == 0:
				l.state, l.since, l.idleSince, l.inFlight = activator.Ready, s.now, s.now, r.IntN(3)
				s.queued[h.who.Model] = 0
				s.looks[h.who] = l
			case l.state == activator.Ready && step < steps:
				l.inFlight = r.IntN(3)
				if l.inFlight == 0 {
					l.idleSince = s.now
				}
				s.looks[h.who] = l
			case l.state == activator.Ready:
				l.inFlight = 0
				s.looks[h.who] = l
			}
		}
		for _, h := range slices.Clone(s.core.holds) { // ends
			l := s.looks[h.who]
			pinned := s.core.terms[h.who.Model].Pinned
			if h.leaving && r.IntN(3) == 0 || r.IntN(150) == 0 || step >= steps && pinned && l.state == activator.Ready {
				s.gone(h.who)
			}
		}
		if step < steps && r.IntN(40) == 0 {
			for who := range waiting {
				s.core.cancel(who)
				delete(waiting, who)
				break
			}
		}
		before := s.core.status()
		d := s.decide()
		for _, e := range d.ends {
			delete(waiting, e.who)
			var unfit *UnfitError
			if e.err != nil && !errors.As(e.err, &unfit) {
				t.Errorf("%v: %v", e.who, e.err)
			}
			if e.err == nil && s.core.holdOf(e.who) == nil {
				t.Errorf("%v was granted nothing", e.who)
			}
		}
		for _, a := range d.asks {
			l := s.looks[a.who]
			idle := l.inFlight == 0 && s.queued[a.who.Model] == 0
			switch {
			case s.core.terms[a.who.Model].Pinned:
				t.Errorf("%v is pinned and was asked", a.who)
			case l.state != activator.Ready:
				t.Errorf("%v is %v and was asked", a.who, l.state)
			case !a.yield && !idle:
				t.Errorf("%v is in use and was asked as idle", a.who)
			case s.now.Sub(l.since) < l.startTime:
				t.Errorf("%v was asked %v after it was ready, and starts in %v", a.who, s.now.Sub(l.since), l.startTime)
			case a.yield && s.now.Sub(l.since) < 3*l.startTime && s.core.terms[a.who.Model].Priority >= s.core.terms[a.forModel].Priority:
				t.Errorf("%v had no turn", a.who)
			}
			s.core.answered(a.who, r.IntN(4) > 0, s.now)
		}
		for _, w := range s.core.wants {
			if w.reason == "" {
				t.Errorf("%v waits without a reason", w.who)
			}
		}
		// Nothing that would suit the first in the order is idle and given to nobody.
		if len(before.Waiting) > 0 && len(d.ends) == 0 {
			first := s.core.ordered()[0]
			if p, ok := s.core.plan(first, make([]int, len(s.core.devices)), s.now); ok && p.worst == isFree {
				t.Errorf("%v waits though %v are free", first.who, p.devices)
			}
		}
		if t.Failed() {
			return
		}
	}
	if len(s.core.wants) > 0 {
		t.Errorf("%v still wait: %s", s.core.wants[0].who, s.core.wants[0].reason)
	}
}

func TestReserveCanBeLeftAtAnyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, 1, "", -1)
		s.ledger.SetTerms("a", Terms{Count: 1, Keep: 2}) // so that no request needs to wait
		ctx, cancel := context.WithCancel(t.Context())
		none := func(string) {}
		if err := s.ledger.Reserve(ctx, "a", 1, none); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, cancel)
		if err := s.ledger.Reserve(ctx, "a", 2, none); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		// Whether it was granted or not when it was left: nothing is held, nothing waits.
		for i := range uint64(100) {
			ctx, cancel := context.WithCancel(t.Context())
			go cancel()
			if err := s.ledger.Reserve(ctx, "a", 10+i, none); err == nil {
				s.ledger.Release("a", 10+i)
			}
			if i == 50 {
				s.ledger.Release("a", 1)
			}
		}
		s.close()
	})
}

// A start can be cancelled just as it gets its devices.
func TestDevicesThatComeTooLateAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, 1, "", -1)
		l := s.ledger
		l.SetTerms("a", Terms{Count: 1, Keep: 2})
		if err := l.Reserve(t.Context(), "a", 1, func(string) {}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- l.Reserve(ctx, "a", 2, func(string) {}) }()
		synctest.Wait()
		l.mu.Lock()
		cancel() // wakes the one that waits, up to the lock
		l.core.release(Replica{"a", 1}, time.Now())
		l.endLocked(l.core.decide(time.Now(), l).ends)
		if l.core.holdOf(Replica{"a", 2}) == nil {
			t.Error("the second one was not granted the device")
		}
		l.mu.Unlock()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		s.close()
	})
}

func TestACrashGivesDevicesToWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, 1, "", 300*time.Millisecond)
		s.add("a", time.Minute, Terms{Count: 1, Pinned: true})
		s.add("b", time.Minute, one(""))
		if _, err := s.ask("a", 0); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := s.ask("b", 0)
			done <- err
		}()
		time.Sleep(5 * time.Minute)
		if b := s.models["b"].Status(); b.Replicas[0].Reason != "waiting for GPUs: held by a (pinned)" {
			t.Errorf("got %+v", b.Replicas[0])
		}
		s.engines["a"].latest.Load().crash(errors.New("killed"))
		began := time.Now()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Minute+time.Second {
			t.Errorf("it took %v", took)
		}
		s.close()
	})
}

func TestAFailedStartGivesDevicesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, 1, "", 300*time.Millisecond)
		s.add("a", time.Second, one(""))
		s.add("b", time.Second, one(""))
		s.engines["a"].fail.Store(true)
		if _, err := s.ask("a", 0); err == nil {
			t.Fatal("no error")
		}
		if _, err := s.ask("b", 0); err != nil {
			t.Fatal(err)
		}
		s.close()
	})
}

func TestAModelThatFitsNowhereFailsForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, 1, "H200", -1)
		s.add("a", time.Second, Terms{Count: 1, Kind: "L40s"})
		_, err := s.ask("a", 0)
		var failed *activator.StartFailedError
		if !errors.As(err, &failed) || !failed.Permanent || failed.Cause.Error() != "asks for 1 L40s, and this machine has 1 H200" {
			t.Errorf("got %v", err)
		}
		s.close()
	})
}

func TestOptionsAreChecked(t *testing.T) {
	models := func(string) []*activator.Model { return nil }
	for name, o := range map[string]Options{
		"no devices":        {Models: models},
		"no models":         {Devices: []Device{{ID: "0"}}},
		"two of one id":     {Models: models, Devices: []Device{{ID: "0"}, {ID: "0"}}},
		"nothing to ask of": {Models: models, Devices: []Device{{ID: "0", Measured: true}}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
