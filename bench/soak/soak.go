package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	reloadEvery = 2 * time.Second
	// quietLimit bounds the wait for everything to be as it was: evictions, and the 10 s after which the gateway's HTTP server ends
	// goroutines that nobody needs.
	quietLimit = 40 * time.Second
)

// level is what a quiet gateway holds.
type level struct {
	Goroutines  float64 `json:"goroutines"`
	Descriptors int     `json:"descriptors"`
	Resident    int64   `json:"resident_bytes"`
	files       []string
}

// run is a whole soak. Its error is one that left nothing to report.
func run(ctx context.Context, o options) (*report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return nil, err
	}
	r := &report{Options: o, Started: time.Now(), Go: runtime.Version(), Cores: runtime.NumCPU()}
	err = soak(ctx, o, dir, r)
	return r, errors.Join(err, os.RemoveAll(dir))
}

func soak(ctx context.Context, o options, dir string, r *report) (err error) {
	if o.Pilotlight == "" {
		o.Log("building the gateway")
		if o.Pilotlight, err = build(ctx, dir); err != nil {
			return err
		}
	}
	f := fleet{engine: o.Engine, record: filepath.Join(dir, "records")}
	yaml, err := f.yaml()
	if err != nil {
		return err
	}
	g, err := startGateway(ctx, o.Pilotlight, dir, yaml)
	if err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped {
			err = errors.Join(err, g.stop())
		}
	}()
	t := newTraffic(g, o)
	if err := t.each(ctx); err != nil {
		return fmt.Errorf("before anything else: %w\n%s", err, g.tail())
	}
	if err := quiet(g); err != nil {
		return err
	}
	if r.Before, err = measure(g); err != nil {
		return err
	}
	if err := load(ctx, o, g, f, t, r); err != nil {
		return err
	}
	quietErr := quiet(g)
	r.settle(g, quietErr)
	stopped = true
	r.check("the gateway ends well", g.stop())
	r.judge(t, f.record)
	return nil
}

// load runs the traffic, and reloads and samples beside it.
func load(ctx context.Context, o options, g *gateway, f fleet, t *traffic, r *report) error {
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Duration)
		defer cancel()
	}
	before, err := cpu(g.cmd.Process.Pid)
	if err != nil {
		return err
	}
	every := time.Second
	if o.Duration > 0 && o.Duration < 5*time.Minute {
		every = 100 * time.Millisecond
	}
	stop := make(chan struct{})
	var beside sync.WaitGroup
	var watchErr, reloadErr error
	beside.Go(func() {
		if r.Samples, watchErr = watch(g, t.done.Load, every, stop); watchErr != nil {
			t.stop()
		}
	})
	beside.Go(func() {
		if r.Reloads, reloadErr = reload(g, f, reloadEvery, stop); reloadErr != nil {
			t.stop()
		}
	})
	beside.Go(func() { t.tell(o.Log, stop) })
	begin := time.Now()
	t.run(ctx)
	r.Took = time.Since(begin)
	r.Requests = t.done.Load()
	close(stop)
	beside.Wait()
	if err := errors.Join(watchErr, reloadErr); err != nil {
		return err
	}
	after, err := cpu(g.cmd.Process.Pid)
	r.CPU = after - before
	return err
}

// tell logs how far a run has come.
func (t *traffic) tell(log func(string, ...any), stop <-chan struct{}) {
	const every = 15 * time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	for last := int64(0); ; {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		now := t.done.Load()
		log("%d requests, %.0f a second, %d wrong", now, float64(now-last)/every.Seconds(), t.wrong.Load())
		last = now
	}
}

// quiet waits until nothing is left of the traffic: the models that rest do, and the others' places are free.
func quiet(g *gateway) error {
	for end := time.Now().Add(quietLimit); ; time.Sleep(50 * time.Millisecond) {
		s, err := g.state()
		if err != nil {
			return err
		}
		busy := ""
		if s.Clients != 0 {
			busy = fmt.Sprintf("%d clients are connected", s.Clients)
		}
		for _, m := range s.Models {
			rests := m.Name != steady && m.Name != setting
			inFlight := 0
			for _, r := range m.Replicas {
				inFlight += r.InFlight
			}
			if m.QueuedRequests != 0 || inFlight != 0 || rests && m.State != "cold" || m.Name == extra {
				busy = fmt.Sprintf("%s is %s, with %d requests in flight and %d that wait", m.Name, m.State, inFlight, m.QueuedRequests)
			}
		}
		if busy == "" {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %v without a request %s", quietLimit, busy)
		}
	}
}

// measure takes a quiet gateway's level.
func measure(g *gateway) (l level, err error) {
	page, err := g.metrics()
	if err != nil {
		return l, err
	}
	l.Goroutines = page["go_goroutines"]
	if l.files, err = open(g.cmd.Process.Pid); err != nil {
		return l, err
	}
	l.Descriptors = len(l.files)
	l.Resident, err = resident(g.cmd.Process.Pid)
	return l, err
}

// settle waits until the level is as it was, and notes what the gateway counts of itself.
func (r *report) settle(g *gateway, quietErr error) {
	r.check("nothing is in flight, waits or is connected; models at rest are cold", quietErr)
	var err error
	for end := time.Now().Add(quietLimit); ; time.Sleep(100 * time.Millisecond) {
		if r.After, err = measure(g); err != nil || time.Now().After(end) || r.After.Goroutines <= r.Before.Goroutines && r.After.Descriptors <= r.Before.Descriptors {
			break
		}
	}
	r.check("the gateway's own view can be read", err)
	r.check("goroutines are as before", unless(r.After.Goroutines <= r.Before.Goroutines, "%v, and %v before", r.After.Goroutines, r.Before.Goroutines))
	r.check("descriptors are as before", unless(r.After.Descriptors <= r.Before.Descriptors, "%d, and %d before:\n%s",
		r.After.Descriptors, r.Before.Descriptors, strings.Join(r.After.files, "\n")))
	page, err := g.metrics()
	if err == nil {
		r.Retries, r.Heartbeats = page["pilotlight_retries_total"], page["pilotlight_heartbeats_total"]
		r.check("no request is active by the metrics", unless(page["pilotlight_requests_active"] == 0, "%v are", page["pilotlight_requests_active"]))
		r.check("the last configuration is in force", unless(page["pilotlight_config_valid_ratio"] == 1, "it is not"))
	}
	r.check("the metrics can be read", err)
	s, err := g.state()
	r.check("the state can be read", err)
	for _, m := range s.Models {
		r.Starts += m.Starts
		r.Evictions += m.Evictions
		r.Failures += m.StartFailures
		r.Crashes += m.Crashes
	}
}

// unless is an error with this text, or nil if ok.
func unless(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}
