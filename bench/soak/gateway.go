package main

import (
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
	"syscall"
	"time"
)

// gateway is a `pilotlight serve` in a folder of its own.
type gateway struct {
	dir   string
	addr  string // where clients connect
	admin string // base URL
	key   string

	cmd   *exec.Cmd
	ended chan struct{}
	err   error // of the process, once ended is closed
}

const (
	upTimeout   = 30 * time.Second
	downTimeout = 90 * time.Second
)

func (g *gateway) file() string    { return filepath.Join(g.dir, "pilotlight.yaml") }
func (g *gateway) logFile() string { return filepath.Join(g.dir, "log") }

// build makes the gateway's program.
func build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "pilotlight")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "pilotlight/cmd/pilotlight")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the gateway: %w: %s", err, text)
	}
	return path, nil
}

// startGateway starts program in dir with a configuration, and waits until it serves.
func startGateway(ctx context.Context, program, dir, yaml string) (*gateway, error) {
	g := &gateway{dir: dir, ended: make(chan struct{})}
	key, err := exec.CommandContext(ctx, program, "keys", "new", "--tenant", "soak", "--file", filepath.Join(dir, "keys.yaml")).Output()
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	g.key = strings.TrimSpace(string(key))
	if err := g.configure(yaml); err != nil {
		return nil, err
	}
	log, err := os.Create(g.logFile())
	if err != nil {
		return nil, err
	}
	defer log.Close()
	g.cmd = exec.Command(program, "serve", "-c", g.file(), "--drain", "20s")
	g.cmd.Stderr = log // standard output, the access log, goes to /dev/null: it is written, and kept nowhere
	// A signal for this program's group, such as Ctrl-C, must not reach the gateway before its last requests are answered.
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the gateway: %w", err)
	}
	go func() {
		g.err = g.cmd.Wait()
		close(g.ended)
	}()
	for end := time.Now().Add(upTimeout); ; time.Sleep(10 * time.Millisecond) {
		if found, err := g.find(); err != nil || found {
			return g, err
		}
		if !g.alive() {
			return nil, fmt.Errorf("the gateway ended: %w\n%s", g.err, g.tail())
		}
		if time.Now().After(end) {
			return nil, errors.Join(fmt.Errorf("the gateway does not come up:\n%s", g.tail()), g.stop())
		}
	}
}

func (g *gateway) alive() bool {
	select {
	case <-g.ended:
		return false
	default:
		return true
	}
}

// find reads the addresses from the log.
func (g *gateway) find() (bool, error) {
	text, err := os.ReadFile(g.logFile())
	if err != nil {
		return false, err
	}
	for line := range bytes.Lines(text) {
		var l struct {
			Msg     string `json:"msg"`
			BaseURL string `json:"base_url"`
			Admin   string `json:"admin"`
		}
		if json.Unmarshal(line, &l) == nil && l.Msg == "serving" { // else the line is not whole yet
			g.addr, g.admin = strings.TrimSuffix(strings.TrimPrefix(l.BaseURL, "http://"), "/v1"), l.Admin
			return true, nil
		}
	}
	return false, nil
}

// tail is the log's end.
func (g *gateway) tail() string {
	text, err := os.ReadFile(g.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// configure replaces the configuration file as editors do.
func (g *gateway) configure(yaml string) error {
	if err := os.WriteFile(g.file()+".new", []byte(yaml), 0o600); err != nil {
		return err
	}
	return os.Rename(g.file()+".new", g.file())
}

// stop ends the gateway as an operator does. A second call does nothing.
func (g *gateway) stop() error {
	if !g.alive() {
		return g.err
	}
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping the gateway: %w", err)
	}
	select {
	case <-g.ended:
		return g.err
	case <-time.After(downTimeout):
		err := g.cmd.Process.Kill()
		<-g.ended
		return errors.Join(fmt.Errorf("the gateway did not end within %v of SIGTERM", downTimeout), err)
	}
}

// client keeps no connection, which would be counted among the gateway's descriptors.
var client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (g *gateway) get(path string) ([]byte, error) {
	resp, err := client.Get(g.admin + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return text, err
}

// state is what we need of GET /api/state.
type state struct {
	Clients int64 `json:"clients"`
	Models  []struct {
		Name           string `json:"name"`
		State          string `json:"state"`
		QueuedRequests int    `json:"queued_requests"`
		Replicas       []struct {
			InFlight int `json:"in_flight"`
		} `json:"replicas"`
		Starts        uint64 `json:"starts"`
		StartFailures uint64 `json:"start_failures"`
		Crashes       uint64 `json:"crashes"`
		Evictions     uint64 `json:"evictions"`
	} `json:"models"`
}

func (g *gateway) state() (s state, err error) {
	text, err := g.get("/api/state")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

// metrics sums the metrics page's values by name, whatever their labels.
func (g *gateway) metrics() (map[string]float64, error) {
	text, err := g.get("/metrics")
	if err != nil {
		return nil, err
	}
	return sumMetrics(string(text))
}

func sumMetrics(page string) (map[string]float64, error) {
	sums := map[string]float64{}
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		space := strings.LastIndexByte(line, ' ')
		if space < 0 || line[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(line[space+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
		name, _, _ := strings.Cut(line[:space], "{")
		sums[name] += v
	}
	return sums, nil
}
