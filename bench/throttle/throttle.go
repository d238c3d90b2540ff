// Package throttle is a TCP proxy that makes a server on this machine as slow as one far away: each connection gets so many bytes per second of
// answers, and each piece of a request comes so much later. It knows nothing of what is spoken.
package throttle

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Options say how slow.
type Options struct {
	Target string // host:port
	// PerConnection is how many bytes of answers a second each connection gets; 0: no limit.
	PerConnection int64
	// Total bounds all connections together; 0: no limit.
	Total int64
	// Latency is how much later a request arrives, and a connection comes to be.
	Latency time.Duration
}

// Proxy listens on a port of 127.0.0.1 until Close.
type Proxy struct {
	o        Options
	listener net.Listener
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	work     sync.WaitGroup
	total    bucket

	answered    atomic.Int64
	connections atomic.Int64
	open, most  atomic.Int64
}

// Listen starts a proxy.
func Listen(o Options) (*Proxy, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{o: o, listener: l, total: bucket{rate: o.Total}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.work.Go(p.accept)
	return p, nil
}

// Addr is where it listens, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Answered is how many bytes of answers have gone through.
func (p *Proxy) Answered() int64 { return p.answered.Load() }

// Connections is how many there have been, and how many at most at once.
func (p *Proxy) Connections() (all, most int64) { return p.connections.Load(), p.most.Load() }

// Close cuts all connections and waits for their goroutines.
func (p *Proxy) Close() error {
	p.cancel()
	err := p.listener.Close()
	p.work.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.work.Go(func() { p.serve(c) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	p.connections.Add(1)
	now := p.open.Add(1)
	defer p.open.Add(-1)
	for most := p.most.Load(); now > most && !p.most.CompareAndSwap(most, now); most = p.most.Load() {
	}
	if !p.sleep(p.o.Latency) {
		return
	}
	server, err := (&net.Dialer{}).DialContext(p.ctx, "tcp", p.o.Target)
	if err != nil {
		return // the client sees its connection closed, as through any proxy
	}
	defer server.Close()
	defer context.AfterFunc(p.ctx, func() { client.Close(); server.Close() })()
	var both sync.WaitGroup
	both.Go(func() { p.requests(server, client) })
	both.Go(func() { p.answers(client, server) })
	both.Wait()
}

// requests passes pieces on, each after the latency.
func (p *Proxy) requests(to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && (!p.sleep(p.o.Latency) || !write(to, buffer[:n])) {
			break
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				closeWrite(to)
				return // the answer may still come
			}
			break
		}
	}
	to.Close()
	from.Close()
}

// answers passes bytes on as fast as the limits allow.
func (p *Proxy) answers(to, from net.Conn) {
	own := bucket{rate: p.o.PerConnection}
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !p.sleep(max(own.take(n), p.total.take(n))) || !write(to, buffer[:n]) {
				break
			}
			p.answered.Add(int64(n))
		}
		if err != nil {
			break
		}
	}
	to.Close()
	from.Close()
}

func write(to net.Conn, b []byte) bool {
	_, err := to.Write(b)
	return err == nil
}

func closeWrite(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite() // one that is closed already has ended, too
	}
}

func (p *Proxy) sleep(d time.Duration) bool {
	if d <= 0 {
		return p.ctx.Err() == nil
	}
	select {
	case <-time.After(d):
		return true
	case <-p.ctx.Done():
		return false
	}
}

// bucket says how long to wait so that a rate is kept on average; what was not used in a pause is lost, but for a tenth of a second.
type bucket struct {
	rate int64 // bytes per second; 0: none

	mu   sync.Mutex // guards free
	free time.Time  // when all that was taken will have been sent
}

func (b *bucket) take(n int) time.Duration {
	if b.rate == 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if earliest := now.Add(-100 * time.Millisecond); b.free.Before(earliest) {
		b.free = earliest
	}
	b.free = b.free.Add(time.Duration(float64(n) / float64(b.rate) * float64(time.Second)))
	return b.free.Sub(now)
}
