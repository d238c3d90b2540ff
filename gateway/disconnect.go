package gateway

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// hangups learns that clients have left. fasthttp gives no such signal (facts/fasthttp.md §4.3), so each accepted socket is
// registered once, edge-triggered, in an epoll set of our own: a request costs nothing more, and a parked one needs
// no goroutine. A FIN counts as leaving, as it does for net/http: a client that half-closes does not wait for an answer. Encrypted
// connections are looked at whenever something arrives during a request (secureConn).
type hangups struct {
	epfd int
	wake int // eventfd that ends the loop
	done chan struct{}
	// looks are in progress. They do not wait for their client, but may for TLS, and nobody else must wait for that.
	looks sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	last  uint64     // token given out last
	conns map[uint64]*clientConn
}

// Connections are known to the kernel by tokens that are never given out twice. A descriptor would not do: between the report of an
// event and the look at the map its number may pass to another client's connection, which would then be taken for the one that left.
func data(token uint64, events uint32) unix.EpollEvent {
	return unix.EpollEvent{Events: events, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
}

func tokenOf(ev *unix.EpollEvent) uint64 { return uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32 }

const wakeToken = 0

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
	ev := data(wakeToken, unix.EPOLLIN)
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, wake, &ev); err != nil {
		_ = unix.Close(epfd)
		_ = unix.Close(wake)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	h := &hangups{epfd: epfd, wake: wake, done: make(chan struct{}), conns: make(map[uint64]*clientConn)}
	go h.loop()
	return h, nil
}

// close ends the loop; sockets that are still registered are watched no more.
func (h *hangups) close() {
	_, _ = unix.Write(h.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-h.done
	h.looks.Wait()
	_ = unix.Close(h.epfd)
	_ = unix.Close(h.wake)
}

func (h *hangups) loop() {
	defer close(h.done)
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := unix.EpollWait(h.epfd, events, -1)
		if err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		if h.tell(events[:n]) {
			return
		}
	}
}

// tell passes on what the kernel reported; true: the loop is to end.
func (h *hangups) tell(events []unix.EpollEvent) (stop bool) {
	for i := range events {
		token := tokenOf(&events[i])
		if token == wakeToken {
			stop = true
			continue
		}
		h.mu.Lock()
		c := h.conns[token]
		h.mu.Unlock()
		switch {
		case c == nil:
		case events[i].Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0:
			c.left()
		case c.busy():
			h.looks.Go(c.look)
		}
	}
	return stop
}

func (h *hangups) add(c *clientConn) error {
	h.mu.Lock()
	h.last++
	c.token = h.last
	h.conns[c.token] = c
	h.mu.Unlock()
	events := uint32(unix.EPOLLRDHUP | unix.EPOLLET)
	if c.secure != nil {
		events |= unix.EPOLLIN
	}
	var ctlErr error
	err := c.raw.Control(func(fd uintptr) {
		ev := data(c.token, events)
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

// remove forgets a connection. The kernel forgets it by itself when the descriptor is closed.
func (h *hangups) remove(c *clientConn) {
	h.mu.Lock()
	delete(h.conns, c.token)
	h.mu.Unlock()
}
