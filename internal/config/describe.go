package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/dustin/go-humanize"

	"pilotlight/activator"
	"pilotlight/backends"
)

// Describe writes what a configuration means: each model as it was resolved, the command that starts it,
// warnings and advice. commandLine is the command of a process replica with its address; whatever key it holds
// in --api-key is masked here, and so are values of env_vars that are or may be secrets. Besides w it only
// looks whether files exist. The error is w's.
//
// learned tells of a model's starts on this machine, stored of what the store has; an error of that wraps store.ErrIncomplete where it lacks
// something. nil: nobody knows.
func Describe(w io.Writer, c *Config, commandLine func(*backends.Spec) []string, learned func(*Model) (Learned, bool), stored func(backends.Weights) (Stored, error)) error {
	d := describer{config: c, commandLine: commandLine, learned: learned, stored: stored, exists: exists, lookPath: exec.LookPath}
	d.all()
	_, err := w.Write(d.out.Bytes())
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

type describer struct {
	config      *Config
	commandLine func(*backends.Spec) []string
	learned     func(*Model) (Learned, bool)
	stored      func(backends.Weights) (Stored, error)
	exists      func(path string) bool
	lookPath    func(program string) (string, error)
	out         bytes.Buffer
}

func (d *describer) line(indent int, format string, args ...any) {
	fmt.Fprintf(&d.out, strings.Repeat("  ", indent)+format+"\n", args...)
}

func (d *describer) all() {
	c := d.config
	d.line(0, "%s: %s, %s", c.Source, count(len(c.Models), "model"), count(len(c.Warnings), "warning"))
	if c.TLS == (TLS{}) {
		d.line(0, "listen       %s", c.Gateway.Listen)
	} else {
		d.line(0, "listen       %s, TLS with %s and %s", c.Gateway.Listen, c.TLS.Cert, c.TLS.Key)
	}
	token := "no token"
	if c.Admin.Token != "" {
		token = "token ***"
	}
	d.line(0, "admin        %s, %s", c.Admin.Listen, token)
	d.line(0, "state_dir    %s", c.StateDir)
	d.store()
	d.line(0, "devices      %s", c.Devices)
	d.line(0, "keys_file    %s", c.KeysFile)
	d.line(0, "queue        %d requests, %s in all", c.Queue.MaxRequests, humanize.IBytes(uint64(c.Queue.MaxBytes)))
	d.line(0, "body limit   %s", humanize.IBytes(uint64(c.Gateway.MaxBodyBytes)))
	d.traces(c.Traces)
	d.issuerLines(c.Issuers)
	d.tenantLines(c.Tenants, c)
	for i := range c.Models {
		d.line(0, "")
		d.model(&c.Models[i])
	}
	if len(c.Warnings) > 0 {
		d.line(0, "\nwarnings")
		for _, p := range c.Warnings {
			d.line(1, "%s", located(c.Source, p))
		}
	}
	if advice := d.advice(); len(advice) > 0 {
		d.line(0, "\nadvice")
		for _, a := range advice {
			d.line(1, "%s", a)
		}
	}
}

// traces shows the collector without its path, where some have their token.
func (d *describer) traces(t Traces) {
	u, err := url.Parse(t.Endpoint)
	if t.Endpoint == "" || err != nil {
		return
	}
	says := "whatever the client says"
	if t.TrustClient {
		says = "or as the client says"
	}
	d.line(0, "traces       %g %% of requests, %s, to %s://%s", t.Sample*100, says, u.Scheme, u.Host)
}

func (d *describer) model(m *Model) {
	d.line(0, "model %s", m.Name)
	names := append([]string{m.ModelID}, m.Aliases...)
	access := "key required"
	if !m.RequiresAuth {
		access = "open to callers without a key"
	}
	d.line(1, "names        %s (%s)", strings.Join(names, ", "), access)
	if text := d.config.Tenants.Models[m.ModelID].String(); text != "" {
		d.line(1, "limits       %s, of all tenants together", text)
	}
	if m.Spec.Driver == backends.DriverStatic {
		d.line(1, "backend      static, engine %s, %s, probe %s", m.Spec.Engine, strings.Join(m.Spec.URLs, " "), m.Spec.Probe)
		key := "none"
		if m.Spec.StaticAPIKey != "" {
			key = "***"
		}
		d.line(1, "upstream     model %s, api key %s", m.Spec.ServedName, key)
	} else {
		d.line(1, "backend      process, engine %s, probe %s", m.Spec.Engine, m.Spec.Probe)
		d.line(1, "command      %s", quoted(maskArgs(d.commandLine(&m.Spec))))
		if m.options != nil {
			d.options(m)
		}
		d.weights(m)
		if m.Spec.Dir != "" {
			d.line(1, "folder       %s", m.Spec.Dir)
		}
		for _, name := range sortedNames(m.Spec.Env) {
			value := quote(m.Spec.Env[name])
			if m.masked[name] {
				value = "***"
			}
			d.line(1, "env          %s=%s", name, value)
		}
		for _, s := range m.Spec.Secrets {
			d.line(1, "secret       %s=*** from %s", s.Env, s.File)
		}
		d.resources(m.Resources)
		d.memory(m)
		d.sharing(m)
		d.line(1, "scaling      %s", scaled(&m.Activator))
		if text := d.sleeping(m); text != "" {
			d.line(1, "sleep        %s", text)
		}
	}
	concurrency := fmt.Sprintf("the engine's own limit, else %d", activator.DefaultConcurrency)
	if n := m.Activator.Concurrency; n > 0 {
		concurrency = fmt.Sprint(n)
	}
	d.line(1, "concurrency  %s per replica", concurrency)
	d.line(1, "queue        %d requests, %s", m.Activator.MaxQueuedRequests, humanize.IBytes(uint64(m.Activator.MaxQueuedBytes)))
	d.line(1, "cold         grace %s, heartbeat %s, max_wait %s, keep_alive_json %t", m.Cold.Grace, m.Cold.Heartbeat,
		m.Cold.MaxWait, m.Cold.KeepAliveJSON)
	d.line(1, "timeouts     request %s, start %s, first_byte %s, idle_stream %s, drain %s", m.Timeouts.Request,
		m.Spec.StartTimeout, m.Timeouts.FirstByte, m.Timeouts.IdleStream, m.Activator.DrainTimeout)
	if m.Activator.Max > 1 {
		text := fmt.Sprintf("policy %s, session_header %s", m.Routing.Policy, m.Routing.SessionHeader)
		if first := m.Timeouts.FirstToken; first > 0 {
			text += fmt.Sprintf(", another replica after %s of silence", first)
		}
		d.line(1, "routing      %s", text)
	}
	d.names(m)
}

// scaled says how many replicas a model has when.
func scaled(c *activator.Config) string {
	replicas := fmt.Sprintf("%d to %s", c.Min, count(c.Max, "replica"))
	switch {
	case c.Min == c.Max:
		return count(c.Max, "replica") + ", always running"
	case c.Max == 1:
		return fmt.Sprintf("%s, stopped after %s without traffic", replicas, c.ScaledownAfter)
	case c.RequestRate > 0:
		return fmt.Sprintf("%s, one for each %g requests per second, given up after %s without need", replicas, c.RequestRate, c.ScaledownAfter)
	case c.Concurrency > 0:
		return fmt.Sprintf("%s, one for each %d requests in flight, given up after %s without need", replicas, c.Concurrency, c.ScaledownAfter)
	}
	return fmt.Sprintf("%s, one for each %d requests in flight (fewer where the engine takes fewer), given up after %s without need", replicas, activator.DefaultConcurrency, c.ScaledownAfter)
}

// sharing shows how a model shares GPUs, where it says so.
func (d *describer) sharing(m *Model) {
	var parts []string
	if share := m.Spec.Devices.Share; share > 0 {
		text := fmt.Sprintf("gpu_share %g", float64(share)/1000)
		if m.Spec.Engine == backends.EngineSGLang {
			text += ", by --mem-fraction-static that is set at each start"
		}
		parts = append(parts, text)
	}
	if m.Pinned {
		parts = append(parts, "pinned")
	}
	if m.Priority != 0 {
		parts = append(parts, fmt.Sprintf("priority %d", m.Priority))
	}
	if len(parts) > 0 {
		d.line(1, "sharing      %s", strings.Join(parts, ", "))
	}
}

func (d *describer) resources(r Resources) {
	var parts []string
	if r.MilliCPU > 0 {
		parts = append(parts, fmt.Sprintf("cpu %g", float64(r.MilliCPU)/1000))
	}
	for _, size := range []struct {
		name  string
		bytes int64
	}{{"memory", r.MemoryBytes}, {"disk", r.DiskBytes}, {"shm", r.ShmBytes}} {
		if size.bytes > 0 {
			parts = append(parts, size.name+" "+humanize.IBytes(uint64(size.bytes)))
		}
	}
	if r.ShmAuto {
		parts = append(parts, "shm auto")
	}
	if r.GPU.Count > 0 {
		parts = append(parts, "gpu "+r.GPU.String())
	}
	if len(parts) > 0 {
		d.line(1, "resources    %s", strings.Join(parts, ", "))
	}
}

func (d *describer) advice() []string {
	c := d.config
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	var needKeys []string
	sglang, unbounded := 0, []string(nil)
	for i := range c.Models {
		m := &c.Models[i]
		if m.RequiresAuth {
			needKeys = append(needKeys, m.Name)
		}
		if m.Spec.Driver != backends.DriverProcess {
			continue
		}
		program := m.Spec.Command[0]
		if strings.Contains(program, "/") && !filepath.IsAbs(program) && m.Spec.Dir != "" {
			program = filepath.Join(m.Spec.Dir, program)
		}
		if _, err := d.lookPath(program); err != nil {
			add("%s: the program %s is not found on this machine", m.Name, program)
		}
		if filepath.IsAbs(m.Spec.ModelPath) && !d.exists(m.Spec.ModelPath) {
			add("%s: model_path %s does not exist on this machine", m.Name, m.Spec.ModelPath)
		}
		for _, s := range m.Spec.Secrets {
			if !d.exists(s.File) {
				add("%s: the secret %s has no file %s yet; it is read at each start", m.Name, s.Name, s.File)
			}
		}
		if m.Spec.Engine != backends.EngineSGLang {
			continue
		}
		sglang++
		if m.options == nil {
			continue // its program takes its options in some way of its own
		}
		if !m.options.given("--mem-fraction-static") && (m.Spec.Devices.Count == 0 || c.Devices.None()) {
			unbounded = append(unbounded, m.Name)
		}
		d.engineAdvice(m, add)
		d.memoryAdvice(m, add)
		d.learnedAdvice(m, add)
	}
	if len(needKeys) > 0 && !d.exists(c.KeysFile) {
		add("no keys file %s yet, so nobody can use %s; make a key with `pilotlight keys new`", c.KeysFile, strings.Join(needKeys, ", "))
	}
	if sglang > 1 && len(unbounded) > 0 {
		add("%s: without --mem-fraction-static a server takes most of the GPU; set it where models share one", strings.Join(unbounded, ", "))
	}
	return out
}

// maskArgs hides what follows --api-key and its like, and arguments that look like secrets.
func maskArgs(args []string) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		name, _, joined := strings.Cut(arg, "=")
		switch {
		case joined && maskedAfter(name):
			out[i] = name + "=***"
		case looksSecret("", arg) || i > 0 && maskedAfter(args[i-1]) && !strings.Contains(args[i-1], "="):
			out[i] = "***"
		default:
			out[i] = arg
		}
	}
	return out
}

// quoted joins arguments so that a shell would take them apart again.
func quoted(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = quote(arg)
	}
	return strings.Join(words, " ")
}

func quote(s string) string {
	special := func(r rune) bool {
		plain := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !plain && !strings.ContainsRune("_-./:=,@%+*", r)
	}
	if s != "" && !strings.ContainsFunc(s, special) {
		return s
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s) // a terminal that stays in order matters more than the shell
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
