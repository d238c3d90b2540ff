package testtools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pilotlight/internal/demo/cpuengine"
)

// Server is a model server in a process of its own. It is ended with the test.
type Server struct {
	// URL is its base address, without /v1 and without a trailing slash.
	URL string
	// Started is how long it took from exec to the first 200 of its /health.
	Started time.Duration

	cmd    *exec.Cmd
	output *Buffer
	exited chan struct{} // closed once err is set
	err    error
}

// CPUEngine starts the real CPU engine, which serves under the name served and asks for key (empty: for none), and
// waits until it is ready. It needs Python.
func CPUEngine(t testing.TB, served, key string) *Server {
	t.Helper()
	engine := CPUEngineCommand(t)
	port := freePort(t)
	fill := strings.NewReplacer("{model_path}", engine.ModelPath, "{host}", "127.0.0.1", "{port}", strconv.Itoa(port), "{served_name}", served, "{api_key}", key)
	var argv []string
	for _, arg := range engine.Command {
		argv = append(argv, fill.Replace(arg))
	}
	return serve(t, port, argv)
}

// CPUEngineCommand sets the real CPU engine up and returns how to run it. It needs Python.
func CPUEngineCommand(t testing.TB) cpuengine.Engine {
	t.Helper()
	// The demo's own folder, so that a machine has one copy of the model.
	skipIfShort(t, "python", cpuengine.Ready(cpuengine.Options{}))
	ctx, cancel := context.WithTimeout(t.Context(), setupTimeout)
	defer cancel()
	engine, err := cpuengine.Ensure(ctx, cpuengine.Options{})
	if err != nil {
		Missing(t, "python", err)
	}
	return engine
}

// Simulator builds and starts cmd/sglang-sim with flags beside the address, and waits until it is ready.
func Simulator(t testing.TB, flags ...string) *Server {
	t.Helper()
	port := freePort(t)
	argv := append([]string{Binary(t, "./cmd/sglang-sim"), "--host", "127.0.0.1", "--port", strconv.Itoa(port)}, flags...)
	return serve(t, port, argv)
}

// freePort returns a port that was free a moment ago.
func freePort(t testing.TB) int {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// startTimeout is generous: on a busy machine of two cores a start that takes half a second takes ten.
const startTimeout = 90 * time.Second

func serve(t testing.TB, port int, argv []string) *Server {
	t.Helper()
	s := &Server{URL: fmt.Sprintf("http://127.0.0.1:%d", port), output: &Buffer{}, exited: make(chan struct{})}
	s.cmd = exec.Command(argv[0], argv[1:]...)
	// Ready at once instead of after a second of trial generation; means nothing to the CPU engine.
	s.cmd.Env = append(os.Environ(), "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION=0")
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	t.Cleanup(func() { s.kill(t) })
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := began.Add(startTimeout); ; {
		response, err := client.Get(s.URL + "/health")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				s.Started = time.Since(began)
				return s
			}
		}
		select {
		case <-s.exited:
			t.Fatalf("%s ended while starting: %v: %s", argv[0], s.err, s.Output())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready after %v: %s", argv[0], startTimeout, s.Output())
		}
	}
}

// Output is what the server has printed so far.
func (s *Server) Output() string { return s.output.String() }

// PID is the server's process id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Signal sends sig to the server's process.
func (s *Server) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// Wait returns how the server ended: nil for status 0, else an *exec.ExitError. The test fails if it has not ended
// within limit.
func (s *Server) Wait(t testing.TB, limit time.Duration) error {
	t.Helper()
	select {
	case <-s.exited:
		return s.err
	case <-time.After(limit):
		t.Fatalf("the server still runs %v later: %s", limit, s.Output())
		return nil
	}
}

func (s *Server) kill(t testing.TB) {
	err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Errorf("killing a server: %v", err)
	}
	<-s.exited
}

// Buffer keeps what a process writes, while others read it. The zero value is empty.
type Buffer struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

// Write never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String is everything written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
