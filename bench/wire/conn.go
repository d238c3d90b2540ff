// Package wire is a client of a gateway that costs next to nothing and takes nothing for granted: one keep-alive connection, requests
// written by hand, answers read strictly. It can leave at any byte, read slowly, and tells how an answer ended, which a client
// library hides. It is made for machines that it shares with what it loads.
//
// A Conn belongs to one goroutine.
package wire

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"
)

// Conn is a connection to a gateway.
type Conn struct {
	tcp  *net.TCPConn
	br   *bufio.Reader
	head []byte // of each request, up to the content length
	out  []byte
	text []byte // of the last answer
	body []byte
}

// Options of a connection.
type Options struct {
	Addr string // host:port
	Key  string // API key; empty: none
	// Local is the address to come from; nil: any. One address has about 28,000 ports.
	Local net.IP
	// Slow makes reading slow: so many bytes at a time, with a pause of SlowPause between, and a receive buffer as small as the
	// kernel allows. 0: not slow.
	Slow      int
	SlowPause time.Duration
}

// Dial connects.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: -1}
	if o.Local != nil {
		d.LocalAddr = &net.TCPAddr{IP: o.Local}
	}
	if o.Slow > 0 {
		d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			if outer := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) }); outer != nil {
				return outer
			}
			return err
		}
	}
	nc, err := d.DialContext(ctx, "tcp", o.Addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil, fmt.Errorf("%T is no TCP connection", nc)
	}
	c := &Conn{tcp: tcp, br: bufio.NewReaderSize(tcp, 8<<10)}
	if o.Slow > 0 {
		c.br = bufio.NewReaderSize(&slow{tcp, o.Slow, o.SlowPause}, 8<<10)
	}
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nUser-Agent: wire\r\nAccept: application/json\r\n"
	if o.Key != "" {
		head += "Authorization: Bearer " + o.Key + "\r\n"
	}
	c.head = []byte(head + "Content-Type: application/json\r\nContent-Length: ")
	return c, nil
}

// slow reads little at a time.
type slow struct {
	net.Conn
	size  int
	pause time.Duration
}

func (s *slow) Read(p []byte) (int, error) {
	time.Sleep(s.pause)
	return s.Conn.Read(p[:min(len(p), s.size)])
}

// Close leaves with a FIN; bytes that were not read make it a reset.
func (c *Conn) Close() { _ = c.tcp.Close() } // nothing is lost that somebody waits for

// Reset leaves with a reset.
func (c *Conn) Reset() {
	_ = c.tcp.SetLinger(0) // without it the end is a FIN, which is an end too
	_ = c.tcp.Close()
}

// Deadline bounds everything until the next call of it.
func (c *Conn) Deadline(t time.Time) error { return c.tcp.SetDeadline(t) }

// Request is a chat of one message. Model and Prompt must not need escaping in JSON.
type Request struct {
	Model  string
	Prompt string
	Stream bool
	// Cut is how many of the request's last bytes are not sent.
	Cut int
}

// Send writes a request.
func (c *Conn) Send(r Request) error {
	c.body = append(c.body[:0], `{"model":"`...)
	c.body = append(c.body, r.Model...)
	c.body = append(c.body, `","stream":`...)
	c.body = strconv.AppendBool(c.body, r.Stream)
	c.body = append(c.body, `,"messages":[{"role":"system","content":"You are asked by a machine that checks each byte of the answer."},{"role":"user","content":"`...)
	c.body = append(c.body, r.Prompt...)
	c.body = append(c.body, `"}],"temperature":0.5,"max_tokens":100}`...)
	return c.SendBody(c.body, r.Cut)
}

// SendBody writes a request with this body, less its last bytes.
func (c *Conn) SendBody(body []byte, cut int) error {
	c.out = append(c.out[:0], c.head...)
	c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	c.out = append(c.out, "\r\n\r\n"...)
	c.out = append(c.out, body...)
	_, err := c.tcp.Write(c.out[:max(0, len(c.out)-cut)])
	return err
}

// Await waits for n bytes of the answer, or what there is until its end or the deadline, and takes them. It is for those who leave then.
func (c *Conn) Await(n int) error {
	_, err := c.br.Discard(n)
	return err
}

// AwaitText reads the answer until it has held text.
func (c *Conn) AwaitText(text string) error {
	matched := 0 // good enough for texts whose first byte does not come again
	for matched < len(text) {
		b, err := c.br.ReadByte()
		if err != nil {
			return err
		}
		switch b {
		case text[matched]:
			matched++
		case text[0]:
			matched = 1
		default:
			matched = 0
		}
	}
	return nil
}
