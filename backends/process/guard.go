package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"pilotlight/backends"
)

// Watch is what a Guard asks about the requests at its replica. Its funcs are called from one goroutine.
type Watch struct {
	// InFlight is the number of requests in flight.
	InFlight func() int
	// Hold keeps the replica as it is (not idle, not put to sleep) until release is called; false if nothing is in flight any more, or it takes
	// no requests. A server that is asked to generate while it sleeps dies.
	Hold func() (release func(), ok bool)
}

// guardTimes are how patient a Guard is. Zero values mean the defaults.
type guardTimes struct {
	pace   time.Duration // between two looks
	silent time.Duration // without output, while requests are in flight, before the engine is asked
	still  time.Duration // without any sign of life, before it counts as hung
	mute   time.Duration // the same although it uses a processor
}

func (g guardTimes) orDefaults() guardTimes {
	orDuration(&g.pace, 10*time.Second)
	// A busy SGLang logs each prefill of a chunk and every fortieth decode step.
	orDuration(&g.silent, time.Minute)
	orDuration(&g.still, 3*time.Minute)
	// SGLang's schedulers spin while they wait, so a processor in use proves little. Its own watchdog ends a step after 300 s, and kernels of
	// large models are compiled for up to 20 minutes.
	orDuration(&g.mute, 20*time.Minute)
	return g
}

// Guard watches a ready replica of SGLang until it is gone or ctx ends, and ends it, with class start_hang, if it hangs with requests in
// flight. A long prefill is no hang: what counts is whether anything happens. Any of these is a sign of life: a line of output; an answer to
// a request that generates a token, which any token for anybody is; a processor used or bytes read. Without the first two, processor time buys
// patience and no more. While nothing is in flight nothing is expected.
func (r *Replica) Guard(ctx context.Context, w Watch) {
	if r.record.Engine != backends.EngineSGLang {
		return // others have no route to ask, and need not log
	}
	times := r.driver.opts.guard.orDefaults()
	g := &guard{
		guardTimes: times, Watch: w, ask: r.generates, lines: r.lines.Load,
		vitals: func() (vitals, error) { return r.driver.opts.vitals(r.child.kin) },
	}
	tick := time.NewTicker(times.pace)
	defer tick.Stop()
	for {
		select {
		case <-r.exited:
			return
		case <-ctx.Done():
			return
		case now := <-tick.C:
			idle, err := g.step(ctx, now)
			if err != nil {
				r.logger.WarnContext(ctx, "engine's processes cannot be looked at", "error", err)
			}
			if idle == 0 || ctx.Err() != nil {
				continue
			}
			reason := &backends.Failure{
				Class:   backends.ClassHang,
				Message: fmt.Sprintf("the engine hung: nothing came of the requests in flight for %s", idle.Round(time.Second)),
				Advice:  "see its last lines, dmesg for Xid messages of the GPU, and raise NCCL_DEBUG to INFO in env_vars if it has several GPUs",
				Lines:   r.Tail(40),
			}
			if err := r.end(context.WithoutCancel(ctx), true, reason); err != nil {
				r.logger.ErrorContext(ctx, "engine process is left over", "pid", r.child.pid, "error", err)
			}
			return
		}
	}
}

// guard is the judgement behind Guard.
type guard struct {
	guardTimes
	Watch
	lines  func() int64 // of output so far
	vitals func() (vitals, error)
	ask    func(ctx context.Context) (alive bool, err error) // err: the answer says nothing
	quiet  quiet
	asked  time.Time // last
}

// step looks once. A duration is for how long the engine has hung; 0: it does not.
func (g *guard) step(ctx context.Context, now time.Time) (time.Duration, error) {
	if g.InFlight() == 0 {
		g.quiet = quiet{} // begin anew with the next request
		return 0, nil
	}
	lines := g.lines()
	if !g.quiet.at.IsZero() && lines != g.quiet.lines { // most looks at a busy server end here, and cost nothing
		g.quiet.heard(lines, now)
		return 0, nil
	}
	v, err := g.vitals()
	if err != nil {
		return 0, err // judge nothing that was not seen
	}
	g.quiet.look(v, lines, now)
	if g.quiet.silent(now) < g.silent || now.Sub(g.asked) < g.silent {
		return 0, nil
	}
	release, ok := g.Hold()
	if !ok {
		return 0, nil
	}
	began := time.Now()
	alive, err := g.ask(ctx)
	release()
	now = now.Add(time.Since(began)) // it may have taken long
	g.asked = now
	switch {
	case err != nil:
		return 0, err
	case alive:
		g.quiet.since, g.quiet.idle = now, now
		return 0, nil
	case g.quiet.still(now) >= g.still:
		return g.quiet.still(now), nil
	case g.quiet.silent(now) >= g.mute:
		return g.quiet.silent(now), nil
	}
	return 0, nil
}

// generates asks the server for a token. SGLang answers once any token was made for anybody, and 503 after 20 s without.
// One that sleeps is not asked: it would die.
func (r *Replica) generates(ctx context.Context) (alive bool, err error) {
	if err := r.sleep.turn(awake, awake); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.endpoint.Addr+"/health_generate", nil)
	if err != nil {
		return false, err
	}
	if r.endpoint.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+r.endpoint.APIKey)
	}
	client := &http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return false, nil //nolint:nilerr // refused, reset or no answer: no sign of life
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return false, nil //nolint:nilerr // as above
	}
	switch {
	case resp.StatusCode/100 == 2:
		return true, nil
	case resp.StatusCode == http.StatusServiceUnavailable:
		return false, nil
	}
	return false, fmt.Errorf("the engine's /health_generate answered %s", resp.Status)
}
