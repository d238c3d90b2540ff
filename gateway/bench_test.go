package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"pilotlight/backends/transport"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/auth/limits"
	"pilotlight/auth/tenants"
	"pilotlight/backends"
)

// BenchmarkWarm is the whole chain on loopback: a client's socket, the gateway, and an engine that answers at once. Client and engine
// allocate nothing, so that allocations are the gateway's.
func BenchmarkWarm(b *testing.B) {
	for _, bb := range []struct {
		name, body, answer string
		end                []byte
		log                bool
	}{
		{"plain", warmBody + "}", warmPlain, nil, false},
		{"plain, logged", warmBody + "}", warmPlain, nil, true},
		{"stream of 5 events", warmBody + `,"stream":true}`, warmStream, []byte("0\r\n\r\n"), false},
	} {
		b.Run(bb.name, func(b *testing.B) {
			e := newEdge(b, edgeOptions{}, http.NotFoundHandler())
			e.gateway.accessLog = io.Discard
			e.gateway.Adjust(Config{AccessLog: bb.log})
			e.atEngine(discardEngine(b, []byte(bb.answer)), backends.EngineSGLang)
			c, err := net.Dial("tcp", e.addr)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			request, buf := []byte(sized(keyed(chatLine), bb.body)), make([]byte, 64<<10)
			ask := func() {
				if _, err := c.Write(request); err != nil {
					b.Fatal(err)
				}
				if !readMessage(c, buf, bb.end) {
					b.Fatal("the answer is cut")
				}
			}
			ask() // starts the replica
			if !bytes.HasPrefix(buf, []byte("HTTP/1.1 200 ")) {
				b.Fatalf("answered %.200q", buf)
			}
			b.ReportAllocs()
			for b.Loop() {
				ask()
			}
		})
	}
}

// discardEngine serves keep-alive connections with one prepared answer and allocates nothing for it.
func discardEngine(tb testing.TB, answer []byte) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				for buf := make([]byte, 64<<10); ; {
					if !readMessage(c, buf, nil) {
						return
					}
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			})
		}
	})
	tb.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// readMessage reads one request with a Content-Length, or what ends in end.
func readMessage(c net.Conn, buf []byte, end []byte) bool {
	n, want := 0, -1
	for {
		m, err := c.Read(buf[n:])
		if err != nil {
			return false
		}
		n += m
		if end != nil {
			if bytes.HasSuffix(buf[:n], end) {
				return true
			}
			continue
		}
		if want < 0 {
			if i := bytes.Index(buf[:n], []byte("\r\n\r\n")); i >= 0 {
				want = i + 4
				const name = "Content-Length: "
				if j := bytes.Index(buf[:i], []byte(name)); j >= 0 {
					length := 0
					for _, d := range buf[j+len(name) : i] {
						if d < '0' || d > '9' {
							break
						}
						length = length*10 + int(d-'0')
					}
					want += length
				}
			}
		}
		if want >= 0 && n >= want {
			return true
		}
	}
}

// What a warm request asks, but for its last members, and what the engine answers.
var (
	warmBody  = fmt.Sprintf(`{"messages":[{"role":"user","content":%q}],"model":"test/model:1b"`, strings.Repeat("x", 950))
	warmJSON  = `{"id":"x","object":"chat.completion","model":"test/model:1b","choices":[{"message":{"content":"` + strings.Repeat("y", 500) + `"}}],` + warmUsage + `}`
	warmUsage = `"usage":{"prompt_tokens":240,"total_tokens":365,"completion_tokens":125,"prompt_tokens_details":null,"reasoning_tokens":0}`
	warmPlain = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(warmJSON), warmJSON)
	warmEvent = "data: {\"id\":\"x\",\"model\":\"test/model:1b\",\"choices\":[{\"delta\":{\"content\":\"" + strings.Repeat("y", 100) + "\"}}]}\n\n"

	warmStream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" +
		strings.Repeat(oneChunk(warmEvent), 4) + oneChunk(`data: {"id":"x","model":"test/model:1b","choices":[],`+warmUsage+"}\n\n") + oneChunk("data: [DONE]\n\n") + "0\r\n\r\n"
)

// scripted is a connection in memory that gives the same bytes again and again: what is left is the cost of our own code, and of the
// libraries that it calls, without sockets and the scheduler.
type scripted struct {
	net.Conn
	give []byte
	off  int
	more func() bool // whether to give it once more; asked at each beginning
}

func (s *scripted) Read(p []byte) (int, error) {
	if s.off == len(s.give) {
		s.off = 0
	}
	if s.off == 0 && !s.more() {
		return 0, io.EOF
	}
	n := copy(p, s.give[s.off:])
	s.off += n
	return n, nil
}

func (s *scripted) Write(p []byte) (int, error)      { return len(p), nil }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }
func (s *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (s *scripted) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2} }

// chain serves what client says in memory; the engine answers with answer.
func chain(tb testing.TB, client *scripted, answer string, rules tenants.Rules) (serve func()) {
	e := newEdge(tb, edgeOptions{rules: rules}, http.NotFoundHandler())
	e.gateway.accessLog = io.Discard
	e.atEngine(discardEngine(tb, []byte(answer)), backends.EngineSGLang)
	c, err := net.Dial("tcp", e.addr) // starts the replica
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(client.give); err != nil {
		tb.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	end := []byte("0\r\n\r\n")
	if strings.Contains(answer, "Content-Length") {
		end = nil
	}
	if !readMessage(c, buf, end) || !bytes.HasPrefix(buf, []byte("HTTP/1.1 200 ")) {
		tb.Fatalf("answered %.200q", buf)
	}
	engine := &scripted{give: []byte(answer), more: func() bool { return true }}
	old := e.launcher.last()
	endpoint := old.Transport().Endpoint()
	was := old.pool.Swap(transport.New(transport.Options{Endpoint: endpoint, Dial: func(context.Context, string) (net.Conn, error) { return engine, nil }}))
	tb.Cleanup(was.Close)
	h, err := newHangups()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(h.close)
	return func() {
		conn := &clientConn{Conn: client, hangups: h, open: new(atomic.Int64)}
		conn.stall.Store(int64(writeStall))
		if err := e.gateway.server.ServeConn(conn); err != nil {
			tb.Fatal(err)
		}
	}
}

// everyLimit is one of each kind in each scope, far away, with some rights.
var everyLimit = func() tenants.Rules {
	l := limits.Limits{RequestsPerMinute: 1e12, TokensPerMinute: 1e15, TokensPerDay: 1e15, TokensPerMonth: 1e15, Concurrent: 1e6, ColdStarts: 10}
	return tenants.Rules{Total: l, Models: map[string]limits.Limits{"test/model:1b": l}, Tenants: []tenants.Policy{{Name: "a", Limits: l, KeyLimits: l,
		Rights: tenants.Rights{Models: []string{"other/*", "test/*"}, Routes: []string{"completions", "chat"}}}}}
}()

// BenchmarkChain is a warm request's way through our code, in memory: read, identify, scan, resolve, acquire, patch, forward, answer,
// log and measure.
func BenchmarkChain(b *testing.B) {
	for _, bb := range []struct {
		name, body, answer string
		rules              tenants.Rules
	}{
		{"plain", warmBody + "}", warmPlain, tenants.Rules{}},
		{"plain, limited", warmBody + "}", warmPlain, everyLimit},
		{"plain, two limits", warmBody + "}", warmPlain, tenants.Rules{Tenants: []tenants.Policy{
			{Name: "a", Limits: limits.Limits{RequestsPerMinute: 1e12, TokensPerMinute: 1e15}}}}},
		{"stream of 5 events", warmBody + `,"stream":true}`, warmStream, tenants.Rules{}},
		{"stream of 5 events, limited", warmBody + `,"stream":true}`, warmStream, everyLimit},
	} {
		b.Run(bb.name, func(b *testing.B) {
			n := 0
			client := &scripted{give: []byte(sized(keyed(chatLine), bb.body)), more: func() bool { n--; return n >= 0 }}
			serve := chain(b, client, bb.answer, bb.rules)
			b.ReportAllocs()
			for b.Loop() {
				n = 100
				serve()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/request")
		})
	}
}
