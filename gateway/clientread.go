package gateway

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// clientReads is how a clientConn reads. fasthttp asks for the first byte of each request alone (Server.ReduceMemoryUsage) and takes
// a buffer only then, so that idle connections and open streams hold none. Here that byte brings all that has arrived with it, so that it
// costs no system call of its own. The fields belong to the connection's goroutine.
type clientReads struct {
	want  time.Time // the read deadline asked for
	armed time.Time // the one that is set: want, or another that has not mattered yet

	// probe is made once: a closure per call would be an allocation per request. nil: the descriptor's bytes are not the client's (TLS).
	probe    func(fd uintptr) bool
	probeErr error
	arrived  *[]byte // pooled; nil: none
	rest     []byte  // what is left of it

	// See arrival.go. What was read ahead comes after rest.
	ahead    [][]byte
	aheadErr error
	chunked  atomic.Pointer[atomic.Int32] // to be counted down; nil: no large body in chunks
	// smallChunked: the limit of the body in chunks is the smaller one.
	smallChunked bool
}

const arrivedSize = 4 << 10

var arrivals = sync.Pool{New: func() any { b := make([]byte, arrivedSize); return &b }}

// SetReadDeadline takes effect when something is waited for. Of the three deadlines that fasthttp sets for a request, two pass
// while everything has arrived already.
func (c *clientConn) SetReadDeadline(t time.Time) error {
	c.want = t
	return nil
}

// arm sets the deadline that is wanted, if the one that is set would not do. One that ends too early does: it is set anew then.
func (c *clientConn) arm() error {
	if c.armed.IsZero() && c.want.IsZero() || !c.armed.IsZero() && (c.want.IsZero() || !c.want.Before(c.armed)) {
		return nil
	}
	return c.rearm()
}

func (c *clientConn) rearm() error {
	c.armed = c.want
	return c.Conn.SetReadDeadline(c.want)
}

// again tells whether a read that ended with err is to be begun again, because its deadline was an earlier one.
func (c *clientConn) again(err error) bool {
	if err == nil || c.armed.Equal(c.want) {
		return false
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() && c.rearm() == nil
}

func (c *clientConn) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		return c.take(p), nil
	}
	if c.ahead != nil {
		return c.takeAhead(p), nil
	}
	if err := c.arm(); err != nil {
		return 0, err
	}
	if len(p) == 1 && c.probe != nil {
		return c.first(p)
	}
	for {
		n, err := c.Conn.Read(p)
		if n == 0 && c.again(err) {
			continue
		}
		return n, err
	}
}

// first waits for the first byte of a request without holding a buffer.
func (c *clientConn) first(p []byte) (int, error) {
	for {
		err := c.raw.Read(c.probe)
		if err == nil {
			err = c.probeErr
		}
		if err == nil {
			return c.take(p), nil
		}
		if !c.again(err) {
			return 0, err
		}
	}
}

func (c *clientConn) take(p []byte) int {
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.dropArrived()
	}
	return n
}

func (c *clientConn) dropArrived() {
	if c.arrived != nil {
		arrivals.Put(c.arrived)
		c.arrived, c.rest = nil, nil
	}
}

// tryArrived is called when there may be something to read.
func (c *clientConn) tryArrived(fd uintptr) bool {
	buffer, _ := arrivals.Get().(*[]byte)
	for {
		// It does not block, so the scheduler need not know.
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(*buffer))), arrivedSize)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == 0 && n > 0:
			c.arrived, c.rest, c.probeErr = buffer, (*buffer)[:n], nil
			return true
		}
		arrivals.Put(buffer)
		switch errno {
		case 0:
			c.probeErr = io.EOF
		case unix.EAGAIN:
			return false
		default:
			c.probeErr = os.NewSyscallError("read", errno)
		}
		return true
	}
}
