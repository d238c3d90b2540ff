package gateway

import (
	"bytes"
	"errors"
	"time"

	"github.com/valyala/fasthttp"
)

// maxUnknownBody bounds what is read of a request whose caller has no key, where every model asks for one. fasthttp makes room for
// the announced length before a byte of it has come, so anybody could take memory at no cost otherwise.
const maxUnknownBody = 64 << 10

var (
	errVersion = &apiError{Status: 400, Type: typeInvalidRequest, Code: "invalid_http",
		Message: "This endpoint speaks HTTP/1.1 and HTTP/1.0."}
	errHead = &apiError{Status: 400, Type: typeInvalidRequest, Code: "invalid_http",
		Message: "This is not an HTTP request that this endpoint understands."}

	errPlain = &apiError{Status: 400, Type: typeInvalidRequest, Code: "invalid_http",
		Message: "This endpoint is encrypted: its address begins with https://."}

	errBareLF   = errors.New("a line of the head does not end in CRLF")
	errSpace    = errors.New("a header's name holds a space")
	errFolded   = errors.New("a header is folded over several lines")
	errIdentity = errors.New("transfer-encoding identity")
)

// checkHead refuses what fasthttp forgives and others read differently: two readers of one head that disagree about where its lines
// end disagree about where the request ends, too (RFC 9112 §2.2, §5.2, §11.2).
//
// last: whatever follows on the connection must not be read as a request. So it is behind chunks, where fasthttp forgives what
// HAProxy does not (bare line feeds and folds in trailers, NUL in extensions, extensions without an end), and behind CONNECT, whose
// body is no body to some (RFC 9110 §9.3.6). SDKs send neither.
func checkHead(h *fasthttp.RequestHeader) (last bool, _ *apiError) {
	if v := h.Protocol(); string(v) != "HTTP/1.1" && string(v) != "HTTP/1.0" {
		return true, errVersion
	}
	last = h.IsConnect()
	raw := h.RawHeaders()
	for len(raw) > 0 {
		end := bytes.IndexByte(raw, '\n')
		if end < 0 {
			break
		}
		switch {
		case end == 0 || raw[end-1] != '\r':
			return true, errHead.withCause(errBareLF)
		case raw[0] == ' ' || raw[0] == '\t':
			return true, errHead.withCause(errFolded)
		case bytes.IndexByte(raw[:max(bytes.IndexByte(raw[:end], ':'), 0)], ' ') >= 0:
			return true, errHead.withCause(errSpace)
		case raw[0]|0x20 == 't':
			if coding, ok := transferCoding(raw[:end]); ok && !bytes.EqualFold(coding, []byte("chunked")) {
				return true, errHead.withCause(errIdentity)
			} else if ok {
				last = true
			}
		}
		raw = raw[end+1:]
	}
	return last, nil
}

// transferCoding is the value of a Transfer-Encoding line.
func transferCoding(line []byte) (value []byte, ok bool) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	return bytes.TrimSpace(value), bytes.EqualFold(name, []byte(fasthttp.HeaderTransferEncoding))
}

// bodyLimit is how much of a request's body is read.
func (g *Gateway) bodyLimit(h *fasthttp.RequestHeader) int {
	limit := int(g.maxBody.Load())
	if n := h.ContentLength(); n >= 0 && n <= maxUnknownBody || limit <= maxUnknownBody || g.anyOpen.Load() {
		return limit
	}
	if _, err := g.identify(h, time.Now(), nil); err != nil {
		return maxUnknownBody
	}
	return limit
}

// tooLarge is the answer to a body beyond the limit.
func (g *Gateway) tooLarge(h *fasthttp.RequestHeader) *apiError {
	// A chunked body's head is forgotten by now.
	if len(h.RawHeaders()) > 0 && !g.anyOpen.Load() {
		if _, err := g.identify(h, time.Now(), nil); err != nil {
			return err
		}
	}
	return errBodyTooLarge(int(g.maxBody.Load()))
}

// expected answers Expect: 100-continue: a body that would be refused is not asked for.
func (g *Gateway) expected(ctx *fasthttp.RequestCtx) int {
	h := &ctx.Request.Header
	if h.ContentLength() <= g.bodyLimit(h) {
		return fasthttp.StatusContinue
	}
	conn := watched(ctx)
	conn.linger.Store(true) // it may send the body all the same
	rec := record{start: time.Now(), id: appendRequestID(nil, h.Peek(headerRequestID)), route: routeNone, conn: conn}
	ctx.Response.Header.SetBytesV(headerRequestID, rec.id)
	g.refuse(ctx, &rec, g.tooLarge(h))
	return ctx.Response.StatusCode()
}
