// Package gateway is the edge: OpenAI's API on fasthttp, in front of the replicas that the activator hands out. It finds the model in
// the body, holds requests while a model starts, relays streams, rewrites engines' errors, notices clients that leave, and writes the
// access log and the metrics. It decides nothing about replicas and knows no configuration file.
//
// One handler function serves everything (Gateway.serve); an inference request reads top to bottom in Gateway.infer. Request
// state belongs to the connection's goroutine; what the disconnect watcher touches is guarded by the exchange's mutex.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/metric"

	"pilotlight/auth"
	"pilotlight/auth/tenants"
	"pilotlight/gateway/histogram"
	"pilotlight/router"
)

// Identifier tells whose key was presented. *auth.Keys is one.
type Identifier interface {
	Identify(presented []byte, now time.Time) (auth.Identity, error)
}

// rememberer is an Identifier that is faster for a key that the same connection has presented before. *auth.Keys is one.
type rememberer interface {
	IdentifyAgain(presented []byte, now time.Time, known *auth.Known) (auth.Identity, error)
}

// Options of a Gateway. Keys, Meter and Histograms are required.
type Options struct {
	Config Config
	Keys   Identifier
	Meter  metric.Meter
	// Histograms gets the ones that every request adds to.
	Histograms *histogram.Set
	// Tenants says what callers may do; nil: everything.
	Tenants *tenants.Registry
	// Certificate chooses what clients are shown in a TLS handshake, as tls.Config.GetCertificate does; nil: connections are not encrypted.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Logger gets what concerns the edge itself; nil: nothing.
	Logger *slog.Logger
	// AccessLog gets one line of JSON per request, in one Write, while Config.AccessLog is set; nil: none. It must be safe for
	// concurrent use, and should be buffered: requests wait for it.
	AccessLog io.Writer
}

// Gateway serves clients. SetModels may be called at any time.
type Gateway struct {
	keys      Identifier
	tenants   *tenants.Registry
	proxies   atomic.Pointer[[]netip.Prefix] // nil: none is trusted
	logger    *slog.Logger
	accessLog io.Writer    // may be nil
	maxBody   atomic.Int64 // bytes
	logging   atomic.Bool  // of accesses
	metrics   *instruments
	server    *fasthttp.Server
	tls       *tls.Config // nil: not encrypted

	tracing      atomic.Pointer[sampler] // nil: nothing is traced
	table        atomic.Pointer[router.Table[*Model]]
	requiresAuth atomic.Bool // some model does
	anyOpen      atomic.Bool // some model does not, or there is none

	bodyTimeout time.Duration // another in tests
	open        atomic.Int64  // client connections
	chunked     atomic.Int32  // bodies in chunks being read with the whole limit
	stopping    atomic.Bool
	background  sync.WaitGroup
	plain       sync.WaitGroup  // streams to HTTP/1.0 clients, which fasthttp does not wait for
	life        context.Context // ends when the gateway is closed
	end         context.CancelFunc
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
	// keptBody is the largest buffer in bytes that outlives the body it was grown for.
	keptBody = 64 << 10
)

// New makes a gateway without models.
func New(o Options) (*Gateway, error) {
	if o.Keys == nil || o.Meter == nil || o.Histograms == nil {
		return nil, errors.New("gateway: keys, a meter and histograms are required")
	}
	if o.Tenants == nil {
		var err error
		if o.Tenants, err = tenants.New(tenants.Rules{}, time.Now(), [32]byte{}); err != nil {
			return nil, err
		}
	}
	g := &Gateway{keys: o.Keys, tenants: o.Tenants, logger: o.Logger, accessLog: o.AccessLog, bodyTimeout: bodyTimeout}
	if g.logger == nil {
		g.logger = slog.New(slog.DiscardHandler)
	}
	if o.Certificate != nil {
		g.tls = serverTLS(o.Certificate)
	}
	g.Adjust(o.Config)
	g.life, g.end = context.WithCancel(context.Background())
	var err error
	if g.metrics, err = newInstruments(o.Meter, o.Histograms, &g.open); err != nil {
		return nil, err
	}
	if err := g.SetModels(nil); err != nil {
		return nil, err
	}
	g.server = &fasthttp.Server{
		Handler:        g.serve,
		ErrorHandler:   g.unreadable,
		ReadBufferSize: readBufferSize,
		// Connections that wait, for a request or for an engine, hold no buffer. It also makes fasthttp send each answer at once: it would
		// keep a short one back while another request has arrived already, and that one may wait for a model to start.
		ReduceMemoryUsage: true,
		LazyRequestTime:   true, // nobody asks fasthttp what time it is
		ReadTimeout:       headTimeout,
		IdleTimeout:       idleTimeout,
		HeaderReceived:    g.received,
		ExpectHandler:     g.expected,
		// Bodies are JSON, whatever a client's content type says; a form is never parsed.
		DisablePreParseMultipartForm: true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		SecureErrorLogMessage:        true, // a head that cannot be parsed may hold a key
		CloseOnShutdown:              true,
		Logger:                       serverLog{g.logger},
	}
	// An idle connection keeps its body buffer for up to idleTimeout: what thousands of them may keep must be small.
	fasthttp.SetBodySizePoolLimit(keptBody, keptBody)
	return g, nil
}

// SetModels replaces what is served; the models' limits are those that Options.Tenants has now. Requests in progress keep the model that they began with.
func (g *Gateway) SetModels(models []*Model) error {
	entries := make([]router.Entry[*Model], len(models))
	auth, anyOpen := false, len(models) == 0
	for i, m := range models {
		m.metrics = g.metrics.of(m.ID)
		m.account = g.tenants.Model(m.ID)
		entries[i] = router.Entry[*Model]{Names: m.names(), Model: m}
		auth, anyOpen = auth || m.RequiresAuth, anyOpen || !m.RequiresAuth
	}
	table, err := router.NewTable(entries)
	if err != nil {
		return err
	}
	g.table.Store(table)
	g.requiresAuth.Store(auth)
	g.anyOpen.Store(anyOpen)
	return nil
}

// Adjust takes over the parts of a configuration that can change while serving: the body limit, the access log, trusted proxies.
func (g *Gateway) Adjust(c Config) {
	if c.MaxBodyBytes <= 0 {
		c.MaxBodyBytes = DefaultMaxBodyBytes
	}
	g.maxBody.Store(int64(c.MaxBodyBytes))
	g.logging.Store(c.AccessLog)
	if len(c.TrustedProxies) == 0 {
		g.proxies.Store(nil)
	} else {
		g.proxies.Store(&c.TrustedProxies)
	}
}

// Serve accepts connections until Shutdown. It returns nil after Shutdown.
func (g *Gateway) Serve(ln net.Listener) error {
	h, err := newHangups()
	if err != nil {
		return fmt.Errorf("watching for clients that leave: %w", err)
	}
	defer h.close()
	if err := g.server.Serve(&watchedListener{Listener: ln, tls: g.tls, hangups: h, open: &g.open, log: g.logger}); err != nil {
		return err
	}
	if !g.stopping.Load() {
		return errors.New("the listener was closed")
	}
	// Requests in progress go on, and their clients may leave yet.
	<-g.life.Done()
	return nil
}

// Shutdown stops accepting and waits until requests in progress have ended, or ctx has.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.stopping.Store(true)
	err := g.server.ShutdownWithContext(ctx)
	plain := make(chan struct{})
	go func() {
		g.plain.Wait()
		close(plain)
	}()
	select {
	case <-plain:
	case <-ctx.Done():
	}
	g.end() // cuts them
	<-plain
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
	x := g.newExchange(ctx)
	rec := &x.rec
	defer g.survive(ctx, x)
	r, rest := resolveRoute(ctx.Request.Header.RequestURI())
	rec.route = r
	rec.conn.dropChunked()
	ctx.Response.Header.SetBytesV(headerRequestID, rec.id)
	method := ctx.Method()
	last, bad := checkHead(&ctx.Request.Header)
	if last {
		rec.conn.linger.Store(true) // what follows is not read, and must not make the answer a reset
		ctx.SetConnectionClose()
	}
	if bad != nil {
		g.refuse(ctx, rec, bad)
		return
	}
	switch {
	case r == routeNone:
		g.refuse(ctx, rec, errUnknownRoute)
	case string(method) == fasthttp.MethodOptions:
		// No CORS headers: pages of other origins are not served.
		ctx.Response.Header.Set("Allow", r.methods)
		ctx.SetStatusCode(fasthttp.StatusNoContent)
	case !r.allows(method):
		ctx.Response.Header.Set("Allow", r.methods)
		g.refuse(ctx, rec, errMethod)
	case r.endpoint == endpointInference:
		g.infer(ctx, x)
	case r.endpoint == endpointHealth:
		writeJSON(ctx, map[string]string{"status": "ok"})
	case r.endpoint == endpointStored:
		g.refuse(ctx, rec, errStored)
	default:
		g.models(ctx, rec, rest)
	}
}

// survive keeps a bug that one request meets from ending everybody else's, which is what fasthttp would do.
func (g *Gateway) survive(ctx *fasthttp.RequestCtx, x *exchange) {
	p := recover()
	if p == nil {
		x.handled()
		return
	}
	rec := &x.rec
	g.logger.Error("BUG: a request panicked", "request_id", string(rec.id), "route", rec.route.metric, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	ctx.SetConnectionClose()
	g.refuse(ctx, rec, internalError(errPanic))
}

var errPanic = errors.New("panic")

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
	conn, isConn := ctx.Conn().(*clientConn)
	if isConn && conn.aheadErr != nil {
		err = conn.aheadErr // fasthttp was told no more than not to read the body
	}
	e := errHead.withCause(readProblem(err))
	var small *fasthttp.ErrSmallBuffer
	var netErr net.Error
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		if e = g.tooLarge(&ctx.Request.Header); e.Status == errChunkedTooLarge.Status && isConn && conn.smallChunked {
			e = errChunkedTooLarge
		}
	case errors.As(err, &small):
		e = &apiError{Status: 431, Type: typeInvalidRequest, Code: "headers_too_large",
			Message: fmt.Sprintf("The request's headers are larger than %d bytes.", readBufferSize)}
	case errors.As(err, &netErr) && netErr.Timeout():
		e = &apiError{Status: 408, Type: typeInvalidRequest, Code: "request_read_timeout",
			Message: "The request did not arrive in time."}
	}
	if isConn {
		conn.linger.Store(true) // it may still be sending; the answer must survive that
	}
	rec := record{start: time.Now(), id: appendHexID(nil), route: routeNone}
	ctx.Response.Header.SetBytesV(headerRequestID, rec.id)
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

// readProblem names what kind of error err is, in words of our own: fasthttp's quote the header that they stumbled over, and that
// may be a key.
func readProblem(err error) error {
	var chunk fasthttp.ErrBrokenChunk
	var chunkPtr *fasthttp.ErrBrokenChunk
	var small *fasthttp.ErrSmallBuffer
	var netErr net.Error
	var panicked *fasthttp.ErrBodyStreamWritePanic
	switch {
	case errors.As(err, &panicked):
		return fmt.Errorf("BUG: %w", err)
	case errors.Is(err, errCut):
		return errCut
	case errors.As(err, &netErr) && netErr.Timeout():
		return errors.New("time-out")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection ended")
	case errors.As(err, &chunk), errors.As(err, &chunkPtr):
		return errors.New("broken chunk")
	case errors.Is(err, fasthttp.ErrBadTrailer):
		return errors.New("broken trailer")
	case errors.As(err, &small):
		return errors.New("head too large")
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return fasthttp.ErrBodyTooLarge
	case errors.As(err, &netErr):
		return errors.New("the connection broke")
	default:
		return errors.New("malformed head")
	}
}

// serverLog takes fasthttp's own messages.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Printf(format string, args ...any) {
	level := slog.LevelDebug
	safe := make([]any, len(args))
	for i, arg := range args {
		safe[i] = arg
		if err, ok := arg.(error); ok {
			problem := readProblem(err)
			safe[i] = problem
			if errors.As(problem, new(*fasthttp.ErrBodyStreamWritePanic)) {
				level = slog.LevelError
			}
		}
	}
	l.log.Log(context.Background(), level, "http server", "message", fmt.Sprintf(format, safe...))
}
