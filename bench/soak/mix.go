package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"pilotlight/bench/mockengine"
	"pilotlight/bench/wire"
)

// kind is one sort of request. play asks and checks; its error is an answer that should not have been.
type kind struct {
	name   string
	weight int  // of all, in thousandths
	whole  bool // an engine finishes the answers that are right
	play   func(ctx context.Context, c *caller, id uint64) error
}

// leaver is the kind that an engine need not finish.
const leaver = "client that leaves"

// mix is what workers choose from. Weights sum to 1000, which a test checks.
var mix = []kind{
	{"plain", 540, true, func(_ context.Context, c *caller, id uint64) error {
		return c.answered(steady, scriptOf(id, 20), false)
	}},
	{"plain, by an alias", 60, true, func(_ context.Context, c *caller, id uint64) error {
		return c.answered(steadyToo, scriptOf(id, 20), false)
	}},
	{"stream", 180, true, func(_ context.Context, c *caller, id uint64) error { return c.answered(steady, scriptOf(id, 5), true) }},
	{"stream, by an alias", 30, true, func(_ context.Context, c *caller, id uint64) error {
		return c.answered(steadyToo, scriptOf(id, 5), true)
	}},
	{"stream with pauses", 20, true, func(_ context.Context, c *caller, id uint64) error {
		return c.answered(steady, mockengine.Script{ID: id, Frames: 4, Gap: 2 * time.Millisecond, Hold: time.Millisecond, Split: id%2 == 0}, true)
	}},
	{"large answer", 4, true, func(_ context.Context, c *caller, id uint64) error {
		return c.answered(steady, mockengine.Script{ID: id, Frames: 100, Pad: 1000}, id%2 == 0)
	}},
	{"model with a changing setting", 40, true, func(_ context.Context, c *caller, id uint64) error {
		return c.answered(setting, scriptOf(id, 5), id%2 == 0)
	}},
	{"model with a changing command", 20, true, func(_ context.Context, c *caller, id uint64) error {
		return c.answered(respec, scriptOf(id, 5), id%2 == 0)
	}},
	{"model that comes and goes", 16, true, comesAndGoes},
	{"reconnect", 15, true, func(_ context.Context, c *caller, id uint64) error {
		c.hangUp()
		return c.answered(steady, scriptOf(id, 5), id%2 == 0)
	}},
	{leaver, 40, false, leaves},
	{"refused by the engine", 15, false, func(_ context.Context, c *caller, id uint64) error {
		script := scriptOf(id, 1)
		script.Status = []int{400, 500, 503}[id%3]
		return c.refused(wire.Request{Model: steady, Prompt: script.String(), Stream: id%2 == 0}, script.Status, "")
	}},
	{"engine that breaks off", 10, false, breaks},
	{"unknown model", 5, false, func(_ context.Context, c *caller, id uint64) error {
		return c.refused(wire.Request{Model: fmt.Sprint("nobody-", id), Prompt: "hello", Stream: id%2 == 0}, 404, "model_not_found")
	}},
	{"unknown key", 5, false, unknownKey},
}

func scriptOf(id uint64, frames int) mockengine.Script {
	return mockengine.Script{ID: id, Frames: frames}
}

func comesAndGoes(_ context.Context, c *caller, id uint64) error {
	script := scriptOf(id, 5)
	a, err := c.ask(wire.Request{Model: extra, Prompt: script.String(), Stream: id%2 == 0})
	if err == nil && (a.Status == 404 && a.Code == "model_not_found" || a.Status == 503 && a.Code == "model_removed") {
		return errAbsent
	}
	return c.right(a, err, extra, script, id%2 == 0)
}

// breaks lets the engine break off. A client may get an error or a broken answer, but never one that looks whole.
func breaks(_ context.Context, c *caller, id uint64) error {
	script := scriptOf(id, 5)
	script.Break = []mockengine.Break{mockengine.BreakHead, mockengine.BreakFrame}[id%2]
	stream := id%4 < 2
	a, err := c.ask(wire.Request{Model: steady, Prompt: script.String(), Stream: stream})
	switch {
	case err != nil && stream:
		return fmt.Errorf("a stream must end with an error that clients can read: %w", err)
	case err != nil: // an answer that breaks off after its head can be told in no other way
		return nil
	case a.Code == "" || a.Status == 200 && !a.Cut:
		return fmt.Errorf("got %v of an answer that broke off", a)
	}
	return nil
}

func unknownKey(ctx context.Context, c *caller, id uint64) error {
	stranger := caller{options: c.options, rng: c.rng}
	stranger.options.Key = "pl-0000000000000000-0000000000000000000000000000000000000000000"
	defer stranger.hangUp()
	if err := stranger.connect(ctx); err != nil {
		return err
	}
	return stranger.refused(wire.Request{Model: steady, Prompt: scriptOf(id, 1).String()}, 401, "invalid_api_key")
}

// leaves asks on a connection of its own, and goes in one of many ways. What it asks for would go on for longer than a run: an engine
// that is not told would never be done.
func leaves(ctx context.Context, c *caller, id uint64) error {
	conn, err := wire.Dial(ctx, c.options)
	if err != nil {
		return err
	}
	if id%2 == 0 {
		defer conn.Close()
	} else {
		defer conn.Reset()
	}
	if err := conn.Deadline(time.Now().Add(patience)); err != nil {
		return err
	}
	script := mockengine.Script{ID: id, Frames: 1 << 30, Gap: 2 * time.Millisecond, Split: id%3 == 0}
	request := wire.Request{Model: steady, Stream: true}
	way := c.rng.IntN(5)
	switch way {
	case 0:
		request.Cut = 1 + c.rng.IntN(300)
	case 1:
		script.Hold = 24 * time.Hour
	case 2:
		script.Frames, script.Gap = 3, 0
	}
	request.Prompt = script.String()
	if err := conn.Send(request); err != nil {
		return err
	}
	switch way {
	case 1: // before the head
		time.Sleep(rand.N(3 * time.Millisecond))
	case 2: // after the last event
		return conn.AwaitText("[DONE]")
	case 3: // within the head
		return conn.Await(1 + c.rng.IntN(60))
	case 4: // between events, or within one
		return conn.AwaitText(fmt.Sprintf("%d.%d ", id, c.rng.IntN(3)))
	}
	return nil
}
