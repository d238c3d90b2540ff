package transport

import (
	"bufio"
	"bytes"

	"github.com/valyala/fasthttp"
)

// readPlainHead reads a buffered head of the form that engines send nearly always: a final status, Content-Type, Content-Length, and
// lines that no client is told of. Of anything else, or of less than the whole, it takes nothing and returns false: fasthttp's parser,
// which takes four times as long, then decides.
func readPlainHead(br *bufio.Reader, h *fasthttp.ResponseHeader) bool {
	b, _ := br.Peek(br.Buffered()) // no error: it is buffered
	const protocol = "HTTP/1.1 "
	if len(b) < len(protocol)+4 || string(b[:len(protocol)]) != protocol || b[len(protocol)+3] != ' ' {
		return false
	}
	status, ok := number(b[len(protocol) : len(protocol)+3])
	if !ok || status != fasthttp.StatusOK && (status < 400 || status > 599) {
		return false
	}
	_, n, ok := plainLine(b, len(protocol)+4)
	if !ok {
		return false
	}
	var contentType []byte
	length := -1
	for {
		line, next, ok := plainLine(b, n)
		if !ok {
			return false
		}
		n = next
		if len(line) == 0 {
			break
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			return false
		}
		value := bytes.Trim(line[colon+1:], " \t")
		switch name := line[:colon]; {
		case isName(name, "content-length") && length < 0:
			if length, ok = number(value); !ok {
				return false
			}
		case isName(name, "content-type") && contentType == nil && len(value) > 0:
			contentType = value
		case isName(name, "date"), isName(name, "server"):
		default:
			return false
		}
	}
	if length < 0 || contentType == nil {
		return false
	}
	h.Reset()
	h.SetStatusCode(status)
	h.SetContentTypeBytes(contentType)
	h.SetContentLength(length)
	_, _ = br.Discard(n) // no error: it is buffered
	return true
}

// plainLine is the line that begins at from, without its end, and where the next begins; false if it does not end with CR and LF, or holds
// control characters.
func plainLine(b []byte, from int) (line []byte, next int, ok bool) {
	i := bytes.IndexByte(b[from:], '\n')
	if i < 1 || b[from+i-1] != '\r' {
		return nil, 0, false
	}
	line = b[from : from+i-1]
	for _, c := range line {
		if c < ' ' || c == 0x7f {
			return nil, 0, false
		}
	}
	return line, from + i + 1, true
}

// isName compares a header's name, in whichever case, with one in lower case.
func isName(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if c != lower[i] && (c|0x20 != lower[i] || c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// number reads digits, and no more of them than any length of a body has.
func number(digits []byte) (n int, ok bool) {
	if len(digits) == 0 || len(digits) > 15 {
		return 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}
