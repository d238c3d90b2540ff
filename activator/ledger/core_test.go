package ledger

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pilotlight/activator"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// stage is a core with models that are what a test says.
type stage struct {
	t      *testing.T
	core   core
	now    time.Time
	looks  map[Replica]look
	queued map[string]int
}

func (s *stage) look(r Replica) (look, bool) { l, ok := s.looks[r]; return l, ok }
func (s *stage) demand(m string) int         { return s.queued[m] }

// onStage makes devices of the kinds, in order; a name with "!" is missing.
func onStage(t *testing.T, kinds ...string) *stage {
	var devices []Device
	for i, kind := range kinds {
		kind, missing := strings.CutSuffix(kind, "!")
		devices = append(devices, Device{ID: fmt.Sprint(i), Label: fmt.Sprintf("%s %d", kind, i), Kind: kind, Missing: missing, Memory: 80 << 30})
	}
	return &stage{t: t, core: newCore(devices, noon), now: noon, looks: map[Replica]look{}, queued: map[string]int{}}
}

func (s *stage) terms(model string, t Terms) { s.core.setTerms(model, t) }

func (s *stage) wants(model string, id uint64) Replica {
	s.t.Helper()
	who := Replica{model, id}
	s.queued[model]++
	if !s.core.reserve(who, s.now) {
		s.t.Fatalf("%s asks for nothing", model)
	}
	return who
}

// has gives a replica devices by asking for them, and makes it ready, idle since then, with starts of a minute.
func (s *stage) has(model string, id uint64) Replica {
	s.t.Helper()
	who := s.wants(model, id)
	d := s.decide()
	if len(d.ends) != 1 || d.ends[0] != (end{who: who}) {
		s.t.Fatalf("%s got no devices: %+v, %s", model, d, s.core.reasonOf(who))
	}
	s.queued[model] = 0
	s.looks[who] = look{state: activator.Ready, since: s.now, idleSince: s.now, startTime: time.Minute}
	return who
}

func (s *stage) change(who Replica, f func(*look)) {
	l := s.looks[who]
	f(&l)
	s.looks[who] = l
}

func (s *stage) pass(d time.Duration) { s.now = s.now.Add(d) }

func (s *stage) decide() decision {
	s.t.Helper()
	d := s.core.decide(s.now, s)
	s.check()
	return d
}

// check is what must hold at any time.
func (s *stage) check() {
	s.t.Helper()
	for i, d := range s.core.devices {
		if n := s.core.used(i); n > whole {
			s.t.Errorf("device %d is given out to %d of 1000", i, n)
		}
		if d.Missing && s.core.used(i) > 0 {
			s.t.Errorf("device %d is given out, and missing", i)
		}
	}
	for _, h := range s.core.holds {
		if w := s.core.wantOf(h.who); w != nil {
			s.t.Errorf("%v holds and waits", h.who)
		}
	}
}

// does checks what is decided: "grant b1", "ask a1", "yield a1", "refuse b1", in any order.
func (s *stage) does(want ...string) {
	s.t.Helper()
	d := s.decide()
	var got []string
	for _, e := range d.ends {
		word := "grant "
		if e.err != nil {
			word = "refuse "
		}
		got = append(got, fmt.Sprintf("%s%s%d", word, e.who.Model, e.who.ID))
	}
	for _, a := range d.asks {
		word := "ask "
		if a.yield {
			word = "yield "
		}
		got = append(got, fmt.Sprintf("%s%s%d", word, a.who.Model, a.who.ID))
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		s.t.Errorf("got %q, want %q", got, want)
	}
}

func (s *stage) says(who Replica, want string) {
	s.t.Helper()
	if got := s.core.reasonOf(who); got != "waiting for GPUs: "+want {
		s.t.Errorf("%v: got %q, want %q", who, got, want)
	}
}

func (s *stage) gone(who Replica) { s.core.release(who, s.now); delete(s.looks, who) }

func one(kind string) Terms { return Terms{Count: 1, Kind: kind} }

func TestAnIdleReplicaGivesWayAfterItsStay(t *testing.T) {
	s := onStage(t, "H200")
	s.terms("a", one("H200"))
	s.terms("b", one(""))
	a := s.has("a", 1)
	b := s.wants("b", 1)
	s.does()
	s.says(b, "held by a (idle)")
	s.pass(time.Minute - 1)
	s.does()
	s.pass(1)
	s.does("ask a1")
	s.does() // once is enough
	s.core.answered(a, true, s.now)
	s.does()
	s.says(b, "held by a (leaving)")
	s.gone(a)
	s.does("grant b1")
}

// What sleeps goes like what is idle: between two starts on a device lies service of the length of a start, however soon it sleeps.
func TestASleeperGivesWayAfterItsStay(t *testing.T) {
	s := onStage(t, "H200")
	s.terms("a", one("H200"))
	s.terms("b", one(""))
	a := s.has("a", 1)
	s.pass(time.Minute + time.Second) // its start, and a moment
	s.change(a, func(l *look) { l.state, l.since, l.moving = activator.Asleep, s.now, true })
	b := s.wants("b", 1)
	s.does()
	s.says(b, "held by a (asleep)")
	s.change(a, func(l *look) { l.moving = false })
	s.pass(59*time.Second - 1)
	s.does()
	s.pass(1)
	s.change(a, func(l *look) { l.moving, l.queued = true, 1 }) // it wakes
	s.does()
	s.change(a, func(l *look) { l.moving, l.queued = false, 0 })
	s.does("ask a1")
	s.core.answered(a, true, s.now)
	s.gone(a)
	s.does("grant b1")
}

func TestASleeperIsNoCheaperForItsSleep(t *testing.T) {
	s := onStage(t, "", "")
	for _, m := range []string{"a", "b", "c"} {
		s.terms(m, one(""))
	}
	a, b := s.has("a", 1), s.has("b", 1)
	s.pass(time.Hour)
	// a has slept for a second, and nobody has used it for an hour.
	s.change(a, func(l *look) { l.state, l.since = activator.Asleep, s.now.Add(-time.Second) })
	s.change(b, func(l *look) { l.idleSince = s.now.Add(-time.Minute) })
	s.wants("c", 1)
	s.does("ask a1")
}

func TestABusyReplicaIsLeftAloneForATurn(t *testing.T) {
	s := onStage(t, "")
	s.terms("a", one(""))
	s.terms("b", one(""))
	a := s.has("a", 1)
	s.change(a, func(l *look) { l.inFlight = 3 })
	b := s.wants("b", 1)
	s.pass(3*time.Minute - 1)
	s.does()
	s.says(b, "held by a (busy, 3 requests)")
	s.pass(1)
	s.does("yield a1")
	s.core.answered(a, true, s.now)
	s.change(a, func(l *look) { l.state = activator.Draining })
	s.does()
	s.says(b, "held by a (leaving after 3 in flight)")
}

func TestOneThatTurnsOutBusyIsAskedAgain(t *testing.T) {
	s := onStage(t, "")
	s.terms("a", one(""))
	s.terms("b", one(""))
	a := s.has("a", 1)
	s.pass(time.Minute)
	s.wants("b", 1)
	s.does("ask a1")
	s.core.answered(a, false, s.now)
	s.does()
	s.pass(askPause)
	s.does("ask a1")
}

func TestWhoNeverGivesWay(t *testing.T) {
	for name, c := range map[string]struct {
		terms  Terms
		look   func(*look)
		reason string
	}{
		"pinned":   {Terms{Count: 1, Pinned: true}, func(*look) {}, "held by a (pinned)"},
		"starting": {one(""), func(l *look) { l.state = activator.Starting }, "held by a (starting)"},
		"unknown":  {one(""), func(l *look) { l.unknown = true; l.since = noon.Add(23 * time.Hour) }, "held by a (busy)"},
	} {
		t.Run(name, func(t *testing.T) {
			s := onStage(t, "")
			s.terms("a", c.terms)
			s.terms("b", Terms{Count: 1, Priority: 5})
			a := s.has("a", 1)
			s.change(a, c.look)
			s.pass(23 * time.Hour)
			b := s.wants("b", 1)
			s.does()
			s.says(b, c.reason)
		})
	}
}

func TestTheCheapestToBringBackGoes(t *testing.T) {
	for name, c := range map[string]struct {
		a, b func(*look) // a was used an hour ago, b a minute ago; both start in a minute
		want string
	}{
		"longest unused":              {func(*look) {}, func(*look) {}, "ask a1"},
		"unless its start is long":    {func(l *look) { l.startTime = 2 * time.Hour; l.since = noon.Add(-9 * time.Hour) }, func(*look) {}, "ask b1"},
		"rather idle than busy":       {func(l *look) { l.inFlight = 1 }, func(*look) {}, "ask b1"},
		"rather than one that stays":  {func(l *look) { l.startTime = 9 * time.Hour }, func(*look) {}, "ask b1"},
		"one that goes anyway":        {func(*look) {}, func(l *look) { l.state = activator.Stopping }, ""},
		"rather one that has to wait": {func(l *look) { l.state = activator.Starting }, func(l *look) { l.inFlight = 1 }, "yield b1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := onStage(t, "", "")
			for _, m := range []string{"a", "b", "c"} {
				s.terms(m, one(""))
			}
			a, b := s.has("a", 1), s.has("b", 1)
			s.pass(time.Hour)
			s.change(b, func(l *look) { l.idleSince = s.now.Add(-time.Minute) })
			s.change(a, c.a)
			s.change(b, c.b)
			s.wants("c", 1)
			if c.want == "" {
				s.does()
			} else {
				s.does(c.want)
			}
		})
	}
}

func TestPriorityIsWorthTime(t *testing.T) {
	s := onStage(t, "")
	for m, p := range map[string]int{"x": 0, "low": -1, "plain": 0, "high": 1} {
		s.terms(m, Terms{Count: 1, Priority: p})
	}
	x := s.has("x", 1)
	s.change(x, func(l *look) { l.state = activator.Starting })
	s.wants("low", 1)
	s.pass(pointWorth - 1)
	s.wants("plain", 1)
	s.pass(1)
	s.wants("high", 1)
	s.wants("low", 2)
	s.wants("plain", 2)
	s.decide()
	var order []string
	for _, w := range s.core.status().Waiting {
		order = append(order, fmt.Sprint(w.Model, w.ID))
	}
	// low1 came 30 s before the last, which its one point less makes up for: it came first among equals of the last moment.
	if got, want := strings.Join(order, " "), "high1 plain1 low1 plain2 low2"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}

	// A busy one of higher priority stays until the difference is made up for; one of lower goes after its stay.
	s = onStage(t, "")
	s.terms("a", Terms{Count: 1, Priority: 10})
	s.terms("b", Terms{Count: 1})
	a := s.has("a", 1)
	s.change(a, func(l *look) { l.inFlight = 1 })
	s.pass(time.Hour)
	s.wants("b", 1)
	s.pass(10*pointWorth - 1)
	s.does()
	s.pass(1)
	s.does("yield a1")
	s = onStage(t, "")
	s.terms("a", Terms{Count: 1})
	s.terms("b", Terms{Count: 1, Priority: 1})
	a = s.has("a", 1)
	s.change(a, func(l *look) { l.inFlight = 1 })
	s.wants("b", 1)
	s.pass(time.Minute - 1)
	s.does()
	s.pass(1)
	s.does("yield a1")
}

func TestSeveralDevices(t *testing.T) {
	t.Run("two idle ones leave for one that needs two", func(t *testing.T) {
		s := onStage(t, "H200", "H200")
		s.terms("a", one(""))
		s.terms("b", one(""))
		s.terms("big", Terms{Count: 2, Kind: "H200"})
		a, b := s.has("a", 1), s.has("b", 1)
		s.pass(time.Hour)
		big := s.wants("big", 1)
		s.does("ask a1", "ask b1")
		s.core.answered(a, true, s.now)
		s.core.answered(b, true, s.now)
		s.gone(a)
		s.does()
		s.says(big, "held by b (leaving)")
		s.gone(b)
		s.does("grant big1")
	})
	t.Run("no idle one leaves while another does not", func(t *testing.T) {
		s := onStage(t, "", "")
		s.terms("a", one(""))
		s.terms("b", one(""))
		s.terms("big", Terms{Count: 2})
		s.terms("c", one(""))
		a, b := s.has("a", 1), s.has("b", 1)
		s.pass(2 * time.Minute)
		s.change(b, func(l *look) { l.inFlight = 1 })
		big := s.wants("big", 1)
		s.does()
		s.says(big, "held by a (idle), b (busy, 1 request)")
		// Nobody who comes later gets what becomes free meanwhile.
		s.gone(a)
		c := s.wants("c", 1)
		s.does()
		s.says(c, "big waits longer")
		s.pass(time.Minute)
		s.does("yield b1")
		s.gone(b)
		s.does("grant big1")
	})
	t.Run("of one group", func(t *testing.T) {
		s := onStage(t, "H200", "L40s", "L40s")
		s.terms("big", Terms{Count: 2})
		s.terms("small", one("H200"))
		s.has("big", 1)
		s.has("small", 1)
		if p, _ := s.core.placement(Replica{"big", 1}); len(p.Devices) != 2 || p.Devices[0].ID != "1" || p.Devices[1].ID != "2" {
			t.Errorf("got %+v", p)
		}
	})
	t.Run("one holder of two leaves rather than two", func(t *testing.T) {
		s := onStage(t, "", "", "", "")
		s.terms("pair", Terms{Count: 2})
		s.terms("a", one(""))
		s.terms("b", one(""))
		s.has("a", 1)
		s.has("pair", 1)
		s.has("b", 1)
		s.terms("next", Terms{Count: 2})
		s.pass(time.Hour)
		s.wants("next", 1)
		s.does("ask pair1")
	})
	t.Run("never", func(t *testing.T) {
		s := onStage(t, "H200", "L40s", "L40s!")
		s.terms("big", Terms{Count: 2})
		s.wants("big", 1)
		d := s.decide()
		var unfit *UnfitError
		if len(d.ends) != 1 || !errors.As(d.ends[0].err, &unfit) || !unfit.IsPermanent() ||
			unfit.Error() != "asks for 2 GPUs of one kind, and this machine has 1 H200 and 1 L40s and 1 L40s that nvidia-smi does not show" {
			t.Errorf("got %+v", d.ends)
		}
	})
}

func TestShares(t *testing.T) {
	s := onStage(t, "", "")
	s.terms("half", Terms{Count: 1, Share: 500})
	s.terms("third", Terms{Count: 1, Share: 300})
	s.terms("whole", one(""))
	h := s.has("half", 1)
	th := s.has("third", 1)
	if p, _ := s.core.placement(th); p.Devices[0].ID != "0" || p.Share != 300 || p.Left != 500 {
		t.Errorf("the second share is not on the first one's device with the rest free: %+v", p)
	}
	s.has("whole", 1)
	s.pass(time.Hour)
	// One more half: the third leaves, as that suffices.
	h2 := s.wants("half", 2)
	s.does("ask third1")
	s.core.answered(th, true, s.now)
	s.gone(th)
	s.does("grant half2")
	// No two start on one device at a time.
	s.gone(h)
	third := s.wants("third", 2)
	s.does()
	s.says(third, "another start on the same GPU goes first")
	s.looks[h2] = look{state: activator.Starting}
	s.does()
	s.looks[h2] = look{state: activator.Ready, since: s.now, inFlight: 1, startTime: time.Minute}
	s.does("grant third2")
}

func TestAPlaceIsKeptForAMinuteWithoutARequest(t *testing.T) {
	s := onStage(t, "")
	s.terms("a", one(""))
	s.terms("b", one(""))
	s.terms("c", one(""))
	a := s.has("a", 1)
	s.change(a, func(l *look) { l.inFlight = 1 })
	b := s.wants("b", 1)
	s.decide()
	s.queued["b"] = 0
	s.pass(linger - 1)
	s.gone(a)
	s.does()
	s.says(b, "no request waits")
	s.queued["b"] = 1 // its client is back
	c := s.wants("c", 1)
	s.does("grant b1")
	s.core.cancel(c)
	s.core.cancel(Replica{"nobody", 1})
	s.queued["c"] = 0
	s.wants("c", 2)
	s.queued["c"] = 0
	s.pass(linger)
	d := s.decide()
	if len(d.ends) != 1 || !errors.Is(d.ends[0].err, activator.ErrUnwanted) {
		t.Errorf("got %+v", d)
	}
}

func TestANewModelWithoutDevicesIsNoBusiness(t *testing.T) {
	s := onStage(t, "")
	s.terms("static", Terms{})
	if s.core.reserve(Replica{"static", 1}, s.now) || s.core.reserve(Replica{"unheard", 1}, s.now) {
		t.Error("waits for nothing")
	}
	s.core.release(Replica{"static", 1}, s.now)
	if _, ok := s.core.placement(Replica{"static", 1}); ok {
		t.Error("was placed")
	}
}

// What an earlier gateway's replicas hold is theirs before anybody asks.
func TestAdoptedReplicasHoldTheirDevices(t *testing.T) {
	s := onStage(t, "L4", "L4", "L4!")
	for _, c := range []struct {
		model   string
		devices []string
		share   int
		want    string // of the error; empty: none
	}{
		{"whole", []string{"0"}, 0, ""},
		{"half", []string{"1"}, 500, ""},
		{"other half", []string{"1"}, 500, ""},
		{"third half", []string{"1"}, 500, "somebody else's"},
		{"again", []string{"0"}, 0, "somebody else's"},
		{"missing", []string{"2"}, 0, "no GPU 2"},
		{"unknown", []string{"GPU-5"}, 0, "no GPU GPU-5"},
		{"twice", []string{"1", "1"}, 0, "somebody else's"},
		{"none", nil, 0, ""},
	} {
		err := s.core.adopt(Replica{c.model, 1}, c.devices, c.share, s.now)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.model, err, c.want)
		}
	}
	if p, ok := s.core.placement(Replica{"half", 1}); !ok || p.Share != 500 || p.Left != 500 || p.Devices[0].ID != "1" {
		t.Errorf("half holds %+v, %v", p, ok)
	}
	if _, ok := s.core.placement(Replica{"none", 1}); ok {
		t.Error("who has nothing holds something")
	}
	s.terms("new", Terms{Count: 1})
	who := s.wants("new", 9)
	if d := s.decide(); len(d.ends) > 0 || len(d.asks) > 0 {
		t.Errorf("got %+v although nothing is free", d)
	}
	s.core.release(Replica{"whole", 1}, s.now)
	if d := s.decide(); len(d.ends) != 1 || d.ends[0] != (end{who: who}) {
		t.Errorf("got %+v, want the one that is free", d)
	}
}
