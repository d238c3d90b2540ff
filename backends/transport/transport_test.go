package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pilotlight/backends"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engine serves each connection with a function that gets every request's head and body.
func engine(t *testing.T, serve func(n int, br *bufio.Reader, c net.Conn)) (*Pool, *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			n := int(conns.Add(1))
			go func() {
				defer c.Close()
				serve(n, bufio.NewReader(c), c)
			}()
		}
	}()
	p := New(Options{Endpoint: backends.Endpoint{Addr: ln.Addr().String(), APIKey: "k"}})
	t.Cleanup(func() { p.Close(); ln.Close(); <-done })
	return p, &conns
}

// readRequest reads one request and returns its head and body.
func readRequest(br *bufio.Reader) (head, body string, err error) {
	n := 0
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return head, "", err
		}
		head += line
		if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
			fmt.Sscan(v, &n)
		}
		if line == "\r\n" {
			break
		}
	}
	buf := make([]byte, n)
	_, err = io.ReadFull(br, buf)
	return head, string(buf), err
}

func post(body string) *Request {
	return &Request{Method: "POST", Path: "/v1/x", ContentType: "application/json", Body: [][]byte{[]byte(body)}}
}

func readAll(c *Call) (string, error) {
	var out []byte
	buf := make([]byte, 7)
	for {
		n, err := c.Read(buf, time.Now().Add(5*time.Second))
		out = append(out, buf[:n]...)
		if err == io.EOF {
			return string(out), nil
		}
		if err != nil {
			return string(out), err
		}
	}
}

func exchange(t *testing.T, p *Pool, body string) (string, error) {
	t.Helper()
	c := p.NewCall()
	defer c.Close()
	if err := c.Send(post(body), time.Now()); err != nil {
		return "", err
	}
	if err := c.AwaitHead(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	return readAll(c)
}

func TestFramings(t *testing.T) {
	for _, tt := range []struct {
		name, wire, want string
		reusable         bool
		broken           bool
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true, false},
		{"empty", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", true, false},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", "", true, false},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nTrailer: x\r\n\r\n", "hello", true, false},
		{"upper-case size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nB\r\nhello world\r\n0\r\n\r\n", "hello world", true, false},
		{"interim answers", "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", true, false},
		{"until close", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", "hello", false, false},
		{"connection close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "hello", false, false},
		{"short length", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "hello", false, true},
		{"cut chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello", "hello", false, true},
		{"no last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "hello", false, true},
		{"bad size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n", "", false, true},
		{"size overflow", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n", "", false, true},
		{"garbage after chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n", "hello", false, true},
	} {
		for _, step := range []int{1, 1 << 20} { // one byte at a time, and all at once
			t.Run(fmt.Sprintf("%s/%d", tt.name, step), func(t *testing.T) {
				p, conns := engine(t, func(_ int, br *bufio.Reader, c net.Conn) {
					for {
						if _, _, err := readRequest(br); err != nil {
							return
						}
						for wire := tt.wire; wire != ""; {
							n := min(step, len(wire))
							c.Write([]byte(wire[:n]))
							wire = wire[n:]
						}
						if !tt.reusable {
							return
						}
					}
				})
				for range 2 {
					got, err := exchange(t, p, "{}")
					if got != tt.want || (err != nil) != tt.broken {
						t.Fatalf("got %q, %v; want %q, broken %v", got, err, tt.want, tt.broken)
					}
					var te *Error
					if tt.broken && (!errors.As(err, &te) || te.Phase != PhaseBody) {
						t.Errorf("error = %#v, want one of PhaseBody", err)
					}
				}
				want := int64(2)
				if tt.reusable {
					want = 1
				}
				if n := conns.Load(); n != want {
					t.Errorf("%d connections, want %d", n, want)
				}
			})
		}
	}
}

func TestRequestHead(t *testing.T) {
	got := make(chan string, 1)
	p, _ := engine(t, func(_ int, br *bufio.Reader, c net.Conn) {
		head, body, err := readRequest(br)
		if err == nil {
			got <- head + body
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	req := post("")
	req.Accept, req.Extra = "text/event-stream", []byte("X-Request-Id: r1\r\n")
	req.Body = [][]byte{[]byte(`{"a"`), nil, []byte(`:1}`)}
	c := p.NewCall()
	defer c.Close()
	if err := c.Send(req, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitHead(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	want := "POST /v1/x HTTP/1.1\r\nHost: " + p.Endpoint().Addr + "\r\nAuthorization: Bearer k\r\nAccept: text/event-stream\r\n" +
		"X-Request-Id: r1\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}"
	if g := <-got; g != want {
		t.Errorf("sent\n%q, want\n%q", g, want)
	}
}

// A time-out between two bytes must lose nothing: heartbeats are sent from such time-outs.
func TestNotYetGoesOn(t *testing.T) {
	step := make(chan string)
	p, _ := engine(t, func(_ int, br *bufio.Reader, c net.Conn) {
		if _, _, err := readRequest(br); err != nil {
			return
		}
		for s := range step {
			io.WriteString(c, s)
		}
	})
	defer close(step)
	c := p.NewCall()
	defer c.Close()
	if err := c.Send(post("{}"), time.Now()); err != nil {
		t.Fatal(err)
	}
	soon := func() time.Time { return time.Now().Add(20 * time.Millisecond) }
	if err := c.AwaitHead(soon()); err != ErrNotYet {
		t.Fatalf("AwaitHead = %v, want ErrNotYet", err)
	}
	step <- "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	if err := c.AwaitHead(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	var got string
	buf := make([]byte, 64)
	for _, s := range []string{"1", "0\r", "\n0123456789", "abcdef\r", "\n0\r\n", "\r\n"} {
		if n, err := c.Read(buf, soon()); err != ErrNotYet || n != 0 {
			t.Fatalf("before %q: Read = %d, %v; want ErrNotYet", s, n, err)
		}
		step <- s
		time.Sleep(5 * time.Millisecond)
		n, err := c.Read(buf, soon())
		got += string(buf[:n])
		if err != nil && err != ErrNotYet && err != io.EOF {
			t.Fatal(err)
		}
	}
	if got != "0123456789abcdef" {
		t.Errorf("read %q", got)
	}
}

func TestCancelInEveryPhase(t *testing.T) {
	for _, phase := range []string{"dial", "head", "body"} {
		t.Run(phase, func(t *testing.T) {
			closed := make(chan time.Time, 1)
			p, _ := engine(t, func(_ int, br *bufio.Reader, c net.Conn) {
				if _, _, err := readRequest(br); err != nil {
					return
				}
				if phase == "body" {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
				}
				br.ReadByte()
				closed <- time.Now()
			})
			if phase == "dial" {
				p.dial = func(ctx context.Context, _ string) (net.Conn, error) {
					<-ctx.Done()
					closed <- time.Now()
					return nil, ctx.Err()
				}
			}
			c := p.NewCall()
			defer c.Close()
			var at time.Time
			time.AfterFunc(50*time.Millisecond, func() { at = time.Now(); c.Cancel() })
			err := c.Send(post("{}"), time.Now())
			if err == nil {
				err = c.AwaitHead(time.Now().Add(5 * time.Second))
			}
			if err == nil {
				_, err = readAll(c)
			}
			if !errors.Is(err, ErrCancelled) {
				t.Fatalf("error = %v, want ErrCancelled", err)
			}
			if d := (<-closed).Sub(at); d > 50*time.Millisecond {
				t.Errorf("the engine learned of it after %v", d)
			}
			c.Cancel() // again: nothing happens
		})
	}
	t.Run("before send", func(t *testing.T) {
		p, conns := engine(t, func(int, *bufio.Reader, net.Conn) {})
		c := p.NewCall()
		defer c.Close()
		c.Cancel()
		if err := c.Send(post("{}"), time.Now()); !errors.Is(err, ErrCancelled) || conns.Load() != 0 {
			t.Errorf("Send = %v with %d connections", err, conns.Load())
		}
	})
}

// SGLang closes idle connections after 5 s; a request that meets such a connection is sent again, once, on a new one.
func TestStaleConnectionIsRetried(t *testing.T) {
	var requests atomic.Int64
	p, conns := engine(t, func(n int, br *bufio.Reader, c net.Conn) {
		if _, _, err := readRequest(br); err != nil {
			return
		}
		requests.Add(1)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if n == 1 {
			return // closed by the engine, while the pool believes it to be idle
		}
		readRequest(br)
	})
	for i := range 2 {
		got, err := exchange(t, p, "{}")
		if got != "ok" || err != nil {
			t.Fatalf("exchange %d = %q, %v", i, got, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if conns.Load() != 2 || requests.Load() != 2 {
		t.Errorf("%d connections, %d requests; want 2 and 2", conns.Load(), requests.Load())
	}
}

func TestFreshConnectionIsNotRetried(t *testing.T) {
	p, conns := engine(t, func(_ int, br *bufio.Reader, _ net.Conn) { readRequest(br) })
	_, err := exchange(t, p, "{}")
	var te *Error
	if !errors.As(err, &te) || te.Phase != PhaseHead || te.Refused || conns.Load() != 1 {
		t.Errorf("error = %v after %d connections, want PhaseHead after one", err, conns.Load())
	}
}

func TestRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	p := New(Options{Endpoint: backends.Endpoint{Addr: addr}})
	defer p.Close()
	_, err = exchange(t, p, "{}")
	var te *Error
	if !errors.As(err, &te) || !te.Refused || te.Phase != PhaseDial {
		t.Errorf("error = %#v, want a refusal", err)
	}
}

func TestIdleConnectionsExpire(t *testing.T) {
	p, conns := engine(t, func(_ int, br *bufio.Reader, c net.Conn) {
		for {
			if _, _, err := readRequest(br); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	p.idleFor = 50 * time.Millisecond
	for want := int64(1); want <= 2; want++ {
		if _, err := exchange(t, p, "{}"); err != nil {
			t.Fatal(err)
		}
		if p.Idle() != 1 {
			t.Fatalf("%d idle, want 1", p.Idle())
		}
		for deadline := time.Now().Add(2 * time.Second); p.Idle() != 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the idle connection was not closed")
			}
		}
		if conns.Load() != want {
			t.Errorf("%d connections, want %d", conns.Load(), want)
		}
	}
}

func BenchmarkExchange(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		br := bufio.NewReader(c)
		for {
			if _, _, err := readRequest(br); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\nok")
		}
	}()
	p := New(Options{Endpoint: backends.Endpoint{Addr: ln.Addr().String()}})
	defer p.Close()
	req := post(strings.Repeat("x", 1024))
	buf := make([]byte, 512)
	b.ReportAllocs()
	for b.Loop() {
		c := p.NewCall()
		if err := c.Send(req, time.Now()); err != nil {
			b.Fatal(err)
		}
		if err := c.AwaitHead(time.Now().Add(time.Second)); err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := c.Read(buf, time.Now().Add(time.Second)); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
		c.Close()
	}
}
