// Package mockengine is an engine that costs next to nothing: it answers chat completions as each prompt says (Script), and keeps
// count of what became of every request. It stands where the simulator is too slow to load a gateway to its limits from the
// same machine, and knows no more of SGLang than that: no tokens, no validation, one route. Its keep-alive is the real engine's.
//
// A Server is safe for concurrent use.
package mockengine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// KeepAlive is how long SGLang keeps an idle connection (SGLANG_TIMEOUT_KEEP_ALIVE).
const KeepAlive = 5 * time.Second

const (
	maxHead = 16 << 10
	maxBody = 64 << 20
)

// Server answers on any number of listeners. The zero value is ready for use.
type Server struct {
	counters counters
	seen     seen

	mu     sync.Mutex // guards the fields below
	closed bool
	open   map[io.Closer]bool // listeners and connections
	wg     sync.WaitGroup
}

// Record is what was seen until now.
func (s *Server) Record() Record { return s.counters.record() }

// Serve answers on ln until Close, and then returns nil.
func (s *Server) Serve(ln net.Listener) error {
	if !s.enter(ln) {
		return ln.Close()
	}
	defer s.leave(ln)
	for {
		c, err := ln.Accept()
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.closed {
				return nil
			}
			return fmt.Errorf("accepting: %w", err)
		}
		if !s.enter(c) {
			return c.Close()
		}
		s.counters.connections.Add(1)
		go func() {
			defer s.leave(c)
			s.serve(c)
		}()
	}
}

// Close closes all listeners and connections, and waits for their goroutines.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		_ = c.Close() // what it was doing fails, which is the purpose
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *Server) enter(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.open == nil {
		s.open = map[io.Closer]bool{}
	}
	s.open[c] = true
	s.wg.Add(1)
	return true
}

func (s *Server) leave(c io.Closer) {
	_ = c.Close()
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	s.wg.Done()
}

// conn is one connection from a gateway.
type conn struct {
	net.Conn
	s    *Server
	br   *bufio.Reader
	body []byte
	out  []byte // what is being written
}

// request is what is read of a head.
type request struct {
	path   string
	length int
}

var errMalformed = errors.New("malformed request")

func (s *Server) serve(nc net.Conn) {
	c := &conn{Conn: nc, s: s, br: bufio.NewReaderSize(nc, maxHead)}
	for first := true; ; first = false {
		idle := time.Now()
		if err := c.SetReadDeadline(idle.Add(KeepAlive)); err != nil {
			return
		}
		if _, err := c.br.Peek(1); err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				s.counters.expired.Add(1)
			}
			return
		}
		if !first {
			s.counters.idle(time.Since(idle).Milliseconds())
		}
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			return
		}
		req, err := c.read()
		if err != nil {
			if errors.Is(err, errMalformed) {
				s.counters.malformed.Add(1)
			}
			return
		}
		if !c.answer(req) {
			return
		}
	}
}

// read takes one request off the connection; the body is in c.body until the next.
func (c *conn) read() (req request, err error) {
	for n := 0; ; n++ {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				return req, errMalformed
			}
			return req, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if n == 0 {
			method, rest, _ := bytes.Cut(line, []byte(" "))
			path, version, ok := bytes.Cut(rest, []byte(" "))
			if !ok || string(version) != "HTTP/1.1" || string(method) != "GET" && string(method) != "POST" {
				return req, errMalformed
			}
			req.path = string(path)
			continue
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return req, errMalformed
		}
		if bytes.EqualFold(name, []byte("content-length")) {
			if req.length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil || req.length < 0 || req.length > maxBody {
				return req, errMalformed
			}
		}
		if bytes.EqualFold(name, []byte("transfer-encoding")) { // no gateway of ours sends one
			return req, errMalformed
		}
	}
	if cap(c.body) < req.length {
		c.body = make([]byte, req.length)
	}
	c.body = c.body[:req.length]
	_, err = io.ReadFull(c.br, c.body)
	return req, err
}

// answer tells whether the connection may go on.
func (c *conn) answer(req request) bool {
	switch req.path {
	case "/v1/chat/completions":
		return c.chat()
	case "/health":
		return c.plain(200, nil)
	case "/record":
		text, err := json.Marshal(c.s.Record())
		if err != nil {
			return false
		}
		return c.plain(200, text)
	case "/abort_request":
		c.s.counters.aborts.Add(1)
		return c.plain(200, []byte("{}"))
	default:
		return c.plain(404, []byte(`{"detail":"Not Found"}`))
	}
}

// plain answers at once.
func (c *conn) plain(status int, body []byte) bool {
	c.out = appendHead(c.out[:0], status, "application/json", len(body))
	c.out = append(c.out, body...)
	_, err := c.Write(c.out)
	return err == nil
}

// appendHead adds the head of an answer; a negative length means chunks.
func appendHead(b []byte, status int, contentType string, length int) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, " X\r\nServer: mock\r\nContent-Type: "...)
	b = append(b, contentType...)
	if length < 0 {
		return append(b, "\r\nTransfer-Encoding: chunked\r\n\r\n"...)
	}
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(length), 10)
	return append(b, "\r\n\r\n"...)
}
