package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"pilotlight/bench/mockengine"
)

// report is what a run found. Sizes are bytes.
type report struct {
	Started time.Time     `json:"started"`
	Go      string        `json:"go"`
	Cores   int           `json:"cores"`
	Options options       `json:"options"`
	Took    time.Duration `json:"took_ns"`

	Requests int64         `json:"requests"`
	Outcomes []outcome     `json:"outcomes"`
	Wrong    []string      `json:"wrong,omitempty"` // the first of them
	CPU      time.Duration `json:"gateway_cpu_ns"`
	Reloads  int           `json:"reloads"`
	// Of the models that there are at the end.
	Starts    uint64 `json:"starts"`
	Evictions uint64 `json:"evictions"`
	Failures  uint64 `json:"start_failures"`
	Crashes   uint64 `json:"crashes"`

	Retries    float64           `json:"retries"`
	Heartbeats float64           `json:"heartbeats"`
	Engines    int               `json:"engines"` // that have left a record
	Engine     mockengine.Record `json:"engine"`

	Before level `json:"before"`
	After  level `json:"after"`
	// The line through resident memory at 25 % and at the end, and its rise between.
	ResidentFrom float64 `json:"resident_from"`
	ResidentTo   float64 `json:"resident_to"`
	Growth       float64 `json:"growth_percent"`

	Checks  []check  `json:"checks"`
	Passed  bool     `json:"passed"`
	Samples []sample `json:"samples"`
}

// check is one thing that must hold.
type check struct {
	Name    string `json:"name"`
	Problem string `json:"problem,omitempty"` // empty: it holds
}

func (r *report) check(name string, err error) {
	c := check{Name: name}
	if err != nil {
		c.Problem = err.Error()
	}
	r.Checks = append(r.Checks, c)
}

// judge adds what can be said after the gateway's end.
func (r *report) judge(t *traffic, records string) {
	var whole, wrong, leavers int64
	r.Outcomes, r.Wrong = t.outcomes(), t.wrongs
	for _, k := range r.Outcomes {
		wrong += k.Wrong
		if k.Whole {
			whole += k.Right
		}
		if k.Kind == leaver {
			leavers = k.Right
		}
		r.check("there was a right answer of the kind: "+k.Kind, unless(k.Right > 0, "none in this run"))
	}
	r.check("every answer is the right one", unless(wrong == 0, "%d of %d are not", wrong, r.Requests))
	r.check("no replica crashed or failed to start", unless(r.Crashes == 0 && r.Failures == 0, "%d crashed, %d failed", r.Crashes, r.Failures))

	var err error
	r.Engine, r.Engines, err = readRecords(records)
	r.check("the engines' records can be read", err)
	e := r.Engine
	r.check("every engine has left a record", unless(uint64(r.Engines) >= r.Starts, "%d records of at least %d engines", r.Engines, r.Starts))
	r.check("every request ended at its engine: answered, refused, broken off or left", unless(e.InFlight == 0 && e.Requests == e.Finished+e.Refused+e.Broken+e.Left, "%+v", e))
	r.check("no client left an engine but those that were to leave", unless(e.Left > 0 && e.Left <= leavers, "%d left, %d were to", e.Left, leavers))
	// Some that leave do so with the last event, which an engine takes for an answer that was read.
	r.check("engines finished the answers that clients got", unless(e.Finished >= whole && e.Finished <= whole+leavers, "%d, of %d that clients got", e.Finished, whole))
	r.check("no request reached an engine twice", unless(e.Repeated == 0, "%d did", e.Repeated))
	r.check("engines could read all that they got", unless(e.Malformed == 0, "%d times not", e.Malformed))
	r.check("no connection lay idle until its engine closed it", unless(e.Expired == 0, "%d did", e.Expired))

	r.ResidentFrom, r.ResidentTo, r.Growth, err = growth(r.Samples, r.Requests)
	if err == nil {
		err = unless(r.Growth <= r.Options.Limit, "it grew by %.2f %%", r.Growth)
	}
	r.check(fmt.Sprintf("resident memory grows by at most %v %% from 25 %% to 100 %%", r.Options.Limit), err)
	r.Passed = true
	for _, c := range r.Checks {
		r.Passed = r.Passed && c.Problem == ""
	}
}

// text is the report for people.
func (r *report) text() string {
	const mib = 1 << 20
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests in %v: %.0f a second over %d connections, %.1f µs of the gateway's CPU each, on %d cores with %s\n\n",
		r.Requests, r.Took.Round(time.Second), float64(r.Requests)/r.Took.Seconds(), r.Options.Workers, float64(r.CPU.Microseconds())/float64(max(1, r.Requests)), r.Cores, r.Go)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, c)
		}
		fmt.Fprintln(w)
	}
	row("kind", "right", "absent", "wrong")
	for _, k := range r.Outcomes {
		row(k.Kind, k.Right, k.Absent, k.Wrong)
	}
	row()
	row("memory", "25 %", "100 %", "growth")
	row("resident, by the line", fmt.Sprintf("%.1f MiB", r.ResidentFrom/mib), fmt.Sprintf("%.1f MiB", r.ResidentTo/mib), fmt.Sprintf("%+.2f %%", r.Growth))
	row()
	row("quiet", "before", "after")
	row("resident", fmt.Sprintf("%.1f MiB", float64(r.Before.Resident)/mib), fmt.Sprintf("%.1f MiB", float64(r.After.Resident)/mib))
	row("goroutines", r.Before.Goroutines, r.After.Goroutines)
	row("descriptors", r.Before.Descriptors, r.After.Descriptors)
	row()
	row("engines", r.Engines, fmt.Sprintf("%+v", r.Engine))
	row("life", "", fmt.Sprintf("%d starts, %d evictions, %d reloads, %v retries, %v heartbeats", r.Starts, r.Evictions, r.Reloads, r.Retries, r.Heartbeats))
	row()
	_ = w.Flush() // into a string
	for _, c := range r.Checks {
		if c.Problem != "" {
			fmt.Fprintf(&b, "FAILED  %s: %s\n", c.Name, c.Problem)
		}
	}
	for _, wrong := range r.Wrong {
		fmt.Fprintln(&b, "wrong: ", wrong)
	}
	if r.Passed {
		fmt.Fprintf(&b, "passed: all %d checks\n", len(r.Checks))
	}
	return b.String()
}

// write makes FILE.txt and FILE.json.
func (r *report) write(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(file+".json", append(text, '\n'), 0o644), os.WriteFile(file+".txt", []byte(r.text()), 0o644))
}
