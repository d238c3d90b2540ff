package wire

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answered connects to a server that reads a request's head and says these bytes, then closes.
func answered(t *testing.T, o Options, text string) *Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var buf [4096]byte
		if _, err := c.Read(buf[:]); err != nil {
			return
		}
		_, _ = io.WriteString(c, text) // a client that leaves is no failure
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c) // until the client goes
	}()
	o.Addr = ln.Addr().String()
	c, err := Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); ln.Close(); <-done })
	if err := c.Deadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(Request{Model: "m", Prompt: "p"}); err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	plainHead = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	sseHead   = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
	good      = `{"model":"m","choices":[{"message":{"content":"abc"}}]}`
)

func TestReceive(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       Answer
		text2      string
	}{
		{"whole", plainHead + "Content-Length: 55\r\n\r\n" + good, Answer{Status: 200, Model: "m"}, "abc"},
		{"whole in chunks", plainHead + "Transfer-Encoding: chunked\r\n\r\n1E\r\n" + good[:30] + "\r\n19\r\n" + good[30:] + "\r\n0\r\n\r\n", Answer{Status: 200, Model: "m"}, "abc"},
		{"half an error", "HTTP/1.1 503 X\r\nConnection: close\r\ncontent-length: 37\r\n\r\n" + `{"error":{"message":"x","code":"cold"}}`[:37], Answer{}, "malformed"},
		{"error", "HTTP/1.1 503 X\r\nConnection: close\r\ncontent-length: 39\r\n\r\n" + `{"error":{"message":"x","code":"cold"}}`, Answer{Status: 503, Code: "cold", Close: true}, ""},
		{"error without code", "HTTP/1.1 503 X\r\ncontent-length: 25\r\n\r\n" + `{"error":{"message":"x"}}`, Answer{}, "malformed"},
		{"stream", sseHead + "13\r\ndata: {\"content\":\"a\r\n10\r\n\"}\n\ndata: {\"cont\r\na\r\nent\":\"b\"}\n\r\n11\r\n\n: beat\n\ndata: [D\r\n6\r\nONE]\n\n\r\n0\r\n\r\n",
			Answer{Status: 200, Done: true, Beats: 1}, "ab"},
		{"stream that failed", sseHead + "20\r\ndata: {\"error\":{\"code\":\"gone\"}}\n\r\n1\r\n\n\r\n", Answer{Status: 200, Code: "gone", Cut: true, Close: true}, ""},
		{"stream that is cut", sseHead + "14\r\ndata: {\"content\":1}\n\r\n", Answer{}, "unexpected EOF"},
		{"cut in a chunk", sseHead + "14\r\ndata: {\"c", Answer{}, "unexpected EOF"},
		{"cut in the head", "HTTP/1.1 200 OK\r\nContent-", Answer{}, "unexpected EOF"},
		{"nothing", "", Answer{}, "EOF"},
		{"no length", plainHead + "\r\n" + good, Answer{}, "malformed"},
		{"two framings", plainHead + "Content-Length: 55\r\nTransfer-Encoding: chunked\r\n\r\n", Answer{}, "malformed"},
		{"negative length", plainHead + "Content-Length: -5\r\n\r\n", Answer{}, "malformed"},
		{"bare line feed", "HTTP/1.1 200 OK\n\n", Answer{}, "malformed"},
		{"old version", "HTTP/1.0 200 OK\r\n\r\n", Answer{}, "malformed"},
		{"half an object", plainHead + "Content-Length: 54\r\n\r\n" + good[:54], Answer{}, "malformed"},
		{"chunk without an end", sseHead + "1\r\nabc", Answer{}, "malformed"},
		{"chunk size", sseHead + "x\r\nabc", Answer{}, "malformed"},
		{"event after the end", sseHead + "1e\r\ndata: [DONE]\n\ndata: {\"a\":\"b\"}\n\r\n", Answer{}, "malformed"},
		{"no event", sseHead + "6\r\nhello\n\r\n", Answer{}, "malformed"},
		{"event that is no object", sseHead + "9\r\ndata: {1\n\r\n", Answer{}, "malformed"},
		{"half an event", sseHead + "6\r\ndata: \r\n0\r\n\r\n", Answer{}, "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := answered(t, Options{}, tt.text).Receive()
			if tt.want.Status == 0 {
				if err == nil || !strings.Contains(err.Error(), tt.text2) {
					t.Errorf("got %v, %v; want %s", a, err, tt.text2)
				}
				return
			}
			if err != nil || string(a.Text) != tt.text2 {
				t.Errorf("got %v, %v; want %q", a, err, tt.text2)
			}
			a.Text = nil
			if a.String() != tt.want.String() || a.Model != tt.want.Model {
				t.Errorf("got %v, want %v", a, tt.want)
			}
		})
	}
}

func TestSlowReaderReadsAll(t *testing.T) {
	begin := time.Now()
	a, err := answered(t, Options{Slow: 16, SlowPause: time.Millisecond}, plainHead+"Content-Length: 55\r\n\r\n"+good).Receive()
	if err != nil || string(a.Text) != "abc" {
		t.Errorf("got %v, %v", a, err)
	}
	if took := time.Since(begin); took < 6*time.Millisecond {
		t.Errorf("read in %v", took)
	}
}

func TestAwaitText(t *testing.T) {
	c := answered(t, Options{}, "xx[DO[DONE]yz")
	if err := c.AwaitText("[DONE]"); err != nil {
		t.Fatal(err)
	}
	if err := c.Await(1); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitText("z"); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitText("more"); err == nil {
		t.Error("found what did not come")
	}
}

func TestRequestsOnTheWire(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := Dial(t.Context(), Options{Addr: ln.Addr().String(), Key: "secret", Local: net.IPv4(127, 0, 0, 9)})
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if from := peer.RemoteAddr().String(); !strings.HasPrefix(from, "127.0.0.9:") {
		t.Errorf("came from %s", from)
	}
	if err := c.SendBody([]byte("0123456789"), 3); err != nil {
		t.Fatal(err)
	}
	c.Reset()
	got, err := io.ReadAll(peer)
	if err == nil {
		t.Error("the end was no reset")
	}
	if want := "\r\nAuthorization: Bearer secret\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n0123456"; !strings.HasPrefix(string(got), "POST /v1/chat/completions HTTP/1.1\r\nHost: ") || !strings.HasSuffix(string(got), want) {
		t.Errorf("got %q", got)
	}
}
