package sglangsim

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pilotlight/internal/testtools"
)

// programFolder holds the program while the tests run; TestMain removes it.
var programFolder string

var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programFolder, "sglang-sim")
	out, err := exec.Command("go", "build", "-o", path, "pilotlight/cmd/sglang-sim").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the program: %w: %s", err, out)
	}
	return path, nil
})

// process is one run of the program, in a process group of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	start  time.Time
	port   int
	output string // file with both streams
	done   chan struct{}
	ended  time.Time // valid after done
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// run starts the program on a free port with instant health; the group is killed at the end of the test.
func run(t *testing.T, args ...string) *process {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, port: freePort(t), output: filepath.Join(t.TempDir(), "output"), done: make(chan struct{})}
	if i := slices.Index(args, "--port"); i >= 0 {
		if p.port, err = strconv.Atoi(args[i+1]); err != nil {
			t.Fatal(err)
		}
	} else {
		args = append(args, "--port", strconv.Itoa(p.port))
	}
	if !slices.Contains(args, "--model-path") {
		args = append(args, "--model-path", "/models/smol")
	}
	out, err := os.Create(p.output)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p.cmd = exec.Command(path, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION=0")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.start = time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the state is looked at
		p.ended = time.Now()
		close(p.done)
	}()
	t.Cleanup(func() {
		select {
		case <-p.done: // reaped, so its number may belong to somebody else by now
		default:
			_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL) // fails when it ends at this moment
			<-p.done
		}
	})
	return p
}

func (p *process) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", p.port, path) }

// status is the answer of a GET; 0 while nobody listens.
func (p *process) status(path string) int {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}
	resp, err := client.Get(p.url(path))
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func (p *process) until(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("not within 10 s: %s; output:\n%s", what, p.text())
		}
	}
}

func (p *process) ready() {
	p.t.Helper()
	p.until("ready", func() bool { return p.status("/health") == 200 })
}

func (p *process) text() string {
	data, err := os.ReadFile(p.output)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(data)
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait gives the exit code as a shell shows it: 128 and the signal for a death by signal.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.t.Fatalf("still runs after 10 s; output:\n%s", p.text())
	}
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func TestProgramStartsAtOnceAndLogsAsRecorded(t *testing.T) {
	p := run(t)
	p.ready()
	if d := time.Since(p.start); d > time.Second { // some 10 ms on an idle machine
		t.Errorf("ready after %v", d)
	}
	p.until("the ready line", func() bool { return strings.Contains(p.text(), "ready to roll!\n") })
	text := p.text()
	ours := func(l string) bool { return strings.Contains(l, `"GET /health HTTP/1.1"`) }
	likeRecording(t, strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), ours), "\n"), "ready to roll")
}

func TestProgramBindsLate(t *testing.T) {
	p := run(t, "--sim-start", "600ms", "--sim-warmup", "400ms")
	var seen []int
	p.until("ready", func() bool {
		s := p.status("/health")
		if len(seen) == 0 || seen[len(seen)-1] != s {
			seen = append(seen, s)
			if s == 503 && (time.Since(p.start) < 500*time.Millisecond || p.status("/v1/models") != 200) {
				t.Errorf("bound after %v, models %d", time.Since(p.start), p.status("/v1/models"))
			}
		}
		return s == 200
	})
	if fmt.Sprint(seen) != "[0 503 200]" {
		t.Errorf("/health went through %v, want refused, 503, 200", seen)
	}
	if d := time.Since(p.start); d < 900*time.Millisecond {
		t.Errorf("ready after %v", d)
	}
}

func TestProgramAndSignals(t *testing.T) {
	quick := []string{"--sim-drain-poll", "200ms", "--sim-exit-delay", "50ms"}
	printed := func(p *process, text string) { p.until(text, func() bool { return strings.Contains(p.text(), text) }) }
	for _, c := range []struct {
		name string
		args []string
		do   func(t *testing.T, p *process)
		want int
	}{
		{"SIGTERM while loading", []string{"--sim-start", "1m", "--sim-import", "0s"}, func(t *testing.T, p *process) {
			printed(p, "Init torch")
			p.signal(unix.SIGTERM)
		}, 143},
		{"SIGINT while loading", []string{"--sim-start", "1m", "--sim-import", "0s"}, func(t *testing.T, p *process) {
			printed(p, "Init torch")
			p.signal(unix.SIGINT)
		}, 130},
		{"SIGQUIT while loading", []string{"--sim-start", "1m", "--sim-import", "0s"}, func(t *testing.T, p *process) {
			printed(p, "Init torch")
			p.signal(unix.SIGQUIT)
			printed(p, "Received sigquit from a child process. It usually means the child failed.")
		}, 137},
		{"SIGTERM before the first request", []string{"--skip-server-warmup"}, func(t *testing.T, p *process) {
			p.ready()
			p.signal(unix.SIGTERM)
		}, 143},
		{"SIGTERM when idle", quick, func(t *testing.T, p *process) {
			p.ready()
			p.signal(unix.SIGTERM)
			p.until("503", func() bool { s := p.status("/health"); return s == 503 || s == 0 })
			printed(p, "Gracefully exiting... Remaining number of requests 0.")
		}, 137},
		{"SIGTERM as PID 1 while loading", append([]string{"--sim-pid1", "--sim-graphs", "400ms"}, quick...), func(t *testing.T, p *process) {
			printed(p, "Memory pool end")
			p.signal(unix.SIGTERM)
			p.ready()
			p.signal(unix.SIGTERM)
		}, 137},
		{"SIGINT when idle", nil, func(t *testing.T, p *process) {
			p.ready()
			p.signal(unix.SIGINT)
		}, 130},
		{"SIGQUIT when idle", nil, func(t *testing.T, p *process) {
			p.ready()
			p.signal(unix.SIGQUIT)
		}, 137},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := run(t, c.args...)
			c.do(t, p)
			if got := p.wait(); got != c.want {
				t.Errorf("exit code %d, want %d; output:\n%s", got, c.want, p.text())
			}
		})
	}
}

func TestProgramDrainsItsStream(t *testing.T) {
	t.Parallel()
	p := run(t, "--sim-drain-poll", "50ms", "--sim-exit-delay", "10ms", "--sim-itl", "20ms", "--sim-output-tokens", "30")
	p.ready()
	resp, err := http.Post(p.url("/v1/chat/completions"), "application/json", strings.NewReader(longChat))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	p.signal(unix.SIGTERM)
	data, err := io.ReadAll(resp.Body)
	if _, finish, done := streamed(t, string(data)); err != nil || finish != "stop" || !done {
		t.Errorf("the stream ended with %v, finish %q, done %v", err, finish, done)
	}
	if got := p.wait(); got != 137 {
		t.Errorf("exit code %d", got)
	}
}

func TestProgramRefusesItsArguments(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--max-model-len", "8192"}, 2, "sglang serve: error: unrecognized arguments: --max-model-len 8192\n"},
		{[]string{"--served-model-name", "a:b"}, 1, "Traceback (most recent call last):"},
		{[]string{"--help"}, 0, "--sim-cut-tokens N"},
	} {
		p := run(t, c.args...)
		if code := p.wait(); code != c.code || !strings.Contains(p.text(), c.want) {
			t.Errorf("%v: exit code %d, want %d; output:\n%s", c.args, code, c.code, p.text())
		}
	}
}

func TestProgramFailsToStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	for _, c := range []struct {
		args     []string
		code     int
		want     string
		unwanted string
	}{
		{[]string{"--sim-fail", "exit"}, 1, "RuntimeError: simulated failure", "server_args="},
		{[]string{"--sim-fail", "oom"}, 137, "CUDA out of memory", "Load weight end"},
		{[]string{"--mem-fraction-static", "0.002"}, 137, "under --mem-fraction-static=0.002. Raise", "KV Cache is allocated"},
		{[]string{"--sim-fail", "kv-memory"}, 137, "Raise --mem-fraction-static above 0.003", "KV Cache is allocated"},
		{[]string{"--sim-fail", "gated"}, 1, "You are trying to access a gated repo", "Init torch"},
		{[]string{"--sim-fail", "unsupported"}, 137, "are not supported for now. Supported architectures:", "Multi-thread"},
		{[]string{"--sim-fail", "disk-full"}, 1, "OSError: [Errno 28] No space left on device", "Init torch"},
		{[]string{"--sim-fail", "host-oom"}, 1, "Rank 0 scheduler died during initialization (exit code: -9)", "KV Cache"},
		{[]string{"--sim-fail", "killed"}, 137, "Load weight end", "KV Cache is allocated"},
		{[]string{"--sim-fail", "warmup"}, 137, "Initialization failed. warmup error:", "ready to roll"},
		{[]string{"--sim-model-check", "--model-path", "/nowhere/at/all"}, 1, "OSError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/nowhere/at/all'.", "Init torch"},
		{[]string{"--port", port}, 1, "[Errno 98] error while attempting to bind on address ('127.0.0.1', " + port + "): address already in use", "Uvicorn running"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			p := run(t, c.args...)
			code, text := p.wait(), p.text()
			if code != c.code || !strings.Contains(text, c.want) || strings.Contains(text, c.unwanted) {
				t.Errorf("exit code %d, want %d, with %q, without %q; output:\n%s", code, c.code, c.want, c.unwanted, text)
			}
			if sched := strings.Contains(text, "Scheduler hit an exception"); sched != strings.Contains(text, "Received sigquit from a child process.") {
				t.Errorf("exception in the scheduler and SIGQUIT do not go together:\n%s", text)
			}
		})
	}
}

func TestProgramFailsLate(t *testing.T) {
	p := run(t, "--sim-fail", "killed", "--sim-fail-after", "300ms", "--sim-start", "1m")
	if code := p.wait(); code != 137 || p.ended.Sub(p.start) < 300*time.Millisecond {
		t.Errorf("exit code %d after %v", code, p.ended.Sub(p.start))
	}
}

func TestProgramHangsInItsStart(t *testing.T) {
	p := run(t, "--sim-fail", "hang")
	time.Sleep(200 * time.Millisecond)
	select {
	case <-p.done:
		t.Error("it ended")
	default:
	}
	if p.text() != "" || p.status("/ping") != 0 {
		t.Errorf("output %q, /ping %d", p.text(), p.status("/ping"))
	}
	p.signal(unix.SIGTERM)
	if code := p.wait(); code != 143 {
		t.Errorf("exit code %d", code)
	}
}

func TestProgramRecoversAfterFailedStarts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "starts")
	args := []string{"--sim-fail", "oom", "--sim-fail-starts", "2", "--sim-fail-file", file}
	for range 2 {
		if code := run(t, args...).wait(); code != 137 {
			t.Errorf("exit code %d", code)
		}
	}
	run(t, args...).ready()
}

func TestProgramCrashesInMidStream(t *testing.T) {
	p := run(t, "--sim-crash-tokens", "3", "--sim-itl", "5ms", "--sim-output-tokens", "100")
	p.ready()
	resp, err := http.Post(p.url("/v1/chat/completions"), "application/json", strings.NewReader(longChat))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	if data, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the stream ended well: %s", data)
	}
	if code := p.wait(); code != 137 {
		t.Errorf("exit code %d", code)
	}
}

func TestProgramsChildrenOutliveIt(t *testing.T) {
	p := run(t, "--sim-children", "2")
	p.ready()
	children := func() (titles []string) {
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if group, err := unix.Getpgid(pid); err != nil || group != p.cmd.Process.Pid || pid == group {
				continue
			}
			if data, err := os.ReadFile(file); err == nil && len(data) > 0 { // gone or a zombie otherwise
				titles = append(titles, strings.Split(string(data), "\x00")[0])
			}
		}
		slices.Sort(titles)
		return titles
	}
	if got := fmt.Sprint(children()); got != "[sglang::scheduler_TP0 sglang::scheduler_TP1]" {
		t.Errorf("children %v", got)
	}
	p.signal(unix.SIGKILL)
	p.wait()
	if got := children(); len(got) != 2 {
		t.Errorf("after the end of their parent: %v", got)
	}
	if err := unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	p.until("swept", func() bool { return len(children()) == 0 })
}

func TestACrashedChildEndsTheProgram(t *testing.T) {
	p := run(t, "--sim-children", "1")
	p.ready()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err == nil {
				err = unix.Kill(pid, unix.SIGKILL)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if code := p.wait(); code != 137 {
		t.Errorf("exit code %d", code)
	}
	if log := p.text(); !strings.Contains(log, "crashed with exit code -9. Triggering SIGQUIT") || !strings.Contains(log, "SIGQUIT received.") {
		t.Errorf("output:\n%s", log)
	}
}

func TestRunEndsWithItsContextWhileStarting(t *testing.T) {
	for _, args := range [][]string{{"--sim-start", "1h"}, {"--sim-fail", "hang"}, {"--sim-fail", "oom", "--sim-fail-after", "1h"}} {
		ctx, cancel := context.WithCancel(t.Context())
		code := make(chan int, 1)
		go func() {
			code <- Run(ctx, Process{Args: append(args, "--model-path", "M", "--port", "0"), Stdout: io.Discard, Stderr: io.Discard, Kill: func() { panic("BUG: killed") }})
		}()
		cancel()
		select {
		case got := <-code:
			if got != 1 {
				t.Errorf("%v: exit code %d, want 1", args, got)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%v: goes on", args)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out testtools.Buffer
	code := make(chan int, 1)
	go func() {
		code <- Run(ctx, Process{Args: []string{"--model-path", "M", "--port", "0"}, Stdout: &out, Stderr: &out, Kill: func() { panic("BUG: killed") }})
	}()
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(out.String(), "ready to roll"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %s", out.String())
		}
	}
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
}
