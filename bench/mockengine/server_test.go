package mockengine_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"pilotlight/bench/mockengine"
	"pilotlight/bench/wire"
)

func start(t *testing.T) (*mockengine.Server, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, served := &mockengine.Server{}, make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, ln.Addr().String()
}

func dial(t *testing.T, addr string) *wire.Conn {
	t.Helper()
	c, err := wire.Dial(t.Context(), wire.Options{Addr: addr, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Deadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// settled waits until no request is in flight.
func settled(t *testing.T, s *mockengine.Server) mockengine.Record {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); s.Record().InFlight > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still in flight: %+v", s.Record())
		}
	}
	return s.Record()
}

func TestAnswersAreAsScripted(t *testing.T) {
	s, addr := start(t)
	c := dial(t, addr)
	for i, script := range []mockengine.Script{
		{Frames: 1}, {Frames: 5}, {Frames: 3, Gap: time.Millisecond}, {Frames: 3, Gap: 2 * time.Millisecond, Split: true},
		{Frames: 2, Hold: 20 * time.Millisecond}, {Frames: 40, Pad: 3000},
	} {
		for _, stream := range []bool{false, true} {
			script.ID = uint64(2 * i)
			if stream {
				script.ID++
			}
			begin := time.Now()
			if err := c.Send(wire.Request{Model: "org/m", Prompt: script.String(), Stream: stream}); err != nil {
				t.Fatal(err)
			}
			a, err := c.Receive()
			if err != nil || a.Status != 200 || string(a.Text) != script.Text() || a.Done != stream || a.Model != "org/m" || a.Cut || a.Close {
				t.Errorf("script %+v, stream %v: got %v, %v", script, stream, a, err)
			}
			if took := time.Since(begin); took < script.Hold {
				t.Errorf("script %+v was answered after %v", script, took)
			}
		}
	}
	if err := c.Send(wire.Request{Model: "m", Prompt: mockengine.Script{ID: 99, Status: 503}.String(), Stream: true}); err != nil {
		t.Fatal(err)
	}
	if a, err := c.Receive(); err != nil || a.Status != 503 {
		t.Errorf("got %v, %v; want the scripted 503", a, err)
	}
	if r := settled(t, s); r.Requests != 13 || r.Finished != 12 || r.Refused != 1 || r.Connections != 1 || r.Repeated != 0 || r.Malformed != 0 {
		t.Errorf("record %+v", r)
	}
}

func TestBreaksAndLeaversAreCounted(t *testing.T) {
	s, addr := start(t)
	ask := func(script mockengine.Script, stream bool) *wire.Conn {
		c := dial(t, addr)
		if err := c.Send(wire.Request{Model: "m", Prompt: script.String(), Stream: stream}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for id, at := range []mockengine.Break{mockengine.BreakHead, mockengine.BreakFrame} {
		for _, stream := range []bool{true, false} { // the second is a repetition
			if a, err := ask(mockengine.Script{ID: uint64(id), Frames: 3, Break: at}, stream).Receive(); err == nil {
				t.Errorf("break at %s: got %v, want an error", at, a)
			}
		}
	}
	if r := settled(t, s); r.Requests != 4 || r.Broken != 4 || r.Repeated != 1 {
		t.Errorf("record %+v", r)
	}
	for id, script := range []mockengine.Script{
		{Frames: 1e6, Gap: time.Second},
		{Frames: 1e6, Gap: time.Second, Split: true},
		{Frames: 1e6, Pad: 1000}, // it is writing
	} {
		script.ID = uint64(10 + id)
		c := ask(script, true)
		if err := c.AwaitText("delta"); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	c := ask(mockengine.Script{ID: 20, Frames: 1, Hold: time.Hour}, false)
	for end := time.Now().Add(5 * time.Second); s.Record().Requests < 8 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	c.Close()
	if r := settled(t, s); r.Requests != 8 || r.Left != 4 || r.Finished != 0 {
		t.Errorf("record %+v", r)
	}
}

// What is no request of ours is said so, not answered.
func TestOtherRequests(t *testing.T) {
	s, addr := start(t)
	for _, tt := range []struct{ request, want string }{
		{"GET /health HTTP/1.1\r\nHost: h\r\n\r\n", "200"},
		{"GET /record HTTP/1.1\r\nHost: h\r\n\r\n", "200"},
		{"POST /abort_request HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", "200"},
		{"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n", "404"},
		{"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", "400"},
		{"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""},
		{"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", ""},
		{"hello\r\n\r\n", ""},
		{"GET /health HTTP/1.1\r\n" + strings.Repeat("x", 20000), ""},
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, tt.request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		switch {
		case tt.want == "" && err == nil:
			t.Errorf("%.60q was answered with %s", tt.request, resp.Status)
		case tt.want != "" && (err != nil || !strings.HasPrefix(resp.Status, tt.want)):
			t.Errorf("%.60q: got %v, %v, want %s", tt.request, resp, err, tt.want)
		}
		if err == nil {
			resp.Body.Close()
		}
		c.Close()
	}
	if r := settled(t, s); r.Aborts != 1 || r.Malformed != 5 || r.Refused != 1 {
		t.Errorf("record %+v", r)
	}
}
