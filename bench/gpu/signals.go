package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"
)

// signalsScene ends everything that can be ended, while it is in use.
var signalsScene = scene{
	name: "signals", about: "kill -9 of the engine, its child and the gateway in mid-stream, and SIGTERM of the gateway", limit: 8 * time.Minute,
	models: func(context.Context, *options) ([]model, error) {
		return []model{{Name: "small", Fields: map[string]any{"cold": map[string]any{"max_wait": "5m"}}}}, nil
	},
	steps: []step{
		{name: "cold start", vital: true, do: coldStart("small")},
		{name: "kill -9 of the engine in mid-stream", do: func(ctx context.Context, p *play) error {
			return p.killed(ctx, func(e engine) (int, string, error) { return e.PID, "engine", nil })
		}},
		{name: "the next request starts it again", vital: true, do: again("small")},
		{name: "kill -9 of the engine's child in mid-stream", do: func(ctx context.Context, p *play) error {
			return p.killed(ctx, func(e engine) (int, string, error) {
				all := children(e.PID)
				for pid, title := range all {
					if strings.Contains(title, "scheduler") {
						return pid, title, nil
					}
				}
				return 0, "", fmt.Errorf("no scheduler among the engine's children: %v", all)
			})
		}},
		{name: "the next request starts it once more", vital: true, do: again("small")},
		{name: "kill -9 of the gateway in mid-stream", vital: true, do: killGateway},
		{name: "SIGTERM of the gateway in mid-stream", do: terminate},
	},
}

// again asks a model and says how long the answer took.
func again(name string) func(ctx context.Context, p *play) error {
	return func(ctx context.Context, p *play) error {
		before, err := p.gateway.model(ctx, name)
		if err != nil {
			return err
		}
		a, err := p.ask(ctx, chat(name, "Say hello.", nil).streamed())
		if err != nil {
			return err
		}
		after, err := p.gateway.model(ctx, name)
		if err == nil && (a.Text == "" || after.Starts != before.Starts+1) {
			err = fmt.Errorf("%s; %d starts, before it %d", a.text(), after.Starts, before.Starts)
		}
		return err
	}
}

// streaming opens a stream of so many tokens and reads a little of it.
func (p *play) streaming(ctx context.Context, model string, tokens int) (*stream, error) {
	q := p.long(model)
	q.params["max_tokens"] = tokens
	s, err := open(ctx, p.gateway, q)
	if err != nil {
		return nil, err
	}
	if err := s.read(20); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// killed kills what choose says while a stream runs. The client must hear of it: an error, and no end as of a whole answer.
func (p *play) killed(ctx context.Context, choose func(engine) (pid int, title string, err error)) error {
	before, err := p.gateway.model(ctx, "small")
	if err != nil {
		return err
	}
	e, err := p.gateway.engine("small")
	if err != nil {
		return err
	}
	s, err := p.streaming(ctx, "small", p.LongAnswer)
	if err != nil {
		return err
	}
	defer s.close()
	pid, title, err := choose(e)
	if err != nil {
		return err
	}
	p.note("killed %s", title)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("killing %s: %w", title, err)
	}
	began := time.Now()
	end := s.rest()
	p.figure("client told after", time.Since(began))
	p.note("the client reads %q", end.code)
	if end.done || end.err == nil && end.code == "" {
		return fmt.Errorf("the stream ended as if it were whole: %s", end.text())
	}
	if end.code == "" {
		return fmt.Errorf("the stream broke without a word: %s", end.text())
	}
	err = until(ctx, time.Minute, "the crash is known and the engine's processes are gone", func() (bool, error) {
		m, err := p.gateway.model(ctx, "small")
		if err != nil {
			return false, err
		}
		left := p.gateway.processes()
		return m.Crashes == before.Crashes+1 && len(left) == 0, fmt.Errorf("%d crashes, before it %d; processes %v", m.Crashes, before.Crashes, left)
	})
	p.figure("all gone after", time.Since(began))
	return err
}

// killGateway kills the gateway while a stream runs, starts it again and asks: the engine that ran must answer, and be the only one.
func killGateway(ctx context.Context, p *play) error {
	s, err := p.streaming(ctx, "small", p.LongAnswer)
	if err != nil {
		return err
	}
	defer s.close()
	before, err := p.gateway.engine("small")
	if err != nil {
		return err
	}
	if err := p.gateway.kill(); err != nil {
		return err
	}
	if end := s.rest(); end.done || end.err == nil {
		return fmt.Errorf("the stream ended as if it were whole: %s", end.text())
	}
	if !alive(before.PID) {
		return errors.New("the engine died with the gateway")
	}
	began := time.Now()
	if err := p.gateway.start(ctx); err != nil {
		return err
	}
	p.figure("serves again after", time.Since(began))
	a, err := p.ask(ctx, chat("small", "Say hello.", nil).streamed())
	if err != nil {
		return err
	}
	if a.Text == "" {
		return errors.New(a.text())
	}
	p.figure("kill to answer", time.Since(began))
	after, err := p.gateway.engine("small")
	if err != nil {
		return err
	}
	if after.PID != before.PID {
		return fmt.Errorf("the engine %d was not taken over: %d answers", before.PID, after.PID)
	}
	all := append(slices.Collect(maps.Keys(descendants(before.PID))), before.PID)
	for _, pid := range p.gateway.processes() {
		if !slices.Contains(all, pid) {
			err = errors.Join(err, fmt.Errorf("process %d is none of the engine that was taken over", pid))
		}
	}
	return err
}

// terminate ends the gateway in order while a stream runs, which must come to its end within the time that draining may take: without
// CUDA graphs an H100 made 52 tokens of the small model a second.
func terminate(ctx context.Context, p *play) error {
	s, err := p.streaming(ctx, "small", p.LongAnswer/4)
	if err != nil {
		return err
	}
	defer s.close()
	if err := p.gateway.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	began := time.Now()
	end := s.rest()
	if end.err != nil || !end.done || end.code != "" {
		return fmt.Errorf("the stream was not ended: %s", end.text())
	}
	streamed := time.Since(began)
	p.figure("the stream went on for", streamed)
	p.number("chunks after the signal", float64(end.chunks), "")
	err = p.gateway.wait(ctx)
	p.figure("stream's end to gateway's end", time.Since(began)-streamed)
	return err
}
