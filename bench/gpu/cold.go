package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// coldScene is the first request of the day, and all kinds of warm ones.
var coldScene = scene{
	name: "cold", about: "a cold start with a client waiting, then warm requests of every kind, and one that its client leaves", limit: 6 * time.Minute,
	models: func(context.Context, *options) ([]model, error) {
		return []model{{
			Name: "small", Args: []string{"--tool-call-parser", "qwen25"},
			Fields: map[string]any{"resources": map[string]any{"gpu": "1"}, "aliases": []string{"org/small:1"}},
		}}, nil
	},
	steps: []step{
		{name: "cold start, a streaming client waits", vital: true, do: coldStart("small")},
		{name: "warm, plain", do: func(ctx context.Context, p *play) error {
			a, err := p.ask(ctx, chat("org/small:1", "Say hello.", nil))
			if err == nil && (a.Text == "" || a.Model != "org/small:1") {
				err = fmt.Errorf("no text under the alias: %s, model %q", a.text(), a.Model)
			}
			return err
		}},
		{name: "warm, stream", do: func(ctx context.Context, p *play) error {
			a, err := p.ask(ctx, chat("small", "Say hello.", nil).streamed())
			if err == nil && (a.Text == "" || a.Chunks < 3 || a.Finish == "") {
				err = fmt.Errorf("no stream: %s", a.text())
			}
			return err
		}},
		{name: "JSON schema", do: func(ctx context.Context, p *play) error {
			a, err := p.ask(ctx, chat("small", "Where is the Louvre, and is it open on Mondays?", map[string]any{
				"max_tokens": 200, "response_format": map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "place", "schema": placeSchema}},
			}))
			if err != nil {
				return err
			}
			return isPlace(a.Text)
		}},
		{name: "regular expression", do: func(ctx context.Context, p *play) error {
			const pattern = `(red|green|blue)-[0-9]{3}`
			a, err := p.ask(ctx, chat("small", "Name a colour and a number.", map[string]any{"regex": pattern}))
			if err == nil && !regexp.MustCompile(`^`+pattern+`$`).MatchString(a.Text) {
				err = fmt.Errorf("%q does not match %s", a.Text, pattern)
			}
			return err
		}},
		{name: "EBNF grammar", do: func(ctx context.Context, p *play) error {
			a, err := p.ask(ctx, chat("small", "Is the sky blue?", map[string]any{"ebnf": "root ::= answer \"-\" (\"surely\" | \"perhaps\")\nanswer ::= \"yes\" | \"no\""}))
			if err == nil && !slices.Contains([]string{"yes-surely", "yes-perhaps", "no-surely", "no-perhaps"}, a.Text) {
				err = fmt.Errorf("%q is not of the grammar", a.Text)
			}
			return err
		}},
		// Only of a strict function does SGLang hold the arguments to their schema; a small model alone does not.
		{name: "tools", do: func(ctx context.Context, p *play) error {
			a, err := p.ask(ctx, chat("small", "Look up the Louvre.", map[string]any{
				"tools":       []any{map[string]any{"type": "function", "function": map[string]any{"name": "look_up", "description": "looks a place up", "parameters": placeSchema, "strict": true}}},
				"tool_choice": "required", "max_tokens": 200,
			}))
			if err != nil {
				return err
			}
			if a.Tool != "look_up" || a.Finish != "tool_calls" {
				return fmt.Errorf("no call: %s", a.text())
			}
			return isPlace(a.ToolArg)
		}},
		{name: "a client leaves, and the engine stops working for it", do: leave},
	},
}

// ask asks with the official client and wants an answer.
func (p *play) ask(ctx context.Context, q question) (answer, error) {
	a, err := p.client.ask(ctx, p.gateway, q)
	if err != nil {
		return a, err
	}
	if a.Status != 200 || a.Code != "" {
		return a, errors.New(a.text())
	}
	if q.leaveAfter == 0 {
		p.figure("first byte", a.First.Sub(a.Sent))
		if q.stream {
			p.figure("whole", a.End.Sub(a.Sent))
		}
	}
	return a, nil
}

// coldStart asks a model that has no engine, and says how much of the wait was the engine's and how much the gateway's: from the moment that the
// engine says it is ready (asked every few milliseconds, beside the gateway) to the first byte of the answer, less what the
// engine itself took for that byte.
func coldStart(name string) func(ctx context.Context, p *play) error {
	return func(ctx context.Context, p *play) error {
		ctx, cancel := context.WithCancel(ctx)
		ready := p.gateway.watchReady(ctx, name)
		defer func() { // it ends before the step does
			cancel()
			for range ready {
			}
		}()
		q := chat(name, "Say hello.", nil).streamed()
		a, err := p.client.ask(ctx, p.gateway, q)
		if err != nil {
			return err
		}
		if a.Status != 200 || a.Code != "" || a.Text == "" || a.Finish == "" {
			m, _ := p.gateway.model(ctx, name) // the failure is told either way
			if m.Failure != nil {
				return fmt.Errorf("%s; the start failed: %s: %s", a.text(), m.Failure.Class, m.Failure.Message)
			}
			return errors.New(a.text())
		}
		var at time.Time
		select {
		case at = <-ready:
		default:
		}
		if at.IsZero() {
			return errors.New("the engine has not told that it was ready, and yet has answered")
		}
		line, err := p.gateway.logged(ctx, q.id)
		if err != nil {
			return err
		}
		if !line.Cold {
			return fmt.Errorf("the request was not one that waited for a start: %+v", line)
		}
		p.figure("engine ready after", at.Sub(a.Sent))
		readyToFirst := a.First.Sub(at)
		engine := time.Duration((line.FirstByte - line.Queued) * float64(time.Second))
		p.figure("ready to first byte", readyToFirst)
		p.figure("of it the engine", engine)
		return p.kept("of it the gateway", readyToFirst-engine, 250*time.Millisecond)
	}
}

var placeSchema = map[string]any{
	"type": "object", "additionalProperties": false, "required": []string{"city", "open"},
	"properties": map[string]any{"city": map[string]any{"type": "string", "enum": []string{"Paris", "Rome"}}, "open": map[string]any{"type": "boolean"}},
}

func isPlace(text string) error {
	var v struct {
		City *string `json:"city"`
		Open *bool   `json:"open"`
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil || v.Open == nil || v.City == nil || *v.City != "Paris" && *v.City != "Rome" {
		return fmt.Errorf("%q is not of the schema: %w", text, err)
	}
	return nil
}

// leaveLimit is within what an engine must have stopped working for a client that left. By itself SGLang goes on for two seconds.
const leaveLimit = 100 * time.Millisecond

// leave leaves a long stream, three times, and asks the engine when it had nothing more to do.
func leave(ctx context.Context, p *play) error {
	e, err := p.gateway.engine("small")
	if err != nil {
		return err
	}
	for range 3 {
		q := p.long("small")
		q.leaveAfter = 300
		left := make(chan struct{})
		idle := e.watchIdle(ctx, left) // from before the client leaves, so that no start of asking counts
		a, err := p.client.ask(ctx, p.gateway, q)
		close(left)
		at := <-idle
		switch {
		case err != nil:
			return err
		case a.Left.IsZero():
			return fmt.Errorf("the client did not come to leave: %s", a.text())
		case at.IsZero():
			return fmt.Errorf("the engine was not seen to work and to stop; it answers %d now", e.status(ctx))
		}
		if err := p.kept("engine idle after", at.Sub(a.Left), leaveLimit); err != nil {
			return err
		}
	}
	return nil
}

// long is a stream that is still running a second later.
func (p *play) long(model string) question {
	q := chat(model, "Tell a very long story.", map[string]any{"max_tokens": p.LongAnswer, "ignore_eos": true})
	q.retries = 0
	return q.streamed()
}
