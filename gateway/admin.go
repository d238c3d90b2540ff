package gateway

import (
	"context"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
)

// AdminOptions say what the admin listener shows and does. All funcs are required and must be safe for concurrent use.
type AdminOptions struct {
	// Token is asked for on everything but /healthz and /readyz; empty: nothing is asked for, which only a
	// loopback listener may do.
	Token string
	// Ready says why the gateway should get no traffic now; nil when it should.
	Ready func() error
	// State is what GET /api/state gives, as JSON.
	State func() any
	// Retry forgets a model's failure; false when there is no such model.
	Retry func(model string) bool
	// Reload reads the configuration again.
	Reload func() error
	// Metrics is the Prometheus page.
	Metrics http.Handler
	Logger  *slog.Logger
}

// Admin serves operators on a listener of its own.
type Admin struct {
	opts    AdminOptions
	token   atomic.Pointer[string]
	metrics fasthttp.RequestHandler
	server  *fasthttp.Server
}

// NewAdmin makes the admin server.
func NewAdmin(o AdminOptions) *Admin {
	a := &Admin{opts: o, metrics: fasthttpadaptor.NewFastHTTPHandler(o.Metrics)}
	a.SetToken(o.Token)
	a.server = &fasthttp.Server{
		Handler: a.serve, NoDefaultServerHeader: true, NoDefaultContentType: true, CloseOnShutdown: true,
		ReadTimeout: headTimeout, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		SecureErrorLogMessage: true, Logger: serverLog{o.Logger},
		ErrorHandler: func(ctx *fasthttp.RequestCtx, err error) {
			errHead.withCause(readProblem(err)).write(&ctx.Response)
		},
	}
	return a
}

// SetToken replaces the token.
func (a *Admin) SetToken(token string) { a.token.Store(&token) }

// Serve accepts connections until Shutdown.
func (a *Admin) Serve(ln net.Listener) error { return a.server.Serve(ln) }

// Shutdown ends it.
func (a *Admin) Shutdown(ctx context.Context) error { return a.server.ShutdownWithContext(ctx) }

var (
	errAdminToken = &apiError{Status: 401, Type: typeInvalidRequest, Code: "invalid_admin_token",
		Message: "The admin API asks for its token: Authorization: Bearer TOKEN (admin.token in the configuration)."}
	errAdminOrigin = &apiError{Status: 403, Type: typeInvalidRequest, Code: "cross_site_request",
		Message: "The admin API takes no requests from web pages."}
	errAdminRoute = &apiError{Status: 404, Type: typeInvalidRequest, Code: "unknown_url",
		Message: "The admin listener serves /healthz, /readyz, /metrics, GET /api/state, POST /api/reload and POST /api/models/NAME/retry."}
)

func (a *Admin) serve(ctx *fasthttp.RequestCtx) {
	method, path := string(ctx.Method()), string(pathOf(ctx.Request.Header.RequestURI()))
	read := method == fasthttp.MethodGet || method == fasthttp.MethodHead
	switch path {
	case "/healthz":
		writeJSON(ctx, map[string]string{"status": "ok"})
		return
	case "/readyz":
		if err := a.opts.Ready(); err != nil {
			ctx.SetStatusCode(fasthttp.StatusServiceUnavailable)
			writeJSON(ctx, map[string]string{"status": "not ready", "reason": err.Error()})
			return
		}
		writeJSON(ctx, map[string]string{"status": "ready"})
		return
	}
	if !a.admitted(&ctx.Request.Header) {
		errAdminToken.write(&ctx.Response)
		return
	}
	// A page of another site can make a browser on this machine send a simple POST, and names its origin then.
	if method == fasthttp.MethodPost && len(ctx.Request.Header.Peek("Origin")) > 0 {
		errAdminOrigin.write(&ctx.Response)
		return
	}
	model, isRetry := strings.CutSuffix(strings.TrimPrefix(path, "/api/models/"), "/retry")
	isRetry = isRetry && strings.HasPrefix(path, "/api/models/")
	switch {
	case path == "/metrics" && read:
		a.metrics(ctx)
	case path == "/api/state" && read:
		writeJSON(ctx, a.opts.State())
	case path == "/api/reload" && method == fasthttp.MethodPost:
		if err := a.opts.Reload(); err != nil {
			(&apiError{Status: 422, Type: typeInvalidRequest, Code: "invalid_configuration", Message: err.Error()}).write(&ctx.Response)
			return
		}
		writeJSON(ctx, map[string]string{"status": "reloaded"})
	case isRetry && method == fasthttp.MethodPost:
		if !a.opts.Retry(model) {
			errModelNotFound(model).write(&ctx.Response)
			return
		}
		writeJSON(ctx, map[string]string{"status": "retrying", "model": model})
	default:
		errAdminRoute.write(&ctx.Response)
	}
}

func (a *Admin) admitted(h *fasthttp.RequestHeader) bool {
	token := *a.token.Load()
	if token == "" {
		return true
	}
	given, ok := strings.CutPrefix(string(h.Peek(fasthttp.HeaderAuthorization)), "Bearer ")
	return ok && subtle.ConstantTimeCompare([]byte(given), []byte(token)) == 1
}
