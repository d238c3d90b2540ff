package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pilotlight/backends"
	"pilotlight/bench/sglangsim"
)

// fakeVar tells the test binary to be an engine instead, as its value says.
const fakeVar = "FAKE_ENGINE"

// fake is what a fake engine does, in this order.
type fake struct {
	Print      []string      // lines to write at once
	PrintEnv   []string      // variables to write as NAME=value
	Progress   int           // then so many lines of progress, one each Pause
	Pause      time.Duration //
	PrintLast  []string      // and these lines
	Children   int           // grandchildren that ignore SIGTERM and sleep
	Escape     bool          // they leave the process group as well
	IgnoreTerm bool
	ExitAfter  time.Duration // exits then with ExitCode, whatever else it does; 0: never
	ExitCode   int
	ExitNow    bool // before binding
	Hang       bool // never binds
	BindAfter  time.Duration
	ReadyAfter time.Duration // since bind; 503 until then
	Probe      string        // path that answers; others get 404
	Key        string        // bearer token that the probe must bring
	Spam       int           // lines to write once bound, each of 100 bytes
}

func TestMain(m *testing.M) {
	switch text := os.Getenv(fakeVar); text {
	case "":
	case "simulator":
		os.Exit(sglangsim.Run(context.Background(), sglangsim.Process{
			Args: os.Args[1:], Getenv: os.Getenv, Stdout: os.Stdout, Stderr: os.Stderr, Executable: os.Args[0],
		}))
	default:
		var f fake
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			panic(err)
		}
		os.Exit(f.run())
	}
	if len(os.Args) == 2 && os.Args[1] == "fake-grandchild" {
		// A signal is none of its business, and it tells.
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		for s := range signals {
			fmt.Println("grandchild got", s)
		}
	}
	goleak.VerifyTestMain(m)
}

func (f fake) run() int {
	for _, line := range f.Print {
		fmt.Println(line)
	}
	for _, name := range f.PrintEnv {
		fmt.Printf("%s=%s\n", name, os.Getenv(name))
	}
	if f.IgnoreTerm {
		signal.Ignore(syscall.SIGTERM)
	}
	for range f.Children {
		c := exec.Command(os.Args[0], "fake-grandchild")
		c.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return len(e) > len(fakeVar) && e[:len(fakeVar)] == fakeVar })
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: f.Escape}
		c.Stdout = os.Stdout
		if err := c.Start(); err != nil {
			fmt.Println("grandchild:", err)
			return 99
		}
		fmt.Println("grandchild", c.Process.Pid)
	}
	if f.ExitAfter > 0 {
		time.AfterFunc(f.ExitAfter, func() { os.Exit(f.ExitCode) })
	}
	if f.ExitNow {
		return f.ExitCode
	}
	for i := range f.Progress {
		time.Sleep(f.Pause)
		fmt.Printf("Loading safetensors checkpoint shards:  %d%% Completed | 1/4\n", (i+1)*100/f.Progress)
	}
	for _, line := range f.PrintLast {
		fmt.Println(line)
	}
	if f.Hang {
		select {}
	}
	time.Sleep(f.BindAfter)
	port := os.Args[slices.Index(os.Args, "--port")+1]
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		fmt.Println(err) // "listen tcp 127.0.0.1:1: bind: address already in use"
		return 1
	}
	var ready atomic.Bool
	if f.ReadyAfter == 0 {
		ready.Store(true)
	} else {
		time.AfterFunc(f.ReadyAfter, func() {
			fmt.Println("ready-at", time.Now().UnixNano())
			ready.Store(true)
		})
	}
	for range f.Spam {
		fmt.Printf("%099d\n", 7)
	}
	err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case f.Probe != "" && r.URL.Path != f.Probe:
			w.WriteHeader(http.StatusNotFound)
		case f.Key != "" && r.Header.Get("Authorization") != "Bearer "+f.Key:
			w.WriteHeader(http.StatusUnauthorized)
		case !ready.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	fmt.Println(err)
	return 1
}

// specOf makes a spec that runs f. Its engine is "openai" unless changed.
func specOf(t testing.TB, model string, f fake) *backends.Spec {
	t.Helper()
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return &backends.Spec{
		Model: model, ModelID: model, ServedName: model, Engine: backends.EngineOpenAI, Driver: backends.DriverProcess,
		Command: []string{os.Args[0], "--port", "{port}"},
		// Under the race detector a program sleeps a second before it exits, unless told otherwise.
		Env:   map[string]string{fakeVar: string(text), "GORACE": "atexit_sleep_ms=0"},
		Probe: "/health", StartTimeout: 30 * time.Second,
	}
}

// sglangSpec is the same for an engine that is started with SGLang's arguments.
func sglangSpec(t testing.TB, model string, f fake) *backends.Spec {
	s := specOf(t, model, f)
	s.Engine, s.Command, s.ModelPath = backends.EngineSGLang, s.Command[:1], "some/model"
	return s
}

// newDriver makes a driver over a fresh state folder, and checks at the test's end that nothing is left.
func newDriver(t testing.TB, change func(*Options)) *Driver {
	t.Helper()
	opts := Options{
		StateDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		IdleGrace: 200 * time.Millisecond, StopGrace: 5 * time.Second,
	}
	if change != nil {
		change(&opts)
	}
	d, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		records, err := d.Records()
		if err != nil || len(records) > 0 {
			t.Errorf("records left: %v, %v", records, err)
		}
		d.ports.mu.Lock()
		if len(d.ports.taken) > 0 {
			t.Errorf("ports left: %v", d.ports.taken)
		}
		d.ports.mu.Unlock()
		for _, pid := range childPIDs(t) {
			t.Errorf("child %d is left, or was not reaped", pid)
		}
		if err := d.Close(); err != nil && !errors.Is(err, os.ErrClosed) { // a test may have closed it
			t.Error(err)
		}
	})
	return d
}

// childPIDs lists this process's children, zombies included.
func childPIDs(t testing.TB) []int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		if err != nil {
			continue // the thread ended
		}
		for _, field := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(b[slices.Index(b, ')')+1:]))
	return fields[0] != "Z"
}
