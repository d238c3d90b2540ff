package sglangsim

import (
	"context"
	"time"
)

// generation drives one job; emit is called with each range of decode steps, on the same goroutine, and is not called
// after the client left. An error from emit counts as a client that left.
type generation struct {
	s      *Server
	j      *job
	faults streamFaults
	emit   func(from, to int) error

	client <-chan struct{} // nil once the client left
	left   <-chan time.Time
	gone   bool
	timer  *time.Timer
}

// generate runs the job to its end. The error is errQueueFull or errDuplicateRID, before anything was emitted.
func (s *Server) generate(ctx context.Context, j *job, faults streamFaults, emit func(from, to int) error) (outcome, error) {
	g := &generation{s: s, j: j, faults: faults, emit: emit, client: ctx.Done(), timer: time.NewTimer(time.Hour)}
	defer g.timer.Stop()
	s.stats.received(s.draining.Load())
	if out, ok := g.enterGate(); !ok {
		s.stats.ended(out)
		return out, nil
	}
	_, err := s.engine.admit(j)
	if err != nil {
		s.stats.refused()
		return outcomeDone, err
	}
	out := g.run()
	if s.cache != nil && out == outcomeDone && j.text != "" {
		s.cache.keep(j.text + "assistant\x00" + j.answer + "\x00")
	}
	s.engine.leave(j)
	s.stats.ended(out)
	return out, nil
}

// enterGate waits while the server is paused: in the API process, where neither an abort finds the request nor anybody looks
// whether its client is still there.
func (g *generation) enterGate() (outcome, bool) {
	e := g.s.engine
	client := g.client
	g.client = nil
	defer func() { g.client = client }()
	e.mu.Lock()
	for e.paused != "" {
		gate := e.gate
		e.blocked++
		e.mu.Unlock()
		out, ok := g.wait(gate, 0)
		e.mu.Lock()
		e.blocked--
		if !ok {
			e.mu.Unlock()
			return out, false
		}
	}
	e.mu.Unlock()
	return 0, true
}

// wait returns true when ch is closed or delay has passed (0: never), whichever comes first, and false with the outcome when
// the job ends before.
func (g *generation) wait(ch <-chan struct{}, delay time.Duration) (outcome, bool) {
	var timeout <-chan time.Time
	if delay > 0 {
		g.timer.Reset(delay)
		timeout = g.timer.C
	}
	for {
		select {
		case <-ch:
			return 0, true
		case <-timeout:
			return 0, true
		case <-g.j.aborted:
			return outcomeAborted, false
		case <-g.s.dead:
			return outcomeDead, false
		case <-g.client:
			g.clientLeft()
		case <-g.left:
			return outcomeLeft, false
		}
	}
}

// clientLeft starts the time for which the engine goes on regardless.
func (g *generation) clientLeft() {
	if g.gone {
		return
	}
	g.gone, g.client = true, nil
	g.s.stats.disconnected()
	g.left = time.After(g.s.opts.DisconnectDelay)
}

func (g *generation) run() outcome {
	o := &g.s.opts
	if out, ok := g.wait(g.j.admitted, 0); !ok {
		return out
	}
	g.s.stats.peak(g.s.engine.batch.Load())
	if g.s.stuck() { // a hung scheduler, or unmapped weights: nothing comes any more
		out, _ := g.wait(nil, 0)
		return out
	}
	ttft := o.TTFT
	if c := g.s.cache; c != nil {
		now := time.Now()
		var done time.Time
		g.j.cached, done = c.enter(g.j.text, g.j.promptTokens, o.PrefillRate, now)
		g.j.report = o.CacheReport
		ttft += done.Sub(now)
	} else if o.PrefillRate > 0 {
		ttft += time.Duration(float64(g.j.promptTokens) / o.PrefillRate * float64(time.Second))
	}
	ttft += g.faults.headersDelay
	if out, ok := g.pass(ttft); !ok {
		return out
	}
	g.s.logPrefill(g.j)
	return g.decode()
}

// pass lets d go by; unlike wait it takes 0 as no time.
func (g *generation) pass(d time.Duration) (outcome, bool) {
	if d <= 0 {
		select {
		case <-g.j.aborted:
			return outcomeAborted, false
		case <-g.s.dead:
			return outcomeDead, false
		case <-g.s.hung:
			g.s.stuck()
			return g.wait(nil, 0)
		default:
			return 0, true
		}
	}
	out, ok := g.wait(g.s.hung, d)
	if ok && g.s.isHung() {
		g.s.stuck()
		return g.wait(nil, 0)
	}
	return out, ok
}

// decode emits the answer. A handler that falls behind its schedule emits what is due in one piece, as SGLang's
// detokenizer does when it falls behind the scheduler.
func (g *generation) decode() outcome {
	o := &g.s.opts
	interval := max(o.StreamInterval, 1)
	due := time.Now()
	for step := 0; step < g.j.length; {
		if g.s.engine.frozen.Load() {
			if out, ok := g.wait(g.s.engine.thaw(), 0); !ok {
				return out
			}
			due = time.Now()
		}
		itl := o.ITL + time.Duration(g.s.engine.batch.Load()-1)*o.ITLPerRunning
		next := min(step+interval, g.j.length)
		if step == 0 {
			next = 1 // the first token comes with the prefill
		} else {
			due = due.Add(time.Duration(next-step) * itl)
		}
		if itl > 0 {
			for behind := time.Since(due); behind > itl && next < g.j.length && step > 0; behind -= itl {
				next++
				due = due.Add(itl)
			}
		}
		if out, ok := g.pass(time.Until(due)); !ok {
			return out
		}
		if n := g.s.opts.Faults.CrashTokens; n > 0 && next >= n {
			next = min(next, n)
		}
		if g.j.stream {
			for _, n := range []int{g.faults.cutTokens, g.faults.errorTokens} {
				if n > 0 && step < n {
					next = min(next, n)
				}
			}
		}
		if err := g.produce(step, next); err != nil {
			g.clientLeft()
		}
		step = next
		switch {
		case o.Faults.CrashTokens > 0 && step >= o.Faults.CrashTokens:
			g.s.die(ErrDied)
			return outcomeDead
		case g.j.stream && g.faults.cutTokens > 0 && step >= g.faults.cutTokens:
			return outcomeCut
		case g.j.stream && g.faults.errorTokens > 0 && step >= g.faults.errorTokens:
			return outcomeError
		}
	}
	if g.gone {
		return outcomeLeft
	}
	return outcomeDone
}

func (g *generation) produce(from, to int) error {
	g.s.stats.generated((to - from) * g.j.choices)
	if g.gone {
		return nil
	}
	return g.emit(from, to)
}
