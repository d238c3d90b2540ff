package static

import (
	"context"
	"time"
)

// server is whom a check asks, and for what. A thousand models on one server ask one question.
type server struct{ url, key, probe string }

// looks is what was last seen of a server.
type looks struct {
	turn chan struct{} // holds one token: who has it may read and change the fields below
	at   time.Time     // when the last check began; zero: none has
	end  time.Time
	err  error
}

// looksAt gives what is known of a server to everybody who asks about it. Those of whom nobody has asked for long are forgotten.
func (d *Driver) looksAt(s server) *looks {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.servers[s]; l != nil {
		return l
	}
	for other, l := range d.servers {
		select {
		case <-l.turn:
			old := !l.at.IsZero() && time.Since(l.at) > 100*d.opts.Interval
			l.turn <- struct{}{}
			if old {
				delete(d.servers, other) // whoever holds it yet goes on with it alone
			}
		default: // in use
		}
	}
	l := &looks{turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	d.servers[s] = l
	return l
}

// look checks a target, or takes what another has just seen of the same server: a check that began after last, so that none counts
// twice for the same asker, and ended less than half an interval ago, so that a server's end is not seen much later. It sets last.
func (d *Driver) look(ctx context.Context, t *target, last *time.Time, interval time.Duration) error {
	l := t.looks
	select {
	case <-l.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { l.turn <- struct{}{} }()
	if l.at.After(*last) && time.Since(l.end) < interval/2 {
		*last = l.at
		return l.err
	}
	began := time.Now()
	err := t.check(ctx, d.client)
	if ctx.Err() != nil {
		return err // says nothing of the server
	}
	l.at, l.end, l.err = began, time.Now(), err
	*last = began
	return err
}
