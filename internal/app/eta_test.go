package app

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pilotlight/activator"
	"pilotlight/backends/sglang"
	"pilotlight/bench/sglangsim"
)

// script is the output of one start, and when it was ready.
type script struct {
	lines []sglangsim.StartLine
	ready time.Duration
}

// scripted is a launcher that plays the next script at each start, as a driver that follows an engine's log would.
type scripted struct {
	next  func() script
	began chan script
}

func (l *scripted) Launch(ctx context.Context, _ activator.Start, progress func(activator.Progress)) (activator.Instance, error) {
	s := l.next()
	l.began <- s
	began := time.Now()
	var p sglang.Progress
	progress(activator.Progress{Phase: string(p.Phase())}) // as the driver does once the process runs
	for _, line := range s.lines {
		time.Sleep(line.At - time.Since(began))
		if p.Line(line.Text) {
			progress(activator.Progress{Phase: string(p.Phase()), Share: p.Share(), Percent: p.Percent()})
		}
	}
	time.Sleep(s.ready - time.Since(began))
	return &idleInstance{exited: make(chan struct{})}, ctx.Err()
}

// idleInstance does nothing but leave.
type idleInstance struct{ exited chan struct{} }

func (i *idleInstance) Exited() <-chan struct{}          { return i.exited }
func (*idleInstance) Cause() error                       { return nil }
func (*idleInstance) Sleep(context.Context) error        { return nil }
func (*idleInstance) Wake(context.Context) error         { return nil }
func (*idleInstance) Concurrency() int                   { return 1 }
func (i *idleInstance) Stop(context.Context, bool) error { close(i.exited); return nil }

// realStart is the log of a start of SGLang 0.5.15 with SmolLM2 on an H200, seconds since exec before each line.
func realStart(t *testing.T) script {
	t.Helper()
	f, err := os.Open("testdata/start-0.5.15.timed.log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s script
	for in := bufio.NewScanner(f); in.Scan(); {
		at, text, _ := strings.Cut(strings.TrimSpace(in.Text()), " ")
		seconds, err := strconv.ParseFloat(at, 64)
		if err != nil {
			t.Fatal(err)
		}
		s.lines = append(s.lines, sglangsim.StartLine{At: time.Duration(seconds * float64(time.Second)), Text: text})
	}
	s.ready = s.lines[len(s.lines)-1].At + 10*time.Millisecond
	return s
}

// stretch makes each phase of a real start longer or shorter. Phases begin where the log says so.
func (s script) stretch(factor func() float64) script {
	var out script
	var from, to time.Duration // where the present phase begins, there and here
	f := factor()
	place := func(at time.Duration) time.Duration { return to + time.Duration(f*float64(at-from)) }
	for _, line := range s.lines {
		at := place(line.At)
		for _, begin := range []string{"Load weight begin", "Load weight end", "Memory pool end", "CUDA graph begin", "Uvicorn running"} {
			if strings.Contains(line.Text, begin) {
				from, to, f = line.At, at, factor()
			}
		}
		out.lines = append(out.lines, sglangsim.StartLine{At: at, Text: line.Text})
	}
	out.ready = place(s.ready)
	return out
}

// simulated is a start of the simulator's.
func simulated(p sglangsim.Profile, shards int) script {
	o := sglangsim.Defaults()
	o.Start, o.Shards = p, shards
	return script{o.StartLines(), p.Total()}
}

// downloaded is a start that has to fetch its weights before it loads them.
func downloaded(s script, files int, takes time.Duration) script {
	var out script
	shift := time.Duration(0)
	for _, line := range s.lines {
		out.lines = append(out.lines, sglangsim.StartLine{At: line.At + shift, Text: line.Text})
		if !strings.Contains(line.Text, "Load weight begin") {
			continue
		}
		begin := line.At
		for percent := 0; percent <= 100; percent += 5 { // all files at once, as the hub's library does it
			for i := range files {
				out.lines = append(out.lines, sglangsim.StartLine{At: begin + takes*time.Duration(percent)/100, Text: fmt.Sprintf(
					"model-%05d-of-%05d.safetensors: %3d%%|     | %.2fG/4.97G [00:12<00:12, 201MB/s]", i+1, files, percent, 4.97*float64(percent)/100)})
			}
		}
		shift = takes
	}
	out.ready = s.ready + shift
	return out
}

// Asked at 10, 50 and 90 % of a start, the rest is told to within 20 % of what it then is, after three starts of the same spec whose
// phases took up to a tenth more or less each time.
func TestETAIsWithin20Percent(t *testing.T) {
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	real := realStart(t)
	for _, c := range []struct {
		name string
		next func(noise func() float64) script
	}{
		{"the real start of a tiny model", func(noise func() float64) script { return real.stretch(noise) }},
		{"weights of 140 GB from a disk", func(noise func() float64) script {
			return simulated(sglangsim.Profile{Import: seconds(20 * noise()), Dist: seconds(3 * noise()), Weights: seconds(150 * noise()),
				KV: seconds(2 * noise()), Graphs: seconds(25 * noise()), Warmup: seconds(3 * noise())}, 30)
		}},
		{"an 8B model, graphs dominate", func(noise func() float64) script {
			return simulated(sglangsim.Profile{Import: seconds(15 * noise()), Dist: seconds(2 * noise()), Weights: seconds(9 * noise()),
				KV: seconds(noise()), Graphs: seconds(60 * noise()), Warmup: seconds(4 * noise())}, 4)
		}},
		{"no cache: weights are fetched each time", func(noise func() float64) script {
			return downloaded(simulated(sglangsim.Profile{Import: seconds(20 * noise()), Dist: seconds(2 * noise()), Weights: seconds(12 * noise()),
				KV: seconds(noise()), Graphs: seconds(10 * noise()), Warmup: seconds(2 * noise())}, 4), 4, seconds(200*noise()))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(15) {
				rng := rand.New(rand.NewPCG(seed, 5))
				noise := func() float64 { return 0.9 + 0.2*rng.Float64() }
				synctest.Test(t, func(t *testing.T) { askAt(t, seed, func() script { return c.next(noise) }) })
			}
		})
	}
}

// askAt learns from three starts and asks during the fourth.
func askAt(t *testing.T, seed uint64, next func() script) {
	durations, err := activator.OpenDurations("", nil)
	if err != nil {
		t.Fatal(err)
	}
	config := activator.DefaultConfig()
	config.ScaledownAfter = time.Second
	l := &scripted{next: next, began: make(chan script, 1)}
	m, err := activator.New(activator.Options{Name: "m", Config: config, Launcher: l, SpecHash: "s", Durations: durations})
	if err != nil {
		t.Fatal(err)
	}
	begin := func() (*activator.Ticket, script) {
		ticket, err := m.Enqueue(activator.Request{})
		if err != nil {
			t.Fatal(err)
		}
		return ticket, <-l.began
	}
	serve := func(ticket *activator.Ticket) {
		<-ticket.Done()
		lease, err := ticket.Lease()
		if err != nil {
			t.Fatal(err)
		}
		lease.Release()
		time.Sleep(time.Minute) // it leaves again
	}
	for range 3 {
		ticket, _ := begin()
		serve(ticket)
	}
	ticket, s := begin()
	began, percent := time.Now(), 0.0
	for _, part := range []float64{0.1, 0.5, 0.9} {
		time.Sleep(time.Duration(part*float64(s.ready)) - time.Since(began))
		synctest.Wait()
		left, status := s.ready-time.Since(began), ticket.Status()
		if off := float64(status.ETA-left) / float64(left); math.Abs(off) > 0.2 {
			t.Errorf("seed %d, at %.0f %% in phase %s: ETA %v, and it took %v: %+.0f %% off", seed, 100*part, status.Phase, status.ETA, left, 100*off)
		}
		if status.Percent < percent || math.Abs(status.Percent-100*part) > 10 {
			t.Errorf("seed %d, at %.0f %%: %.0f %% are told, and %.0f %% before", seed, 100*part, status.Percent, percent)
		}
		percent = status.Percent
	}
	serve(ticket)
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A start that has to fetch its weights, after three that had them: nothing was learned of a download, but its bars tell.
func TestETAOfTheFirstDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cached := simulated(sglangsim.Profile{Import: 20 * time.Second, Dist: 2 * time.Second, Weights: 12 * time.Second,
			KV: time.Second, Graphs: 10 * time.Second, Warmup: 2 * time.Second}, 4)
		n := 0
		next := func() script {
			if n++; n == 4 {
				return downloaded(cached, 4, 200*time.Second)
			}
			return cached
		}
		durations, err := activator.OpenDurations("", nil)
		if err != nil {
			t.Fatal(err)
		}
		config := activator.DefaultConfig()
		config.ScaledownAfter = time.Second
		l := &scripted{next: next, began: make(chan script, 1)}
		m, err := activator.New(activator.Options{Name: "m", Config: config, Launcher: l, SpecHash: "s", Durations: durations})
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			ticket, err := m.Enqueue(activator.Request{})
			if err != nil {
				t.Fatal(err)
			}
			s := <-l.began
			began := time.Now()
			for _, part := range []float64{0.3, 0.5, 0.9} {
				time.Sleep(time.Duration(part*float64(s.ready)) - time.Since(began))
				synctest.Wait()
				left, status := s.ready-time.Since(began), ticket.Status()
				if off := float64(status.ETA-left) / float64(left); n == 4 && math.Abs(off) > 0.2 {
					t.Errorf("at %.0f %% in phase %s: ETA %v, and it took %v", 100*part, status.Phase, status.ETA, left)
				}
			}
			<-ticket.Done()
			lease, err := ticket.Lease()
			if err != nil {
				t.Fatal(err)
			}
			lease.Release()
			time.Sleep(time.Minute)
		}
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
