package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/valyala/fasthttp"

	"pilotlight/backends"
	"pilotlight/backends/transport"
	"pilotlight/gateway/jsonbody"
	"pilotlight/gateway/sse"
)

// answer passes on an answer in one piece: with the model's name as the client knows it, errors in OpenAI's shape.
func (x *exchange) answer(ctx *fasthttp.RequestCtx) error {
	// The response's own buffer takes the engine's body: it is kept from request to request, and small.
	body, err := x.readAnswer(ctx.Response.SwapBody(nil)[:0])
	ctx.Response.SwapBody(body)
	if err != nil {
		return err
	}
	if err := x.refusal(body); err != nil {
		return err
	}
	x.rec.trace.answer(body)
	x.learn(body, false)
	x.meterAnswer(body)
	if x.stream {
		return errNotStream // SDKs that asked for a stream find nothing in anything else, and do not complain (facts/clients.md §1.4)
	}
	copyHeaders(&ctx.Response.Header, &x.call.Header)
	labelled := isJSON(x.call.Header.ContentType())
	if !labelled && json.Valid(body) {
		// Under another label, or none, openai-node hands out a string and openai-go an error (facts/clients.md §1.4).
		ctx.Response.Header.SetContentType("application/json")
		labelled = true
	}
	if labelled && !x.echoes() {
		if restored := x.restoreModel(body); len(body) == 0 || len(restored) > 0 && &restored[0] != &body[0] {
			ctx.Response.SwapBody(restored)
		}
	}
	ctx.SetStatusCode(x.status)
	return nil
}

// echoes tells whether the engine answers with the model's name as the client wrote it: where SGLang generates text, it repeats what it
// was sent; embeddings are answered with the model's path (facts/sglang.md §2.4).
func (x *exchange) echoes() bool {
	e := x.target.Transport().Endpoint()
	return x.route.stream && e.Engine == backends.EngineSGLang && (e.ServedName == "" || e.ServedName == x.asked)
}

// refusal is the error that the engine's answer tells of; nil if it is none.
func (x *exchange) refusal(body []byte) error {
	switch {
	case x.status >= 400 && x.status <= 599:
		return engineError(sse.ParseError(x.status, body), x.status)
	case x.status < 200 || x.status >= 300:
		// No use to a client: a redirect would lead it into our network, and a switch of protocols was not asked for.
		return errEngineGone.withCause(fmt.Errorf("the engine answered %d", x.status))
	}
	return nil
}

// restoreModel puts the name that the client used back into an answer, where the engine gave another.
func (x *exchange) restoreModel(body []byte) []byte {
	if start, end, ok := jsonbody.TopLevelString(body, "model"); ok && string(jsonbody.StringValue(body[start:end])) == x.asked {
		return body
	}
	return sse.RewriteModelJSON(make([]byte, 0, len(body)+len(x.asked)), body, x.asked)
}

// errAgain says that the answer broke off, nothing of it was passed on, and the request is being sent again.
var errAgain = errors.New("sent again")

// readAnswer appends the whole body of the engine's answer to body.
func (x *exchange) readAnswer(body []byte) ([]byte, error) {
	size := x.call.Header.ContentLength()
	if size > maxAnswerBytes {
		return body, errEngineTooLong
	}
	// +1: the end is seen without growing. What is only announced gets no memory.
	body = slices.Grow(body, min(max(size+1, 1024), 1<<20))
	for {
		end, reason := x.deadline, errRequestTimeout
		if !x.call.Ready() {
			end, reason = x.earliest(time.Now().Add(x.model.Timeouts.IdleStream), x.deadline, errRequestTimeout)
		}
		n, err := x.call.Read(body[len(body):cap(body)], end)
		body = body[:len(body)+n]
		switch {
		case err == io.EOF:
			if x.call.EndsWithConnection() && isJSON(x.call.Header.ContentType()) && !json.Valid(body) {
				return body, errEngineGone.withCause(errors.New("the engine's answer ends too early"))
			}
			return body, nil
		case err == transport.ErrNotYet:
			if reason != nil {
				return body, reason
			}
			return body, errStalled
		case err != nil:
			if err := x.callFailed(err); err != nil {
				return body, err
			}
			return body, errAgain
		}
		if len(body) > maxAnswerBytes {
			return body, errEngineTooLong
		}
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
	}
}

// dropped tells the engine's headers that are not the client's business: hop-by-hop ones, and those that the edge sets itself.
// The engine's CORS headers would double with those of a browser-facing edge (facts/clients.md §3).
func dropped(key []byte) bool {
	switch string(key) {
	case "Content-Length", "Server", "Date", "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "X-Request-Id", "Set-Cookie", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials",
		"Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Expose-Headers", "Access-Control-Max-Age",
		"Retry-After", "X-Should-Retry", "X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests",
		"X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens":
		return true
	}
	return false
}

func copyHeaders(dst, src *fasthttp.ResponseHeader) {
	for key, value := range src.All() {
		switch {
		case string(key) == fasthttp.HeaderContentType:
			dst.SetContentTypeBytes(value) // most have no other
		case !dropped(key):
			dst.SetBytesKV(key, value)
		}
	}
}

func isEventStream(contentType []byte) bool {
	return bytes.HasPrefix(contentType, []byte("text/event-stream"))
}

func isJSON(contentType []byte) bool { return bytes.HasPrefix(contentType, []byte("application/json")) }
