package gateway

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hangups learns that clients have left. fasthttp gives no such signal (facts/fasthttp.md §4.3), so each accepted socket is
// registered once, edge-triggered, in an epoll set of our own: a request costs nothing more, and a parked one needs
// no goroutine. A FIN counts as leaving, as it does for net/http: a client that half-closes does not wait for an answer.
type hangups struct {
	epfd int
	wake int // eventfd that ends the loop
	done chan struct{}

	mu    sync.Mutex
	conns map[int32]*clientConn // by descriptor; removed before the descriptor is closed
}

func newHangups() (*hangups, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epfd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, wake, &ev); err != nil {
		_ = unix.Close(epfd)
		_ = unix.Close(wake)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	h := &hangups{epfd: epfd, wake: wake, done: make(chan struct{}), conns: make(map[int32]*clientConn)}
	go h.loop()
	return h, nil
}

// close ends the loop; sockets that are still registered are watched no more.
func (h *hangups) close() {
	_, _ = unix.Write(h.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-h.done
	_ = unix.Close(h.epfd)
	_ = unix.Close(h.wake)
}

func (h *hangups) loop() {
	defer close(h.done)
	events := make([]unix.EpollEvent, 128)
	var gone []*clientConn
	for {
		n, err := unix.EpollWait(h.epfd, events, -1)
		if err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		stop := false
		gone = gone[:0]
		h.mu.Lock()
		for _, ev := range events[:n] {
			if int(ev.Fd) == h.wake {
				stop = true
			} else if c := h.conns[ev.Fd]; c != nil {
				gone = append(gone, c)
			}
		}
		h.mu.Unlock()
		for _, c := range gone {
			c.left()
		}
		if stop {
			return
		}
	}
}

func (h *hangups) add(c *clientConn) error {
	var ctlErr error
	err := c.raw.Control(func(fd uintptr) {
		c.fd = int32(fd)
		h.mu.Lock()
		h.conns[c.fd] = c
		h.mu.Unlock()
		ev := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: c.fd}
		ctlErr = unix.EpollCtl(h.epfd, unix.EPOLL_CTL_ADD, int(fd), &ev)
	})
	if err == nil {
		err = ctlErr
	}
	if err != nil {
		h.remove(c)
	}
	return err
}

// remove must come before the descriptor is closed, because its number is given out again at once.
func (h *hangups) remove(c *clientConn) {
	h.mu.Lock()
	if h.conns[c.fd] == c {
		delete(h.conns, c.fd)
	}
	h.mu.Unlock()
}

// clientConn is an accepted connection that knows whether its client is still there.
type clientConn struct {
	net.Conn
	raw     syscall.RawConn
	hangups *hangups
	fd      int32
	closed  atomic.Bool
	linger  atomic.Bool
	open    *atomic.Int64 // connections now open

	// stall bounds a write that the client does not read; nanoseconds, 0: none.
	stall     atomic.Int64
	stallFrom time.Time // when the write deadline was last armed; writer's goroutine only

	mu      sync.Mutex // guards the fields below
	gone    bool
	request *exchange // the one being served, told when the client leaves
}

// begin makes x the request that hears of the client's leaving; it hears at once if that has happened already.
func (c *clientConn) begin(x *exchange) {
	c.mu.Lock()
	c.request = x
	gone := c.gone
	c.mu.Unlock()
	if gone {
		x.clientLeft()
	}
}

// end is called before x is given back: no signal reaches it afterwards.
func (c *clientConn) end() {
	c.mu.Lock()
	c.request = nil
	c.mu.Unlock()
	c.stall.Store(0)
}

func (c *clientConn) left() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	if c.request != nil {
		c.request.clientLeft()
	}
}

// Write arms the write deadline lazily: exact to a quarter, and free for all but a few writes.
func (c *clientConn) Write(p []byte) (int, error) {
	if limit := time.Duration(c.stall.Load()); limit > 0 {
		if now := time.Now(); now.Sub(c.stallFrom) > limit/4 {
			c.stallFrom = now
			if err := c.SetWriteDeadline(now.Add(limit)); err != nil {
				return 0, err
			}
		}
	}
	return c.Conn.Write(p)
}

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
	if tcp, ok := c.Conn.(*net.TCPConn); ok && c.linger.Load() && tcp.CloseWrite() == nil {
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

// watchedListener wraps accepted TCP connections.
type watchedListener struct {
	net.Listener
	hangups *hangups
	open    *atomic.Int64
}

func (l *watchedListener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		sc, ok := nc.(syscall.Conn)
		if !ok {
			_ = nc.Close()
			return nil, fmt.Errorf("BUG: a listener of %T connections has no descriptors to watch", nc)
		}
		raw, err := sc.SyscallConn()
		if err == nil {
			c := &clientConn{Conn: nc, raw: raw, hangups: l.hangups, open: l.open}
			if err = l.hangups.add(c); err == nil {
				l.open.Add(1)
				return c, nil
			}
		}
		_ = nc.Close() // reset between accept and now
	}
}
