package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What has arrived is given out, even where the framing behind it is cut in the middle of a line.
func TestDataIsNotHeldBackByFraming(t *testing.T) {
	for _, rest := range []string{"\r", "\r\n", "\r\n1", "\r\n1;x"} {
		hold := make(chan struct{})
		p, _ := engine(t, func(_ int, br *bufio.Reader, c net.Conn) {
			readRequest(br)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello"+rest)
			<-hold
		})
		c := p.NewCall()
		if err := c.Send(post("{}"), time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := c.AwaitHead(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		buf := make([]byte, 100)
		n, err := c.Read(buf, start.Add(3*time.Second))
		if string(buf[:n]) != "hello" || err != nil || time.Since(start) > time.Second {
			t.Errorf("after %q: %q, %v in %v", rest, buf[:n], err, time.Since(start))
		}
		// And the next read keeps to its own time, whatever lies in the buffer.
		start = time.Now()
		if n, err := c.Read(buf, start.Add(50*time.Millisecond)); n != 0 || err != ErrNotYet || time.Since(start) > time.Second {
			t.Errorf("after %q: %d, %v in %v", rest, n, err, time.Since(start))
		}
		c.Close()
		close(hold)
	}
}

// Bytes that an engine sends unasked on an idle connection are nobody's answer.
func TestUnaskedBytesAnswerNobody(t *testing.T) {
	sent := make(chan struct{})
	p, conns := engine(t, func(n int, br *bufio.Reader, c net.Conn) {
		readRequest(br)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if n == 1 {
			time.Sleep(20 * time.Millisecond)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
			close(sent)
		}
		io.Copy(io.Discard, br)
	})
	for i := range 2 {
		if got, err := exchange(t, p, "{}"); got != "ok" || err != nil {
			t.Errorf("exchange %d: %q, %v", i, got, err)
		}
		<-sent
		time.Sleep(10 * time.Millisecond)
	}
	if n := conns.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

func TestHeadErrorsQuoteNothing(t *testing.T) {
	p, _ := engine(t, func(_ int, br *bufio.Reader, c net.Conn) {
		readRequest(br)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: secret\r\n\r\nsecret")
	})
	_, err := exchange(t, p, "{}")
	var te *Error
	if !errors.As(err, &te) || te.Phase != PhaseBody || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

// Arbitrary bytes from an engine give an answer, an error, or what was asked to wait: never a hang, and never a whole answer where
// the framing says that there is more.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nhello", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", "HTTP/1.1 101 Go\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "", "\r\n\r\n", "HTTP/1.1 999 x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
	} {
		f.Add([]byte(s), uint8(3))
	}
	lastChunk := regexp.MustCompile(`(?s)\n[ \t]*0+[ \t]*(;[^\n]*)?\r?\n(.*\n)?\r?\n`)
	f.Fuzz(func(t *testing.T, wire []byte, step uint8) {
		all := wire
		client, server := net.Pipe()
		go func() {
			br := bufio.NewReader(server)
			readRequest(br)
			for cut := int(step)%13 + 1; len(wire) > 0; wire = wire[min(cut, len(wire)):] { // in pieces
				if _, err := server.Write(wire[:min(cut, len(wire))]); err != nil {
					break
				}
			}
			server.Close()
		}()
		c := New(Options{Dial: func(context.Context, string) (net.Conn, error) { return client, nil }}).NewCall()
		defer c.Close()
		deadline := time.Now().Add(5 * time.Second)
		err := c.Send(post("{}"), time.Now())
		if err == nil {
			err = c.AwaitHead(deadline)
		}
		var got []byte
		for buf := make([]byte, 16); err == nil; {
			var n int
			n, err = c.Read(buf, deadline)
			got = append(got, buf[:n]...)
		}
		var te *Error
		switch {
		case err == io.EOF:
			status := c.Header.StatusCode()
			switch n := c.Header.ContentLength(); {
			case status == 204 || status == 304: // no body, whatever the head says
				if len(got) > 0 {
					t.Errorf("%d bytes of a body that cannot be", len(got))
				}
			case n >= 0 && len(got) != n:
				t.Errorf("%d bytes of %d passed for all", len(got), n)
			case n == -1 && !lastChunk.Match(all):
				t.Errorf("chunks without a last one passed for all: %q", all)
			}
		case errors.As(err, &te):
		default:
			t.Errorf("error %v", err)
		}
	})
}
