package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"pilotlight/bench/load"
)

// workload is a named plan.
type workload struct {
	Name string
	Plan []load.Arrival
}

// trace reads a trace and lays copies of it over each other, each turned by a random part of its length, so that the load is that of as
// many such models in one.
func trace(path string, copies int, seed uint64) (workload, error) {
	f, err := os.Open(path)
	if err != nil {
		return workload{}, err
	}
	defer f.Close()
	one, err := load.Trace(f, 1, 0, 0)
	if err != nil {
		return workload{}, fmt.Errorf("%s: %w", path, err)
	}
	if len(one) == 0 {
		return workload{}, fmt.Errorf("%s: no requests", path)
	}
	length := one[len(one)-1].At + 1
	r := rand.New(rand.NewPCG(seed, 1))
	var plan []load.Arrival
	for k := range copies {
		turn := time.Duration(0)
		if k > 0 {
			turn = time.Duration(r.Int64N(int64(length)))
		}
		for _, a := range one {
			a.At = (a.At + turn) % length
			plan = append(plan, a)
		}
	}
	return sorted(fmt.Sprintf("the trace, %d at once", copies), plan), nil
}

func sorted(name string, plan []load.Arrival) workload {
	slices.SortStableFunc(plan, func(a, b load.Arrival) int { return int(a.At - b.At) })
	return workload{name, plan}
}

// phase is a time at one rate of arrivals, after some that come at once.
type phase struct {
	Length time.Duration
	Rate   float64 // a second
	AtOnce int
}

// phases makes a plan of them, with intervals, prompts and answers distributed exponentially around means that are about the trace's.
func phases(name string, seed uint64, all ...phase) workload {
	r := rand.New(rand.NewPCG(seed, 2))
	var plan []load.Arrival
	add := func(at time.Duration) {
		plan = append(plan, load.Arrival{At: at, PromptTokens: 1 + int(2000*r.ExpFloat64()), MaxTokens: 1 + int(30*r.ExpFloat64())})
	}
	begin := time.Duration(0)
	for _, p := range all {
		for range p.AtOnce {
			add(begin)
		}
		for at := 0.0; p.Rate > 0; {
			at += r.ExpFloat64() / p.Rate
			if at >= p.Length.Seconds() {
				break
			}
			add(begin + time.Duration(at*float64(time.Second)))
		}
		begin += p.Length
	}
	return sorted(name, plan)
}

// synthetic are the bursts.
func synthetic(seed uint64) []workload {
	minute := time.Minute
	return []workload{
		phases("a cold start under light load", seed, phase{20 * minute, 1.5, 0}),
		phases("cold, 200 at once, then little", seed, phase{20 * minute, 0.3, 200}),
		phases("spikes of 100 every 5 minutes", seed, phase{5 * minute, 1, 0}, phase{5 * minute, 1, 100}, phase{5 * minute, 1, 100}, phase{5 * minute, 1, 100}),
		phases("ten times the load for 5 minutes", seed, phase{10 * minute, 2, 0}, phase{5 * minute, 20, 0}, phase{15 * minute, 2, 0}),
		phases("up and down every 15 minutes", seed, phase{15 * minute, 12, 0}, phase{15 * minute, 0, 0}, phase{15 * minute, 12, 0}, phase{15 * minute, 0, 0}, phase{15 * minute, 12, 0}),
	}
}
