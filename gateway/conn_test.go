package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// pairs makes a watched connection and its client's end.
func watchedPair(t *testing.T, l *watchedListener) (server *clientConn, client *net.TCPConn) {
	t.Helper()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*clientConn), nc.(*net.TCPConn)
}

func newWatched(t *testing.T, ln net.Listener) *watchedListener {
	t.Helper()
	h, err := newHangups()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return &watchedListener{Listener: ln, hangups: h, open: new(atomic.Int64), log: slog.New(slog.DiscardHandler)}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// The news that a client has left may be read when its connection is closed already and its descriptor serves another client.
func TestLateNewsOfLeavingTellsNobodyElse(t *testing.T) {
	l := newWatched(t, listen(t))
	first, client := watchedPair(t, l)
	fd := func(c *clientConn) (n uintptr) {
		c.raw.Control(func(fd uintptr) { n = fd })
		return n
	}
	// The report as the loop would get it, held back while the connection goes and another takes its descriptor.
	old := fd(first)
	late := []unix.EpollEvent{data(first.token, unix.EPOLLRDHUP)}
	client.Close()
	first.Close()
	var second *clientConn
	for range 50 {
		c, _ := watchedPair(t, l)
		if fd(c) == old {
			second = c
			break
		}
	}
	if second == nil {
		t.Skip("the system did not give the descriptor out again")
	}
	l.hangups.tell(late)
	second.mu.Lock()
	defer second.mu.Unlock()
	if second.gone {
		t.Error("a client was taken for one that had left before it came")
	}
}

// errListener fails to accept, a few times.
type errListener struct {
	net.Listener
	errs []error
}

func (l *errListener) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
	}
	return l.Listener.Accept()
}

func TestAcceptOutlivesScarcity(t *testing.T) {
	ln := listen(t)
	l := newWatched(t, &errListener{ln, []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}})
	c, client := watchedPair(t, l) // fails the test if Accept gives an error
	io.WriteString(client, "x")
	if n, err := c.Read(make([]byte, 1)); n != 1 {
		t.Error(err)
	}
	l.Listener = &errListener{ln, []error{syscall.EBADF}}
	if _, err := l.Accept(); !errors.Is(err, syscall.EBADF) {
		t.Errorf("a broken listener gives %v", err)
	}
}

// Deadlines of writes are armed for one answer and must not hit a later one on the same connection.
func TestWriteDeadlineOfEarlierAnswerIsForgotten(t *testing.T) {
	l := newWatched(t, listen(t))
	c, client := watchedPair(t, l)
	go io.Copy(io.Discard, client)
	write := func(what string, limit time.Duration) {
		t.Helper()
		c.stall.Store(int64(limit))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	write("short limit", 40*time.Millisecond)
	write("long limit soon after", time.Hour)
	time.Sleep(60 * time.Millisecond)
	write("long limit, when the short one is over", time.Hour)
	write("short limit", 40*time.Millisecond)
	time.Sleep(60 * time.Millisecond)
	write("an error answer, whose limit nobody has set", 40*time.Millisecond)
}

// A large answer to a slow client goes on for longer than the limit, as long as it goes on.
func TestSlowIsNotStalled(t *testing.T) {
	l := newWatched(t, listen(t))
	c, client := watchedPair(t, l)
	c.stall.Store(int64(time.Second)) // a busy machine may keep the reader from its turn for a while
	const size = 48 << 20             // buffers of both ends take up to 10 MiB of it at once
	go func() {
		buf := make([]byte, 512<<10)
		for {
			if _, err := io.ReadFull(client, buf); err != nil {
				return
			}
			time.Sleep(25 * time.Millisecond)
		}
	}()
	start := time.Now()
	if n, err := c.Write(make([]byte, size)); err != nil {
		t.Errorf("cut after %d of %d bytes: %v", n, size, err)
	}
	if d := time.Since(start); d < 1200*time.Millisecond {
		t.Errorf("took %v, too short to prove anything", d)
	}
	// And one that does not go on ends.
	stuck, _ := watchedPair(t, l)
	stuck.stall.Store(int64(100 * time.Millisecond))
	if _, err := stuck.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a client that does not read: %v", err)
	}
}

// nginx speaks HTTP/1.0 to its upstreams unless told otherwise.
func TestStreamToHTTP10(t *testing.T) {
	for _, header := range []string{"", "Connection: keep-alive\r\n", "Connection: close\r\n"} {
		e := newEdge(t, edgeOptions{}, &strictEngine{})
		got := e.raw(strings.Replace(sized(keyed(chatLine)+header, `{"model":"test/model:1b","marker":"m1","stream":true}`), "HTTP/1.1", "HTTP/1.0", 1))
		head, body, _ := strings.Cut(got, "\r\n\r\n")
		if want := "data: {\"id\":\"x\",\"model\":\"test/model:1b\",\"marker\":\"m1\"}\n\ndata: [DONE]\n\n"; body != want {
			t.Errorf("body %q", body)
		}
		lower := strings.ToLower(head)
		for _, want := range []string{"http/1.1 200 ok", "connection: close", "content-type: text/event-stream", "x-request-id: ", "date: "} {
			if !strings.Contains(lower, want) {
				t.Errorf("no %q in %q", want, head)
			}
		}
		for _, bad := range []string{"transfer-encoding", "content-length", "keep-alive"} {
			if strings.Contains(lower, bad) {
				t.Errorf("%q in %q", bad, head)
			}
		}
		settles(t, "the lease is back", func() bool { return e.inFlight() == 0 })
		if !strings.Contains(e.log.String(), `"status":200`) {
			t.Error("not in the access log")
		}
	}
}

// An early HTTP/1.0 stream, whose engine breaks off, ends with an error that can be read.
func TestBrokenStreamToHTTP10(t *testing.T) {
	e := newEdge(t, edgeOptions{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: {\"a\":1}\n\n")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	got := e.raw(strings.Replace(sized(keyed(chatLine), `{"model":"test/model:1b","stream":true}`), "HTTP/1.1", "HTTP/1.0", 1))
	if !strings.Contains(got, "data: {\"error\":{") || strings.Contains(got, "[DONE]") || !strings.HasSuffix(got, "}}\n\n") {
		t.Errorf("got %q", got)
	}
	settles(t, "the lease is back", func() bool { return e.inFlight() == 0 })
}

// The gateway's end waits for such streams too, and cuts them when its time is over.
func TestShutdownCutsStreamToHTTP10(t *testing.T) {
	hold := make(chan struct{})
	e := newEdge(t, edgeOptions{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: {\"a\":1}\n\n")
		w.(http.Flusher).Flush()
		<-hold
	}))
	defer close(hold)
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, strings.Replace(sized(keyed(chatLine), `{"model":"test/model:1b","stream":true}`), "HTTP/1.1", "HTTP/1.0", 1))
	br := bufio.NewReader(c)
	for line := ""; line != "data: {\"a\":1}\n"; {
		if line, err = br.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	e.gateway.Shutdown(ctx)
	if d := time.Since(start); d < 100*time.Millisecond || d > 3*time.Second {
		t.Errorf("shut down after %v", d)
	}
}

// Leaving is noticed while the gateway drains, too.
func TestClientLeavesWhileShuttingDown(t *testing.T) {
	arrived, gone := make(chan struct{}), make(chan struct{})
	e := newEdge(t, edgeOptions{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/abort_request" {
			return
		}
		close(arrived)
		<-r.Context().Done()
		close(gone)
	}))
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, goodChat("m1"))
	<-arrived
	down := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		down <- e.gateway.Shutdown(ctx)
	}()
	settles(t, "no more connections are taken", func() bool {
		nc, err := net.Dial("tcp", e.addr)
		if err == nil {
			nc.Close()
		}
		return err != nil
	})
	c.Close()
	select {
	case <-gone:
	case <-time.After(2 * time.Second):
		t.Error("the engine still works for a client that has left")
	}
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// Time that a slow client takes to read is not counted as the engine's silence.
func TestSlowClientIsNotTheEnginesStall(t *testing.T) {
	const events = 12
	model := Model{Timeouts: DefaultTimeouts(), Cold: DefaultCold()}
	model.Timeouts.IdleStream = 500 * time.Millisecond
	event := "data: {\"x\":\"" + strings.Repeat("y", 1<<20) + "\"}\n\n"
	e := newEdge(t, edgeOptions{model: model, accepted: func(c *net.TCPConn) { c.SetWriteBuffer(32 << 10) }}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range events {
			io.WriteString(w, event)
		}
		io.WriteString(w, "data: [DONE]\n\n")
	}))
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.(*net.TCPConn).SetReadBuffer(128 << 10)
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, sized(keyed(chatLine)+"Connection: close\r\n", `{"model":"test/model:1b","stream":true}`))
	start, end := time.Now(), []byte(nil)
	for buf := make([]byte, 1<<20); !bytes.HasSuffix(end, []byte("0\r\n\r\n")); {
		n, err := io.ReadAtLeast(c, buf, 256<<10)
		end = append(end[max(0, len(end)-4096):], buf[:n]...)
		if err != nil {
			break
		}
		time.Sleep(40 * time.Millisecond)
	}
	if d := time.Since(start); d < model.Timeouts.IdleStream {
		t.Fatalf("took %v, too short to prove anything", d)
	}
	if !bytes.HasSuffix(end, []byte("data: [DONE]\n\n\r\n0\r\n\r\n")) {
		t.Errorf("the stream ended with %q", end[max(0, len(end)-300):])
	}
}

// An answer does not wait for the one to the next request of a pipeline.
func TestPipelinedAnswersAreNotHeldBack(t *testing.T) {
	release := make(chan struct{})
	var n atomic.Int32
	e := newEdge(t, edgeOptions{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 2 {
			<-release
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, plainAnswer)
	}))
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	io.WriteString(c, goodChat("m1")+goodChat("m2"))
	br := bufio.NewReader(c)
	for i := range 2 {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		io.Copy(io.Discard, resp.Body)
		if i == 0 {
			close(release)
		}
	}
}

// A bug that one request meets ends that request alone, and what it held is given back.
func TestPanicEndsOneRequest(t *testing.T) {
	e := newEdge(t, edgeOptions{}, says(200, "application/json", plainAnswer))
	if resp, _ := e.chat(chatBody("m")); resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	check := func(what string, resp *http.Response, body string) {
		t.Helper()
		if resp.StatusCode != 500 || openAIError(t, body).Code != "internal_error" || resp.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %d %s", what, resp.StatusCode, body)
		}
		if e.inFlight() != 0 {
			t.Errorf("%s: a lease is lost", what)
		}
	}
	resp, body := e.chat(chatBody("m"), "Authorization", "Bearer key-panic")
	check("before a lease", resp, body)
	// A replica without a transport: the panic comes while a lease is held.
	i := e.launcher.last()
	pool := i.pool.Swap(nil)
	resp, body = e.chat(chatBody("m"))
	check("with a lease", resp, body)
	i.pool.Store(pool)
	if resp, body := e.chat(chatBody("m")); resp.StatusCode != 200 {
		t.Errorf("afterwards: %d %s", resp.StatusCode, body)
	}
	if n := strings.Count(e.log.String(), "BUG: a request panicked"); n != 2 {
		t.Errorf("%d panics in the log, want 2", n)
	}
}

func TestServerLogQuotesNoHeader(t *testing.T) {
	var out bytes.Buffer
	l := serverLog{slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	l.Printf("error when serving %v", errors.New(`invalid header value "Bearer secret"`))
	if out.Len() > 0 {
		t.Errorf("told loudly: %s", &out)
	}
	l.Printf("error when serving %v", &fasthttp.ErrBodyStreamWritePanic{})
	if !strings.Contains(out.String(), "level=ERROR") {
		t.Errorf("a panic is not told: %q", &out)
	}
	l.log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l.Printf("error when serving %v", errors.New(`invalid header value "Bearer secret"`))
	if strings.Contains(out.String(), "secret") || !strings.Contains(out.String(), "malformed head") {
		t.Errorf("log: %s", &out)
	}
}

// Clients that stop reading in mid-stream cost little, and are cut after idle_stream.
func TestClientsThatStopReading(t *testing.T) {
	const clients = 200
	var cut atomic.Int32
	event := []byte("data: {\"x\":\"" + strings.Repeat("y", 4000) + "\"}\n\n")
	model := Model{Timeouts: DefaultTimeouts(), Cold: DefaultCold()}
	model.Timeouts.IdleStream = 1500 * time.Millisecond          // the engine is in this process, too, and on a busy machine slow itself
	small := func(c *net.TCPConn) { c.SetWriteBuffer(32 << 10) } // so that streams stall soon
	e := newEdge(t, edgeOptions{limit: clients, model: model, accepted: small, engineBuffer: 32 << 10}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/abort_request" {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			if _, err := w.Write(event); err != nil {
				cut.Add(1)
				return
			}
		}
	}))
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	conns := make([]net.Conn, clients)
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			c, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Error(err)
				return
			}
			c.(*net.TCPConn).SetReadBuffer(64 << 10) // a small window fills soon
			conns[i] = c
			io.WriteString(c, sized(keyed(chatLine), `{"model":"test/model:1b","stream":true}`))
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.ReadFull(c, make([]byte, 300)); err != nil { // the stream has begun; from here on nothing is read
				t.Error(err)
			}
		})
	}
	wg.Wait()
	start := time.Now()
	if t.Failed() {
		t.FailNow()
	}
	runtime.GC()
	runtime.ReadMemStats(&during)
	// Client, gateway and engine share this process; what grows is theirs together.
	if per := (int64(during.HeapInuse+during.StackInuse) - int64(before.HeapInuse+before.StackInuse)) / clients; per > 192<<10 {
		t.Errorf("%d KiB for each client that does not read", per>>10)
	}
	settles(t, "all leases are back", func() bool { return e.inFlight() == 0 })
	if d := time.Since(start); d > 2*model.Timeouts.IdleStream {
		t.Errorf("cut after %v, with an idle_stream of %v", d, model.Timeouts.IdleStream)
	}
	settles(t, "the engine is rid of all streams", func() bool { return cut.Load() == clients })
	for _, c := range conns {
		c.Close()
	}
	settles(t, "all connections are closed", func() bool { return e.gateway.Connections() == 0 })
	// On a busy machine the engine, too, may have been silent for longer than the limit.
	settles(t, "all are in the access log", func() bool {
		log := e.log.String()
		return strings.Count(log, `"error":"client_closed_request"`)+strings.Count(log, `"error":"stream_stalled"`) == clients
	})
	if resp, body := e.request("POST", "/nothing", "{}"); resp.StatusCode != 404 {
		t.Errorf("afterwards: %s", fmt.Sprint(resp.StatusCode, body))
	}
}
