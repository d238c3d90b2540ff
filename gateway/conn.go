package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pilotlight/auth"
	"pilotlight/auth/tenants"
)

// clientConn is an accepted connection that knows whether its client is still there, and that bounds every write.
type clientConn struct {
	net.Conn
	clientReads
	socket  net.Conn    // as accepted; Conn is the same, or secure
	secure  *secureConn // nil: not encrypted
	raw     syscall.RawConn
	hangups *hangups
	token   uint64 // in hangups
	closed  atomic.Bool
	linger  atomic.Bool
	open    *atomic.Int64 // connections now open
	from    netip.Addr
	key     auth.Known     // presented last; handlers' goroutine only
	caller  tenants.Memory // whom that was; handlers' goroutine only

	// stall bounds a write that the client does not read; nanoseconds. It is that of the last model asked for.
	stall atomic.Int64
	// The write deadline now armed: when, and for how long. Writer's goroutine only, or under TLS' lock of writes.
	stallFrom time.Time
	stallFor  time.Duration
	clock     time.Time // the present time, if whoever writes next knows it; zero: it is asked for

	mu      sync.Mutex // guards the fields below
	gone    bool
	request *exchange // the one being served, told when the client leaves
}

// begin makes x the request that hears of the client's leaving; it hears at once if that has happened already.
func (c *clientConn) begin(x *exchange) {
	c.stall.Store(int64(x.model.Timeouts.IdleStream))
	c.mu.Lock()
	c.request = x
	gone := c.gone
	c.mu.Unlock()
	switch {
	case gone:
		x.clientLeft()
	case c.secure != nil:
		c.look() // the word of leaving may have come with the request
	}
}

// look tells the request if its client has left by TLS' close_notify.
func (c *clientConn) look() {
	if c.secure.look() {
		c.left()
	}
}

// busy tells whether a request is being served.
func (c *clientConn) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.request != nil
}

// end is called before x is given back: no signal reaches it afterwards.
func (c *clientConn) end() {
	c.mu.Lock()
	c.request = nil
	c.mu.Unlock()
}

func (c *clientConn) left() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	if c.request != nil {
		c.request.clientLeft()
	}
}

const (
	// writePiece is how much must get through within one stall limit: a large answer to a slow client is not a stalled one.
	writePiece = 128 << 10
	// writeStall is the limit before any model was asked for.
	writeStall = 2 * time.Minute
)

// Write arms the write deadline lazily: exact to a quarter, and free for all but a few writes. A deadline from an earlier
// answer must not outlive its use: it may lie in the past by now.
func (c *clientConn) Write(p []byte) (n int, err error) {
	for {
		if c.secure == nil {
			if err := c.armWrite(c.Conn); err != nil {
				return n, err
			}
		}
		m, err := c.Conn.Write(p[n:min(n+writePiece, len(p))])
		n += m
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// heard tells what time it is, shortly before something is written; zero: not any more.
func (c *clientConn) heard(now time.Time) {
	if c.secure == nil { // else another goroutine may be writing
		c.clock = now
	}
}

func (c *clientConn) armWrite(to net.Conn) error {
	limit, now := time.Duration(c.stall.Load()), c.clock
	if c.clock = (time.Time{}); now.IsZero() {
		now = time.Now()
	}
	if limit == c.stallFor && now.Sub(c.stallFrom) <= limit/4 {
		return nil
	}
	c.stallFrom, c.stallFor = now, limit
	return to.SetWriteDeadline(now.Add(limit))
}

// SetWriteDeadline does nothing: Write has its own.
func (c *clientConn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline sets the read deadline; see SetWriteDeadline.
func (c *clientConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

const (
	lingerTime  = 3 * time.Second
	lingerBytes = 256 << 20
)

// Close lets a client that is still sending read the answer first when linger is set: closing with unread data in the
// socket would send a reset, and the answer would be lost with it.
func (c *clientConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.open.Add(-1)
	c.dropChunked()
	if tcp, ok := c.socket.(*net.TCPConn); ok && c.linger.Load() && c.closeWrite(tcp) == nil {
		_ = tcp.SetReadDeadline(time.Now().Add(lingerTime))
		var buf [32 << 10]byte
		for total := 0; total < lingerBytes; {
			n, err := tcp.Read(buf[:])
			total += n
			if err != nil {
				break
			}
		}
	}
	c.hangups.remove(c)
	return c.Conn.Close()
}

func (c *clientConn) closeWrite(tcp *net.TCPConn) error {
	if c.secure != nil {
		return c.secure.CloseWrite()
	}
	return tcp.CloseWrite()
}

// watchedListener wraps accepted TCP connections.
type watchedListener struct {
	net.Listener
	tls     *tls.Config // nil: connections are not encrypted
	hangups *hangups
	open    *atomic.Int64
	log     *slog.Logger
}

const (
	// acceptPause is how long a listener waits when the system has no descriptors or memory for another connection. The ones
	// that are served go on, and give theirs back.
	acceptPause = 50 * time.Millisecond
	// scarceEvery bounds how often that is told.
	scarceEvery = 10 * time.Second
)

func (l *watchedListener) Accept() (net.Conn, error) {
	var told time.Time
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			if !scarce(err) {
				return nil, err
			}
			if now := time.Now(); now.Sub(told) >= scarceEvery {
				told = now
				l.log.Error("no more connections can be accepted for now; raise the limit of open files", "error", err.Error())
			}
			time.Sleep(acceptPause)
			continue
		}
		sc, ok := nc.(syscall.Conn)
		if !ok {
			_ = nc.Close()
			return nil, fmt.Errorf("BUG: a listener of %T connections has no descriptors to watch", nc)
		}
		raw, err := sc.SyscallConn()
		if err == nil {
			c := &clientConn{Conn: nc, socket: nc, raw: raw, hangups: l.hangups, open: l.open, from: addressOfConn(nc)}
			if l.tls != nil {
				c.secure = newSecureConn(c, l.tls)
				c.Conn = c.secure
			} else {
				c.probe = c.tryArrived
			}
			c.stall.Store(int64(writeStall))
			boundUnsent(raw)
			if err = l.hangups.add(c); err == nil {
				l.open.Add(1)
				return c, nil
			}
		}
		_ = nc.Close()
		l.log.Warn("a connection cannot be watched, and is closed", "error", err.Error())
	}
}

// unsentBytes is how much of an answer the kernel holds that the client has not made room for. Its own limit is megabytes
// (tcp_wmem): memory of nobody's account, which a client takes by not reading.
const unsentBytes = 128 << 10

// boundUnsent leaves what is on its way alone, so that a long fast line is as fast as before (tcp(7), TCP_NOTSENT_LOWAT).
func boundUnsent(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes) // without it the connection works, too
	})
}

// scarce tells the errors of accept that pass when others close something.
func scarce(err error) bool {
	for _, e := range [...]error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
