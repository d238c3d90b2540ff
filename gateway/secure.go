package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serverTLS is what clients that encrypt meet. HTTP/1.1 is all that is offered; who speaks nothing else learns so in the handshake.
func serverTLS(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{GetCertificate: certificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
}

// secureConn is the encrypted side of a clientConn. A client that leaves politely says close_notify, and that is data to the kernel: an
// encrypted record like any other. So while a request is being served, what arrives is read through TLS, without waiting; the first byte of
// a next request is kept for whoever reads that.
type secureConn struct {
	*tls.Conn
	socket *tlsSocket

	looks atomic.Int32 // asked for and not done; see look

	reads    sync.Mutex // guards the fields below, socket.instant, and reading from Conn
	ahead    [1]byte
	hasAhead bool
}

func newSecureConn(c *clientConn, config *tls.Config) *secureConn {
	socket := &tlsSocket{Conn: c.Conn, client: c}
	return &secureConn{Conn: tls.Server(socket, config), socket: socket}
}

func (s *secureConn) Read(p []byte) (int, error) {
	s.reads.Lock()
	defer s.reads.Unlock()
	if s.hasAhead && len(p) > 0 {
		p[0], s.hasAhead = s.ahead[0], false
		return 1, nil
	}
	n, err := s.Conn.Read(p)
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && isHTTP(record.RecordHeader[:]) {
		// Whether it arrives or not, the connection is closed next.
		s.socket.client.linger.Store(true)
		_, _ = s.socket.Write(plainAnswerOnTLS())
	}
	return n, err
}

// isHTTP tells whether five bytes in the place of a TLS record's header begin a request in clear text.
func isHTTP(head []byte) bool {
	switch string(head) {
	case "GET /", "POST ", "HEAD ", "OPTIO", "DELET", "PUT /", "CONNE":
		return true
	}
	return false
}

// plainAnswerOnTLS tells a client with http:// in its base URL what is wrong.
func plainAnswerOnTLS() []byte {
	body, err := errPlain.MarshalJSON()
	if err != nil {
		panic("BUG: an error of four strings is JSON: " + err.Error())
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		errPlain.Status, len(body), body)
}

// look reads what has arrived while a request is being served, and tells whether the client has left. Calls at the same time become one
// that looks again: nothing that arrives before a call is missed.
func (s *secureConn) look() (left bool) {
	if s.looks.Add(1) != 1 {
		return false // whoever looks now looks again, and tells
	}
	for {
		n := s.looks.Load()
		left = s.lookOnce() || left
		if s.looks.CompareAndSwap(n, 0) {
			return left
		}
	}
}

func (s *secureConn) lookOnce() (left bool) {
	if !s.reads.TryLock() {
		return false // the connection's goroutine reads, and so no request is being served
	}
	defer s.reads.Unlock()
	if s.hasAhead {
		return false // a next request; what is behind it can wait, a FIN is seen by itself
	}
	s.socket.instant = true
	n, err := s.Conn.Read(s.ahead[:])
	s.socket.instant = false
	s.hasAhead = n > 0
	return err != nil && !errors.Is(err, errNothingYet)
}

// tlsSocket is what TLS reads and writes: the socket, which can be told not to wait.
type tlsSocket struct {
	net.Conn
	client  *clientConn
	instant bool // Read returns errNothingYet instead of waiting; guarded by secureConn.reads
	closing bool // TLS says goodbye, under a deadline of its own; guarded by TLS' lock of writes
}

// farewellTime is how long a client that does not read may keep us from closing. TLS' own limit is 5 s.
const farewellTime = time.Second

// errNothingYet is a temporary net.Error, after which crypto/tls goes on as if nothing had been asked (conn.go, readRecordOrCCS).
var errNothingYet net.Error = nothingYet{}

type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing to read yet" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }

func (s *tlsSocket) Read(p []byte) (n int, err error) {
	if !s.instant {
		return s.Conn.Read(p)
	}
	// Not through RawConn.Read: that refuses when the deadline of the request's own reading is over.
	control := s.client.raw.Control(func(fd uintptr) {
		for {
			if n, err = unix.Read(int(fd), p); err != unix.EINTR {
				return
			}
		}
	})
	switch {
	case control != nil:
		return 0, control
	case n > 0:
		return n, nil
	case err == nil:
		return 0, io.EOF
	case errors.Is(err, syscall.EAGAIN):
		return 0, errNothingYet
	}
	return 0, os.NewSyscallError("read", err)
}

// Write has the stall limit here, and not in clientConn, because TLS also writes on its own account (answers to key updates); a deadline
// left over from long ago would break the connection then. TLS calls it under a lock of its own.
func (s *tlsSocket) Write(p []byte) (int, error) {
	if !s.closing {
		if err := s.client.armWrite(s.Conn); err != nil {
			return 0, err
		}
	}
	return s.Conn.Write(p)
}

// SetWriteDeadline is called by TLS alone, when it says goodbye.
func (s *tlsSocket) SetWriteDeadline(t time.Time) error {
	s.closing = true
	if soon := time.Now().Add(farewellTime); soon.Before(t) {
		t = soon
	}
	return s.Conn.SetWriteDeadline(t)
}

// CloseWrite ends our side of the socket, with close_notify where there was a handshake.
func (s *secureConn) CloseWrite() error {
	_ = s.Conn.CloseWrite()
	tcp, ok := s.socket.Conn.(*net.TCPConn)
	if !ok {
		return errors.ErrUnsupported
	}
	return tcp.CloseWrite()
}
