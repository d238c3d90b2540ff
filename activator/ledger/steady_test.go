package ledger

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pilotlight/activator"
)

// load is what steadily comes for one model.
type load struct {
	every, answer time.Duration
}

// steady plays loads for a time and returns each model's starts and longest wait.
func (s *shop) steady(loads map[string]load, lasts time.Duration) (starts map[string]int64, longest map[string]time.Duration) {
	s.t.Helper()
	starts, longest = map[string]int64{}, map[string]time.Duration{}
	var mu sync.Mutex // guards longest
	var wg sync.WaitGroup
	end := time.Now().Add(lasts)
	for name, l := range loads {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(len(name))+uint64(name[0])))
			for time.Now().Before(end) {
				time.Sleep(time.Duration(r.ExpFloat64() * float64(l.every)))
				answer := time.Duration(r.ExpFloat64() * float64(l.answer))
				wg.Go(func() {
					waited, err := s.ask(name, answer)
					if err != nil {
						s.t.Errorf("%s: %v", name, err)
					}
					mu.Lock()
					defer mu.Unlock()
					longest[name] = max(longest[name], waited)
				})
			}
		})
	}
	wg.Wait()
	for name := range loads {
		starts[name] = s.engines[name].starts.Load()
	}
	return starts, longest
}

// TestModelsThatShareADeviceTakeTurns: under any steady load, swaps are bounded by the stays, and waits by the others' turns.
func TestModelsThatShareADeviceTakeTurns(t *testing.T) {
	const takes = time.Minute
	lasts := time.Hour // the figures of the README
	if raceEnabled {
		lasts /= 3
	}
	for _, c := range []struct {
		name  string
		loads map[string]load
		busy  bool // so that turns are long
	}{
		{"two that are always busy", map[string]load{"a": {time.Second, 5 * time.Second}, "b": {time.Second, 5 * time.Second}}, true},
		{"two that are often idle", map[string]load{"a": {10 * time.Second, time.Second}, "b": {10 * time.Second, time.Second}}, false},
		{"two that are mostly idle", map[string]load{"a": {5 * time.Minute, time.Second}, "b": {5 * time.Minute, time.Second}}, false},
		{"one always busy, one now and then", map[string]load{"a": {time.Second, 5 * time.Second}, "b": {5 * time.Minute, time.Second}}, false},
		{"three that are always busy", map[string]load{"a": {time.Second, 5 * time.Second}, "b": {time.Second, 5 * time.Second}, "c": {time.Second, 5 * time.Second}}, true},
		{"three unequal ones", map[string]load{"a": {time.Second, 5 * time.Second}, "b": {20 * time.Second, time.Second}, "c": {10 * time.Minute, 30 * time.Second}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, 1, "H200", 300*time.Millisecond)
				n := len(c.loads)
				for name := range c.loads {
					s.add(name, takes, Terms{Count: 1}, func(c *activator.Config) { c.Concurrency = 32 })
				}
				began := time.Now()
				starts, longest := s.steady(c.loads, lasts)
				took := time.Since(began) // with those that wait in the end
				s.close()
				var all int64
				for name := range c.loads {
					all += starts[name]
					// The others' turns, each with a start before it and the requests that end after it; then its own start, and its
					// own requests before this one.
					if most := time.Duration(n-1)*(busyTurn+1)*takes + takes + time.Duration(n)*45*time.Second; longest[name] > most {
						t.Errorf("%s waited for %v, want at most %v", name, longest[name], most)
					}
				}
				// Between two starts lie a start and a stay, whatever comes.
				if most := int64(took/((1+idleStay)*takes)) + 1; all > most || all < int64(n) {
					t.Errorf("%d starts, want at most %d", all, most)
				}
				// A busy one is nobody's prey but in the rare moments when nothing is in flight.
				if most := int64(took/((1+busyTurn)*takes)) + 1; c.busy && float64(all) > 1.2*float64(most) {
					t.Errorf("%d starts of busy models, want about %d", all, most)
				}
				t.Logf("starts %v, longest waits %v", starts, longest)
			})
		})
	}
}

// Every model has its turn when all are overloaded: none waits for a first place longer than the others' turns.
func TestNobodyStarvesUnderOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const takes = time.Minute
		s := open(t, 1, "", -1)
		names := []string{"a", "b", "c"}
		last := map[string]time.Time{}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for _, name := range names {
			s.add(name, takes, Terms{Count: 1})
			last[name] = time.Now()
			for range 12 { // three times what a replica takes at once
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if _, err := s.ask(name, 10*time.Second); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
		}
		longest := time.Duration(0)
		for range 3600 {
			time.Sleep(time.Second)
			for _, name := range names {
				for _, d := range s.ledger.Status().Devices {
					for _, h := range d.Holders {
						if h.Model == name {
							longest = max(longest, time.Since(last[name]))
							last[name] = time.Now()
						}
					}
				}
			}
		}
		close(stop)
		wg.Wait()
		s.close()
		if most := 2*(busyTurn+1)*takes + 2*10*time.Second + 5*time.Second; longest > most {
			t.Errorf("a model was without the device for %v, want at most %v", longest, most)
		}
		t.Logf("longest time without the device: %v", longest)
	})
}
