package gateway

import (
	"bytes"
	"errors"
	"io"
	"time"
	"unsafe"

	"github.com/valyala/fasthttp"
)

// fasthttp makes room for what a body's head announces, all at once and zeroed, before a byte of it has come: 200 clients that announced 32 MiB
// each and sent nothing took 6 GiB. Here a body takes memory as it arrives. One that announces its length is read before fasthttp
// hears of it, and handed to it then; for one in chunks, whose lengths nobody can read but fasthttp, the limit is smaller.
const (
	// readAhead is the length in bytes from which bodies are read before fasthttp makes room for them.
	readAhead = 64 << 10
	// aheadPiece bounds the pieces that they are kept in, in bytes.
	aheadPiece = 4 << 20
	// smallChunked is the limit in bytes of a body in chunks, but for largeChunked of them at a time, which have the configured one.
	smallChunked = 256 << 10
	largeChunked = 16
)

// connOf finds the connection of a head that fasthttp's server has just read. Server.HeaderReceived is given no more than the head, which
// is a part of the RequestCtx that its handler will be given; the result is good until that returns.
func connOf(h *fasthttp.RequestHeader) *clientConn {
	const offset = unsafe.Offsetof(fasthttp.RequestCtx{}.Request) + unsafe.Offsetof(fasthttp.Request{}.Header)
	return watched((*fasthttp.RequestCtx)(unsafe.Add(unsafe.Pointer(h), -int(offset))))
}

// received is called when a request's head has been read, and sees to its body.
func (g *Gateway) received(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	config := fasthttp.RequestConfig{ReadTimeout: g.bodyTimeout, MaxRequestBodySize: g.bodyLimit(h)}
	switch n := h.ContentLength(); {
	case n == -1:
		if c := connOf(h); config.MaxRequestBodySize > smallChunked && !c.takeChunked(g) {
			config.MaxRequestBodySize, c.smallChunked = smallChunked, true
		}
	case n > readAhead && n <= config.MaxRequestBodySize:
		if !connOf(h).readAhead(h, n, g.bodyTimeout) {
			config.MaxRequestBodySize = 1 // no room is made for a body that will not come
		}
	}
	return config
}

// takeChunked asks for the right to a large body in chunks; dropChunked gives it back.
func (c *clientConn) takeChunked(g *Gateway) bool {
	if g.chunked.Add(1) > largeChunked {
		g.chunked.Add(-1)
		return false
	}
	c.chunked.Store(&g.chunked)
	return true
}

func (c *clientConn) dropChunked() {
	if held := c.chunked.Load(); held != nil && c.chunked.CompareAndSwap(held, nil) {
		held.Add(-1)
	}
}

// readAhead reads a body of n bytes, but for what fasthttp may have read of it already. false: it did not come, and c.aheadErr says why.
func (c *clientConn) readAhead(h *fasthttp.RequestHeader, n int, limit time.Duration) bool {
	if expect := h.Peek(fasthttp.HeaderExpect); len(expect) > 0 && bytes.EqualFold(expect, []byte("100-continue")) {
		// Nothing would come otherwise. fasthttp need not say it again.
		h.Del(fasthttp.HeaderExpect)
		if _, c.aheadErr = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"); c.aheadErr != nil {
			return false
		}
	}
	if c.aheadErr = c.SetReadDeadline(time.Now().Add(limit)); c.aheadErr != nil {
		return false
	}
	if c.aheadErr = c.arm(); c.aheadErr != nil {
		return false
	}
	// What fasthttp's buffer holds of the body is at most the whole buffer: not a byte of a next request is read here.
	size := readAhead
	for left := n - readBufferSize - len(c.rest); left > 0; {
		piece := make([]byte, min(size, left))
		for have := 0; have < len(piece); {
			m, err := c.Conn.Read(piece[have:])
			have += m
			if err != nil && have < len(piece) && !c.again(err) {
				c.ahead, c.aheadErr = nil, err
				if errors.Is(err, io.EOF) {
					c.aheadErr = io.ErrUnexpectedEOF
				}
				return false
			}
		}
		c.ahead = append(c.ahead, piece)
		left -= len(piece)
		size = min(2*size, aheadPiece)
	}
	return true
}

// takeAhead reads from what was read ahead, and forgets it piece by piece.
func (c *clientConn) takeAhead(p []byte) int {
	n := copy(p, c.ahead[0])
	if c.ahead[0] = c.ahead[0][n:]; len(c.ahead[0]) == 0 {
		c.ahead[0] = nil
		if c.ahead = c.ahead[1:]; len(c.ahead) == 0 {
			c.ahead = nil
		}
	}
	return n
}
