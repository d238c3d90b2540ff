// Package gatewaytest starts the built gateway as its operators do: the program, a configuration file, real processes and sockets.
// What a test sends it is the test's own business. Every gateway must end well and leave nothing behind, or the test fails.
package gatewaytest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pilotlight/internal/app"
	"pilotlight/internal/testtools"
)

const (
	upTimeout = 20 * time.Second
	// drain bounds the end of the requests in flight, downTimeout the whole shutdown.
	drain       = "20s"
	downTimeout = time.Minute
)

// Gateway is a `pilotlight serve` in a folder of its own. Log, State, Model, Engines, and Key for a key that is there already, are
// safe for concurrent use; the rest belongs to the test's goroutine.
type Gateway struct {
	// Dir holds File, the configuration, and everything that the gateway writes.
	Dir  string
	File string
	// BaseURL ends in /v1; AdminURL has no trailing slash. Both are set by Start, and change with it where the ports do.
	BaseURL  string
	AdminURL string
	// Args are further ones of the next Start.
	Args []string

	t      testing.TB
	cmd    *exec.Cmd
	output *testtools.Buffer
	ended  chan struct{}
	err    error // of the process, once ended is closed

	mu   sync.Mutex        // guards keys
	keys map[string]string // by tenant
}

// Serve starts a gateway with a configuration, a key for tenant "a", and waits until it serves. At the test's end it is stopped, must
// have ended well, and may leave neither processes nor records.
func Serve(t testing.TB, yaml string) *Gateway {
	t.Helper()
	g := &Gateway{t: t, Dir: t.TempDir(), keys: map[string]string{}, output: &testtools.Buffer{}}
	g.File = filepath.Join(g.Dir, "pilotlight.yaml")
	g.Write(yaml)
	g.Key("a")
	g.Start()
	t.Cleanup(func() {
		g.Stop()
		g.nothingLeft()
		if t.Failed() {
			t.Logf("the gateway's log ended with:\n%s", tail(g.Log(), 4000))
		}
	})
	return g
}

// Write replaces the configuration file as an editor does: a new file in the place of the old.
func (g *Gateway) Write(yaml string) {
	g.t.Helper()
	if err := os.WriteFile(g.File+".new", []byte(yaml), 0o600); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Rename(g.File+".new", g.File); err != nil {
		g.t.Fatal(err)
	}
}

// Start starts the program, for the first time or after Stop.
func (g *Gateway) Start() {
	g.t.Helper()
	began := len(g.Log())
	g.cmd = exec.Command(testtools.Binary(g.t, "./cmd/pilotlight"), append([]string{"serve", "-c", g.File, "--drain", drain}, g.Args...)...)
	g.cmd.Stdout, g.cmd.Stderr = g.output, g.output
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	cmd, ended := g.cmd, make(chan struct{})
	g.ended = ended
	go func() {
		g.err = cmd.Wait()
		close(ended)
	}()
	for deadline := time.Now().Add(upTimeout); !g.find(began); time.Sleep(5 * time.Millisecond) {
		select {
		case <-g.ended:
			g.t.Fatalf("the gateway ended: %v\n%s", g.err, g.Log())
		default:
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("the gateway does not come up:\n%s", g.Log())
		}
	}
}

// find reads the addresses from the log, from this byte on.
func (g *Gateway) find(from int) bool {
	lines := bufio.NewScanner(strings.NewReader(g.Log()[from:]))
	for lines.Scan() {
		var l struct {
			Msg     string `json:"msg"`
			BaseURL string `json:"base_url"`
			Admin   string `json:"admin"`
		}
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.Msg == "serving" {
			if g.BaseURL != l.BaseURL { // with a fixed port it stays, and clients may read it meanwhile
				g.BaseURL = l.BaseURL
			}
			g.AdminURL = l.Admin
			return true
		}
	}
	return false
}

// Stop ends the gateway as an operator does, and waits. A gateway that has ended is left alone.
func (g *Gateway) Stop() {
	g.t.Helper()
	select {
	case <-g.ended:
		return
	default:
	}
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Error(err)
	}
	select {
	case <-g.ended:
		if g.err != nil {
			g.t.Errorf("the gateway ended badly: %v", g.err)
		}
	case <-time.After(downTimeout):
		if err := g.cmd.Process.Kill(); err != nil {
			g.t.Error(err)
		}
		<-g.ended
		g.t.Errorf("the gateway did not end within %v of SIGTERM", downTimeout)
	}
}

// Kill ends the gateway with SIGKILL and waits until it is gone; what it had started may live on.
func (g *Gateway) Kill() {
	g.t.Helper()
	g.Signal(syscall.SIGKILL)
	<-g.ended
}

// PID is the gateway's process id.
func (g *Gateway) PID() int { return g.cmd.Process.Pid }

// Signal sends sig to the gateway.
func (g *Gateway) Signal(sig os.Signal) {
	g.t.Helper()
	if err := g.cmd.Process.Signal(sig); err != nil {
		g.t.Fatal(err)
	}
}

// Log is what the gateway has printed so far: its log and its access log, one JSON object a line.
func (g *Gateway) Log() string { return g.output.String() }

// nothingLeft checks that no engine of this gateway and no record is left.
func (g *Gateway) nothingLeft() {
	g.t.Helper()
	if left := g.Engines(); len(left) > 0 {
		g.t.Errorf("processes left: %v", left)
		for _, pid := range left {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				g.t.Error(err)
			}
		}
	}
	records, err := filepath.Glob(filepath.Join(g.Dir, "state", "replicas", "*.json"))
	if err != nil || len(records) > 0 {
		g.t.Errorf("records left: %v %v", records, err)
	}
}

// Engines lists the processes that write into this gateway's state folder: its replicas, their children included.
func (g *Gateway) Engines() (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		g.t.Error(err)
		return nil
	}
	state := filepath.Join(g.Dir, "state")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == g.PID() {
			continue
		}
		fd, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/1", pid))
		if err == nil && strings.HasPrefix(fd, state) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Key makes a tenant's key, or gives the one that it has. A running gateway sees a new one within a second.
func (g *Gateway) Key(tenant string) string {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if k := g.keys[tenant]; k != "" {
		return k
	}
	out, err := exec.Command(testtools.Binary(g.t, "./cmd/pilotlight"), "keys", "new", "--tenant", tenant, "--file", filepath.Join(g.Dir, "keys.yaml")).Output()
	if err != nil {
		g.t.Fatal(err)
	}
	g.keys[tenant] = strings.TrimSpace(string(out))
	return g.keys[tenant]
}

// admin keeps no connection, which would look like a leak at a test's end.
var admin = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// State is the admin listener's view.
func (g *Gateway) State() (state app.State, err error) {
	resp, err := admin.Get(g.AdminURL + "/api/state")
	if err != nil {
		return state, err
	}
	defer resp.Body.Close()
	return state, json.NewDecoder(resp.Body).Decode(&state)
}

// Model is the admin listener's view of one model.
func (g *Gateway) Model(name string) (app.ModelState, error) {
	state, err := g.State()
	if err != nil {
		return app.ModelState{}, err
	}
	for _, m := range state.Models {
		if m.Name == name {
			return m, nil
		}
	}
	return app.ModelState{}, fmt.Errorf("no model %s: %w", name, fs.ErrNotExist)
}

// Until waits for a condition, and ends the test if it does not come.
func (g *Gateway) Until(limit time.Duration, what string, cond func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(limit); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("never came within %v: %s", limit, what)
		}
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
