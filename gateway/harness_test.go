package gateway

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"

	"pilotlight/activator"
	"pilotlight/auth"
	"pilotlight/auth/tenants"
	"pilotlight/backends"
	"pilotlight/backends/transport"
	"pilotlight/gateway/histogram"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp's process-wide clock for the Date header; started once, never stopped.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		// fasthttp's cleaner of idle workers sleeps for 10 s before it notices that its server has ended.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// fakeKeys knows one key per tenant: "key-TENANT".
type fakeKeys struct{}

func (fakeKeys) Identify(presented []byte, _ time.Time) (auth.Identity, error) {
	tenant, ok := strings.CutPrefix(string(presented), "key-")
	if tenant == "panic" {
		panic("BUG: made by the test")
	}
	if !ok {
		return auth.Identity{}, auth.ErrInvalidKey
	}
	return auth.Identity{Tenant: tenant, KeyID: "id-" + tenant}, nil
}

// fakeInstance is a replica that is an address.
type fakeInstance struct {
	pool   atomic.Pointer[transport.Pool]
	exited chan struct{}
	once   sync.Once
	limit  int
}

func (i *fakeInstance) Transport() *transport.Pool  { return i.pool.Load() }
func (i *fakeInstance) Exited() <-chan struct{}     { return i.exited }
func (i *fakeInstance) Cause() error                { return errors.New("killed by the test") }
func (i *fakeInstance) Concurrency() int            { return i.limit }
func (i *fakeInstance) Sleep(context.Context) error { return errors.New("no sleep") }
func (i *fakeInstance) Wake(context.Context) error  { return errors.New("no wake") }
func (i *fakeInstance) die()                        { i.once.Do(func() { close(i.exited) }) }
func (i *fakeInstance) Stop(context.Context, bool) error {
	i.die()
	i.pool.Load().Close()
	return nil
}

// fakeLauncher starts replicas that lead to one address, after whatever start says.
type fakeLauncher struct {
	endpoint backends.Endpoint
	limit    int
	start    func(ctx context.Context, n int, progress func(activator.Progress)) error

	mu        sync.Mutex
	instances []*fakeInstance
}

func (l *fakeLauncher) Launch(ctx context.Context, _ activator.Start, progress func(activator.Progress)) (activator.Instance, error) {
	l.mu.Lock()
	n := len(l.instances)
	i := &fakeInstance{exited: make(chan struct{}), limit: l.limit}
	i.pool.Store(transport.New(transport.Options{Endpoint: l.endpoint}))
	l.instances = append(l.instances, i)
	l.mu.Unlock()
	if l.start != nil {
		if err := l.start(ctx, n, progress); err != nil {
			return nil, err
		}
	}
	return i, nil
}

func (l *fakeLauncher) starts() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.instances)
}

func (l *fakeLauncher) last() *fakeInstance {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.instances[len(l.instances)-1]
}

// edge is a gateway in front of a scripted engine.
type edge struct {
	t        testing.TB
	url      string
	addr     string
	gateway  *Gateway
	model    *Model
	launcher *fakeLauncher
	log      *recorder
	client   *http.Client
	tls      *tls.Config // of clients; nil: not encrypted
}

type edgeOptions struct {
	engine   backends.Engine // default: sglang
	served   string          // default: the model's id
	model    Model           // Cold and Timeouts default
	config   activator.Config
	body     int
	limit    int
	start    func(ctx context.Context, n int, progress func(activator.Progress)) error
	more     []*Model
	rules    tenants.Rules
	keys     Identifier // nil: fakeKeys
	noEngine bool       // the engine's address refuses connections
	// engineBuffer is what the engine's sockets hold in bytes; 0: as much as the kernel likes, which is megabytes.
	engineBuffer int
	secure       bool // clients encrypt
	// headTimeout and bodyTimeout replace the gateway's own; 0: they do not.
	headTimeout time.Duration
	bodyTimeout time.Duration
	accepted    func(*net.TCPConn)
	launcher    activator.Launcher // replaces the one that leads to the engine
}

// newEdge starts a gateway with one model, "test/model:1b" alias "alias", whose engine is handler.
func newEdge(t testing.TB, o edgeOptions, handler http.Handler) *edge {
	t.Helper()
	engine := httptest.NewUnstartedServer(handler)
	engine.Config.IdleTimeout = 5 * time.Second // as SGLang
	if o.engineBuffer > 0 {
		engine.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			if err := c.(*net.TCPConn).SetWriteBuffer(o.engineBuffer); err != nil {
				t.Error(err)
			}
			return ctx
		}
	}
	engine.Start()
	if o.engine == "" {
		o.engine = backends.EngineSGLang
	}
	if o.model.ID == "" {
		o.model.ID = "test/model:1b"
	}
	if o.served == "" {
		o.served = o.model.ID
	}
	if o.model.Cold == (Cold{}) {
		o.model.Cold = DefaultCold()
	}
	if o.model.Timeouts == (Timeouts{}) {
		o.model.Timeouts = DefaultTimeouts()
	}
	if o.config == (activator.Config{}) {
		o.config = activator.DefaultConfig()
	}
	l := &fakeLauncher{limit: o.limit, start: o.start,
		endpoint: backends.Endpoint{Addr: engine.Listener.Addr().String(), APIKey: "engine-key", Engine: o.engine, ServedName: o.served}}
	if o.noEngine {
		engine.Close()
	}
	var launcher activator.Launcher = l
	if o.launcher != nil {
		launcher = o.launcher
	}
	act, err := activator.New(activator.Options{Name: "test", Config: o.config, Launcher: launcher, SpecHash: "1"})
	if err != nil {
		t.Fatal(err)
	}
	o.model.Activator = act
	rec := &recorder{}
	options := Options{Config: Config{MaxBodyBytes: o.body, AccessLog: true}, Keys: fakeKeys{}, Meter: noop.NewMeterProvider().Meter("test"), Histograms: histogram.NewSet("test"),
		Logger: slog.New(slog.NewTextHandler(rec, &slog.HandlerOptions{Level: slog.LevelDebug})), AccessLog: rec}
	registry, err := tenants.New(o.rules, time.Now(), [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	options.Tenants = registry
	if o.keys != nil {
		options.Keys = o.keys
	}
	e := &edge{t: t, launcher: l, log: rec, client: http.DefaultClient}
	if o.secure {
		var certificate tls.Certificate
		certificate, e.tls = selfSigned(t)
		options.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil }
		e.client = &http.Client{Transport: &http.Transport{TLSClientConfig: e.tls}}
	}
	g, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	if o.headTimeout != 0 {
		g.server.ReadTimeout = o.headTimeout
	}
	if o.bodyTimeout != 0 {
		g.bodyTimeout = o.bodyTimeout
	}
	model := o.model
	if err := g.SetModels(append([]*Model{&model}, o.more...)); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(tunedListener{ln, o.accepted}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		act.Close(ctx)
		e.client.CloseIdleConnections()
		if err := g.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		engine.CloseClientConnections()
		engine.Close()
	})
	e.addr, e.gateway, e.model = ln.Addr().String(), g, &model
	e.url = "http://" + e.addr
	if o.secure {
		e.url = "https://" + e.addr
	}
	return e
}

// halfCloser is a client's connection, which can end its own direction alone: by a FIN, under TLS by close_notify.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// connect connects as the edge's clients do.
func (e *edge) connect(t testing.TB) halfCloser {
	t.Helper()
	nc, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := nc.(*net.TCPConn)
	if e.tls == nil {
		return c
	}
	secure := tls.Client(c, e.tls)
	if err := secure.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return secure
}

// tunedListener sets up accepted connections.
type tunedListener struct {
	net.Listener
	accepted func(*net.TCPConn)
}

func (l tunedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.accepted != nil {
		l.accepted(c.(*net.TCPConn))
	}
	return c, err
}

// recorder keeps what was logged.
type recorder struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// request sends one request and reads the whole answer.
func (e *edge) request(method, path, body string, headers ...string) (*http.Response, string) {
	e.t.Helper()
	req, err := http.NewRequest(method, e.url+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer key-a")
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	resp, err := e.client.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp, string(b) + "<" + err.Error() + ">"
	}
	return resp, string(b)
}

func (e *edge) chat(body string, headers ...string) (*http.Response, string) {
	e.t.Helper()
	return e.request("POST", "/v1/chat/completions", body, headers...)
}

// openAIError decodes the error object that every failure must carry.
func openAIError(t *testing.T, body string) (out struct{ Message, Type, Param, Code string }) {
	t.Helper()
	var doc struct {
		Error map[string]any `json:"error"`
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatalf("the error is no JSON: %v\n%s", err, body)
	}
	for _, member := range []string{"message", "type", "param", "code"} {
		if _, ok := doc.Error[member]; !ok {
			t.Errorf("the error has no %s: %s", member, body)
		}
	}
	str := func(k string) string {
		switch v := doc.Error[k].(type) {
		case string:
			return v
		case nil:
			return ""
		default:
			t.Errorf("%s is a %T in %s", k, v, body)
			return ""
		}
	}
	out.Message, out.Type, out.Param, out.Code = str("message"), str("type"), str("param"), str("code")
	return out
}

// settles waits for a condition that follows soon.
func settles(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// raw sends bytes as they are and reads until the connection ends.
func (e *edge) raw(request string) string {
	e.t.Helper()
	c := e.connect(e.t)
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		e.t.Fatal(err)
	}
	b, _ := io.ReadAll(c) // a reset after the answer is still an answer
	return string(b)
}
