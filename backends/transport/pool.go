// Package transport is the client half of one replica's HTTP/1.1: a pool of connections and the
// exchanges on them. It exists because a gateway must know the upstream socket before the response's
// headers arrive: SGLang holds them back until the first token, and a client that leaves in
// that time must still free its place. It does not choose replicas, retry on another one, or
// interpret bodies.
//
// A Pool is safe for concurrent use. A Call belongs to one goroutine, except for Cancel.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"pilotlight/backends"
)

const (
	// DefaultIdleTimeout drops idle connections before SGLang does (SGLANG_TIMEOUT_KEEP_ALIVE, 5 s, measured
	// on 0.5.15), so that a POST never meets a connection that is being closed.
	DefaultIdleTimeout = 4 * time.Second
	// DefaultDialTimeout is ample for a machine in the same building; loopback refuses at once.
	DefaultDialTimeout = 5 * time.Second
	// sendTimeout bounds writing a request: an engine that stops reading is broken.
	sendTimeout = time.Minute

	// recheck is how far the write deadline may have come before it is set anew: it is exact to a quarter, and costs nothing.
	recheck = sendTimeout / 4
)

// Options of a Pool. The zero values of the durations mean the defaults above.
type Options struct {
	Endpoint    backends.Endpoint
	IdleTimeout time.Duration
	DialTimeout time.Duration
	// Dial opens a connection; nil means TCP, with TLS where the endpoint asks for it.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

// Pool holds the idle connections to one replica.
type Pool struct {
	endpoint backends.Endpoint
	idleFor  time.Duration
	dialFor  time.Duration
	dial     func(ctx context.Context, addr string) (net.Conn, error)
	// constant is the part of each request's head that depends on the replica alone.
	constant []byte

	mu     sync.Mutex // guards the fields below
	idle   []*conn    // newest last: the newest is reused, the oldest expire at the front
	closed bool
	sweep  *time.Timer
	armed  bool // sweep runs: always while idle is not empty, and at times longer, which costs less than to stop it
}

// New makes an empty pool; connections are opened as calls need them.
func New(opts Options) *Pool {
	p := &Pool{endpoint: opts.Endpoint, idleFor: opts.IdleTimeout, dialFor: opts.DialTimeout, dial: opts.Dial}
	if p.idleFor <= 0 {
		p.idleFor = DefaultIdleTimeout
	}
	if p.dialFor <= 0 {
		p.dialFor = DefaultDialTimeout
	}
	if p.dial == nil {
		p.dial = dialer(opts.Endpoint)
	}
	var head strings.Builder
	head.WriteString(" HTTP/1.1\r\nHost: " + opts.Endpoint.Addr + "\r\n")
	if opts.Endpoint.APIKey != "" {
		head.WriteString("Authorization: Bearer " + opts.Endpoint.APIKey + "\r\n")
	}
	p.constant = []byte(head.String())
	return p
}

func dialer(e backends.Endpoint) func(ctx context.Context, addr string) (net.Conn, error) {
	if e.TLS {
		host, _, err := net.SplitHostPort(e.Addr)
		if err != nil {
			host = e.Addr
		}
		d := &tls.Dialer{Config: &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}}
		return func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	var d net.Dialer
	return func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
}

// Endpoint is the replica that the pool leads to.
func (p *Pool) Endpoint() backends.Endpoint { return p.endpoint }

// Idle is the number of idle connections, for tests and the admin API.
func (p *Pool) Idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

// Close drops the idle connections. Calls in progress go on; their connections are not kept afterwards.
func (p *Pool) Close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	if p.sweep != nil {
		p.sweep.Stop()
	}
	p.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}

// take returns the newest idle connection that has not expired, or nil.
func (p *Pool) take(now time.Time) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	if n > 0 {
		c := p.idle[n-1]
		if now.Sub(c.idleFrom) >= p.idleFor {
			return nil // so have all the others; the sweep closes them
		}
		n--
		p.idle[n] = nil
		p.idle = p.idle[:n]
		c.reused = true
		return c
	}
	return nil
}

// put keeps a connection whose last response was read to its end.
func (p *Pool) put(c *conn, now time.Time) {
	if !c.rest() { // an engine that speaks unasked is not to be trusted with another request
		_ = c.Close()
		return
	}
	c.idleFrom = now
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		_ = c.Close()
		return
	}
	p.idle = append(p.idle, c)
	switch {
	case p.sweep == nil:
		p.sweep = time.AfterFunc(p.idleFor, p.expire)
	case !p.armed:
		p.sweep.Reset(time.Until(c.idleFrom.Add(p.idleFor)))
	}
	p.armed = true
	p.mu.Unlock()
}

// expire closes connections that were idle for too long and re-arms itself for the oldest that is left.
func (p *Pool) expire() {
	now := time.Now()
	var old []*conn
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].idleFrom) >= p.idleFor {
		n++
	}
	old = append(old, p.idle[:n]...)
	rest := copy(p.idle, p.idle[n:])
	clear(p.idle[rest:])
	p.idle = p.idle[:rest]
	if p.armed = rest > 0 && !p.closed; p.armed {
		p.sweep.Reset(p.idle[0].idleFrom.Add(p.idleFor).Sub(now))
	}
	p.mu.Unlock()
	for _, c := range old {
		_ = c.Close()
	}
}

// Refuses asks whether nobody listens at the replica's address any more, for at most d. A replica that is slow to answer does not refuse.
func (p *Pool) Refuses(d time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	c, err := p.dial(ctx, p.endpoint.Addr)
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	_ = c.Close()
	return false
}
