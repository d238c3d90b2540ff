package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// subject is something that stands between the client and the engine.
type subject struct {
	name    string
	version string
	addr    string
	keys    []string // of one length
	models  []string // of one length
	process *process
}

// of is the job, done through the subject.
func (s *subject) of(j job) job {
	j.Addr, j.Keys, j.Models = s.addr, s.keys, s.models
	return j
}

// plain is one client's share of the work that rows plain, latency, growth and features measure.
func plain(conns int, d time.Duration) job { return job{Conns: conns, For: d, BodyBytes: 1000} }

const served = "bench" // the model's name

// lab is where one run takes place.
type lab struct {
	self   string // this program
	dir    string
	engine string // address
	binary string // of the gateway
	cache  string // where pip installs
	files  int    // how many a process may have open
	key    string // what clients of peers send: litellm does not start without one, the others do not look at it
	say    func(format string, args ...any)
}

// peer starts one kind of subject on the given port.
type peer struct {
	install func(ctx context.Context, l *lab) error
	version func(l *lab) []string // a command
	module  string                // whose version is the peer's, if there is no command; empty: Go's
	start   func(l *lab, port int) (argv, env []string, err error)
	wait    time.Duration
}

const haproxyConfig = `global
  maxconn %d
  nbthread 2
  log stderr local0 warning
defaults
  mode http
  option http-no-delay
  http-reuse always
  timeout connect 30s
  timeout client 1h
  timeout server 1h
frontend in
  bind 127.0.0.1:%d backlog 8192
  default_backend engine
backend engine
  server e %s
`

const nginxConfig = `worker_processes 2;
daemon off;
pid %[1]s/nginx.pid;
error_log stderr warn;
events { worker_connections 30000; }
http {
  access_log off;
  client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  keepalive_requests 1000000000;
  upstream engine { server %[3]s; keepalive 1024; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:%[2]d backlog=8192;
    location / { proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 1h; }
  }
}
`

const litellmConfig = `model_list:
  - model_name: bench
    litellm_params: {model: openai/bench, api_base: "http://%s/v1", api_key: none}
litellm_settings: {telemetry: false}
general_settings: {master_key: %q}
`

var peers = map[string]peer{
	"fasthttp": {module: "github.com/valyala/fasthttp", start: func(l *lab, port int) ([]string, []string, error) {
		return []string{l.self, "role", "fasthttp", "--listen", local(port), "--upstream", l.engine}, nil, nil
	}},
	"nethttp": {start: func(l *lab, port int) ([]string, []string, error) {
		return []string{l.self, "role", "nethttp", "--listen", local(port), "--upstream", l.engine}, nil, nil
	}},
	"haproxy": {install: apt("haproxy"), version: func(*lab) []string { return []string{"haproxy", "-v"} },
		start: func(l *lab, port int) ([]string, []string, error) {
			file, err := l.write("haproxy.cfg", fmt.Sprintf(haproxyConfig, (l.files-200)/2, port, l.engine))
			return []string{"haproxy", "-db", "-f", file}, nil, err
		}},
	"nginx": {install: apt("nginx"), version: func(*lab) []string { return []string{"nginx", "-v"} },
		start: func(l *lab, port int) ([]string, []string, error) {
			file, err := l.write("nginx.conf", fmt.Sprintf(nginxConfig, l.dir, port, l.engine))
			return []string{"nginx", "-p", l.dir, "-c", file, "-e", "stderr"}, nil, err
		}},
	"smg": {install: pip("smg"), version: func(l *lab) []string { return l.pipShow("smg") }, wait: time.Minute,
		start: func(l *lab, port int) ([]string, []string, error) {
			return []string{filepath.Join(l.cache, "smg", "bin", "smg"), "launch", "--host", "127.0.0.1", "--port", fmt.Sprint(port),
				"--worker-urls", "http://" + l.engine, "--policy", "round_robin", "--log-level", "warn", "--prometheus-port", fmt.Sprint(port + 1)}, nil, nil
		}},
	"litellm": {install: pip("litellm[proxy]"), version: func(l *lab) []string { return l.pipShow("litellm") }, wait: 2 * time.Minute,
		start: func(l *lab, port int) ([]string, []string, error) {
			file, err := l.write("litellm.yaml", fmt.Sprintf(litellmConfig, l.engine, l.key))
			return []string{filepath.Join(l.cache, "litellm", "bin", "litellm"), "--config", file, "--host", "127.0.0.1", "--port", fmt.Sprint(port), "--num_workers", "2"},
				[]string{"LITELLM_LOG=ERROR", "LITELLM_LOCAL_MODEL_COST_MAP=True", "NO_DOCS=True"}, err
		}},
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func (l *lab) write(name, text string) (string, error) {
	file := filepath.Join(l.dir, name)
	return file, os.WriteFile(file, []byte(text), 0o600)
}

func apt(name string) func(context.Context, *lab) error {
	return func(ctx context.Context, l *lab) error {
		if _, err := exec.LookPath(name); err == nil {
			return nil
		}
		l.say("installing %s", name)
		for _, args := range [][]string{{"update"}, {"install", "-y", "--no-install-recommends", name}} {
			cmd := exec.CommandContext(ctx, "apt-get", args...)
			cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, out[max(0, len(out)-500):])
			}
		}
		return nil
	}
}

// pip installs into an environment of its own, named for the package.
func pip(requirement string) func(context.Context, *lab) error {
	name, _, _ := strings.Cut(requirement, "[")
	return func(ctx context.Context, l *lab) error {
		venv := filepath.Join(l.cache, name)
		if _, err := os.Stat(filepath.Join(venv, "bin", name)); err == nil {
			return nil
		}
		l.say("installing %s", requirement)
		for _, argv := range [][]string{{"python3", "-m", "venv", venv}, {filepath.Join(venv, "bin", "pip"), "install", "-q", requirement}} {
			if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out[max(0, len(out)-500):])
			}
		}
		return nil
	}
}

func (l *lab) pipShow(name string) []string {
	return []string{filepath.Join(l.cache, name, "bin", "python"), "-c", "import importlib.metadata as m; print(m.version('" + name + "'))"}
}

// moduleVersion is that of a module in this program, and Go's for the standard library's name "".
func moduleVersion(module string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok || module == "" {
		return runtime.Version()
	}
	for _, m := range info.Deps {
		if m.Path == module {
			return m.Version
		}
	}
	return "unknown"
}

// begin installs and starts a peer, and asks it one question.
func (l *lab) begin(ctx context.Context, name string) (*subject, error) {
	p, ok := peers[name]
	if !ok {
		return nil, fmt.Errorf("unknown peer %q", name)
	}
	if p.install != nil {
		if err := p.install(ctx, l); err != nil {
			return nil, err
		}
	}
	port, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	argv, env, err := p.start(l, port)
	if err != nil {
		return nil, err
	}
	s := &subject{name: name, addr: local(port), keys: []string{l.key}, models: []string{served}}
	if p.version != nil {
		out, err := run(ctx, p.version(l)...)
		if err != nil {
			return nil, err
		}
		s.version, _, _ = strings.Cut(strings.TrimSpace(out), "\n")
	} else {
		s.version = moduleVersion(p.module)
	}
	if s.process, err = start(l.dir, name, env, argv...); err != nil {
		return nil, err
	}
	return s, l.ready(ctx, s, max(p.wait, 10*time.Second))
}

// bare starts a bare fasthttp proxy with more than one pool of connections, for comparison with a gateway that has more than one.
func (l *lab) bare(ctx context.Context, name string, upstreams, pools int) (*subject, error) {
	port, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	s := &subject{name: name, addr: local(port), keys: []string{l.key}, models: []string{served}}
	if s.process, err = start(l.dir, name, nil, l.self, "role", "fasthttp", "--listen", s.addr, "--upstream", l.engine,
		"--upstreams", fmt.Sprint(upstreams), "--pools", fmt.Sprint(pools)); err != nil {
		return nil, err
	}
	return s, l.ready(ctx, s, 10*time.Second)
}

// ready waits until the subject answers as it should.
func (l *lab) ready(ctx context.Context, s *subject, limit time.Duration) error {
	if err := s.process.await(ctx, s.addr, limit); err != nil {
		s.process.stop()
		return err
	}
	end := time.Now().Add(limit)
	for {
		saw, err := drive(ctx, l.self, s.of(plain(1, time.Millisecond)))
		if err == nil && saw.Errors == 0 && saw.Requests > 0 {
			return nil
		}
		if time.Now().After(end) {
			err := fmt.Errorf("%s does not answer: %v %s; it says: %s", s.name, err, saw.First, s.process.tail())
			s.process.stop()
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}
