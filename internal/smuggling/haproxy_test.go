package smuggling

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"pilotlight/internal/testtools"
)

// haproxy starts one HAProxy in front of all engines and returns its addresses and version. Its time-outs aside, it is as
// strict or lenient as it is by default.
func haproxy(t *testing.T, engines []*recorder) (addrs []string, version string) {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		t.Fatal("haproxy is not installed, and the corpus has no verdict to stand beside ours; install it (Debian: apt-get install haproxy)")
	}
	out, err := exec.Command(path, "-v").Output()
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`version (\d+\.\d+\.\d+)`).FindStringSubmatch(string(out)); m != nil {
		version = m[1]
	}
	var conf strings.Builder
	conf.WriteString("global\n  maxconn 500\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n")
	var files []*os.File
	for i, engine := range engines {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, ln.Addr().String())
		file, err := ln.(*net.TCPListener).File() // handed down, so that no port can be taken in between
		ln.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		files = append(files, file)
		fmt.Fprintf(&conf, "frontend f%d\n  bind fd@%d\n  default_backend b%d\nbackend b%d\n  server e %s\n", i, 3+i, i, i, engine.Addr())
	}
	name := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(name, []byte(conf.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	output := &testtools.Buffer{}
	cmd := exec.Command(path, "-db", "-f", name)
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = files, output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("haproxy said: %s", output)
		}
	})
	for i, addr := range addrs {
		s := stage{addr: addr, engine: engines[i]}
		up := false
		for deadline := time.Now().Add(10 * time.Second); !up && time.Now().Before(deadline); {
			v, err := s.play(testCase{raw: chat("own")})
			up = err == nil && len(v.engine) == 1 && v.end == endKept
		}
		if !up {
			t.Fatalf("haproxy does not answer: %s", output)
		}
	}
	return addrs, version
}
