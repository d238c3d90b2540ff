package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/activator"
	"pilotlight/internal/testtools"
)

// selfSigned is a certificate for loopback, and the configuration of clients that trust nothing else.
func selfSigned(t testing.TB) (tls.Certificate, *tls.Config) {
	t.Helper()
	certificate, key := testtools.Certificate(t, "test")
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	return pair, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
}

// leaving is how a client goes.
type leaving struct {
	name string
	do   func(secure *tls.Conn, tcp *net.TCPConn) error
}

var leavings = []leaving{
	{"close_notify alone", func(s *tls.Conn, _ *net.TCPConn) error { return s.CloseWrite() }},
	{"FIN alone", func(_ *tls.Conn, tcp *net.TCPConn) error { return tcp.CloseWrite() }},
	{"reset", func(_ *tls.Conn, tcp *net.TCPConn) error {
		if err := tcp.SetLinger(0); err != nil {
			return err
		}
		return tcp.Close()
	}},
	{"close", func(s *tls.Conn, _ *net.TCPConn) error { return s.Close() }},
}

// promptly is how soon leaving must be seen. A busy machine gets three tries.
const promptly = 100 * time.Millisecond

// Every way to leave is seen in every phase, whatever the version of TLS.
func TestLeavingEncrypted(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, phase := range []string{"waiting", "before the first byte", "in mid-stream"} {
			for _, how := range leavings {
				t.Run(fmt.Sprintf("%s/%s/%s", tls.VersionName(version), phase, how.name), func(t *testing.T) {
					var took time.Duration
					for range 3 {
						if took = leave(t, version, phase, how); took <= promptly {
							return
						}
					}
					t.Errorf("seen after %v", took)
				})
			}
		}
	}
}

// leave plays one client that goes, and returns how long it took until its place or its engine was free.
func leave(t *testing.T, version uint16, phase string, how leaving) time.Duration {
	t.Helper()
	arrived, gone := make(chan struct{}, 1), make(chan time.Time, 1)
	o := edgeOptions{secure: true}
	if phase == "waiting" {
		o.start = func(ctx context.Context, _ int, _ func(activator.Progress)) error {
			<-ctx.Done()
			return ctx.Err()
		}
	}
	e := newEdge(t, o, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort_request" {
			return
		}
		io.Copy(io.Discard, r.Body)
		if phase == "in mid-stream" {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: {\"a\":1}\n\n")
			w.(http.Flusher).Flush()
		}
		arrived <- struct{}{}
		<-r.Context().Done()
		gone <- time.Now()
	}))
	e.tls.MaxVersion = version
	nc, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	tcp := nc.(*net.TCPConn)
	defer tcp.Close()
	secure := tls.Client(tcp, e.tls)
	if _, err := io.WriteString(secure, sized(keyed(chatLine), `{"model":"test/model:1b","stream":true}`)); err != nil {
		t.Fatal(err)
	}
	waiting := func() int { return e.model.Activator.Status().QueuedRequests }
	switch phase {
	case "waiting":
		settles(t, "the request waits", func() bool { return waiting() == 1 })
	case "in mid-stream":
		br := bufio.NewReader(secure)
		for line := ""; line != "data: {\"a\":1}\n"; {
			if line, err = br.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		fallthrough
	default:
		<-arrived
	}
	start := time.Now()
	if err := how.do(secure, tcp); err != nil {
		t.Fatal(err)
	}
	if phase == "waiting" {
		settles(t, "the place is free", func() bool { return waiting() == 0 })
		return time.Since(start)
	}
	select {
	case at := <-gone:
		settles(t, "the lease is back", func() bool { return e.inFlight() == 0 })
		return at.Sub(start)
	case <-time.After(5 * time.Second):
		t.Fatal("the engine still works for a client that has left")
		return 0
	}
}

// The word of leaving may come in the same packet as the request, and lies in TLS' buffer when the request begins.
func TestLeavingInTheSamePacket(t *testing.T) {
	gone := make(chan struct{})
	e := newEdge(t, edgeOptions{secure: true}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path != "/abort_request" {
			<-r.Context().Done()
			close(gone)
		}
	}))
	nc, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	corked := &corkedConn{Conn: nc}
	secure := tls.Client(corked, e.tls)
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	corked.cork = true
	io.WriteString(secure, goodChat("m1"))
	secure.CloseWrite()
	nc.SetWriteDeadline(time.Time{}) // TLS has set one for its goodbye
	if _, err := nc.Write(corked.held); err != nil {
		t.Fatal(err)
	}
	settles(t, "somebody has noticed", func() bool {
		select {
		case <-gone:
			return true
		default: // it may also have been seen before the engine was asked
			return strings.Contains(e.log.String(), "client_closed_request")
		}
	})
	settles(t, "the lease is back", func() bool { return e.inFlight() == 0 })
}

// corkedConn holds writes back.
type corkedConn struct {
	net.Conn
	cork bool
	held []byte
}

func (c *corkedConn) Write(p []byte) (int, error) {
	if !c.cork {
		return c.Conn.Write(p)
	}
	c.held = append(c.held, p...)
	return len(p), nil
}

// A next request that arrives while one is served is neither leaving nor lost.
func TestPipelineEncrypted(t *testing.T) {
	release := make(chan struct{})
	engine := &strictEngine{}
	var served atomic.Int32
	e := newEdge(t, edgeOptions{secure: true, limit: 1}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1) == 1 {
			<-release
		}
		engine.ServeHTTP(w, r)
	}))
	c := e.connect(t)
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, goodChat("m1"))
	settles(t, "the first is served", func() bool { return e.inFlight() == 1 })
	for _, marker := range []string{"m2", "m3"} {
		io.WriteString(c, goodChat(marker))
		time.Sleep(20 * time.Millisecond) // the watcher meets it
	}
	close(release)
	br := bufio.NewReader(c)
	for _, marker := range []string{"m1", "m2", "m3", "m4"} {
		if marker == "m4" { // the connection lives on
			io.WriteString(c, goodChat(marker))
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("%s: %v", marker, err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 || !strings.Contains(string(b), marker) {
			t.Errorf("%s: %d %s %v", marker, resp.StatusCode, b, err)
		}
	}
	engine.check(t)
}

// What clients are offered, and what they are told.
func TestHandshakes(t *testing.T) {
	e := newEdge(t, edgeOptions{secure: true}, says(200, "application/json", plainAnswer))
	for _, c := range []struct {
		name   string
		change func(*tls.Config)
		want   string // in the error; empty: it works
	}{
		{"as it is", func(*tls.Config) {}, ""},
		{"TLS 1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, ""},
		{"TLS 1.1", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 }, "protocol version"},
		{"HTTP/1.1 and 2 offered", func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }, ""},
		{"HTTP/2 alone offered", func(c *tls.Config) { c.NextProtos = []string{"h2"} }, "no application protocol"},
		{"another name", func(c *tls.Config) { c.ServerName = "other.example" }, "certificate"},
	} {
		config := e.tls.Clone()
		c.change(config)
		conn, err := tls.Dial("tcp", e.addr, config)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if err == nil {
			if p := conn.ConnectionState().NegotiatedProtocol; len(config.NextProtos) > 0 && p != "http/1.1" {
				t.Errorf("%s: %q was chosen", c.name, p)
			}
			conn.Close()
		}
	}
	// http:// in the base URL.
	resp, err := http.Get("http://" + e.addr + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if got := openAIError(t, string(b)); err != nil || resp.StatusCode != 400 || got.Code != "invalid_http" || !strings.Contains(got.Message, "https://") {
		t.Errorf("in clear text: %d %s %v", resp.StatusCode, b, err)
	}
	http.DefaultClient.CloseIdleConnections()
	if resp, body := e.chat(chatBody("m1")); resp.StatusCode != 200 || resp.TLS == nil {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	settles(t, "all others are closed", func() bool { return e.gateway.Connections() <= 1 })
}

// A stream that breaks off ends in a way that no client takes for a whole one, and a whole one ends politely.
func TestStreamEndsEncrypted(t *testing.T) {
	var breaks atomic.Bool
	breaks.Store(true)
	e := newEdge(t, edgeOptions{secure: true}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: {\"a\":1}\n\n")
		w.(http.Flusher).Flush()
		if breaks.Load() {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, "data: [DONE]\n\n")
	}))
	ask := sized(keyed(chatLine)+"Connection: close\r\n", `{"model":"test/model:1b","stream":true}`)
	if got := e.raw(ask); !strings.Contains(got, "data: {\"error\":{") || strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("broken off: %q", got)
	}
	settles(t, "the lease is back", func() bool { return e.inFlight() == 0 })
	breaks.Store(false)
	c := e.connect(t)
	defer c.Close()
	io.WriteString(c, ask)
	b, err := io.ReadAll(c) // an error, unless close_notify came
	if err != nil || !strings.HasSuffix(string(b), "data: [DONE]\n\n\r\n0\r\n\r\n") {
		t.Errorf("got %q, %v", b, err)
	}
}

// A client that never reads does not keep a connection from being closed.
func TestStalledEncrypted(t *testing.T) {
	model := Model{Timeouts: DefaultTimeouts(), Cold: DefaultCold()}
	model.Timeouts.IdleStream = 300 * time.Millisecond
	event := "data: {\"x\":\"" + strings.Repeat("y", 1<<16) + "\"}\n\n"
	e := newEdge(t, edgeOptions{secure: true, model: model}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort_request" {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			if _, err := io.WriteString(w, event); err != nil {
				return
			}
		}
	}))
	c := e.connect(t)
	defer c.Close()
	io.WriteString(c, sized(keyed(chatLine), `{"model":"test/model:1b","stream":true}`))
	settles(t, "the stream runs", func() bool { return e.inFlight() == 1 })
	start := time.Now()
	settles(t, "the lease is back", func() bool { return e.inFlight() == 0 })
	settles(t, "the connection is closed", func() bool { return e.gateway.Connections() == 0 })
	if d := time.Since(start); d > model.Timeouts.IdleStream+2*farewellTime {
		t.Errorf("closed after %v", d)
	}
}

// A handshake counts towards the time that a head may take.
func TestLateHandshakes(t *testing.T) {
	e := newEdge(t, edgeOptions{secure: true, headTimeout: 200 * time.Millisecond}, &strictEngine{})
	hello := []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3} // of a TLS hello, the first bytes
	for _, said := range [][]byte{nil, hello[:3], hello} {
		c, err := net.Dial("tcp", e.addr)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		c.Write(said)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("after %d bytes: %v", len(said), err)
		}
		if d := time.Since(start); d < 100*time.Millisecond || d > 3*time.Second {
			t.Errorf("after %d bytes: closed after %v", len(said), d)
		}
		c.Close()
	}
	settles(t, "all are closed", func() bool { return e.gateway.Connections() == 0 })
}
