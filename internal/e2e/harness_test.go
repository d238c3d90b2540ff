package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// scaled gives the full figure with PILOTLIGHT_SCALE=full, else a small one.
func scaled(small, full int) int {
	if os.Getenv("PILOTLIGHT_SCALE") == "full" {
		return full
	}
	return small
}

// server is a running `pilotlight serve`.
type server struct {
	t     *testing.T
	dir   string
	file  string // configuration
	cmd   *exec.Cmd
	base  string
	admin string
	log   *logged
	http  *http.Client
	keys  map[string]string // by tenant
	ended chan struct{}
	err   error // of the process, once ended is closed
}

// logged keeps what a process writes and tells when a line holds something.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// sim is the command of the simulator with flags, as YAML.
func sim(t *testing.T, flags ...string) string {
	t.Helper()
	command := append([]string{testtools.Binary(t, "./cmd/sglang-sim"), "--sim-drain-poll", "100ms", "--sim-exit-delay", "50ms"}, flags...)
	b, err := json.Marshal(command)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// simModel is one entry of models.
func simModel(t *testing.T, name, extra string, flags ...string) string {
	t.Helper()
	return fmt.Sprintf("  - name: %s\n    model_id: %s\n    model_path: simulated\n    backend: {process: {command: %s}}\n%s", name, name, sim(t, flags...), indent(extra))
}

func indent(s string) string {
	var b strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(s), "\n") {
		if line != "" {
			b.WriteString("    " + line + "\n")
		}
	}
	return b.String()
}

func config(models ...string) string {
	return "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nstate_dir: state\nmodels:\n" + strings.Join(models, "")
}

// serve starts the gateway with a configuration and waits until it serves. It is stopped, and must have stopped well, at the end.
func serve(t *testing.T, yaml string) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), keys: map[string]string{}, log: &logged{}, ended: make(chan struct{})}
	s.file = filepath.Join(s.dir, "pilotlight.yaml")
	s.write(yaml)
	s.key("a")
	s.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 20000, MaxIdleConns: 20000, DisableCompression: true}}
	s.start()
	t.Cleanup(func() {
		s.http.CloseIdleConnections()
		s.stop()
		s.nothingLeft()
		if t.Failed() {
			t.Logf("the gateway's log ended with:\n%s", tail(s.log.String(), 4000))
		}
	})
	return s
}

func (s *server) write(yaml string) {
	s.t.Helper()
	// As an editor does it: a new file in the place of the old.
	if err := os.WriteFile(s.file+".new", []byte(yaml), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.file+".new", s.file); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(testtools.Binary(s.t, "./cmd/pilotlight"), "serve", "-c", s.file, "--drain", "20s")
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.ended)
	}()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if s.find() {
			return
		}
		select {
		case <-s.ended:
			s.t.Fatalf("the gateway ended: %v\n%s", s.err, s.log)
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the gateway does not come up:\n%s", s.log)
		}
	}
}

// find reads the addresses from the log.
func (s *server) find() bool {
	lines := bufio.NewScanner(strings.NewReader(s.log.String()))
	for lines.Scan() {
		var l struct {
			Msg     string `json:"msg"`
			BaseURL string `json:"base_url"`
			Admin   string `json:"admin"`
		}
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.Msg == "serving" {
			s.base, s.admin = l.BaseURL, l.Admin
			return true
		}
	}
	return false
}

// stop ends the gateway as an operator does.
func (s *server) stop() {
	s.t.Helper()
	select {
	case <-s.ended:
		return
	default:
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Error(err)
	}
	select {
	case <-s.ended:
		if s.err != nil {
			s.t.Errorf("the gateway ended badly: %v", s.err)
		}
	case <-time.After(60 * time.Second):
		s.cmd.Process.Kill()
		<-s.ended
		s.t.Error("the gateway did not end within a minute of SIGTERM")
	}
}

// nothingLeft checks that no engine of this gateway and no record is left.
func (s *server) nothingLeft() {
	s.t.Helper()
	if left := s.engines(); len(left) > 0 {
		s.t.Errorf("processes left: %v", left)
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	records, err := filepath.Glob(filepath.Join(s.dir, "state", "replicas", "*.json"))
	if err != nil || len(records) > 0 {
		s.t.Errorf("records left: %v %v", records, err)
	}
}

// engines lists the processes whose environment or working folder leads into this gateway's state folder.
func (s *server) engines() (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		s.t.Fatal(err)
	}
	state := filepath.Join(s.dir, "state")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || s.cmd != nil && s.cmd.Process != nil && pid == s.cmd.Process.Pid {
			continue
		}
		fd, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/1", pid))
		if err == nil && strings.HasPrefix(fd, state) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// key makes a tenant's key, or gives the one it has.
func (s *server) key(tenant string) string {
	s.t.Helper()
	if k := s.keys[tenant]; k != "" {
		return k
	}
	out, err := exec.Command(testtools.Binary(s.t, "./cmd/pilotlight"), "keys", "new", "--tenant", tenant, "--file", filepath.Join(s.dir, "keys.yaml")).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	s.keys[tenant] = strings.TrimSpace(string(out))
	return s.keys[tenant]
}

func (s *server) state() app.State {
	s.t.Helper()
	resp, err := http.Get(s.admin + "/api/state")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var state app.State
	if err := json.NewDecoder(resp.Body).Decode(&state); err != nil {
		s.t.Fatal(err)
	}
	return state
}

func (s *server) model(name string) app.ModelState {
	s.t.Helper()
	for _, m := range s.state().Models {
		if m.Name == name {
			return m
		}
	}
	s.t.Fatalf("no model %s", name)
	return app.ModelState{}
}

// until waits for a condition.
func (s *server) until(limit time.Duration, what string, cond func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(limit); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("never came within %v: %s", limit, what)
		}
	}
}

// answer is what a client got.
type answer struct {
	status    int
	header    http.Header
	text      string // of the answer, put together from a stream's pieces
	code      string // of the error
	message   string
	done      bool // [DONE] came
	beats     int
	firstByte time.Duration
	took      time.Duration
	err       error // of the transport
}

func (a answer) String() string {
	return fmt.Sprintf("{status %d, text %q, code %q, message %q, done %v, beats %d, took %v, err %v}", a.status, a.text, a.code, a.message, a.done, a.beats, a.took.Round(time.Millisecond), a.err)
}

// ask sends one chat whose answer must be marker.
func (s *server) ask(ctx context.Context, tenant, model, marker string, stream bool, headers ...string) answer {
	body := fmt.Sprintf(`{"messages":[{"role":"user","content":"echo: %s"}],"model":%q,"stream":%v}`, marker, model, stream)
	return s.send(ctx, s.keys[tenant], body, stream, headers...)
}

func (s *server) send(ctx context.Context, key, body string, stream bool, headers ...string) (a answer) {
	start := time.Now()
	defer func() { a.took = time.Since(start) }()
	req, err := http.NewRequestWithContext(ctx, "POST", s.base+"/chat/completions", strings.NewReader(body))
	if err != nil {
		a.err = err
		return a
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.http.Do(req)
	if err != nil {
		a.err = err
		return a
	}
	defer resp.Body.Close()
	a.status, a.header, a.firstByte = resp.StatusCode, resp.Header, time.Since(start)
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		a.readStream(resp.Body)
		return a
	}
	var doc struct {
		Error   *struct{ Code, Message string }
		Choices []struct{ Message struct{ Content string } }
	}
	b, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil {
		a.err = fmt.Errorf("%w: %.200s", err, b)
		return a
	}
	if doc.Error != nil {
		a.code, a.message = doc.Error.Code, doc.Error.Message
	} else if len(doc.Choices) > 0 {
		a.text = doc.Choices[0].Message.Content
	}
	return a
}

func (a *answer) readStream(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) || !a.done && a.code == "" {
				a.err = err
			}
			return
		}
		line = strings.TrimSuffix(line, "\n")
		data, ok := strings.CutPrefix(line, "data: ")
		switch {
		case strings.HasPrefix(line, ":"):
			a.beats++
		case !ok:
		case data == "[DONE]":
			a.done = true
		default:
			var chunk struct {
				Error   *struct{ Code, Message string }
				Choices []struct{ Delta struct{ Content string } }
			}
			if err := json.Unmarshal([]byte(data), &chunk); err != nil {
				a.err = err
				return
			}
			if chunk.Error != nil {
				a.code, a.message = chunk.Error.Code, chunk.Error.Message
			}
			if len(chunk.Choices) > 0 {
				a.text += chunk.Choices[0].Delta.Content
			}
		}
	}
}

// wants checks for a right answer.
func (a answer) wants(t *testing.T, marker string, stream bool) bool {
	t.Helper()
	if a.err != nil || a.status != 200 || a.text != marker || a.done != stream {
		t.Errorf("want %q, got %v", marker, a)
		return false
	}
	return true
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// rss is a process's resident memory in bytes.
func rss(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
