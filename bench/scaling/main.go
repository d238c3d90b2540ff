// Command scaling compares ways to say how many replicas a model needs, in virtual time: what each costs in GPU-hours and starts, and how
// long requests wait. The same plan goes to all of them.
//
//	go run ./bench/scaling --trace azure-llm-code-2023.csv
//
// A replica is simple: it takes a fixed time to start, computes one prompt at a time, and answers at a fixed speed. That is enough to tell
// policies apart, and not enough to foretell an engine's latency.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"
)

func main() {
	o := defaults()
	flag.StringVar(&o.Trace, "trace", o.Trace, "CSV of arrivals, as bench's load generator reads it; empty: the synthetic loads only")
	flag.IntVar(&o.Copies, "copies", o.Copies, "how many times the trace is laid over itself")
	flag.Uint64Var(&o.Seed, "seed", o.Seed, "of everything random")
	flag.Uint64Var(&o.Seeds, "seeds", o.Seeds, "how many seeds, from that one on")
	flag.IntVar(&o.Limits.Max, "max", o.Limits.Max, "most replicas")
	flag.Float64Var(&o.Limits.Concurrency, "concurrency", o.Limits.Concurrency, "requests in flight that one replica is meant to have")
	flag.Float64Var(&o.Limits.Rate, "rate", o.Limits.Rate, "requests per second that one replica is meant to take, for our own policies; 0: by concurrency")
	flag.DurationVar(&o.Limits.Scaledown, "scaledown-after", o.Limits.Scaledown, "how long a replica is kept that is not needed")
	flag.DurationVar(&o.Fleet.Start, "start", o.Fleet.Start, "how long a replica takes to be ready")
	flag.Float64Var(&o.Fleet.Prefill, "prefill", o.Fleet.Prefill, "tokens of prompt that a replica computes in a second")
	flag.DurationVar(&o.Fleet.PerToken, "per-token", o.Fleet.PerToken, "how long a token of output takes")
	flag.IntVar(&o.Fleet.Limit, "limit", o.Fleet.Limit, "requests that a replica takes at once")
	flag.Parse()
	if err := run(os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "scaling:", err)
		os.Exit(1)
	}
}

// options of a comparison.
type options struct {
	Trace  string
	Copies int
	Seed   uint64
	Seeds  uint64
	Limits limits
	Fleet  fleet
}

// defaults: an hour of the trace keeps one replica two thirds busy, so eight of them ask for several. A replica takes as many at once as it is
// meant to have, as the gateway sees to.
func defaults() options {
	return options{
		Copies: 8, Seed: 1, Seeds: 1,
		Limits: limits{Max: 16, Concurrency: 4, Scaledown: 5 * time.Minute},
		Fleet:  fleet{Start: time.Minute, Prefill: 8000, PerToken: 20 * time.Millisecond, Limit: 4, AfterLast: 15 * time.Minute},
	}
}

func (o *options) check() error {
	if o.Copies < 1 || o.Seeds < 1 || o.Fleet.Start < 0 || !(o.Fleet.Prefill > 0) || o.Fleet.PerToken < 0 || o.Fleet.Limit < 1 {
		return errors.New("copies, seeds, prefill and limit must be above 0, and times not negative")
	}
	return nil
}

// run writes one table per workload and seed, and one of all together.
func run(out io.Writer, o options) error {
	if err := o.check(); err != nil {
		return err
	}
	var sums []sum
	for seed := o.Seed; seed < o.Seed+o.Seeds; seed++ {
		var all []workload
		if o.Trace != "" {
			w, err := trace(o.Trace, o.Copies, seed)
			if err != nil {
				return err
			}
			all = append(all, w)
		}
		for _, w := range append(all, synthetic(seed)...) {
			fmt.Fprintf(out, "%s: %d requests, seed %d\n\n", w.Name, len(w.Plan), seed)
			var err error
			if sums, err = compare(out, o, w, sums); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(out, "all workloads together, on average of %d seeds\n\n", o.Seeds)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "policy\tGPU-hours\tstarts\tmean of the p95 waits")
	for _, s := range sums {
		fmt.Fprintf(table, "%s\t%.1f\t%.0f\t%s\n", s.name, s.busy.Hours()/float64(o.Seeds), float64(s.starts)/float64(o.Seeds), seconds(s.p95/time.Duration(s.workloads)))
	}
	return table.Flush()
}

// sum is what a policy cost and gave in all workloads.
type sum struct {
	name      string
	busy, p95 time.Duration
	starts    int
	workloads int
}

// compare writes the table of one workload, and adds it to the sums, which are in the order of the contenders.
func compare(out io.Writer, o options, w workload, sums []sum) ([]sum, error) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "policy\tGPU-hours\tp50 wait\tp95 wait\tp99 wait\tstarts\tmost\tleft")
	held := o.Limits
	held.Service = o.Fleet.alone(w.Plan)
	for i, c := range contenders(held) {
		p, err := c.New()
		if err != nil {
			return nil, err
		}
		r := simulate(o.Fleet, p, w.Plan)
		fmt.Fprintf(table, "%s\t%.2f\t%s\t%s\t%s\t%d\t%d\t%d\n", c.Name, r.Busy.Hours(), seconds(r.wait(.5)), seconds(r.wait(.95)), seconds(r.wait(.99)),
			r.Starts, r.MostAtOne, r.Left)
		if i == len(sums) {
			sums = append(sums, sum{name: c.Name})
		}
		sums[i].busy += r.Busy
		sums[i].p95 += r.wait(.95)
		sums[i].starts += r.Starts
		sums[i].workloads++
	}
	fmt.Fprintln(table)
	return sums, table.Flush()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
