package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// subject is something that chooses among replicas, to be started anew for each workload.
type subject struct {
	name string
	// argv starts it in dir in front of the replicas, listening on addr; another is one more free address.
	argv func(dir, addr, another string, replicas []string) ([]string, error)
}

// ours is this gateway with a policy.
func ours(binary, name, policy string, p *parameters) subject {
	return subject{name, func(dir, addr, another string, replicas []string) ([]string, error) {
		c := fmt.Sprintf("listen: %s\nadmin: {listen: %s}\nstate_dir: state\ntelemetry: {access_log: false}\nmodels:\n  - name: m\n    model_id: %s\n    requires_auth: false\n"+
			"    scaling: {metric: {concurrency: %d}}\n    routing: {policy: %s}\n    backend: {static: {urls: [%q]}}\n",
			addr, another, servedModel, p.concurrency, policy, strings.Join(replicas, `", "`))
		c = strings.ReplaceAll(c, `\"`, `"`)
		return []string{binary, "serve", "-c", "pilotlight.yaml"}, os.WriteFile(filepath.Join(dir, "pilotlight.yaml"), []byte(c), 0o600)
	}}
}

// smg is SGLang's own gateway with a policy.
func smg(binary, policy string) subject {
	return subject{"smg, " + policy, func(_, addr, another string, replicas []string) ([]string, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		_, metrics, err := net.SplitHostPort(another)
		if err != nil {
			return nil, err
		}
		return append([]string{binary, "launch", "--host", "127.0.0.1", "--port", port, "--policy", policy, "--log-level", "warn", "--prometheus-port", metrics, "--worker-urls"}, replicas...), nil
	}}
}

// running is a subject that serves.
type running struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  string
	base string
}

func (s *subject) start(ctx context.Context, replicas []string) (*running, error) {
	dir, err := os.MkdirTemp("", "routing-")
	if err != nil {
		return nil, err
	}
	var addrs [2]string
	for i := range addrs {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addrs[i] = ln.Addr().String()
		_ = ln.Close()
	}
	argv, err := s.argv(dir, addrs[0], addrs[1], replicas)
	if err != nil {
		return nil, err
	}
	r := &running{cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{}), log: filepath.Join(dir, "log"), base: "http://" + addrs[0] + "/v1"}
	out, err := os.Create(r.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = dir, out, out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = r.cmd.Wait() // how it ended is in its log
		close(r.done)
	}()
	if err := r.await(ctx); err != nil {
		r.stop()
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return r, nil
}

// await returns once requests are answered. What it sends shares nothing with the workloads.
func (r *running) await(ctx context.Context) error {
	good := 0
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		select {
		case <-r.done:
			return errors.New(r.tail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		req, err := http.NewRequestWithContext(ctx, "POST", r.base+"/chat/completions", strings.NewReader(`{"model":"`+servedModel+`","max_tokens":1,"messages":[{"role":"user","content":"x"}]}`))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			if good++; good == 20 { // all replicas are known by then
				return nil
			}
		}
	}
	return errors.New("it does not answer: " + r.tail())
}

func (r *running) tail() string {
	b, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-1500):])
}

func (r *running) stop() {
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-r.done:
	case <-time.After(3 * time.Second):
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
		<-r.done
	}
	_ = os.RemoveAll(r.cmd.Dir)
}
