package sglangsim

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrDied is returned by Serve when the server ended as a crash does: every connection closed without a word.
	ErrDied = errors.New("the simulated server died")
	// ErrDrained is returned by Serve after Drain, once the last request ended. The real process ends by SIGKILL of
	// itself here too.
	ErrDrained = errors.New("the simulated server drained and ended itself")
)

// Server is one simulated SGLang server. Its methods are safe for concurrent use; Serve is called once.
type Server struct {
	opts    Options
	handler http.Handler
	engine  *engine
	cache   *prefixCache // nil: there is none
	stats   *stats
	log     *logger
	started time.Time

	up        atomic.Bool // the warm-up has passed
	unhealthy atomic.Bool
	draining  atomic.Bool
	faultTurn atomic.Int64
	probes    atomic.Int64
	reused    atomic.Int64

	firstOne sync.Once
	first    chan struct{} // closed when a request has reached the tokenizer manager, where the signal handler is made
	firstAt  time.Time     // set before first is closed
	hung     chan struct{} // closed when the scheduler hangs
	hangOne  sync.Once
	watchdog sync.Once

	deadOne sync.Once
	dead    chan struct{} // closed at the end
	deadErr error         // set before dead is closed

	httpMu sync.Mutex // guards http
	http   *http.Server

	drainOne sync.Once
	tasks    tasks // handlers and background work

	responses responseStore
	modelMu   sync.Mutex // guards the fields below
	modelPath string
	version   string
}

// New makes a server that has loaded its model: what remains is Serve. The error is a setting that SGLang refuses.
func New(o Options) (*Server, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		opts: o, engine: newEngine(o.MaxRunningRequests, o.MaxQueuedRequests), stats: newStats(),
		log: newLogger(o.Stdout, o.Stderr, o.TPSize), started: time.Now(),
		first: make(chan struct{}), hung: make(chan struct{}), dead: make(chan struct{}),
		modelPath: o.ModelPath, version: o.WeightVersion,
	}
	if o.CacheTokens > 0 {
		s.cache = newPrefixCache(o.CacheTokens)
	}
	s.responses.byID = map[string]*storedResponse{}
	s.handler = s.chain()
	return s, nil
}

// connKey finds the per-connection counter of requests in a request's context.
type connKey struct{}

// Serve answers on ln until ctx ends (nil), the server dies (ErrDied) or a drain is over (ErrDrained). It closes ln and waits for its
// goroutines.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	srv := &http.Server{
		Handler: s.handler, IdleTimeout: s.opts.KeepAlive, Protocols: protocols, ErrorLog: discardErrors(),
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, new(atomic.Int64))
		},
	}
	if s.opts.KeepAlive <= 0 { // IdleTimeout 0 is none at all
		srv.SetKeepAlivesEnabled(false)
	}
	s.httpMu.Lock()
	s.http = srv
	s.httpMu.Unlock()
	served := make(chan error, 1)
	s.tasks.spawn(func() { served <- srv.Serve(ln) })
	s.tasks.spawn(s.warmup)
	var err error
	select {
	case <-ctx.Done():
		s.die(nil)
	case err = <-served:
		if errors.Is(err, http.ErrServerClosed) { // by shutdown, which ends the server itself
			<-s.dead
		}
		s.die(err)
	case <-s.dead:
	}
	closeErr := srv.Close()
	s.tasks.wait()
	if s.deadErr == nil {
		return closeErr
	}
	return s.deadErr
}

// shutdown closes the listener, waits for open answers and ends the server.
func (s *Server) shutdown() {
	s.httpMu.Lock()
	srv := s.http
	s.httpMu.Unlock()
	if srv != nil {
		_ = srv.Shutdown(context.Background()) // its error is the listener's, and there is no other use for it
	}
	s.die(nil)
}

// die ends the server with err as Serve's answer, or ends the process.
func (s *Server) die(err error) {
	s.deadOne.Do(func() {
		if err != nil && s.opts.Kill != nil {
			s.opts.Kill()
		}
		s.deadErr = err
		close(s.dead)
	})
}

// Crash ends the server as SIGKILL would.
func (s *Server) Crash() { s.die(ErrDied) }

// dieAfter ends the server after d, unless it ends before.
func (s *Server) dieAfter(d time.Duration) {
	s.tasks.spawn(func() {
		if s.sleep(d) {
			s.die(ErrDied)
		}
	})
}

// sleep waits for d and tells whether the server still lives.
func (s *Server) sleep(d time.Duration) bool {
	if d <= 0 {
		select {
		case <-s.dead:
			return false
		default:
			return true
		}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.dead:
		return false
	}
}

// Ready tells whether the warm-up has passed.
func (s *Server) Ready() bool { return s.up.Load() }

// warmup is SGLang's own first requests: until they are answered /health says 503, and everything else works.
func (s *Server) warmup() {
	if !s.opts.SkipWarmup {
		if !s.sleep(s.opts.Start.Warmup * 100 / 121) { // the shares of testdata/start.log
			return
		}
		s.log.access("127.0.0.1:59176", "GET", "/model_info", http.StatusOK)
		s.reached()
		if !s.sleep(s.opts.Start.Warmup * 21 / 121) {
			return
		}
		if s.opts.Faults.Fail == failWarmup {
			s.log.main("Initialization failed. warmup error: Traceback (most recent call last):\nAssertionError: res=<Response [500]>, res.text='Internal Server Error'")
			s.die(ErrDied)
			return
		}
		s.log.rank0("Prefill batch, #new-seq: 1, #new-token: 6, #cached-token: 0, token usage: 0.00, #running-req: 0, #queue-req: 0, #pending-token: 0, cuda graph: True, input throughput (token/s): 4.07")
		s.log.access("127.0.0.1:59180", "POST", "/generate", http.StatusOK)
	}
	s.up.Store(true)
	s.log.main("The server is fired up and ready to roll!")
	if d := s.opts.Faults.CrashAfter; d > 0 {
		s.dieAfter(d)
	}
	if d := s.opts.Faults.HangAfter; d >= 0 {
		s.tasks.spawn(func() {
			if s.sleep(d) {
				s.Hang()
			}
		})
	}
}

// Hang stops the scheduler for good: no inference is answered any more.
func (s *Server) Hang() { s.hangOne.Do(func() { close(s.hung) }) }

func (s *Server) isHung() bool {
	select {
	case <-s.hung:
		return true
	default:
		return false
	}
}

// reached notes that a request came to the tokenizer manager.
func (s *Server) reached() {
	s.firstOne.Do(func() {
		s.firstAt = time.Now()
		close(s.first)
	})
}

// servedOne tells whether SGLang's own SIGTERM handler exists by now.
func (s *Server) servedOne() bool {
	select {
	case <-s.first:
		return true
	default:
		return false
	}
}

// stuck tells whether a generation that begins now will never answer, and starts what kills the server for it.
func (s *Server) stuck() bool {
	if s.isHung() {
		if d := s.opts.WatchdogTimeout; d > 0 {
			s.watchdog.Do(func() {
				s.tasks.spawn(func() {
					if s.sleep(d) {
						s.log.main("Scheduler watchdog timeout (self.watchdog_timeout=%g, self.soft=False)", d.Seconds())
						s.log.main("SIGQUIT received. signum=3, frame=None. It usually means one child failed.")
						s.die(ErrDied)
					}
				})
			})
		}
		return true
	}
	e := s.engine
	e.mu.Lock()
	unmapped, doomed := s.opts.MemorySaver && len(e.asleep) > 0, e.doomed
	e.mu.Unlock()
	if doomed {
		s.die(ErrDied)
		return true
	}
	if unmapped {
		s.dieAfter(s.opts.CrashDelay)
	}
	return unmapped
}

// Drain does what SIGTERM does once a request was served: /health says 503, everything else goes on, and the watcher
// ends the server when it finds no request left.
func (s *Server) Drain() {
	s.drainOne.Do(func() {
		s.draining.Store(true)
		s.log.main("SIGTERM received. signum=15 frame=None. Draining requests and shutting down...")
		s.tasks.spawn(s.watchDrain)
	})
}

func (s *Server) watchDrain() {
	poll := max(s.opts.DrainPoll, time.Millisecond)
	s.reached()
	// The real watcher runs from the first request on, so its next look comes at any time within the period.
	if !s.sleep(poll - time.Since(s.firstAt)%poll) {
		return
	}
	for {
		running, waiting, blocked := s.engine.load()
		left := running + waiting + blocked
		s.log.main("Gracefully exiting... Remaining number of requests %d. Remaining requests remaining_rids=%q.", left, s.engine.rids())
		if left == 0 || s.unhealthy.Load() {
			break
		}
		if !s.sleep(poll) {
			return
		}
	}
	if s.sleep(s.opts.ExitDelay) {
		s.die(ErrDrained)
	}
}

// tasks counts goroutines that must end before Serve returns. Unlike a bare WaitGroup it takes newcomers at any time and
// refuses them once somebody waits.
type tasks struct {
	mu     sync.Mutex // guards closed, and orders Add before Wait
	closed bool
	wg     sync.WaitGroup
}

// enter counts the calling goroutine in; when it says true, leave is called once.
func (t *tasks) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.wg.Add(1)
	}
	return !t.closed
}

func (t *tasks) leave() { t.wg.Done() }

// spawn runs f on a goroutine of its own, or not at all when the server is over.
func (t *tasks) spawn(f func()) {
	if !t.enter() {
		return
	}
	go func() {
		defer t.leave()
		f()
	}()
}

func (t *tasks) wait() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
}
