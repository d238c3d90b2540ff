package ledger

import (
	"errors"
	"testing"
	"time"

	"pilotlight/activator"
)

// measure makes all devices such as can be measured, with so many GiB in use.
func (s *stage) measure(gibs ...int64) {
	used := map[string]int64{}
	for i, n := range gibs {
		s.core.devices[i].Measured = true
		used[s.core.devices[i].ID] = n << 30
	}
	s.core.measured(used, nil, s.now, s.now)
}

// One of two idle replicas was asked to leave although a device was free but for its memory, which takes half a second.
func TestNobodyLeavesForADeviceThatSettles(t *testing.T) {
	for name, look := range map[string]func(*look){
		"idle": func(*look) {},
		"due":  func(l *look) { l.inFlight = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			s := onStage(t, "", "")
			s.measure(0, 0)
			for _, m := range []string{"a", "b", "c"} {
				s.terms(m, one(""))
			}
			a, b := s.has("a", 1), s.has("b", 1)
			s.pass(time.Hour)
			s.change(a, look)
			s.gone(b)
			c := s.wants("c", 1)
			s.does()
			s.says(c, "the memory of  1 is not back yet")
			s.measure(0, 0)
			s.does("grant c1")
		})
	}
}

func TestAStartOnASharedDevice(t *testing.T) {
	half := Terms{Count: 1, Share: 500}
	t.Run("an empty device is taken rather than waited for", func(t *testing.T) {
		s := onStage(t, "", "")
		s.terms("a", half)
		s.terms("b", half)
		a := s.has("a", 1)
		s.change(a, func(l *look) { l.state = activator.Starting })
		b := s.wants("b", 1)
		s.does("grant b1")
		if p, _ := s.core.placement(b); p.Devices[0].ID != "1" {
			t.Errorf("b is on %v", p.Devices)
		}
	})
	t.Run("is waited for rather than somebody evicted", func(t *testing.T) {
		s := onStage(t, "", "")
		s.terms("a", half)
		s.terms("b", half)
		s.terms("whole", one(""))
		a := s.has("a", 1)
		s.has("whole", 1)
		s.pass(time.Hour)
		s.change(a, func(l *look) { l.state = activator.Starting })
		b := s.wants("b", 1)
		s.does()
		s.says(b, "another start on the same GPU goes first")
		s.change(a, func(l *look) { l.state, l.since = activator.Ready, s.now })
		s.does("grant b1")
	})
	// SGLang takes a fraction of what is free when it starts. Who left meanwhile would make it take more than its share.
	t.Run("nobody beside it is asked to leave", func(t *testing.T) {
		s := onStage(t, "")
		for _, m := range []string{"a", "b", "c"} {
			s.terms(m, half)
		}
		s.has("a", 1)
		s.pass(time.Hour)
		b := s.has("b", 1)
		s.change(b, func(l *look) { l.state = activator.Starting })
		c := s.wants("c", 1)
		s.does()
		s.says(c, "held by a (idle), and another start on the same GPU goes first")
		s.change(b, func(l *look) { l.state, l.since, l.inFlight = activator.Ready, s.now, 1 })
		s.does("ask a1")
	})
}

// The costs of two idle replicas change places with time: between a question and its answer the other one was asked, too.
func TestOneQuestionIsAnsweredBeforeAnother(t *testing.T) {
	s := onStage(t, "", "")
	for _, m := range []string{"a", "b", "c"} {
		s.terms(m, one(""))
	}
	a, b := s.has("a", 1), s.has("b", 1)
	s.pass(time.Hour)
	s.change(a, func(l *look) { l.idleSince = s.now.Add(-100 * time.Second) })
	s.change(b, func(l *look) { l.idleSince = s.now.Add(-45 * time.Second); l.startTime = 30 * time.Second })
	s.wants("c", 1)
	s.does("ask a1") // 60/100 is less than 30/45
	s.pass(time.Minute)
	s.does() // 60/160 is more than 30/105, but a has not answered
	s.core.answered(a, false, s.now)
	s.does("ask b1")
}

func TestModelsThatAlwaysRun(t *testing.T) {
	t.Run("whoever waits for their devices is told at once", func(t *testing.T) {
		s := onStage(t, "", "")
		s.terms("always", Terms{Count: 2, Keep: 1})
		s.terms("b", one(""))
		always := s.has("always", 1)
		b := s.wants("b", 1)
		d := s.decide()
		var kept *KeptError
		if len(d.ends) != 1 || d.ends[0].who != b || !errors.As(d.ends[0].err, &kept) || kept.By != "always" {
			t.Errorf("got %+v", d)
		}
		// One that always runs itself, and that nobody asks for, waits for a change.
		s.terms("too", Terms{Count: 1, Keep: 1})
		too := s.wants("too", 1)
		s.queued["too"] = 0
		s.does()
		s.says(too, "held by always (always on)")
		s.gone(always)
		s.does("grant too1")
	})
	t.Run("pinned ones may leave by themselves", func(t *testing.T) {
		s := onStage(t, "", "")
		s.terms("always", Terms{Count: 1, Keep: 1})
		s.terms("pinned", Terms{Count: 1, Pinned: true})
		s.terms("b", one(""))
		s.has("always", 1)
		s.has("pinned", 1)
		b := s.wants("b", 1)
		s.does()
		s.says(b, "held by always (always on), pinned (pinned)")
	})
	t.Run("have their devices back first", func(t *testing.T) {
		s := onStage(t, "")
		s.terms("a", one(""))
		s.terms("b", one(""))
		s.terms("always", Terms{Count: 1, Keep: 1})
		a := s.has("a", 1)
		s.wants("b", 1)
		s.pass(time.Second)
		s.wants("always", 1)
		s.gone(a)
		s.does("grant always1")
	})
	// A new one with devices of its own waited for the end of the old one, and was unwanted after a minute.
	t.Run("are replaced while the old one drains", func(t *testing.T) {
		s := onStage(t, "", "")
		s.terms("always", Terms{Count: 1, Keep: 1})
		old := s.has("always", 1)
		s.change(old, func(l *look) { l.state, l.inFlight = activator.Draining, 1 })
		s.wants("always", 2)
		s.queued["always"] = 0
		s.pass(time.Second)
		s.does("grant always2")
	})
}

// Clients read reasons, and nvidia-smi's words hold paths.
func TestReasonsHoldNoWordsOfPrograms(t *testing.T) {
	s := onStage(t, "H200")
	s.measure(0)
	s.terms("a", one(""))
	a := s.has("a", 1)
	s.gone(a)
	b := s.wants("a", 2)
	s.core.measured(nil, errors.New("fork/exec /opt/nvidia-smi: permission denied"), s.now, s.now.Add(settleLimit))
	s.does()
	s.says(b, "out of order: H200 0 (its memory in use is unknown)")
	if p := s.core.status().Devices[0].Problem; p != "its memory in use is unknown: fork/exec /opt/nvidia-smi: permission denied" {
		t.Errorf("operators read %q", p)
	}
}

func TestTheReasonIsNotWhoWaitsLonger(t *testing.T) {
	s := onStage(t, "A", "B")
	s.terms("pinned", Terms{Count: 1, Kind: "A", Pinned: true})
	s.terms("held", one("B"))
	s.terms("b", one("B"))
	s.terms("c", one("A"))
	s.terms("d", one("B"))
	s.has("pinned", 1)
	s.has("held", 1)
	s.wants("b", 1)
	c, d := s.wants("c", 1), s.wants("d", 1)
	s.does()
	s.says(c, "held by pinned (pinned)")
	s.says(d, "b waits longer")
}

// What others have of a shared device is nobody's share.
func TestSharesAreOfWhatOthersLeave(t *testing.T) {
	c := newCore([]Device{{ID: "0", Measured: true, Memory: deviceMemory}}, noon)
	c.measured(map[string]int64{"0": 20 << 30}, nil, noon, noon.Add(firstLimit))
	c.setTerms("a", Terms{Count: 1, Share: 500})
	who := Replica{"a", 1}
	c.reserve(who, noon)
	c.decide(noon, &stage{queued: map[string]int{"a": 1}})
	if p, ok := c.placement(who); !ok || p.Reserved != 20<<30 {
		t.Errorf("got %+v", p)
	}
	if got, want := c.allowed(0), int64(20<<30+30<<30); got != want {
		t.Errorf("%d GiB may be in use, want %d", got>>30, want>>30)
	}
}

// CUDA shows one MIG instance to a process, however many it names.
func TestDevicesThatAreAloneMakeNoPair(t *testing.T) {
	s := onStage(t, "", "")
	for i := range s.core.devices {
		s.core.devices[i].Alone, s.core.devices[i].Group = true, "H100 1g.10gb"
	}
	s.terms("pair", Terms{Count: 2})
	s.terms("a", one(""))
	s.wants("a", 1)
	s.does("grant a1")
	s.wants("pair", 1)
	s.does("refuse pair1")
}

func TestDevicesThatAreTooSmallAreNotTaken(t *testing.T) {
	s := onStage(t, "L4", "H200")
	s.core.devices[0].Memory = 24 << 30
	s.terms("big", Terms{Count: 1, Memory: 60 << 30})
	s.terms("bigger", Terms{Count: 1, Memory: 160 << 30})
	big := s.wants("big", 1)
	s.does("grant big1")
	if p, _ := s.core.placement(big); p.Devices[0].ID != "1" {
		t.Errorf("it is on %+v", p.Devices)
	}
	s.wants("bigger", 1)
	d := s.decide()
	if want := "asks for 1 GPU with 160.0 GiB at least for its weights, and this machine has 1 L4 of 24.0 GiB and 1 H200 of 80.0 GiB"; len(d.ends) != 1 || d.ends[0].err.Error() != want {
		t.Errorf("got %+v, want %s", d.ends, want)
	}
}

// A device that nobody has held for an hour may have become somebody else's.
func TestWhatOthersHaveIsSeenBeforeAStart(t *testing.T) {
	s := onStage(t, "", "")
	s.measure(0, 0)
	s.terms("a", one(""))
	s.pass(time.Hour)
	a := s.wants("a", 1)
	s.does()
	s.says(a, "looking at the memory of  0")
	s.core.measured(map[string]int64{"0": 60 << 30, "1": 3 << 20}, nil, s.now, s.now)
	s.does("grant a1")
	if p, _ := s.core.placement(a); p.Devices[0].ID != "1" {
		t.Errorf("it is on %v", p.Devices)
	}
	// The rest of a device is better than nothing; and what cannot be measured is no worse than before.
	s.terms("b", one(""))
	s.pass(time.Hour)
	s.wants("b", 1)
	s.does()
	s.core.measured(nil, errors.New("nvidia-smi hangs"), s.now, s.now.Add(time.Second))
	s.pass(time.Second)
	s.does("grant b1")
	if n := len(s.core.log); n != 1 || s.core.log[0].message != othersUse {
		t.Errorf("the log has %+v", s.core.log)
	}
}

// A reload that changed a model's spec sent those who waited for it to the end of the queue.
func TestANewSpecKeepsThePlace(t *testing.T) {
	s := onStage(t, "")
	for _, m := range []string{"a", "b", "c"} {
		s.terms(m, one(""))
	}
	a := s.has("a", 1)
	b := s.wants("b", 1)
	s.pass(time.Second)
	s.wants("c", 1)
	s.pass(time.Second)
	s.core.giveUp(b, s.now)
	s.core.giveUp(b, s.now) // which is not there any more
	s.wants("b", 2)
	s.gone(a)
	s.does("grant b2")
	s.gone(Replica{"b", 2})
	s.core.giveUp(Replica{"c", 1}, s.now)
	s.pass(linger)
	s.wants("b", 3)
	s.pass(time.Second)
	s.wants("c", 2) // a minute is too long
	s.does("grant b3")
}
