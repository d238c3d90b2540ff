package activator

import (
	"testing"
)

// FuzzStep takes one world of the explorer on a long random walk, with more of everything than can be explored:
// each byte chooses what happens next. Every step is checked as in the explorer. Then everything is left to
// itself, and must come to a proper end.
func FuzzStep(f *testing.F) {
	f.Add([]byte{0, 0, 0})
	f.Add([]byte("\x07\x03\x01the quick brown fox jumps over the lazy dog, and over the next one"))
	f.Add([]byte("\xff\x02\x02\x00\x01\x00\x01\x00\x01\x02\x02\x02\x03\x03\x03\x09\x09\x08\x08\x07\x07\x06\x06\x05\x05"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 3 {
			return
		}
		w := newWorld(fuzzScenario(data[0], data[1], data[2]), &mutant{})
		var list []action
		var trace []action
		act := func(a action) {
			trace = append(trace, a)
			w.apply(a)
			if w.bad != "" {
				t.Fatalf("%s\nby %v", w.bad, trace)
			}
			w.tidy()
		}
		for _, b := range data[3:] {
			if list = w.actions(list[:0]); len(list) == 0 {
				break
			}
			act(list[int(b)%len(list)])
		}
		for n := 0; ; n++ {
			list = w.actions(list[:0])
			if len(list) == 0 || !list[0].progress() {
				break
			}
			if n > 10_000 {
				t.Fatalf("no end, by %v", trace)
			}
			act(list[0])
		}
		if w.checkEnd(); w.bad != "" {
			t.Fatalf("%s\nby %v", w.bad, trace)
		}
	})
}

// fuzzScenario makes a scenario of three bytes.
func fuzzScenario(a, b, c byte) *scenario {
	sc := &scenario{
		name: "fuzz", mayFail: true, ledger: a&1 != 0, permanent: a&2 != 0,
		tenants: []string{"a", "a", "b", "a", "c", "b", "a", "a"}[:2+int(a>>2)%7],
		budget: budget{
			cancel: 3, crash: 3, startFail: 2, stopFail: stopTries - 1, sleepFail: 1, wakeFail: 1, deny: 1,
			update: 1, preempt: 2, yield: 1, scale: 2, adopt: 1, retry: 1, hurry: 1,
		},
	}
	sc.config = exploreConfig(1+int(b)%3, 1+int(b>>2)%3)
	sc.config.Min = int(b>>4) % (sc.config.Max + 1)
	sc.scaleTo = int(b>>6) % (sc.config.Max + 1)
	sc.config.ScaledownAfter = 3
	if c&1 != 0 {
		sc.config.SleepAfter = 1
	}
	if c&2 != 0 {
		sc.config.BackoffMax = 4 * patience
		sc.config.BackoffMin = patience / 2
	}
	if c&4 != 0 {
		sc.bound = 2
	}
	if c&8 != 0 {
		sc.budget.unload, sc.hung = 1, 1
	}
	if c&16 != 0 {
		sc.budget.close, sc.hung = 1, 1
	}
	sc.prepare()
	return sc
}

// FuzzStepIsTotal gives the machine events in any order, sense or not: it must take them all, and never ask for
// something impossible.
func FuzzStepIsTotal(f *testing.F) {
	f.Add([]byte{1, 1, 14, 1, 25, 0, 3, 0})
	f.Add([]byte("\x01\x01\x0d\x01\x0e\x01\x15\x01\x17\x01\x18\x01\x0a\x00\x0b\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := exploreConfig(2, 2)
		c.SleepAfter, c.ScaledownAfter = 1, 2
		m := newMachine(c, len(data)%2 == 0, 1)
		var tickets [8]*Ticket
		for i := range tickets {
			tickets[i] = &Ticket{request: Request{Tenant: string(rune('a' + i%3))}}
		}
		now := moment(1)
		asked, done := 0, 0
		for i := 0; i+1 < len(data); i += 2 {
			b := data[i+1]
			e := event{
				kind: eventKind(data[i]) % (evSurveyed + 1), id: uint64(b % 5), ticket: tickets[b%8], ok: b&8 != 0, n: int(b>>5) - 1,
				word: word(b & 3), cost: int64(b)*100 - 5000, output: int64(b >> 3), grant: grantResult(b>>4) % 3, since: now - moment(b>>6), change: &change{config: c, spec: 1 + uint64(b>>4)%3},
			}
			if b&64 != 0 {
				e.err = errLaunch
			}
			if e.kind == evGranted {
				asked = 0
			}
			now += moment(b >> 7)
			for _, f := range m.step(e, now) {
				switch f.kind {
				case effGrant:
					asked++
				case effDone:
					done++
				case effGiveUp:
					if f.ticket == nil {
						t.Fatal("nobody was given up")
					}
				}
			}
			if asked > 1 || done > 1 {
				t.Fatalf("%d grants at once, %d ends", asked, done)
			}
			if d := m.nextDeadline(now); d < 0 {
				t.Fatalf("deadline %d", d)
			}
			ids := map[uint64]bool{}
			for j := range m.slots {
				if id := m.slots[j].id; id != 0 && ids[id] {
					t.Fatalf("replica %d twice", id)
				} else {
					ids[id] = true
				}
			}
		}
	})
}
