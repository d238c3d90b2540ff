package testtools

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a testing.TB that remembers how a test ended. Fatal and Skip end the goroutine, as the real ones do.
type recorder struct {
	testing.TB
	ended string
}

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(string, ...any) {
	r.ended = "failed"
	runtime.Goexit()
}
func (r *recorder) Skipf(string, ...any) {
	r.ended = "skipped"
	runtime.Goexit()
}

func TestMissingSkipsUnlessRequired(t *testing.T) {
	for _, c := range []struct{ env, want string }{
		{"", "skipped"},
		{"python", "failed"},
		{"node, python", "failed"},
		{"node,python3", "skipped"},
	} {
		t.Setenv(RequireEnv, c.env)
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			Missing(r, "python", "no such thing")
		}()
		<-done
		if r.ended != c.want {
			t.Errorf("%s=%q: got %q, want %q", RequireEnv, c.env, r.ended, c.want)
		}
	}
}

func TestPythonHasWhatIsPinned(t *testing.T) {
	python := Python(t, "idna==3.20")
	out, err := exec.Command(python, "-I", "-c", "import idna; print(idna.__version__)").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "3.20" {
		t.Errorf("got %s, %v; want 3.20", out, err)
	}
	if again := Python(t, "idna==3.20"); again != python {
		t.Errorf("got %s the second time, want %s", again, python)
	}
}

func TestNodeIsNewEnoughAndHasWhatIsPinned(t *testing.T) {
	node, dir := Node(t, "is-number@7.0.0")
	script := `import n from 'is-number'; console.log(process.versions.node.split('.')[0] >= 22 && n(5))`
	cmd := exec.Command(node, "--input-type=module", "-e", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "true" {
		t.Errorf("got %s, %v; want true", out, err)
	}
}

func TestMajorVersion(t *testing.T) {
	if got, err := majorVersion("v22.23.3\n"); got != 22 || err != nil {
		t.Errorf("got %d, %v; want 22", got, err)
	}
	if _, err := majorVersion("bun 1.0"); err == nil {
		t.Error("got no error for another program's version")
	}
}

func TestBinaryIsBuiltOnce(t *testing.T) {
	path := Binary(t, "./internal/testtools/testdata/hello")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path).CombinedOutput()
	if err != nil || string(out) != "hello\n" {
		t.Errorf("got %q, %v; want hello", out, err)
	}
	after, err := os.Stat(Binary(t, "./internal/testtools/testdata/hello"))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("it was built twice (%v)", err)
	}
}

func TestGoModuleUsesItsOwnVersions(t *testing.T) {
	out, err := exec.Command(GoModule(t, filepath.Join("testdata", "module"), "")).CombinedOutput()
	if err != nil || string(out) != "own module\n" {
		t.Errorf("got %q, %v; want own module", out, err)
	}
}

func TestSimulatorStartsAndEnds(t *testing.T) {
	server := Simulator(t, "--model-path", "m", "--skip-server-warmup")
	if server.PID() <= 0 || server.Started <= 0 {
		t.Errorf("got pid %d, started after %v", server.PID(), server.Started)
	}
	if !strings.Contains(server.Output(), "ready to roll") {
		t.Errorf("got output %q, want the engine's", server.Output())
	}
	server.Signal(t, syscall.SIGKILL)
	if err := server.Wait(t, 10*time.Second); err == nil || err.Error() != "signal: killed" {
		t.Errorf("got %v, want a death by the signal", err)
	}
}
