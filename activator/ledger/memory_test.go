package ledger

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// condition is a device's, and its problem.
func (s *shop) condition(i int) (string, string) {
	synctest.Wait()
	d := s.ledger.Status().Devices[i]
	return d.Condition, d.Problem
}

func TestMemoryComesBackBeforeTheNextStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, 1, "H200", 7*time.Second) // machine.start fails the test if memory is still in use
		s.add("a", time.Second, one("H200"))
		s.add("b", time.Second, one("H200"))
		if _, err := s.ask("a", 0); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		time.Sleep(time.Second)
		if _, err := s.ask("b", 0); err != nil {
			t.Fatal(err)
		}
		// 1 s until it was asked for, 7 s until memory was back, 0.1 s or less until that was seen, 1 s to start.
		if took := time.Since(began); took < 9*time.Second || took > 9*time.Second+measureEvery+lookEvery {
			t.Errorf("the swap took %v", took)
		}
		s.close()
	})
}

func TestADeviceWhoseMemoryDoesNotComeBackIsPutAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, 1, "H200", 0)
		s.add("a", time.Second, one(""))
		m := s.add("b", time.Second, one(""))
		if _, err := s.ask("a", 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		s.machine.set("0", deviceMemory+10<<30) // another program has come
		done := make(chan error, 1)
		go func() {
			_, err := s.ask("b", 0)
			done <- err
		}()
		time.Sleep(settleLimit / 2)
		if c, _ := s.condition(0); c != "settling" {
			t.Errorf("half-way it is %s", c)
		}
		if r := m.Status().Replicas[0].Reason; r != "waiting for GPUs: the memory of H200 0 is not back yet" {
			t.Errorf("the reason: %q", r)
		}
		time.Sleep(settleLimit)
		if c, p := s.condition(0); c != "quarantined" || p != "10.0 GiB more in use than expected" {
			t.Errorf("it is %s: %s", c, p)
		}
		time.Sleep(time.Second)
		if r := m.Status().Replicas[0].Reason; !strings.HasPrefix(r, "waiting for GPUs: out of order: H200 0 (10.0 GiB") {
			t.Errorf("the reason: %q", r)
		}
		s.machine.set("0", 100<<20)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		s.close()
	})
}

func TestWhatIsUsedAtTheBeginningIsSomebodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, 2, "", 0)
		s.machine.set("0", 20<<30) // somebody's for ever
		s.machine.set("1", 30<<30) // an engine's that was just killed
		time.Sleep(firstLimit / 2)
		s.machine.set("1", 0)
		time.Sleep(2 * measureEvery)
		a, _ := s.condition(0)
		b, _ := s.condition(1)
		if a != "settling" || b != "usable" {
			t.Errorf("after %v: %s and %s", firstLimit/2, a, b)
		}
		time.Sleep(firstLimit)
		if a, _ = s.condition(0); a != "usable" {
			t.Errorf("after %v: %s", firstLimit, a)
		}
		s.close()
	})
}

func TestUnknownMemoryIsNotBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, 1, "", 0)
		s.add("a", time.Second, one(""))
		if _, err := s.ask("a", 0); err != nil {
			t.Fatal(err)
		}
		s.machine.mu.Lock()
		s.machine.fail = errors.New("nvidia-smi: fell off the bus")
		s.machine.mu.Unlock()
		s.engines["a"].latest.Load().crash(errors.New("segmentation fault"))
		time.Sleep(settleLimit + time.Second)
		if c, p := s.condition(0); c != "quarantined" || p != "its memory in use is unknown: nvidia-smi: fell off the bus" {
			t.Errorf("it is %s: %s", c, p)
		}
		s.machine.mu.Lock()
		s.machine.fail = nil
		s.machine.mu.Unlock()
		time.Sleep(remeasureEvery + time.Second)
		if c, _ := s.condition(0); c != "usable" {
			t.Errorf("it is %s in the end", c)
		}
		s.close()
	})
}

// A measurement that began before the last one left says nothing.
func TestAnOldMeasurementDoesNotCount(t *testing.T) {
	c := newCore([]Device{{ID: "0", Measured: true, Memory: deviceMemory}}, noon)
	c.measured(map[string]int64{"0": 0}, nil, noon, noon)
	c.setTerms("a", one(""))
	c.reserve(Replica{"a", 1}, noon)
	c.decide(noon, &stage{queued: map[string]int{"a": 1}})
	c.release(Replica{"a", 1}, noon.Add(time.Second))
	c.measured(map[string]int64{"0": 0}, nil, noon.Add(time.Second-1), noon.Add(2*time.Second))
	if c.devices[0].condition != Settling {
		t.Errorf("it is %v", c.devices[0].condition)
	}
	c.measured(map[string]int64{"0": 0}, nil, noon.Add(time.Second), noon.Add(2*time.Second))
	if c.devices[0].condition != Usable {
		t.Errorf("it is %v", c.devices[0].condition)
	}
}

// The memory of a replica that was taken over counted as another program's ten seconds after its end.
func TestWhatAnAdoptedReplicaHadMustComeBack(t *testing.T) {
	c := newCore([]Device{{ID: "0", Label: "0", Measured: true, Memory: deviceMemory}}, noon)
	who := Replica{"a", 1}
	if err := c.adopt(who, []string{"0"}, 0, noon); err != nil {
		t.Fatal(err)
	}
	used := map[string]int64{"0": 70 << 30}
	c.measured(used, nil, noon, noon)
	if c.devices[0].condition != Usable {
		t.Errorf("held by what was taken over it is %v", c.devices[0].condition)
	}
	c.release(who, noon)
	for after, want := range map[time.Duration]condition{firstLimit: Settling, settleLimit: Quarantined} {
		c := c
		c.devices = append([]device(nil), c.devices...)
		c.measured(used, nil, noon.Add(after), noon.Add(after))
		if c.devices[0].condition != want {
			t.Errorf("%v after its end it is %v, want %v", after, c.devices[0].condition, want)
		}
	}
}
