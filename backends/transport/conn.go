package transport

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// readBufferSize also limits the head of a response.
	readBufferSize = 8 << 10
	// wholeBody is the largest body that is copied behind its head into one write; a larger one goes out from where it lies.
	wholeBody = 8 << 10
)

var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBufferSize) }}
	writers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}
)

// conn is one connection to a replica. While it waits for the replica it holds no buffer: with thousands of slow streams, buffers
// would be most of the gateway's memory. It belongs to one goroutine at a time; only Close may come from others.
type conn struct {
	net.Conn
	raw syscall.RawConn // nil where the descriptor's bytes are not the connection's (TLS, tests)
	br  *bufio.Reader   // nil: nothing is buffered. Without raw it is never nil.

	idleFrom time.Time
	reused   bool

	want      time.Time // when reads are to end
	armed     time.Time // the read deadline that is set: want, or earlier; zero: none
	writeFrom time.Time // when the write deadline was set

	// probe and control are made once, because a closure per call would be an allocation per request.
	probe    func(fd uintptr) bool
	control  func(fd uintptr)
	fd       int // valid while probing
	probing  bool
	probeErr error

	// outgoing is a request that await writes before it waits; stale says that the connection had ended before, or that the
	// replica had spoken unasked.
	outgoing *[]byte
	unsent   []byte
	stale    bool
}

func newConn(nc net.Conn) *conn {
	c := &conn{Conn: nc}
	if tcp, ok := nc.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			c.raw = raw
			c.probe = c.tryFill
			c.control = c.peek
			return c
		}
	}
	c.br = bufio.NewReaderSize(c, readBufferSize)
	return c
}

var errNothing = errors.New("nothing has arrived")

// until sets when reads are to end. A deadline that is set already and ends earlier is left: most reads end before it, and the
// others are begun again. So a connection in use sets its deadline once in a long while.
func (c *conn) until(t time.Time) error {
	c.want = t
	if !c.armed.IsZero() && !t.Before(c.armed) {
		return nil
	}
	return c.arm()
}

func (c *conn) arm() error {
	c.armed = c.want
	return c.SetReadDeadline(c.want)
}

// again tells whether a read that ended with err is to be begun again: its deadline was an earlier one.
func (c *conn) again(err error) bool {
	return err != nil && c.armed.Before(c.want) && isTimeout(err) && c.arm() == nil
}

// Read is what the buffered reader reads from.
func (c *conn) Read(p []byte) (int, error) {
	if c.probing {
		return c.tryRead(p)
	}
	for {
		n, err := c.Conn.Read(p)
		if n == 0 && c.again(err) {
			continue
		}
		return n, err
	}
}

// await returns once something is buffered, or with the error that says why that will not be.
func (c *conn) await() error {
	if c.raw == nil {
		_, err := c.br.Peek(1)
		return err
	}
	if c.br != nil && c.br.Buffered() > 0 {
		return nil
	}
	for {
		err := c.raw.Read(c.probe)
		if err == nil {
			err = c.probeErr
		}
		if err == errUnsent {
			if err = c.writeRest(); err == nil {
				continue
			}
		}
		if c.again(err) {
			continue
		}
		return err
	}
}

// tryFill is called when there may be something to read. It takes a buffer for no longer than there is something in it.
func (c *conn) tryFill(fd uintptr) bool {
	if c.br == nil {
		c.br, _ = readers.Get().(*bufio.Reader)
		c.br.Reset(c)
	}
	c.fd, c.probing = int(fd), true
	_, err := c.br.Peek(1)
	c.probing = false
	if err == errNothing {
		c.release()
		if c.outgoing == nil {
			return false
		}
		c.probeErr = c.tryWrite(int(fd))
		return c.probeErr != nil
	}
	if c.outgoing != nil { // nothing was to come before the request went out
		c.dropOutgoing()
		c.stale = true
	}
	c.probeErr = err
	return true
}

// errUnsent says that a request did not go out at once.
var errUnsent = errors.New("the rest of the request is to be written")

// tryWrite sends the request that await was given. It is done here, between the look whether the connection is silent still, which
// is a read in vain, and the wait for the answer, because each of the two would otherwise cost a system call of its own: the poller is
// armed before the request goes out, so no answer can come unseen.
func (c *conn) tryWrite(fd int) error {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(c.unsent))), uintptr(len(c.unsent)))
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			return errUnsent
		case errno != 0:
			c.dropOutgoing()
			c.stale = true
			return os.NewSyscallError("write", errno)
		}
		if c.unsent = c.unsent[n:]; len(c.unsent) > 0 {
			return errUnsent
		}
		c.dropOutgoing()
		return nil
	}
}

func (c *conn) writeRest() error {
	rest := c.unsent
	defer c.dropOutgoing()
	if err := c.armWrite(time.Now()); err != nil {
		return err
	}
	_, err := c.Conn.Write(rest)
	return err
}

func (c *conn) dropOutgoing() {
	if c.outgoing != nil {
		keepWriter(c.outgoing)
		c.outgoing, c.unsent = nil, nil
	}
}

// schedule makes await send the request, if that can be done in one write; false: it is to be sent before.
func (c *conn) schedule(p *Pool, req *Request) bool {
	if c.raw == nil {
		return false
	}
	size := req.bodyLen()
	if size > wholeBody {
		return false
	}
	buffer := whole(p, req, size)
	c.outgoing, c.unsent, c.stale = buffer, *buffer, false
	return true
}

func keepWriter(buffer *[]byte) {
	if cap(*buffer) <= 3*wholeBody {
		writers.Put(buffer)
	}
}

// hasHead tells whether a whole head lies in the buffer.
func (c *conn) hasHead() bool {
	have, _ := c.br.Peek(c.br.Buffered()) // no error: it is buffered
	return bytes.Contains(have, []byte("\r\n\r\n"))
}

func (c *conn) tryRead(p []byte) (int, error) {
	for {
		// It does not block, so the scheduler need not know.
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch {
		case errno == unix.EAGAIN:
			return 0, errNothing
		case errno == unix.EINTR:
		case errno != 0:
			return 0, os.NewSyscallError("read", errno)
		case n == 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}

// release gives the buffer back.
func (c *conn) release() {
	if c.raw == nil || c.br == nil {
		return
	}
	c.br.Reset(nil)
	readers.Put(c.br)
	c.br = nil
}

// rest prepares the connection for waiting idle; false if bytes have come that nobody asked for.
func (c *conn) rest() bool {
	if c.br == nil {
		return true
	}
	if c.br.Buffered() > 0 {
		return false
	}
	c.release()
	return true
}

// silent tells whether nothing has arrived since the last response. What has is either the end, or bytes that would pass for
// the beginning of somebody else's answer. Through TLS it cannot be told.
func (c *conn) silent() bool {
	if c.raw == nil {
		return true
	}
	err := c.raw.Control(c.control)
	return err == nil && c.probeErr == unix.EAGAIN
}

func (c *conn) peek(fd uintptr) {
	var b [1]byte
	// Not unix.Recvfrom, which makes an address per call.
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	c.probeErr = nil
	if errno != 0 {
		c.probeErr = errno
	}
}

// whole is a request in one piece, in a buffer for keepWriter.
func whole(p *Pool, req *Request, size int) *[]byte {
	buffer, _ := writers.Get().(*[]byte)
	w := req.appendHead((*buffer)[:0], p, size)
	for _, part := range req.Body {
		w = append(w, part...)
	}
	*buffer = w
	return buffer
}

// send writes a request in one piece, or a large one's body from where it lies.
func (c *conn) send(p *Pool, req *Request, now time.Time) error {
	if err := c.armWrite(now); err != nil {
		return err
	}
	size := req.bodyLen()
	if size <= wholeBody {
		buffer := whole(p, req, size)
		defer keepWriter(buffer)
		_, err := c.Conn.Write(*buffer)
		return err
	}
	buffer, _ := writers.Get().(*[]byte)
	defer keepWriter(buffer)
	*buffer = req.appendHead((*buffer)[:0], p, size)
	pieces := make(net.Buffers, 0, 1+len(req.Body))
	pieces = append(append(pieces, *buffer), req.Body...)
	_, err := pieces.WriteTo(c.Conn)
	return err
}

func (c *conn) armWrite(now time.Time) error {
	if now.Sub(c.writeFrom) <= recheck {
		return nil
	}
	c.writeFrom = now
	return c.SetWriteDeadline(now.Add(sendTimeout))
}

func (r *Request) appendHead(w []byte, p *Pool, size int) []byte {
	w = append(w, r.Method...)
	w = append(w, ' ')
	w = append(w, p.endpoint.PathPrefix...)
	w = append(w, r.Path...)
	w = append(w, p.constant...)
	if r.Accept != "" {
		w = append(w, "Accept: "...)
		w = append(w, r.Accept...)
		w = append(w, "\r\n"...)
	}
	w = append(w, r.Extra...)
	if r.ContentType != "" {
		w = append(w, "Content-Type: "...)
		w = append(w, r.ContentType...)
		w = append(w, "\r\nContent-Length: "...)
		w = strconv.AppendInt(w, int64(size), 10)
		w = append(w, "\r\n"...)
	}
	return append(w, "\r\n"...)
}
