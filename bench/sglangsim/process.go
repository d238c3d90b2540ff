package sglangsim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is what Run needs from its program.
type Process struct {
	Args       []string            // without the program's name
	Getenv     func(string) string // nil: no environment
	Stdout     io.Writer
	Stderr     io.Writer
	Executable string // what --sim-children run; empty: refused
	// Kill ends the process without a word; nil is SIGKILL of itself.
	Kill func()
}

// childLife bounds the life of a child process that nobody sweeps.
const childLife = 10 * time.Minute

// childFlag is the only argument of a child process.
const childFlag = "--sim-child"

const traceback = "Traceback (most recent call last):\n  File \"<frozen runpy>\", line 198, in _run_module_as_main\n  File \"site-packages/sglang/launch_server.py\", line 63, in <module>\n    run_server(server_args)\n"

// Run is the whole program: it parses, goes through the phases of the start, serves, and returns the exit code. Often it does not
// return, because SGLang ends by signals: default death by SIGTERM before the port is bound, SIGKILL of itself after a drain or a
// crash. It takes over SIGTERM, SIGINT, SIGQUIT and SIGPIPE of the process. When ctx ends it returns 0, or 1 if it did not serve yet.
func Run(ctx context.Context, p Process) int {
	start := time.Now()
	if len(p.Args) == 1 && p.Args[0] == childFlag {
		signal.Ignore(unix.SIGHUP)
		time.Sleep(childLife)
		return 0
	}
	kill := p.Kill
	if kill == nil {
		kill = func() {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL) // as PID 1 it has no effect, and the exit code becomes 0
			time.Sleep(time.Second)
			os.Exit(0)
		}
	}
	o, err := ParseArgs(p.Args, p.Getenv)
	var bad usageError
	switch {
	case errors.Is(err, errHelp):
		writeHelp(p.Stdout)
		return 0
	case errors.As(err, &bad):
		writeUsage(p.Stderr)
		fmt.Fprintf(p.Stderr, "sglang serve: error: %s\n", bad)
		return 2
	}
	o.Stdout, o.Stderr, o.Kill = p.Stdout, p.Stderr, kill
	var fault *startFailure
	if err == nil {
		fault, err = o.failure()
	}
	o.Faults.Fail = "" // decided; what is left to the server is the failure of its warm-up
	if fault != nil {
		o.Faults.Fail = fault.mode
	}
	var s *Server
	if err == nil {
		s, err = New(o)
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "%s%v\n", traceback, err)
		return 1
	}
	if o.GPUDir != "" {
		fraction := defaultFraction
		if given := o.Args["mem_fraction_static"]; len(given) > 0 {
			fraction = given[len(given)-1]
		}
		if err := claimGPUs(o.GPUDir, p.Getenv, fraction, ""); err != nil {
			fmt.Fprintf(p.Stderr, "%s%v\n", traceback, err)
			return 1
		}
		s.opts.Occupied = func(kv, weights bool) {
			asleep := ""
			switch {
			case !weights:
				asleep = residue
			case !kv:
				asleep = weightsOnly
			}
			if err := claimGPUs(o.GPUDir, p.Getenv, fraction, asleep); err != nil {
				s.log.main("the GPUs' folder cannot be written: %v", err)
			}
		}
	}
	if o.PID1 || os.Getpid() == 1 {
		signal.Ignore(unix.SIGTERM)
	}
	signal.Ignore(unix.SIGPIPE) // a reader of the output that went away does not end the engine
	quit := make(chan os.Signal, 1)
	signal.Notify(quit, unix.SIGQUIT)
	defer signal.Stop(quit)
	bound, over := make(chan struct{}), make(chan struct{})
	defer close(over)
	go func() { // until the port is bound; then serveProcess looks after signals
		select {
		case <-bound:
		case <-over:
		case <-quit:
			s.log.main("Received sigquit from a child process. It usually means the child failed.")
			kill()
		}
	}()
	if err := spawnChildren(p, o.Children, s.log); err != nil {
		fmt.Fprintf(p.Stderr, "%s%v\n", traceback, err)
		return 1
	}
	marks := o.timeline(os.Getpid())
	if fault != nil && fault.mode != failWarmup {
		return failStart(ctx, fault, &o, marks, start, s.log, kill)
	}
	if !play(ctx, marks, start, s.log) || !rest(ctx, o.Start.Total()-o.Start.Warmup-time.Since(start)) {
		return 1
	}
	return s.serveProcess(ctx, quit, bound, kill)
}

// failStart prints what comes before the failure, and the failure.
func failStart(ctx context.Context, f *startFailure, o *Options, marks []mark, start time.Time, l *logger, kill func()) int {
	n := slices.IndexFunc(marks, func(m mark) bool { return strings.HasPrefix(m.text, f.until) })
	at := marks[n].at
	if f.until == "" {
		at = 0
	}
	if o.Faults.FailAfter > 0 {
		at = o.Faults.FailAfter
		if n = slices.IndexFunc(marks, func(m mark) bool { return m.at >= at }); n < 0 {
			n = len(marks)
		}
	}
	if !play(ctx, marks[:n], start, l) || !rest(ctx, at-time.Since(start)) {
		return 1
	}
	switch {
	case f.hang:
		<-ctx.Done()
		return 1
	case f.sched:
		l.ranks("Scheduler hit an exception: Traceback (most recent call last):\n  File \"site-packages/sglang/srt/managers/scheduler.py\", line 3071, in run_scheduler_process\n    scheduler = Scheduler(\n%s\n", f.text)
		l.main("Received sigquit from a child process. It usually means the child failed.")
		kill()
	case f.code < 0:
		kill()
	}
	l.raw(traceback + f.text + "\n")
	return f.code
}

// spawnChildren starts processes as SGLang's schedulers are: with the output of their parent and a title of their own. Unlike
// those they survive it. One that crashes is noticed within a second, as by SGLang's SubprocessWatchdog, and ends the whole by SIGQUIT.
func spawnChildren(p Process, n int, l *logger) error {
	if n > 0 && p.Executable == "" {
		return errors.New("child processes need an executable")
	}
	for i := range n {
		cmd := exec.Command(p.Executable, childFlag)
		cmd.Args[0] = "sglang::scheduler_TP" + strconv.Itoa(i)
		cmd.Stdout, cmd.Stderr = p.Stdout, p.Stderr
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("starting child process %d: %w", i, err)
		}
		go func() {
			var exit *exec.ExitError
			if !errors.As(cmd.Wait(), &exit) {
				return
			}
			time.Sleep(time.Second / 2) // the watchdog looks once a second
			code := exit.ExitCode()
			if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
				code = -int(status.Signal())
			}
			l.main("Subprocess scheduler_%d (pid=%d) crashed with exit code %d. Triggering SIGQUIT for cleanup...", i, cmd.Process.Pid, code)
			_ = unix.Kill(os.Getpid(), unix.SIGQUIT) // cannot fail
		}()
	}
	return nil
}

// serveProcess binds the port, as late as SGLang does, and serves until a signal or a fault ends it.
func (s *Server) serveProcess(ctx context.Context, quit <-chan os.Signal, bound chan<- struct{}, kill func()) int {
	addr := net.JoinHostPort(s.opts.Host, strconv.Itoa(s.opts.Port))
	network := "tcp"
	if ip := net.ParseIP(s.opts.Host); ip != nil && ip.To4() != nil {
		network = "tcp4" // 0.0.0.0 would be every IPv6 address too
	}
	ln, err := new(net.ListenConfig).Listen(ctx, network, addr)
	if err != nil {
		reason := err.Error()
		var errno syscall.Errno
		if errors.As(err, &errno) {
			reason = fmt.Sprintf("[Errno %d] error while attempting to bind on address ('%s', %d): %s", int(errno), s.opts.Host, s.opts.Port, errno.Error())
		}
		s.log.main("ERROR:    %s", reason)
		s.log.main("INFO:     Waiting for application shutdown.")
		s.log.main("INFO:     Application shutdown complete.")
		return 1
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	defer signal.Stop(signals)
	close(bound)
	s.log.main("INFO:     Uvicorn running on http://%s (Press CTRL+C to quit)", ln.Addr())
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { done <- s.Serve(ctx, ln) }()
	for {
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, context.Canceled) {
				s.log.main("ERROR:    %v", err)
				return 1
			}
			return 0
		case <-quit:
			s.log.main("SIGQUIT received. signum=3, frame=None. It usually means one child failed.")
			kill()
		case sig := <-signals:
			if sig == unix.SIGTERM && s.servedOne() {
				s.Drain()
				continue
			}
			// uvicorn's own handling: no new connections, open answers end, then the signal's default. A second signal does
			// not wait.
			number := sig.(syscall.Signal)
			signal.Reset(number)
			s.log.main("INFO:     Shutting down")
			s.shutdown()
			<-done
			s.log.main("INFO:     Finished server process [%d]", os.Getpid())
			_ = unix.Kill(os.Getpid(), number) // as PID 1 it has no effect
			time.Sleep(time.Second)
			return 0
		}
	}
}
