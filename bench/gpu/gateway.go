package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// scratch is a folder in a scene's own that is thrown away at its end.
const scratch = "scratch"

const (
	upTimeout = 30 * time.Second
	// drain bounds the end of the requests in flight at an orderly end.
	drain       = "30s"
	downTimeout = 50 * time.Second
)

// gateway is a `pilotlight serve` in a folder of its own, which can be ended in every way and started again.
type gateway struct {
	program string
	environ []string
	dir     string
	base    string // where clients connect, with /v1
	admin   string
	key     string

	cmd   *exec.Cmd
	ended chan struct{}
	err   error // of the process, once ended is closed
}

// newGateway starts the gateway in dir with a configuration, and waits until it serves.
func newGateway(ctx context.Context, o *options, dir string, config any) (*gateway, error) {
	g := &gateway{program: o.Pilotlight, environ: o.environ(), dir: dir, ended: make(chan struct{})}
	close(g.ended)
	text, err := json.MarshalIndent(config, "", "  ") // which is YAML, too
	if err != nil {
		return g, err
	}
	if err := os.WriteFile(g.file(), append(text, '\n'), 0o600); err != nil {
		return g, err
	}
	if g.key, err = output(ctx, g.program, "keys", "new", "--tenant", "scenes", "--file", filepath.Join(dir, "keys.yaml")); err != nil {
		return g, fmt.Errorf("making a key: %w", err)
	}
	return g, g.start(ctx)
}

func (g *gateway) file() string     { return filepath.Join(g.dir, "pilotlight.yaml") }
func (g *gateway) stateDir() string { return filepath.Join(g.dir, "state") }
func (g *gateway) logFile() string  { return filepath.Join(g.dir, "gateway.log") }
func (g *gateway) access() string   { return filepath.Join(g.dir, "access.log") }

// start starts the program, for the first time or after its end.
func (g *gateway) start(ctx context.Context) error {
	log, err := os.OpenFile(g.logFile(), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	access, err := os.OpenFile(g.access(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer access.Close()
	g.cmd = exec.Command(g.program, "serve", "-c", g.file(), "--drain", drain)
	g.cmd.Stdout, g.cmd.Stderr, g.cmd.Env = access, log, g.environ
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this program, which then ends the gateway in order
	if err := g.cmd.Start(); err != nil {
		return fmt.Errorf("starting the gateway: %w", err)
	}
	cmd, ended := g.cmd, make(chan struct{})
	g.ended = ended
	go func() {
		g.err = cmd.Wait()
		close(ended)
	}()
	err = until(ctx, upTimeout, "the gateway serves", func() (bool, error) {
		if !g.alive() {
			return false, fmt.Errorf("it has ended: %w", g.err)
		}
		return g.find(from)
	})
	if err != nil {
		return errors.Join(err, fmt.Errorf("its log ends with: %s", tail(g.logFile())), g.kill())
	}
	return nil
}

// find reads the addresses from what was logged from this byte on.
func (g *gateway) find(from int64) (bool, error) {
	text, err := os.ReadFile(g.logFile())
	if err != nil {
		return false, err
	}
	for line := range bytes.Lines(text[from:]) {
		var l struct {
			Msg     string `json:"msg"`
			BaseURL string `json:"base_url"`
			Admin   string `json:"admin"`
		}
		if json.Unmarshal(line, &l) == nil && l.Msg == "serving" { // else the line is not whole yet
			g.base, g.admin = l.BaseURL, l.Admin
			return true, nil
		}
	}
	return false, nil
}

func tail(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}

func (g *gateway) alive() bool {
	select {
	case <-g.ended:
		return false
	default:
		return true
	}
}

// stop ends the gateway as operators do, and waits. One that has ended well is fine.
func (g *gateway) stop(ctx context.Context) error {
	if !g.alive() {
		return g.err
	}
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping the gateway: %w", err)
	}
	return g.wait(ctx)
}

// wait waits for the gateway's end, which must be a good one.
func (g *gateway) wait(ctx context.Context) error {
	select {
	case <-g.ended:
		if g.err != nil {
			return fmt.Errorf("the gateway ended badly: %w", g.err)
		}
		return nil
	case <-time.After(downTimeout):
	case <-ctx.Done():
	}
	return errors.Join(errors.New("the gateway did not end after SIGTERM"), g.kill())
}

// kill ends the gateway with SIGKILL and waits until it is gone; what it has started may live on.
func (g *gateway) kill() error {
	if err := g.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-g.ended
	g.err = nil // it is what was wanted
	return nil
}

// processes are the engines and their children, of every gateway that there was in this folder.
func (g *gateway) processes() []int { return writers(g.stateDir()) }

// tidy keeps the logs and throws the rest away: the key is good for nothing any more.
func (g *gateway) tidy() error {
	logs := filepath.Join(g.stateDir(), "logs")
	err := os.Rename(logs, filepath.Join(g.dir, "engines"))
	if errors.Is(err, fs.ErrNotExist) { // nothing was started
		err = nil
	}
	return errors.Join(err, os.RemoveAll(g.stateDir()), os.RemoveAll(filepath.Join(g.dir, scratch)))
}

// quick is for what answers at once. It keeps no connection.
var quick = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// fetch gets JSON.
func fetch(ctx context.Context, url, key string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := quick.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(v)
}

// modelState is what we need of a model in GET /api/state.
type modelState struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	Replicas []struct {
		ID       uint64    `json:"id"`
		State    string    `json:"state"`
		Since    time.Time `json:"since"`
		InFlight int       `json:"in_flight"`
		Phase    string    `json:"phase"`
		PID      int       `json:"pid"`
	} `json:"replicas"`
	Failure *struct {
		Class     string `json:"class"`
		Message   string `json:"message"`
		Advice    string `json:"advice"`
		Permanent bool   `json:"permanent"`
	} `json:"failure"`
	Starts        uint64 `json:"starts"`
	StartFailures uint64 `json:"start_failures"`
	Crashes       uint64 `json:"crashes"`
	Evictions     uint64 `json:"evictions"`
	Preemptions   uint64 `json:"preemptions"`
}

func (g *gateway) model(ctx context.Context, name string) (modelState, error) {
	var state struct {
		Models []modelState `json:"models"`
	}
	if err := fetch(ctx, g.admin+"/api/state", "", &state); err != nil {
		return modelState{}, err
	}
	for _, m := range state.Models {
		if m.Name == name {
			return m, nil
		}
	}
	return modelState{}, fmt.Errorf("no model %s: %w", name, fs.ErrNotExist)
}

// accessLine is what we need of a line of the access log.
type accessLine struct {
	RequestID string  `json:"request_id"`
	Status    int     `json:"status"`
	Cold      bool    `json:"cold"`
	Queued    float64 `json:"queued"`     // seconds from arrival to dispatch
	FirstByte float64 `json:"first_byte"` // seconds from arrival to the engine's first byte
}

// logged waits for a request's line, which comes within a quarter of a second of its end.
func (g *gateway) logged(ctx context.Context, id string) (line accessLine, err error) {
	err = until(ctx, 5*time.Second, "the access log has "+id, func() (bool, error) {
		f, err := os.Open(g.access())
		if err != nil {
			return false, err
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if bytes.Contains(lines.Bytes(), []byte(id)) && json.Unmarshal(lines.Bytes(), &line) == nil && line.RequestID == id {
				return true, nil
			}
		}
		return false, nil
	})
	return line, err
}

// check runs `pilotlight check` on a configuration and returns what it prints and its exit status.
func (g *gateway) check(ctx context.Context, name string, config any) (string, int, error) {
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return "", 0, err
	}
	file := filepath.Join(g.dir, name+".yaml")
	if err := os.WriteFile(file, append(text, '\n'), 0o600); err != nil {
		return "", 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, g.program, "check", "-c", file).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.ExitCode(), nil
	}
	return string(out), 0, err
}

// records are the files that the gateway keeps of its replicas.
func (g *gateway) records() []string {
	names, err := filepath.Glob(filepath.Join(g.stateDir(), "replicas", "*.json"))
	if err != nil {
		panic("BUG: " + err.Error()) // the pattern is wrong
	}
	for i := range names {
		names[i] = strings.TrimSuffix(filepath.Base(names[i]), ".json")
	}
	return names
}
