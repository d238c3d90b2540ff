package gateway

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"pilotlight/activator"
	"pilotlight/auth"
	"pilotlight/backends/transport"
	"pilotlight/gateway/jsonbody"
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
	x.route = rec.route

	identity, identifyErr := g.identify(&ctx.Request.Header, start, rec.conn)
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
	wish, hint, apiErr := waitHeaders(&ctx.Request.Header)
	if apiErr != nil {
		g.refuse(ctx, rec, apiErr)
		return
	}
	x.model = model
	x.readSession(&ctx.Request.Header)
	if refused := x.admit(ctx, identity); refused != nil {
		g.refuse(ctx, rec, refused)
		return
	}
	model = x.spread(model)
	x.model, x.origin, rec.model = model, model, model
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
again:
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
		if err = x.answer(ctx); err == errAgain {
			goto again
		}
	}
	if err != nil && x.fallBack(err) {
		x.body.reset()
		goto again
	}
	if err != nil {
		failure := asAPIError(err)
		failure.write(&ctx.Response)
		rec.failure = failure
	}
	x.explain(&ctx.Response.Header)
	settled = true
	conn.end()
	now := time.Now()
	conn.heard(now)
	x.report(outcome(rec.failure), now)
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

// identify reads the caller's key from the places where clients put it. conn remembers the last one, and its address answers for wrong
// ones; nil: nobody does.
func (g *Gateway) identify(h *fasthttp.RequestHeader, now time.Time, conn *clientConn) (identity auth.Identity, _ *apiError) {
	key := presentedKey(h)
	if len(key) == 0 {
		return auth.Anonymous, errNoKey
	}
	var err error
	if keys, ok := g.keys.(rememberer); ok && conn != nil {
		identity, err = keys.IdentifyAgain(key, now, &conn.key)
	} else {
		identity, err = g.keys.Identify(key, now)
	}
	if err != nil {
		failure := identifyError(err)
		if conn != nil && failure.Status == fasthttp.StatusUnauthorized {
			if wait := g.tenants.WrongKey(g.clientAddress(conn, h), now); wait > 0 {
				failure = errManyWrongKeys.withCause(err)
				failure.RetryAfter = wait
			}
		}
		return auth.Anonymous, failure
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
