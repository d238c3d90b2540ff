package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"pilotlight/backends"
	"pilotlight/backends/sglang"
)

// sleeper is where a replica is between awake and asleep. The order is kept here whoever asks for what: SGLang dies of a second
// release, of a resume without one, and of a generation in between.
type sleeper struct {
	mu    sync.Mutex // guards the fields below
	where wakefulness
	sings canary
}

type wakefulness uint8

const (
	awake wakefulness = iota
	falling
	asleep
	waking
	unsound // something went wrong, and nobody knows what the engine still has: only its end may follow
)

var wakefulnessNames = [...]string{"awake", "falling asleep", "asleep", "waking", "unsound after a failed sleep or wake"}

// canary is what is known of the answers to sglang.Canary.
type canary uint8

const (
	canaryUnknown canary = iota
	canarySings
	canaryMute // it never had an answer, which says nothing later
)

var errWrongTurn = errors.New("the replica is in no state for this")

// turn moves on, or refuses.
func (s *sleeper) turn(from, to wakefulness) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.where != from {
		return fmt.Errorf("%w: it is %s", errWrongTurn, wakefulnessNames[s.where])
	}
	s.where = to
	return nil
}

// end of a turn: well, or never again.
func (s *sleeper) end(to wakefulness, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		to = unsound
	}
	s.where = to
	return err
}

// askPause is between two questions to an engine that is not that far yet.
const askPause = 50 * time.Millisecond

// Sleep makes the engine give memory of its devices back, as its spec says. Nothing may be in flight, and nothing sent until Wake
// has returned nil. It asks the engine for a few tokens before, once in its life, so that Wake can tell whether it still has its
// weights. An error, also of a call out of turn, means that the replica is good for nothing but Stop; the record says from the
// first step on that it sleeps, so that no later gateway takes it for a ready one.
func (r *Replica) Sleep(ctx context.Context) error {
	if r.record.Sleep == "" || r.record.Engine != backends.EngineSGLang {
		return errors.New("the model is not made to sleep")
	}
	if err := r.sleep.turn(awake, falling); err != nil {
		return fmt.Errorf("falling asleep: %w", err)
	}
	err := r.recordState(StateAsleep)
	if err == nil {
		err = r.listenToCanary(ctx)
	}
	if err == nil {
		err = r.walk(ctx, sglang.FallAsleep(r.record.Sleep))
	}
	if err != nil {
		err = fmt.Errorf("falling asleep: %w", err)
	}
	return r.sleep.end(asleep, err)
}

// Wake takes the memory again and returns when the replica has answered. It is refused unless Sleep has succeeded before. An
// error means that only Stop may follow.
func (r *Replica) Wake(ctx context.Context) error {
	if err := r.sleep.turn(asleep, waking); err != nil {
		return fmt.Errorf("waking: %w", err)
	}
	err := r.walk(ctx, sglang.WakeUp(r.record.Sleep))
	if err == nil && r.sleep.sings == canarySings {
		err = r.missCanary(ctx)
	}
	if err == nil {
		err = r.recordState(StateReady)
	}
	if err != nil {
		err = fmt.Errorf("waking: %w", err)
	}
	return r.sleep.end(awake, err)
}

// listenToCanary finds out once whether the engine answers it.
func (r *Replica) listenToCanary(ctx context.Context) error {
	if r.sleep.sings != canaryUnknown { // written in Sleep only, which has its turn to itself
		return nil
	}
	status, body, err := r.ask(ctx, sglang.Canary())
	if err != nil {
		return err
	}
	r.sleep.sings = canaryMute
	if sglang.Sings(status, body) {
		r.sleep.sings = canarySings
	}
	return nil
}

var errMute = errors.New("the engine, which answered before it slept, has no answer now: its weights are lost")

func (r *Replica) missCanary(ctx context.Context) error {
	status, body, err := r.ask(ctx, sglang.Canary())
	if err == nil && !sglang.Sings(status, body) {
		err = fmt.Errorf("%w (status %d)", errMute, status)
	}
	return err
}

// walk takes the steps in order.
func (r *Replica) walk(ctx context.Context, steps []sglang.Step) error {
	for _, step := range steps {
		for {
			status, body, err := r.ask(ctx, step)
			if err != nil {
				return err
			}
			if status == http.StatusOK {
				break
			}
			if step.Busy == 0 || status != step.Busy {
				return fmt.Errorf("%s: status %d: %.200s", step.Path, status, sglang.Redact(string(body)))
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s: the engine is still busy: %w", step.Path, context.Cause(ctx))
			case <-r.exited:
				return fmt.Errorf("%s: %w", step.Path, errGone)
			case <-time.After(askPause):
			}
		}
	}
	return nil
}

var errGone = errors.New("the engine is gone")

// ask sends one step on a connection of its own. The replica's end ends it.
func (r *Replica) ask(ctx context.Context, step sglang.Step) (status int, body []byte, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answered := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-r.exited:
			cancel(errGone)
		case <-answered:
		}
	})
	defer watching.Wait()
	defer close(answered)

	client := &http.Client{
		Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true}, // as the probe's
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.endpoint.Addr+step.Path, strings.NewReader(step.Body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if r.endpoint.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+r.endpoint.APIKey)
	}
	resp, err := client.Do(req)
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		err = errors.Join(err, resp.Body.Close())
		status = resp.StatusCode
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return 0, nil, fmt.Errorf("%s: %w", step.Path, err)
	}
	return status, body, nil
}
