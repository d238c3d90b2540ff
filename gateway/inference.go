package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"pilotlight/activator"
	"pilotlight/auth"
	"pilotlight/backends"
	"pilotlight/backends/transport"
	"pilotlight/gateway/jsonbody"
	"pilotlight/gateway/sse"
)

const (
	headerMaxWait = "X-Pilotlight-Max-Wait"
	// maxAnswerBytes bounds an answer in one piece, which is held whole because its model's name may have to be restored.
	maxAnswerBytes = 256 << 20
)

// infer serves one inference request, top to bottom: identify, sniff, resolve, authorize, acquire a lease (here a cold model
// waits), forward, stream, settle, log. A stream outlives it as the response's body; see stream.go.
func (g *Gateway) infer(ctx *fasthttp.RequestCtx, x *exchange) {
	rec := &x.rec
	start := rec.start
	rec.bytesIn = len(ctx.PostBody())
	rec.trace = g.trace(ctx, rec)
	x.route, x.start = rec.route, start

	identity, identifyErr := g.identify(&ctx.Request.Header, start, &rec.conn.key)
	asked, err := x.sniff(ctx)
	if err != nil {
		g.refuse(ctx, rec, g.firstOf(identifyErr, err))
		return
	}
	model, known, err := g.table.Load().ResolveBytes(asked)
	if err != nil {
		g.refuse(ctx, rec, g.firstOf(identifyErr, errModelNotFound(string(asked))))
		return
	}
	x.asked = known
	rec.model = model
	if identifyErr != nil && model.RequiresAuth {
		g.refuse(ctx, rec, identifyErr)
		return
	}
	rec.identity = identity
	x.identity = identity
	wish, hint, apiErr := waitHeaders(&ctx.Request.Header)
	if apiErr != nil {
		g.refuse(ctx, rec, apiErr)
		return
	}
	x.model = model
	x.deadline = start.Add(model.Timeouts.Request)
	x.waitUntil = start.Add(model.waitBudget(x.stream, wish, hint))

	conn := rec.conn
	conn.begin(x)
	g.metrics.began(model)
	rec.attempted = true
	rec.stream = x.stream
	settled := false
	defer func() {
		if !settled { // a panic: what was taken is given back, and serve tells of it
			conn.end()
			now := time.Now()
			x.finish(false, now)
			rec.failure = internalError(errPanic)
			rec.close(x, fasthttp.StatusInternalServerError, 0, now)
			g.log(rec)
		}
	}()

	until := x.deadline.Add(time.Second) // never reached: the deadline's own error comes first
	if x.stream || model.Cold.KeepAliveJSON {
		until = start.Add(model.Cold.Grace)
	}
	err = x.advance(until)
	if err == errNotYet || err == nil && x.step == stepReady && x.isStream() {
		s := x.newStream(err == errNotYet)
		if refused := s.peekError(); refused != nil {
			err = refused
		} else {
			settled, x.taken = true, true
			s.commit(ctx)
			return
		}
	}
	if err == nil {
		err = x.answer(ctx)
	}
	if err != nil {
		failure := asAPIError(err)
		failure.write(&ctx.Response)
		rec.failure = failure
	}
	settled = true
	conn.end()
	now := time.Now()
	conn.heard(now)
	x.finish(err == nil, now)
	rec.close(x, ctx.Response.StatusCode(), len(ctx.Response.Body()), now)
	g.log(rec)
}

// sniff reads what routing needs from the request and refuses what no engine could answer.
func (x *exchange) sniff(ctx *fasthttp.RequestCtx) (model []byte, err error) {
	if enc := ctx.Request.Header.ContentEncoding(); len(enc) > 0 && !bytes.EqualFold(enc, []byte("identity")) {
		return nil, errEncoded
	}
	if err := jsonbody.Scan(ctx.PostBody(), &x.fields); err != nil {
		return nil, bodyError(err)
	}
	model, err = x.fields.Model()
	if err != nil {
		return nil, bodyError(err)
	}
	stream, _, err := x.fields.Bool(jsonbody.Stream)
	if err != nil {
		return nil, bodyError(err)
	}
	x.stream = stream && x.route.stream
	if x.route.api == apiResponses {
		background, _, err := x.fields.Bool(jsonbody.Background)
		if err != nil {
			return nil, bodyError(err)
		}
		if background {
			return nil, errBackground
		}
	}
	return model, nil
}

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
			if x.clientGone() {
				return body, errClientLeft
			}
			return body, callError(err)
		}
		if len(body) > maxAnswerBytes {
			return body, errEngineTooLong
		}
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
	}
}

// isStream tells whether the engine answers with events that are to be passed on as such.
func (x *exchange) isStream() bool {
	return x.stream && x.status == fasthttp.StatusOK && isEventStream(x.call.Header.ContentType())
}

// firstOf prefers the error about the key: who may not use anything need not learn what is wrong with the rest.
func (g *Gateway) firstOf(identifyErr *apiError, err error) *apiError {
	if identifyErr != nil && g.requiresAuth.Load() {
		return identifyErr
	}
	return asAPIError(err)
}

func asAPIError(err error) *apiError {
	var e *apiError
	if errors.As(err, &e) {
		return e
	}
	return internalError(err)
}

// identify reads the caller's key from the places where clients put it. known is what the connection remembers; nil: nothing.
func (g *Gateway) identify(h *fasthttp.RequestHeader, now time.Time, known *auth.Known) (identity auth.Identity, _ *apiError) {
	key := presentedKey(h)
	if len(key) == 0 {
		return auth.Anonymous, errNoKey
	}
	var err error
	if keys, ok := g.keys.(rememberer); ok && known != nil {
		identity, err = keys.IdentifyAgain(key, now, known)
	} else {
		identity, err = g.keys.Identify(key, now)
	}
	if err != nil {
		return auth.Anonymous, identifyError(err)
	}
	return identity, nil
}

// presentedKey looks in Authorization (OpenAI, newer Anthropic), x-api-key (Anthropic) and api-key (Azure).
func presentedKey(h *fasthttp.RequestHeader) []byte {
	const scheme = "bearer "
	if v := h.Peek(fasthttp.HeaderAuthorization); len(v) > 0 {
		if len(v) > len(scheme) && bytes.EqualFold(v[:len(scheme)], []byte(scheme)) {
			return bytes.TrimSpace(v[len(scheme):])
		}
		return nil
	}
	if v := h.Peek("X-Api-Key"); len(v) > 0 {
		return v
	}
	return h.Peek("Api-Key")
}

// waitHeaders reads how long the caller is willing to wait (its own wish, -1 if none) and how long its client
// library will (the hint, -1 if none).
func waitHeaders(h *fasthttp.RequestHeader) (wish, hint time.Duration, err *apiError) {
	wish, hint = -1, -1
	if v := h.Peek(headerMaxWait); len(v) > 0 {
		d, ok := parseWait(string(v))
		if !ok {
			return 0, 0, &apiError{Status: 400, Type: typeInvalidRequest, Code: "invalid_header", Param: headerMaxWait,
				Message: headerMaxWait + " must be a duration such as 30s, or a number of seconds; 0s asks not to wait at all."}
		}
		wish = d
	}
	for _, name := range []string{"X-Stainless-Read-Timeout", "X-Stainless-Timeout"} {
		if v := h.Peek(name); len(v) > 0 {
			if seconds, e := strconv.ParseFloat(string(v), 64); e == nil && seconds > 0 && seconds < 1e6 {
				d := time.Duration(seconds * float64(time.Second))
				if hint < 0 || d < hint {
					hint = d
				}
			}
		}
	}
	return wish, hint, nil
}

func parseWait(s string) (time.Duration, bool) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		if !(seconds >= 0 && seconds < 1e6) {
			return 0, false
		}
		return time.Duration(seconds * float64(time.Second)), true
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0
}

// dropped tells the engine's headers that are not the client's business: hop-by-hop ones, and those that the edge sets itself.
// The engine's CORS headers would double with those of a browser-facing edge (facts/clients.md §3).
func dropped(key []byte) bool {
	switch string(key) {
	case "Content-Length", "Server", "Date", "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "X-Request-Id", "Set-Cookie", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials",
		"Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Expose-Headers", "Access-Control-Max-Age",
		"Retry-After", "X-Should-Retry":
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

// abort tells SGLang to stop generating for a client that left, and gives the lease back when it has.
func (g *Gateway) abort(pool *transport.Pool, rid string, lease activator.Lease) {
	g.background.Go(func() {
		defer lease.Release()
		ctx, cancel := g.backgroundContext(5 * time.Second)
		defer cancel()
		body := jsonbody.AppendString([]byte(`{"rid":`), rid)
		body = append(body, '}')
		status, _, err := pool.Do(ctx, &transport.Request{Method: "POST", Path: "/abort_request", ContentType: "application/json", Body: [][]byte{body}}, 4<<10)
		if err != nil || status != fasthttp.StatusOK {
			g.logger.Debug("abort of a request was not confirmed", "status", status, "error", err)
		}
	})
}
