package activator

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// hall is a model in virtual time: places, each of which serves a token in a microsecond, and the queue before them.
type hall struct {
	q      queue
	now    moment
	free   int
	served served // in progress
	users  []*user
	ticket map[*Ticket]*job
	// dispatched is called after each dispatch, ended after each answer.
	dispatched, ended func(*job)
}

// user is a tenant and how it behaves.
type user struct {
	name             string
	weight, priority int
	// job draws what one request claims, and what it turns out to be.
	job func(*rand.Rand) (claim Work, prompt, output int64)

	waiting   int
	work      int64 // of ended answers, in tokens
	begun     int64 // of dispatched requests, in tokens
	longest   int64 // request so far
	ended     int
	patientTo moment // the longest wait so far
}

type job struct {
	user           *user
	ticket         *Ticket
	came           moment
	prompt, output int64
	cost           int64
	end            moment
}

type served []*job

func (s served) Len() int           { return len(s) }
func (s served) Less(i, j int) bool { return s[i].end < s[j].end }
func (s served) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *served) Push(x any)        { *s = append(*s, x.(*job)) }
func (s *served) Pop() any {
	last := len(*s) - 1
	j := (*s)[last]
	*s = (*s)[:last]
	return j
}

func newHall(places int, users ...*user) *hall {
	h := &hall{q: newQueue(), now: 1, free: places, users: users, ticket: map[*Ticket]*job{}}
	for i, u := range users {
		if u.name == "" {
			u.name = fmt.Sprint("tenant", i)
		}
	}
	return h
}

func (h *hall) arrive(u *user, random *rand.Rand) *job {
	claim, prompt, output := u.job(random)
	j := &job{user: u, came: h.now, prompt: prompt, output: output}
	j.ticket = &Ticket{request: Request{Tenant: u.name, Weight: u.weight, Priority: u.priority, Work: claim}}
	h.ticket[j.ticket] = j
	u.waiting++
	u.longest = max(u.longest, prompt+output)
	h.q.push(j.ticket, h.now)
	return j
}

// dispatch fills the free places.
func (h *hall) dispatch() {
	for h.free > 0 {
		t := h.q.next(h.now)
		if t == nil {
			return
		}
		j := h.ticket[t]
		j.cost = h.q.cost(t)
		h.q.dispatched(t, j.cost, h.now)
		h.free--
		j.user.waiting--
		j.user.begun += j.prompt + j.output
		j.user.patientTo = max(j.user.patientTo, h.now-j.came)
		j.end = h.now + time.Duration(j.prompt+j.output)*time.Microsecond
		heap.Push(&h.served, j)
		if h.dispatched != nil {
			h.dispatched(j)
		}
	}
}

// endOne lets the next answer end.
func (h *hall) endOne() *job {
	j := heap.Pop(&h.served).(*job)
	h.now = j.end
	h.free++
	j.user.work += j.prompt + j.output
	j.user.ended++
	delete(h.ticket, j.ticket)
	h.q.charge(&j.ticket.request, j.prompt+j.output-j.cost, j.output)
	if h.ended != nil {
		h.ended(j)
	}
	return j
}

// crowd keeps backlog requests of each user waiting until so many answers have ended.
func (h *hall) crowd(random *rand.Rand, backlog, answers int) {
	for range answers {
		for _, u := range h.users {
			for u.waiting < backlog {
				h.arrive(u, random)
			}
		}
		h.dispatch()
		h.endOne()
	}
}

// Ways of asking. Claims of a prompt are what its bytes let expect.
func chat(r *rand.Rand) (Work, int64, int64) {
	prompt, output := 50+r.Int64N(500), 20+r.Int64N(400)
	return Work{Prompt: prompt, MaxOutput: 1024}, prompt, output
}

func summaries(r *rand.Rand) (Work, int64, int64) {
	prompt, output := 2000+r.Int64N(6000), 50+r.Int64N(100)
	return Work{Prompt: prompt}, prompt, output
}

func essays(r *rand.Rand) (Work, int64, int64) {
	prompt, output := 20+r.Int64N(50), 500+int64(r.ExpFloat64()*1500)
	return Work{Prompt: prompt, MaxOutput: 16384}, prompt, min(output, 16384)
}

// dense prompts have four times the tokens that their bytes let expect.
func dense(r *rand.Rand) (Work, int64, int64) {
	prompt, output := 400+r.Int64N(4000), 20+r.Int64N(100)
	return Work{Prompt: prompt / 4, MaxOutput: 256}, prompt, output
}

// liars claim one token of output and a short prompt.
func liars(r *rand.Rand) (Work, int64, int64) {
	prompt, output := 100+r.Int64N(1000), 500+r.Int64N(1500)
	return Work{Prompt: 1, MaxOutput: 1}, prompt, output
}

// boasters claim far more than they use, and differ much from one to the next.
func boasters(r *rand.Rand) (Work, int64, int64) {
	prompt, output := 50+r.Int64N(50), 1+r.Int64N(20)
	if r.IntN(10) == 0 {
		output = 4000
	}
	return Work{Prompt: prompt * 8, MaxOutput: 100_000}, prompt, output
}

var ways = []struct {
	name string
	job  func(*rand.Rand) (Work, int64, int64)
}{{"chat", chat}, {"summaries", summaries}, {"essays", essays}, {"dense", dense}, {"liars", liars}, {"boasters", boasters}}

// jain is R. Jain's index of fairness: 1 where all have the same.
func jain(shares []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, s := range shares {
		sum += s
		squares += s * s
	}
	return sum * sum / (float64(len(shares)) * squares)
}

// TestSharesOfWork: tenants who always have requests waiting get the work that their weights say, whatever they ask and claim.
func TestSharesOfWork(t *testing.T) {
	for _, c := range []struct {
		name    string
		weights []int
	}{
		{"equal weights", []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
		{"unequal weights", []int{1, 2, 3, 5, 8, 1, 2, 3, 5, 8, 1, 4}},
	} {
		for _, places := range []int{1, 8, 32} {
			worstJain, worstShare := 1.0, 0.0
			for seed := range rounds(10) {
				random := rand.New(rand.NewPCG(seed, 11))
				var users []*user
				total := 0
				for i, w := range c.weights {
					total += w
					users = append(users, &user{weight: w, job: ways[(i+int(seed))%len(ways)].job})
				}
				h := newHall(places, users...)
				h.crowd(random, 5, 30_000)
				for _, j := range h.served { // what of it is done
					j.user.work += j.prompt + j.output - int64((j.end-h.now)/time.Microsecond)
				}
				var shares []float64
				all := 0.0
				for _, u := range users {
					all += float64(u.work)
				}
				for _, u := range users {
					shares = append(shares, float64(u.work)/float64(u.weight))
					due := float64(u.weight) / float64(total)
					worstShare = max(worstShare, math.Abs(float64(u.work)/all/due-1))
				}
				worstJain = min(worstJain, jain(shares))
			}
			t.Logf("%s, %d places: Jain's index %.4f at worst, a share is %.1f %% off at worst", c.name, places, worstJain, 100*worstShare)
			if worstJain < 0.98 {
				t.Errorf("%s, %d places: Jain's index is %.4f", c.name, places, worstJain)
			}
			if worstShare > 0.05 {
				t.Errorf("%s, %d places: a share is %.1f %% off", c.name, places, 100*worstShare)
			}
		}
	}
}

// TestSharesAreNotOfCounts: what TestSharesOfWork tells would not come about by taking turns.
func TestSharesAreNotOfCounts(t *testing.T) {
	users := []*user{{job: chat}, {job: essays}}
	newHall(4, users...).crowd(rand.New(rand.NewPCG(1, 1)), 5, 5000)
	if a, b := users[0].ended, users[1].ended; a < 3*b {
		t.Errorf("%d short requests were served, and %d long ones", a, b)
	}
}

// TestLagBehindTheFluid: while two tenants both have requests waiting, what they were served, divided by their weights, never differs by more than
// one request of each, however they come and go; a fluid would be divided exactly. Where claims are wrong, what is in progress adds to it
// what it was charged too much or too little.
func TestLagBehindTheFluid(t *testing.T) {
	for _, exact := range []bool{true, false} {
		worst := 0.0
		for seed := range rounds(60) {
			random := rand.New(rand.NewPCG(seed, 12))
			const places = 8
			var users []*user
			for i := range 5 {
				u := &user{weight: 1 + random.IntN(5), job: ways[random.IntN(len(ways))].job}
				if exact {
					u.job = func(r *rand.Rand) (Work, int64, int64) {
						n := 1 + int64(r.ExpFloat64()*float64(200*(1+i)))
						return Work{Prompt: n, MaxOutput: 1}, n, 1
					}
				}
				users = append(users, u)
			}
			h := newHall(places, users...)
			type pair struct{ low, high float64 }
			pairs := map[[2]int]*pair{}
			look := func(*job) {
				for i, a := range users {
					for j, b := range users[:i] {
						key := [2]int{i, j}
						if a.waiting == 0 || b.waiting == 0 {
							delete(pairs, key)
							continue
						}
						d := float64(a.begun)/float64(a.weight) - float64(b.begun)/float64(b.weight)
						p := pairs[key]
						if p == nil {
							p = &pair{d, d}
							pairs[key] = p
						}
						p.low, p.high = min(p.low, d), max(p.high, d)
						bound := float64(a.longest)/float64(a.weight) + float64(b.longest)/float64(b.weight)
						if !exact { // at both ends of the time, what is in progress may be charged wrongly, by its own size or by what was claimed
							bound *= 2 * (1 + places)
						}
						worst = max(worst, (p.high-p.low)/bound)
					}
				}
			}
			h.dispatched = look
			for range 3000 {
				if u := users[random.IntN(len(users))]; random.IntN(4) > 0 {
					for range 1 + random.IntN(8)*random.IntN(3) {
						if u.waiting < 40 {
							h.arrive(u, random)
						}
					}
					look(nil)
				}
				h.dispatch()
				if len(h.served) > 0 {
					h.endOne()
				}
			}
		}
		t.Logf("exact claims: %v; the lag was %.2f of its bound at worst", exact, worst)
		if worst > 1.0001 || worst < 0.05 {
			t.Errorf("exact claims: %v; the lag was %.2f of its bound", exact, worst)
		}
	}
}

// TestFiveThousandDelayOneByOneServiceTime, whatever the many ask, however many tenants they are of, and whether or not they are owed time.
func TestFiveThousandDelayOneByOneServiceTime(t *testing.T) {
	for _, way := range ways {
		for _, places := range []int{1, 8, 32} {
			for seed := range rounds(5) {
				random := rand.New(rand.NewPCG(seed, 13))
				many, one := &user{job: way.job, weight: 1 + int(seed)*10}, &user{job: chat}
				h := newHall(places, many, one)
				for range 5000 {
					h.arrive(many, random)
				}
				for range random.IntN(1000) {
					h.dispatch()
					h.endOne()
				}
				h.dispatch()
				j := h.arrive(one, random)
				longest := moment(0) // what a place has still to do
				for _, s := range h.served {
					longest = max(longest, s.end-h.now)
				}
				var first moment = math.MaxInt64
				for _, s := range h.served {
					first = min(first, s.end-h.now)
				}
				for one.waiting > 0 {
					h.endOne()
					h.dispatch()
				}
				if waited := one.patientTo; waited != first {
					t.Errorf("%s, %d places: the one waited %v, the first place was free after %v (came %v)", way.name, places, waited, first, j.came)
				}
			}
		}
	}
}

// TestComingAndGoingGainsNothing: who leaves the queue after each request and comes back gets no more than who stays.
func TestComingAndGoingGainsNothing(t *testing.T) {
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 14))
		stays, flits := &user{job: liars}, &user{job: liars}
		h := newHall(2, stays, flits)
		for range 4000 {
			for stays.waiting < 5 {
				h.arrive(stays, random)
			}
			if flits.waiting == 0 {
				h.arrive(flits, random)
			}
			h.dispatch()
			h.endOne()
		}
		if gain := float64(flits.work) / float64(stays.work); gain > 1.05 {
			t.Errorf("coming and going gained %.2f", gain)
		}
	}
}

// TestPriorityIsStrictUntilSomebodyIsOverdue, and then one of agedEvery dispatches is for those below.
func TestPriorityIsStrictUntilSomebodyIsOverdue(t *testing.T) {
	second := func(*rand.Rand) (Work, int64, int64) { return Work{Prompt: 999_999, MaxOutput: 1}, 999_999, 1 } // each takes a second
	high, low, lowest := &user{job: second, priority: 2}, &user{job: second}, &user{job: second, priority: -1}
	h := newHall(1, high, low, lowest)
	random := rand.New(rand.NewPCG(1, 15))
	for range 40 {
		h.arrive(low, random)
		h.arrive(lowest, random)
	}
	var order []*job
	h.dispatched = func(j *job) { order = append(order, j) }
	for len(order) < 800 {
		for high.waiting < 3 {
			h.arrive(high, random)
		}
		h.dispatch()
		h.endOne()
	}
	since := 0
	for i, j := range order {
		switch {
		case j.user == high:
			since++
		case j.end-time.Second < ageAfter:
			t.Fatalf("dispatch %d went to a lower priority after %v", i, j.end)
		case since < agedEvery-1 && i > int(ageAfter/time.Second)+1:
			t.Fatalf("dispatch %d went to a lower priority after %d others", i, since)
		default:
			since = 0
		}
		if since > agedEvery-1 && i > int(ageAfter/time.Second)+agedEvery && low.waiting+lowest.waiting > 0 && i < 600 {
			t.Fatalf("dispatch %d: %d in a row of the higher priority while others are overdue", i, since)
		}
	}
	if low.ended != 40 || lowest.ended != 40 {
		t.Errorf("%d and %d of 40 were served", low.ended, lowest.ended)
	}
	// The k-th of those overdue is served within agedEvery·k dispatches.
	if bound := ageAfter + 80*agedEvery*time.Second; max(low.patientTo, lowest.patientTo) > bound {
		t.Errorf("waits of %v and %v, the bound is %v", low.patientTo, lowest.patientTo, bound)
	}
}

// TestDebtIsForgottenWhenNobodyWaits: what a tenant used long ago is not held against it.
func TestDebtIsForgottenWhenNobodyWaits(t *testing.T) {
	for _, pause := range []time.Duration{forgetAfter / 2, forgetAfter} {
		debtor, other := &user{job: essays}, &user{job: chat}
		h := newHall(1, debtor, other)
		random := rand.New(rand.NewPCG(1, 16))
		h.arrive(debtor, random)
		h.dispatch()
		h.endOne()
		h.q.charge(&Request{Tenant: debtor.name}, 1_000_000, 0)
		h.now += pause
		a := h.arrive(debtor, random)
		h.arrive(other, random)
		if first := h.q.next(h.now) == a.ticket; first != (pause >= forgetAfter) {
			t.Errorf("after %v the debtor is first: %v", pause, first)
		}
	}
}

// rounds is how many there are to try: a few under the race detector, which has nothing to find in one goroutine.
func rounds(n int) uint64 {
	if raceEnabled {
		return uint64(max(1, n/10))
	}
	return uint64(n)
}
