// Package gateway is the edge: OpenAI's API on fasthttp, in front of the replicas that the activator hands out. It finds the model in
// the body, holds requests while a model starts, relays streams, rewrites engines' errors, notices clients that leave, and writes the
// access log and the metrics. It decides nothing about replicas and knows no configuration file.
//
// One handler function serves everything (Gateway.serve); an inference request reads top to bottom in Gateway.infer. Request
// state belongs to the connection's goroutine; what the disconnect watcher touches is guarded by the exchange's mutex.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/metric"

	"pilotlight/auth"
	"pilotlight/router"
)

// Identifier tells whose key was presented. *auth.Keys is one.
type Identifier interface {
	Identify(presented []byte, now time.Time) (auth.Identity, error)
}

// Options of a Gateway. Keys and Meter are required.
type Options struct {
	Config Config
	Keys   Identifier
	Meter  metric.Meter
	// Logger gets what concerns the edge itself; nil: nothing.
	Logger *slog.Logger
	// AccessLog gets one record per request while Config.AccessLog is set; nil: none.
	AccessLog *slog.Logger
}

// Gateway serves clients. SetModels may be called at any time.
type Gateway struct {
	keys      Identifier
	logger    *slog.Logger
	accessLog *slog.Logger
	maxBody   atomic.Int64 // bytes
	logging   atomic.Bool  // of accesses
	metrics   *instruments
	server    *fasthttp.Server

	table        atomic.Pointer[router.Table[*Model]]
	requiresAuth atomic.Bool // some model does

	open       atomic.Int64 // client connections
	background sync.WaitGroup
	life       context.Context // ends when the gateway is closed
	end        context.CancelFunc
}

const (
	// readBufferSize is also the limit of a request's head: room for a large JWT.
	readBufferSize = 16 << 10
	// idleTimeout exceeds what clients and load balancers keep connections for (Go 90 s, GCP 600 s; facts/clients.md §1.5, §2.4),
	// so that they close first and never send into a connection that is being closed.
	idleTimeout = 620 * time.Second
	// headTimeout bounds reading a request's head, bodyTimeout the whole of it.
	headTimeout = 30 * time.Second
	bodyTimeout = 5 * time.Minute
)

// New makes a gateway without models.
func New(o Options) (*Gateway, error) {
	if o.Keys == nil || o.Meter == nil {
		return nil, errors.New("gateway: keys and a meter are required")
	}
	g := &Gateway{keys: o.Keys, logger: o.Logger, accessLog: o.AccessLog}
	if g.logger == nil {
		g.logger = slog.New(slog.DiscardHandler)
	}
	if g.accessLog == nil {
		g.accessLog = slog.New(slog.DiscardHandler)
	}
	g.Adjust(o.Config)
	g.life, g.end = context.WithCancel(context.Background())
	var err error
	if g.metrics, err = newInstruments(o.Meter, &g.open); err != nil {
		return nil, err
	}
	if err := g.SetModels(nil); err != nil {
		return nil, err
	}
	g.server = &fasthttp.Server{
		Handler:        g.serve,
		ErrorHandler:   g.unreadable,
		ReadBufferSize: readBufferSize,
		ReadTimeout:    headTimeout,
		IdleTimeout:    idleTimeout,
		HeaderReceived: func(*fasthttp.RequestHeader) fasthttp.RequestConfig {
			return fasthttp.RequestConfig{ReadTimeout: bodyTimeout, MaxRequestBodySize: int(g.maxBody.Load())}
		},
		// Bodies are JSON, whatever a client's content type says; a form is never parsed.
		DisablePreParseMultipartForm: true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		SecureErrorLogMessage:        true, // a head that cannot be parsed may hold a key
		CloseOnShutdown:              true,
		Logger:                       serverLog{g.logger},
	}
	fasthttp.SetBodySizePoolLimit(1<<20, 1<<20)
	return g, nil
}

// SetModels replaces what is served. Requests in progress keep the model that they began with.
func (g *Gateway) SetModels(models []*Model) error {
	entries := make([]router.Entry[*Model], len(models))
	auth := false
	for i, m := range models {
		m.prepare()
		entries[i] = router.Entry[*Model]{Names: m.names(), Model: m}
		auth = auth || m.RequiresAuth
	}
	table, err := router.NewTable(entries)
	if err != nil {
		return err
	}
	g.table.Store(table)
	g.requiresAuth.Store(auth)
	return nil
}

// Adjust takes over the parts of a configuration that can change while serving: the body limit and the access log.
func (g *Gateway) Adjust(c Config) {
	if c.MaxBodyBytes <= 0 {
		c.MaxBodyBytes = DefaultMaxBodyBytes
	}
	g.maxBody.Store(int64(c.MaxBodyBytes))
	g.logging.Store(c.AccessLog)
}

// Serve accepts connections until Shutdown. It returns nil after Shutdown.
func (g *Gateway) Serve(ln net.Listener) error {
	h, err := newHangups()
	if err != nil {
		return fmt.Errorf("watching for clients that leave: %w", err)
	}
	defer h.close()
	return g.server.Serve(&watchedListener{Listener: ln, hangups: h, open: &g.open})
}

// Shutdown stops accepting and waits until requests in progress have ended, or ctx has.
func (g *Gateway) Shutdown(ctx context.Context) error {
	err := g.server.ShutdownWithContext(ctx)
	g.end()
	g.background.Wait()
	return err
}

// Connections is the number of clients connected.
func (g *Gateway) Connections() int64 { return g.open.Load() }

func (g *Gateway) backgroundContext(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(g.life, d)
}

// serve is the whole edge: every request passes here.
func (g *Gateway) serve(ctx *fasthttp.RequestCtx) {
	id := requestID(ctx.Request.Header.Peek(headerRequestID))
	ctx.Response.Header.Set(headerRequestID, id)
	r, rest := resolveRoute(ctx.Request.Header.RequestURI())
	method := ctx.Method()
	rec := record{start: time.Now(), id: id, route: r, conn: watched(ctx)}
	switch {
	case r == routeNone:
		g.refuse(ctx, &rec, errUnknownRoute)
	case string(method) == fasthttp.MethodOptions:
		// No CORS headers: pages of other origins are not served.
		ctx.Response.Header.Set("Allow", r.methods)
		ctx.SetStatusCode(fasthttp.StatusNoContent)
	case !r.allows(method):
		ctx.Response.Header.Set("Allow", r.methods)
		g.refuse(ctx, &rec, errMethod)
	case r.endpoint == endpointInference:
		g.infer(ctx, r, id)
	case r.endpoint == endpointHealth:
		writeJSON(ctx, map[string]string{"status": "ok"})
	case r.endpoint == endpointStored:
		g.refuse(ctx, &rec, errStored)
	default:
		g.models(ctx, &rec, rest)
	}
}

// refuse answers with an error before a request has reached a model.
func (g *Gateway) refuse(ctx *fasthttp.RequestCtx, rec *record, err error) {
	rec.failure = asAPIError(err)
	rec.failure.write(&ctx.Response)
	rec.duration = time.Since(rec.start)
	rec.status, rec.bytesOut = ctx.Response.StatusCode(), len(ctx.Response.Body())
	g.log(rec)
}

// unreadable answers what fasthttp could not read as a request. The connection is closed afterwards.
func (g *Gateway) unreadable(ctx *fasthttp.RequestCtx, err error) {
	e := &apiError{Status: 400, Type: typeInvalidRequest, Code: "invalid_http", Cause: err,
		Message: "This is not an HTTP request that this endpoint understands."}
	var small *fasthttp.ErrSmallBuffer
	var netErr net.Error
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		e = errBodyTooLarge(int(g.maxBody.Load()))
	case errors.As(err, &small):
		e = &apiError{Status: 431, Type: typeInvalidRequest, Code: "headers_too_large",
			Message: fmt.Sprintf("The request's headers are larger than %d bytes.", readBufferSize)}
	case errors.As(err, &netErr) && netErr.Timeout():
		e = &apiError{Status: 408, Type: typeInvalidRequest, Code: "request_read_timeout",
			Message: "The request did not arrive in time."}
	}
	if c, ok := ctx.Conn().(*clientConn); ok {
		c.linger.Store(true) // it may still be sending; the answer must survive that
	}
	rec := record{start: time.Now(), id: newHexID(), route: routeNone}
	ctx.Response.Header.Set(headerRequestID, rec.id)
	g.refuse(ctx, &rec, e)
}

// watched is the connection of a request; Serve has wrapped them all.
func watched(ctx *fasthttp.RequestCtx) *clientConn {
	c, ok := ctx.Conn().(*clientConn)
	if !ok {
		panic("BUG: a connection that Serve has not wrapped")
	}
	return c
}

// serverLog takes fasthttp's own messages.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Printf(format string, args ...any) {
	l.log.Debug("http server", "message", fmt.Sprintf(format, args...))
}
