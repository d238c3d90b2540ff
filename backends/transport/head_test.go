package transport

import (
	"bufio"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

const uvicornHead = "HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: 618\r\ncontent-type: application/json\r\n\r\n"

var heads = []struct {
	name, head string
	plain      bool
}{
	{"uvicorn", uvicornHead, true},
	{"other case and spaces", "HTTP/1.1 503 Service Unavailable\r\nContent-Length:7 \r\nCONTENT-TYPE:  text/plain; charset=utf-8\r\nDate: x\r\n\r\n", true},
	{"no reason", "HTTP/1.1 200 \r\nContent-Length: 0\r\nContent-Type: a/b\r\n\r\n", true},
	{"a header more", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: a/b\r\nX-Other: 1\r\n\r\n", false},
	{"chunked", "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n", false},
	{"chunked with a length", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n", false},
	{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 7\r\nContent-Type: a/b\r\n\r\n", false},
	{"a length with a sign", "HTTP/1.1 200 OK\r\nContent-Length: +7\r\nContent-Type: a/b\r\n\r\n", false},
	{"a long length", "HTTP/1.1 200 OK\r\nContent-Length: 1234567890123456\r\nContent-Type: a/b\r\n\r\n", false},
	{"two types", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\n", false},
	{"no length", "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n", false},
	{"no type", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", false},
	{"closing", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: a/b\r\nConnection: close\r\n\r\n", false},
	{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 7\r\nContent-Type: a/b\r\n\r\n", false},
	{"informational", "HTTP/1.1 100 Continue\r\nContent-Length: 7\r\nContent-Type: a/b\r\n\r\n", false},
	{"no content", "HTTP/1.1 204 No Content\r\nContent-Length: 7\r\nContent-Type: a/b\r\n\r\n", false},
	{"a bare LF", "HTTP/1.1 200 OK\r\nContent-Length: 7\nContent-Type: a/b\r\n\r\n", false},
	{"a bare CR", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: a\rb\r\n\r\n", false},
	{"a folded line", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: a/b\r\n c/d\r\n\r\n", false},
	{"a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 7\r\nContent-Type: a/b\r\n\r\n", false},
	{"a NUL", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: a/\x00b\r\n\r\n", false},
	{"not whole", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: a/b\r\n", false},
	{"not whole in the first line", "HTTP/1.1 200", false},
}

// like checks that a head is plain only where fasthttp reads the same in it.
func like(t *testing.T, head string) (plain bool) {
	t.Helper()
	br := bufio.NewReader(strings.NewReader(head + "rest"))
	_, _ = br.Peek(1)
	before := br.Buffered()
	var got, want fasthttp.ResponseHeader
	got.Set("X-Of-Before", "1")
	plain = readPlainHead(br, &got)
	if !plain {
		if br.Buffered() != before {
			t.Errorf("something was taken of %q", head)
		}
		return false
	}
	other := bufio.NewReader(strings.NewReader(head + "rest"))
	if err := want.Read(other); err != nil {
		t.Fatalf("%q is no head: %v", head, err)
	}
	if br.Buffered() != other.Buffered() || got.StatusCode() != want.StatusCode() || got.ContentLength() != want.ContentLength() ||
		string(got.ContentType()) != string(want.ContentType()) || got.ConnectionClose() != want.ConnectionClose() ||
		len(got.Peek("X-Of-Before")) != 0 || len(got.Peek("Transfer-Encoding")) != len(want.Peek("Transfer-Encoding")) {
		t.Errorf("%q is read as %q, %d bytes left, and by fasthttp as %q, %d left", head, got.String(), br.Buffered(), want.String(), other.Buffered())
	}
	return true
}

func TestPlainHead(t *testing.T) {
	for _, h := range heads {
		t.Run(h.name, func(t *testing.T) {
			if plain := like(t, h.head); plain != h.plain {
				t.Errorf("plain %t, want %t", plain, h.plain)
			}
		})
	}
}

func FuzzPlainHead(f *testing.F) {
	for _, h := range heads {
		f.Add(h.head)
	}
	f.Fuzz(func(t *testing.T, head string) {
		if len(head) < 2000 { // a buffer's
			like(t, head)
		}
	})
}

func BenchmarkHead(b *testing.B) {
	var h fasthttp.ResponseHeader
	in := strings.NewReader("")
	br := bufio.NewReader(in)
	for _, bm := range []struct {
		name string
		read func() bool
	}{
		{"plain", func() bool { return readPlainHead(br, &h) }},
		{"fasthttp", func() bool { return h.Read(br) == nil }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				in.Reset(uvicornHead)
				br.Reset(in)
				_, _ = br.Peek(1)
				if !bm.read() {
					b.Fatal("not read")
				}
			}
		})
	}
}
