package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"pilotlight/bench/mockengine"
	"pilotlight/bench/wire"
)

// patience is how long a client waits for an answer. No model takes a second to start.
const patience = 30 * time.Second

// errAbsent says that a model that comes and goes was not there.
var errAbsent = errors.New("the model is not configured now")

// caller is one client and its connection. It belongs to one goroutine.
type caller struct {
	options wire.Options
	rng     *rand.Rand
	conn    *wire.Conn // nil: none yet, or the last one ended
	armed   time.Time  // when the connection's deadline was set
	text    []byte
}

func newCaller(o wire.Options) *caller {
	return &caller{options: o, rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
}

func (c *caller) connect(ctx context.Context) (err error) {
	c.conn, err = wire.Dial(ctx, c.options)
	c.armed = time.Time{}
	return err
}

func (c *caller) hangUp() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// ask sends a request and reads the answer.
func (c *caller) ask(r wire.Request) (a wire.Answer, err error) {
	if c.conn == nil {
		if err := c.connect(context.Background()); err != nil { // Dial has a time limit of its own
			return a, err
		}
	}
	// A deadline costs a system call's time; it need not be exact.
	if now := time.Now(); now.Sub(c.armed) > patience/2 {
		if err := c.conn.Deadline(now.Add(patience)); err != nil {
			return a, err
		}
		c.armed = now
	}
	if err = c.conn.Send(r); err == nil {
		a, err = c.conn.Receive()
	}
	if err != nil || a.Close {
		c.hangUp()
	}
	return a, err
}

// answered asks for a script and wants the right answer.
func (c *caller) answered(model string, script mockengine.Script, stream bool) error {
	a, err := c.ask(wire.Request{Model: model, Prompt: script.String(), Stream: stream})
	return c.right(a, err, model, script, stream)
}

func (c *caller) right(a wire.Answer, err error, model string, script mockengine.Script, stream bool) error {
	if err != nil {
		return err
	}
	c.text = script.AppendText(c.text[:0])
	if a.Status != 200 || !bytes.Equal(a.Text, c.text) || a.Model != model || a.Done != stream || a.Close {
		return fmt.Errorf("got %v of model %q, want %.60q of %q", a, a.Model, c.text, model)
	}
	return nil
}

// refused asks and wants an error. An empty code is any.
func (c *caller) refused(r wire.Request, status int, code string) error {
	a, err := c.ask(r)
	if err != nil {
		return err
	}
	// A stream that has waited for longer than cold.grace has its status already: the error is an event then.
	if r.Stream && a.Status == 200 && a.Beats > 0 && a.Cut && a.Code != "" {
		return nil
	}
	if a.Status != status || a.Code == "" || code != "" && a.Code != code {
		return fmt.Errorf("got %v, want status %d, code %q", a, status, code)
	}
	return nil
}
