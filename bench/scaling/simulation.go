package main

import (
	"container/heap"
	"slices"
	"time"

	"pilotlight/activator/scaling"
	"pilotlight/bench/load"
)

// fleet is what the replicas of a simulation are like.
type fleet struct {
	Start     time.Duration // from being wanted to being ready
	Prefill   float64       // tokens of prompt in a second; one prompt at a time
	PerToken  time.Duration // of output, however many are answered at once
	Limit     int           // requests that a replica takes at once
	AfterLast time.Duration // how long is looked on after the last arrival
}

// alone is how long the requests of a plan take on average when nobody else is there.
func (f *fleet) alone(plan []load.Arrival) time.Duration {
	sum := 0.0
	for _, a := range plan {
		sum += float64(a.PromptTokens)/f.Prefill + float64(a.MaxTokens)*f.PerToken.Seconds()
	}
	return time.Duration(sum / float64(max(1, len(plan))) * float64(time.Second))
}

// result is what a policy cost and gave.
type result struct {
	Waits     []time.Duration // of each request until its prompt is computed; ascending
	Busy      time.Duration   // of all replicas, from being wanted to being gone
	Starts    int
	MostAtOne int // replicas at one time
	Left      int // requests not answered at the end
}

// wait is a quantile of the waits.
func (r *result) wait(q float64) time.Duration {
	if len(r.Waits) == 0 {
		return 0
	}
	return r.Waits[min(len(r.Waits)-1, int(q*float64(len(r.Waits))))]
}

// server is a simulated replica.
type server struct {
	begun    time.Duration
	readyAt  time.Duration
	freeAt   time.Duration // when the prompts that it has are computed
	inFlight int
	leaving  bool
}

// ending is an answer that will be complete.
type ending struct {
	at     time.Duration
	server *server
}

type endings []ending

func (e endings) Len() int           { return len(e) }
func (e endings) Less(i, j int) bool { return e[i].at < e[j].at }
func (e endings) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *endings) Push(x any)        { *e = append(*e, x.(ending)) }
func (e *endings) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// simulation runs one policy on one plan in virtual time.
type simulation struct {
	fleet   fleet
	policy  policy
	servers []*server
	queue   []load.Arrival
	endings endings
	seen    scaling.Observation
	result  result
}

// simulate looks at the policy once a second, as the product is meant to.
func simulate(f fleet, p policy, plan []load.Arrival) result {
	s := simulation{fleet: f, policy: p}
	if len(plan) == 0 {
		return s.result
	}
	last := plan[len(plan)-1].At + f.AfterLast
	for now := time.Duration(0); now <= last; now += time.Second {
		for {
			// The next thing within this second, answers before arrivals, and readiness whenever it lets somebody go on.
			next := now + time.Second
			if len(s.endings) > 0 {
				next = min(next, s.endings[0].at)
			}
			if len(plan) > 0 {
				next = min(next, plan[0].At)
			}
			for _, r := range s.servers {
				if len(s.queue) > 0 && r.readyAt > s.seen.At {
					next = min(next, r.readyAt)
				}
			}
			if next >= now+time.Second {
				break
			}
			s.seen.At = max(s.seen.At, next)
			switch {
			case len(s.endings) > 0 && s.endings[0].at == next:
				heap.Pop(&s.endings).(ending).server.inFlight--
				s.seen.Finished++
				s.seen.InFlight--
			case len(plan) > 0 && plan[0].At == next:
				s.queue = append(s.queue, plan[0])
				s.seen.Arrived++
				plan = plan[1:]
			}
			s.dispatch()
			s.sweep()
		}
		s.seen.At = now + time.Second
		s.dispatch()
		s.scale()
		s.sweep()
	}
	for _, r := range s.servers {
		s.result.Busy += s.seen.At - r.begun
	}
	s.result.Left = len(s.queue) + len(s.endings)
	slices.Sort(s.result.Waits)
	return s.result
}

// dispatch gives those who wait to the ready replicas with the fewest requests.
func (s *simulation) dispatch() {
	for len(s.queue) > 0 {
		var best *server
		for _, r := range s.servers {
			if r.readyAt <= s.seen.At && !r.leaving && r.inFlight < s.fleet.Limit && (best == nil || r.inFlight < best.inFlight) {
				best = r
			}
		}
		if best == nil {
			return
		}
		a := s.queue[0]
		s.queue = s.queue[1:]
		best.inFlight++
		s.seen.InFlight++
		best.freeAt = max(best.freeAt, s.seen.At) + time.Duration(float64(a.PromptTokens)/s.fleet.Prefill*float64(time.Second))
		s.result.Waits = append(s.result.Waits, best.freeAt-a.At)
		heap.Push(&s.endings, ending{best.freeAt + time.Duration(a.MaxTokens)*s.fleet.PerToken, best})
	}
}

// scale asks the policy, and starts or lets go.
func (s *simulation) scale() {
	s.seen.Queued, s.seen.Ready, s.seen.Starting, s.seen.StartLeft, s.seen.StartTime = len(s.queue), 0, 0, 0, s.fleet.Start
	for _, r := range s.servers {
		switch {
		case r.leaving:
		case r.readyAt <= s.seen.At:
			s.seen.Ready++
		default:
			s.seen.Starting++
			if left := r.readyAt - s.seen.At; s.seen.StartLeft == 0 || left < s.seen.StartLeft {
				s.seen.StartLeft = left
			}
		}
	}
	want, have := s.policy.want(s.seen), s.seen.Ready+s.seen.Starting
	if len(s.queue) > 0 {
		want = max(1, want) // a queue starts one in any case
	}
	for ; have < want; have++ {
		s.servers = append(s.servers, &server{begun: s.seen.At, readyAt: s.seen.At + s.fleet.Start})
		s.result.Starts++
	}
	s.result.MostAtOne = max(s.result.MostAtOne, len(s.servers))
	for ; have > want; have-- {
		s.cheapest().leaving = true
	}
}

// cheapest to lose is who is furthest from being ready, then who has the fewest requests.
func (s *simulation) cheapest() *server {
	var best *server
	for _, r := range s.servers {
		if r.leaving {
			continue
		}
		if best == nil || max(r.readyAt, s.seen.At) > max(best.readyAt, s.seen.At) ||
			max(r.readyAt, s.seen.At) == max(best.readyAt, s.seen.At) && r.inFlight < best.inFlight {
			best = r
		}
	}
	return best
}

// sweep ends those that leave and have nothing left to do.
func (s *simulation) sweep() {
	s.servers = slices.DeleteFunc(s.servers, func(r *server) bool {
		if !r.leaving || r.inFlight > 0 {
			return false
		}
		s.result.Busy += s.seen.At - r.begun
		return true
	})
}
