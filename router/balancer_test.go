package router

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// fleet is n replicas with ids from 1 that have room for limit requests each.
type fleet struct {
	t       *testing.T
	b       *Balancer
	version uint64
	all     []Candidate
	now     time.Time
}

func newFleet(t *testing.T, p Policy, n, limit int) *fleet {
	f := &fleet{t: t, b: NewBalancer(p), version: 1, now: start}
	for id := range n {
		f.all = append(f.all, Candidate{ID: uint64(id + 1), Limit: limit})
	}
	return f
}

// send places a request and returns it with the replica that has it; 0: nobody may.
func (f *fleet) send(session, prompt string) (*Asked, uint64) {
	a := &Asked{}
	f.b.Describe(a, 100, []byte(session), "", []byte(prompt))
	return a, f.place(a)
}

func (f *fleet) place(a *Asked) uint64 {
	i := f.b.Choose(a, f.version, f.all, f.now)
	if i < 0 {
		f.b.Leave(a)
		return 0
	}
	f.all[i].InFlight++
	f.b.Place(a, f.all[i].ID)
	return f.all[i].ID
}

func (f *fleet) end(a *Asked, o Outcome) {
	f.b.Report(a, o, f.now)
	f.b.Leave(a)
	for i := range f.all {
		if f.all[i].ID == a.at {
			f.all[i].InFlight--
		}
	}
}

// fail makes replica id fail n times.
func (f *fleet) fail(id uint64, n int, o Outcome) {
	for range n {
		a := &Asked{}
		f.b.Describe(a, 1, nil, "")
		f.b.Choose(a, f.version, f.all, f.now) // so that the fleet is known
		f.b.Place(a, id)
		f.b.Report(a, o, f.now)
		f.b.Leave(a)
	}
}

func (f *fleet) out(id uint64) bool {
	s, ok := f.b.Status(id)
	if !ok {
		f.t.Fatalf("replica %d is not known", id)
	}
	return s.Out
}

func document(word string) string { return strings.Repeat(word+" ", 2000) }

func TestPrefixGoesWhereItIsCached(t *testing.T) {
	f := newFleet(t, "", 4, 8)
	first, at := f.send("", document("one"))
	if first.Reason() != ReasonLoad {
		t.Errorf("the first went to %d for %q, want load", at, first.Reason())
	}
	f.end(first, Answered)
	for range 10 {
		a, again := f.send("", document("one")+"and more")
		if again != at || a.Reason() != ReasonPrefix || a.Matched() < 0.9 {
			t.Fatalf("went to %d for %q with %.2f matched, want %d for its prefix", again, a.Reason(), a.Matched(), at)
		}
		f.end(a, Answered)
	}
}

func TestSessionsStickUntilTheirReplicaHasTooMuchToDo(t *testing.T) {
	f := newFleet(t, PolicyPrefix, 3, 100)
	a, at := f.send("s", "short")
	f.end(a, Answered)
	for i := range 5 { // with prompts that share nothing
		a, again := f.send("s", document(fmt.Sprint(i)))
		if again != at || a.Reason() != ReasonSticky {
			t.Fatalf("request %d went to %d for %q, want %d for its session", i, again, a.Reason(), at)
		}
		f.end(a, Answered)
	}
	moved := false
	for i := range 10 { // none of which ends
		_, now := f.send("s", document(fmt.Sprint("busy", i)))
		moved = moved || now != at
	}
	if !moved {
		t.Error("a session held on to one replica while the others had nothing to do")
	}
}

func TestPoliciesSpread(t *testing.T) {
	for _, p := range []Policy{PolicyLeastRequests, PolicyRoundRobin} {
		f := newFleet(t, p, 4, 3)
		count := map[uint64]int{}
		for range 12 {
			_, at := f.send("same", document("same"))
			count[at]++
		}
		for id := uint64(1); id <= 4; id++ {
			if count[id] != 3 {
				t.Errorf("%s: %v, want three for each", p, count)
				break
			}
		}
		if a, at := f.send("", ""); at != 0 {
			t.Errorf("%s: a fleet that is full took a request on %d for %q", p, at, a.Reason())
		}
	}
}

func TestReplicaThatLeavesIsForgotten(t *testing.T) {
	f := newFleet(t, "", 2, 8)
	a, at := f.send("s", document("one"))
	f.end(a, Answered)
	whole := f.all
	f.version++
	f.all = []Candidate{whole[2-at]} // the other one
	if a, other := f.send("s", document("one")); other == at {
		t.Fatal("went to a replica that is not there")
	} else {
		f.end(a, Answered)
	}
	if _, ok := f.b.Status(at); ok {
		t.Error("a replica that has left is known yet")
	}
	// It comes back, without its cache.
	f.version++
	f.all = whole
	a, back := f.send("", document("one"))
	if back == at {
		t.Error("a replica that had left is thought to have its cache")
	}
	f.end(a, Answered)
}

// A choice is made with the set of replicas that was read a moment ago. An older one must not undo what a newer one has told.
func TestOlderSetForgetsNobody(t *testing.T) {
	f := newFleet(t, "", 3, 8)
	var at uint64
	for at != 3 { // fill until the newest has something
		_, at = f.send("", document("x"))
	}
	old := &Asked{}
	f.b.Describe(old, 1, nil, "")
	f.b.Choose(old, 0, f.all[:2], f.now)
	if _, ok := f.b.Status(3); !ok {
		t.Error("a choice among an older set forgot a replica of the present one")
	}
}

func TestBreaker(t *testing.T) {
	for _, tt := range []struct {
		name    string
		outcome Outcome
		n       int
		out     bool
	}{
		{"nobody listens", Refused, 1, true},
		{"too few failures", Failed, tripAfter - 1, false},
		{"failures in a row", Failed, tripAfter, true},
		{"answers, 4xx among them", Answered, 100, false},
		{"clients that leave", Unknown, 100, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, "", 3, 8)
			f.fail(2, tt.n, tt.outcome)
			if f.out(2) != tt.out {
				t.Fatalf("out is %v after %d, want %v", f.out(2), tt.n, tt.out)
			}
			went := 0
			for range 30 {
				a, at := f.send("", "")
				if at == 2 {
					went++
				}
				f.end(a, Unknown)
			}
			if (went == 0) != tt.out {
				t.Errorf("%d of 30 requests went there, out is %v", went, tt.out)
			}
		})
	}
}

func TestBreakerSeesFailuresBetweenAnswers(t *testing.T) {
	f := newFleet(t, "", 3, 8)
	for range tripAmong {
		f.fail(1, 1, Failed)
		f.fail(1, 1, Answered)
	}
	if !f.out(1) {
		t.Error("half of the answers are failures, and the replica is in")
	}
	f = newFleet(t, "", 3, 8)
	for range 100 {
		f.fail(1, 1, Failed)
		f.fail(1, 3, Answered)
	}
	if f.out(1) {
		t.Error("a quarter of the answers are failures, and the replica is out")
	}
}

func TestBreakerTriesWithOneRequest(t *testing.T) {
	f := newFleet(t, PolicyLeastRequests, 2, 8)
	f.fail(1, 1, Refused)
	pause := leastPause
	for round := range 8 {
		if a, at := f.send("", ""); at != 2 {
			t.Fatalf("round %d: %d got a request while it is out", round, at)
		} else {
			f.end(a, Answered)
		}
		f.now = f.now.Add(pause)
		var trial *Asked
		trials := 0
		var others []*Asked
		for range 10 {
			a, at := f.send("", "")
			if at == 1 {
				trial = a
				trials++
			} else {
				others = append(others, a)
			}
		}
		if trials != 1 || trial.Reason() != ReasonTrial {
			t.Fatalf("round %d: %d trials at once, want 1", round, trials)
		}
		for _, a := range others {
			f.end(a, Answered)
		}
		switch {
		case round == 2: // its client leaves: another one is the trial
			f.end(trial, Unknown)
			next, at := f.send("", "")
			if at == 2 {
				next, at = f.send("", "") // the other one has a request now
			}
			if at != 1 {
				t.Fatal("no other trial after one whose client left")
			}
			f.end(next, Failed)
		case round == 7:
			f.end(trial, Answered)
			continue
		default:
			f.end(trial, Failed)
		}
		pause = min(2*pause, mostPause)
		if s, _ := f.b.Status(1); s.Until.Sub(f.now) != pause {
			t.Fatalf("round %d: tried again after %v, want %v", round, s.Until.Sub(f.now), pause)
		}
	}
	if f.out(1) {
		t.Error("out after a trial that was answered")
	}
}

func TestLastReplicaStays(t *testing.T) {
	f := newFleet(t, "", 3, 8)
	for id := uint64(1); id <= 3; id++ {
		f.fail(id, 20, Failed)
	}
	if !f.out(1) || !f.out(2) || f.out(3) {
		t.Errorf("out: %v %v %v, want all but the last", f.out(1), f.out(2), f.out(3))
	}
	if _, at := f.send("", ""); at != 3 {
		t.Errorf("went to %d, want the last one that is in", at)
	}
	// Where those that are in close, the others are better than nobody.
	f.all[2].Closed = true
	if _, at := f.send("", ""); at != 1 && at != 2 {
		t.Errorf("went to %d, want one of those that are out", at)
	}
}

func TestFailedReplicaIsAvoidedIfThereIsAnother(t *testing.T) {
	f := newFleet(t, "", 2, 8)
	a, at := f.send("s", document("one"))
	f.end(a, Failed)
	a.Avoid = at
	if again := f.place(a); again == at || again == 0 {
		t.Errorf("sent again to %d, where it has failed", again)
	}
	f.end(a, Unknown)
	f.all[2-at].Closed = true
	if again := f.place(a); again != at {
		t.Errorf("sent to %d, want the only one that is there", again)
	}
}

// All work is given back, whatever happened, and whatever becomes of the sets meanwhile.
func TestWorkIsGivenBack(t *testing.T) {
	f := newFleet(t, "", 8, 50)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			all := append([]Candidate(nil), f.all...)
			for i := range 500 {
				a := &Asked{}
				f.b.Describe(a, 10, []byte(fmt.Sprint("session", i%7)), "", []byte(document(fmt.Sprint(i%13))))
				version := uint64(1 + i/100)
				if f.b.Choose(a, version, all, start) < 0 {
					t.Error("nobody has room")
				}
				switch i % 4 {
				case 0:
					f.b.Place(a, a.chosen)
				case 1:
					f.b.Place(a, uint64(1+(i+g)%8)) // another one
				}
				f.b.FirstToken(a)
				f.b.Learn(a, Usage{Prompt: 100, Cached: 50, Output: 5, Told: true})
				if i%4 < 2 {
					f.b.Report(a, Outcome(i%3), start)
				}
				f.b.Leave(a)
				f.b.Leave(a)
			}
		})
	}
	wg.Wait()
	for id := uint64(1); id <= 8; id++ {
		if s, ok := f.b.Status(id); ok && s.Work != 0 {
			t.Errorf("replica %d has %v to do, and nothing is in flight", id, s.Work)
		}
	}
}

func TestResponsesAreFoundByTheirOwner(t *testing.T) {
	b := NewBalancer("")
	b.Keep("tenant", []byte("resp_1"), 3)
	if got := b.Keeper("tenant", []byte("resp_1")); got != 3 {
		t.Errorf("kept by %d, want 3", got)
	}
	if got := b.Keeper("other", []byte("resp_1")); got != 0 {
		t.Errorf("another tenant is led to %d", got)
	}
	for i := range responseKeys + 1 {
		b.Keep("tenant", fmt.Appendf(nil, "resp_%d", i+2), 1)
	}
	if got := b.Keeper("tenant", []byte("resp_1")); got != 0 {
		t.Errorf("the oldest of too many is kept: %d", got)
	}
}

func TestOutputIsLearned(t *testing.T) {
	b := NewBalancer("")
	a := &Asked{}
	b.Describe(a, 0, nil, "")
	if a.output != firstOutput {
		t.Errorf("%d tokens expected before any was seen, want %d", a.output, firstOutput)
	}
	for range 500 {
		b.Learn(a, Usage{Prompt: 1, Output: 1000})
	}
	b.Describe(a, 0, nil, "")
	if a.output != 1000 {
		t.Errorf("%d tokens expected after answers of 1000", a.output)
	}
	b.Describe(a, 7, nil, "")
	if a.output != 7 {
		t.Errorf("%d tokens expected of a request for 7", a.output)
	}
}

// BenchmarkChoose is a whole decision with a prompt of 16 KiB, about 4,000 tokens, among 100 replicas: describe, choose, place, leave.
func BenchmarkChoose(b *testing.B) {
	for _, kind := range []string{"conversations", "new prompts"} {
		b.Run(kind, func(b *testing.B) {
			balancer := NewBalancer("")
			all := make([]Candidate, 100)
			for i := range all {
				all[i] = Candidate{ID: uint64(i + 1), Limit: 64}
			}
			prompts := make([][]byte, 1000)
			for i := range prompts {
				prompts[i] = []byte(strings.Repeat(fmt.Sprintf("%08d", i), 2048))
			}
			a := &Asked{}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				prompt := prompts[i%len(prompts)]
				if kind == "new prompts" {
					copy(prompt, fmt.Sprintf("%08d", i))
				}
				balancer.Describe(a, 100, nil, "", prompt)
				k := balancer.Choose(a, 1, all, start)
				balancer.Place(a, all[k].ID)
				balancer.Leave(a)
			}
		})
	}
}

func TestBudget(t *testing.T) {
	var b Budget
	spend := func() (n int) {
		for b.Spend() {
			n++
		}
		return n
	}
	if n := spend(); n != retryReserve {
		t.Errorf("%d retries without traffic, want %d", n, retryReserve)
	}
	for range 250 {
		b.Earn()
	}
	if n := spend(); n != 25 {
		t.Errorf("%d retries for 250 requests, want 25", n)
	}
	for range 100_000 {
		b.Earn()
	}
	if n := spend(); n != retryMost {
		t.Errorf("%d retries saved up, want %d", n, retryMost)
	}
}
