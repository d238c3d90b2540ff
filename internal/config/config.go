// Package config reads the gateway's YAML file into the Config structs of the packages that use them: every
// field is known and checked, every problem is reported at once with its line, path and fix, and what a later
// release implements is refused rather than ignored. It also compares two configurations for a reload (Diff),
// watches the file (Watch) and prints what a configuration means (Describe).
//
// It starts nothing, and apart from the file itself reads nothing but the environment it is given. A Config is
// immutable once returned and safe to share between goroutines.
package config

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"

	"pilotlight/auth/jwt"
	"pilotlight/auth/tenants"
	"pilotlight/backends"
	"pilotlight/backends/sglang/footprint"
	"pilotlight/gateway"
)

// Config is a file that passed every check, with all defaults filled in.
type Config struct {
	Source  string   // the file's path as it was given
	Digest  [32]byte // SHA-256 of the file's bytes
	Gateway gateway.Config
	// TLS makes the client listener encrypted; the zero value leaves it in clear text.
	TLS    TLS
	Models []Model // in the order of the file, at least one
	Admin  Admin
	// StateDir is absolute: learned durations, replica records, logs.
	StateDir string
	Store    Store
	// Prefetch is what is fetched when the gateway starts: the file's list, then the models that ask for it.
	Prefetch []Prefetch
	Devices  Devices
	// KeysFile holds the hashed API keys; the default is keys.yaml beside the configuration. It need not exist.
	KeysFile string
	// Issuers are those whose tokens are accepted beside keys.
	Issuers []jwt.Issuer
	// Tenants says what callers may do.
	Tenants tenants.Rules
	Queue   Queue
	Traces  Traces
	// Warnings are sorted by line; the configuration works in spite of them.
	Warnings []Problem
}

// Admin is the listener for operators.
type Admin struct {
	Listen string // host:port; port 0 picks a free one
	Token  string // bearer token; empty: none is asked for, which only a loopback address allows
}

// TLS names files in PEM by absolute path. Both are set, or neither.
type TLS struct{ Cert, Key string }

// Queue bounds what waits for all models together.
type Queue struct {
	MaxRequests int
	MaxBytes    int64
}

// DefaultQueue is five models' share of requests and four of bytes: many models rarely wait at once.
func DefaultQueue() Queue { return Queue{MaxRequests: 10_000, MaxBytes: 1 << 30} }

const (
	defaultListen      = "127.0.0.1:8000"
	defaultAdminListen = "127.0.0.1:9000"
	defaultKeysFile    = "keys.yaml"

	// maxFileBytes is some thousand models; a larger file is another kind of file.
	maxFileBytes = 1 << 20
	// leastBodyBytes and mostBodyBytes bound max_body_bytes: below, no chat fits; above, memory runs out.
	leastBodyBytes = 1 << 10
	mostBodyBytes  = 4 << 30
)

// Source says what a file is read with, besides its text. The zero value is usable.
type Source struct {
	// Env looks up environment variables, as os.LookupEnv does; nil means that there are none.
	Env func(string) (string, bool)
	// EngineRelease tells which release of SGLang a command would start in a folder with variables of its own. nil, and
	// an error: it is not known, and the arguments are held against every known release.
	EngineRelease func(command []string, dir string, env map[string]string) (string, error)
	// Footprint tells what the model at a path or of a repository takes, for an engine with variables of its own. nil, and
	// a nil Model: it is not at hand.
	Footprint func(path, revision string, env map[string]string) (*footprint.Model, error)
	// Stored tells the folder in which a store has weights, all of them; nil, and "": it has not.
	Stored func(Store, backends.Weights) string
}

// Load is Source.Load with the environment only: for those who need the file's settings and start nothing.
func Load(path string, env func(string) (string, bool)) (*Config, error) {
	return Source{Env: env}.Load(path)
}

// Parse is Source.Parse with the environment only.
func Parse(name string, data []byte, env func(string) (string, bool)) (*Config, error) {
	return Source{Env: env}.Parse(name, data)
}

// Load reads and checks a file. The error is *Problems if the file could be read and is wrong.
func (s Source) Load(path string) (*Config, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return s.Parse(path, data)
}

// Parse checks the bytes of a file called name; relative paths in it count from name's folder. The error is
// always *Problems. It reads no other file itself. Safe for concurrent use, if the functions are.
func (s Source) Parse(name string, data []byte) (*Config, error) {
	env := s.Env
	if env == nil {
		env = func(string) (string, bool) { return "", false }
	}
	r := &reader{file: name, env: env, engineRelease: s.EngineRelease, footprint: s.Footprint, stored: s.Stored}
	if absolute, err := filepath.Abs(name); err == nil {
		r.file = absolute // else relative paths stay relative to the working folder
	}
	c := &Config{Source: name, Digest: sha256.Sum256(data)}
	if root := r.document(data); root != nil {
		r.config(c, r.value(root, "", root.Line))
	}
	if r.exhausted() {
		r.problems = []Problem{{Message: "the file is too large once its aliases are written out",
			Fix: "use fewer anchors and aliases"}}
	}
	if len(r.problems) > 0 {
		return nil, &Problems{File: name, List: sorted(r.problems)}
	}
	c.Warnings = sorted(r.warnings)
	return c, nil
}

var (
	yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	// yamlParserError are the messages of the YAML library's parser, which counts lines from zero; its scanner,
	// whose messages are the others, counts from one.
	yamlParserError = regexp.MustCompile(`^did not find expected (<document|node|key|'-'|',')`)
)

// document parses the YAML of the only document, or reports why there is none.
func (r *reader) document(data []byte) *yaml.Node {
	if len(data) > maxFileBytes {
		r.problems = append(r.problems, Problem{Message: "the file is larger than 1 MiB", Fix: "is it the right file?"})
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			r.empty()
		} else {
			r.syntax(err)
		}
		return nil
	}
	if len(document.Content) == 0 || document.Content[0].ShortTag() == "!!null" {
		r.empty()
		return nil
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		r.problems = append(r.problems, Problem{Line: second.Line, Message: "the file holds more than one document",
			Fix: "keep one, and remove the line --- between them"})
		return nil
	case !errors.Is(err, io.EOF):
		r.syntax(err)
		return nil
	}
	return document.Content[0]
}

func (r *reader) empty() {
	r.problems = append(r.problems, Problem{Message: "the file is empty",
		Fix: "it needs at least a models list with a name, a model_id and a model_hf_path or model_path"})
}

func (r *reader) syntax(err error) {
	p := Problem{Message: err.Error()}
	if m := yamlLine.FindStringSubmatch(p.Message); m != nil {
		p.Message = p.Message[len(m[0]):]
		p.Line, _ = strconv.Atoi(m[1]) // digits by the pattern, or none: line 0
		if p.Line > 0 && yamlParserError.MatchString(p.Message) {
			p.Line++
		}
	}
	p.Message = "not valid YAML: " + p.Message
	r.problems = append(r.problems, p)
}

func (r *reader) config(c *Config, root value) {
	f := root.fields("listen", "tls", "models", "admin", "state_dir", "store", "prefetch", "devices", "auth", "redis", "queue",
		"telemetry", "max_body_bytes", "limits", "tenants")
	if root.kind() != "a mapping" {
		return // reported; what it lacks says nothing more
	}
	c.Gateway = gateway.Config{
		Listen:       f.get("listen").address(defaultListen),
		MaxBodyBytes: int(f.get("max_body_bytes").byteLimit(gateway.DefaultMaxBodyBytes, leastBodyBytes, mostBodyBytes)),
		AccessLog:    true,
	}
	c.TLS = r.tls(f.get("tls"))
	c.StateDir = r.stateDir(f.get("state_dir"))
	r.admin(c, f.get("admin").asSecret(), f.get("listen"))

	auth := f.get("auth").fields("keys_file", "jwt", "anonymous", "wrong_keys_per_minute", "trusted_proxies")
	c.KeysFile = beside(r.file, r.home(auth.get("keys_file"), auth.get("keys_file").text(defaultKeysFile)))
	c.Issuers = r.issuers(auth.get("jwt"))
	r.tenants(c, f, auth)

	c.Queue = DefaultQueue()
	queue := f.get("queue").fields("max_requests", "max_bytes")
	c.Queue.MaxRequests = int(queue.get("max_requests").integer(int64(c.Queue.MaxRequests), 1, maxQueuedRequests))
	c.Queue.MaxBytes = queue.get("max_bytes").size(c.Queue.MaxBytes, leastBodyBytes)

	telemetry := f.get("telemetry").fields("otlp_endpoint", "traces", "access_log")
	c.Gateway.AccessLog = telemetry.get("access_log").boolean(true)
	r.traces(c, telemetry)
	r.laterTopLevel(f)
	r.store(c, f.get("store"))
	r.prefetches(c, f.get("prefetch"))
	c.Devices = r.devices(f.get("devices"))

	models := f.get("models")
	items := models.items()
	if len(items) == 0 && (!models.given() || models.node.Kind == yaml.SequenceNode) {
		models.fail("at least one model is needed", "add a name, a model_id and a model_hf_path or model_path")
	}
	var read []modelFields
	for _, item := range items {
		m := r.model(item, c)
		read = append(read, m)
		c.Models = append(c.Models, m.model)
	}
	for i := range c.Models {
		if m := &c.Models[i]; m.Prefetch {
			c.Prefetch = append(c.Prefetch, Prefetch{Name: m.Spec.Weights.Label(), Weights: m.Spec.Weights, Model: m.Name, Shard: m.Spec.Shard})
		}
	}
	unserved(c, f.get("prefetch"))
	unique(read)
	linkNames(read)
	r.fit(c, read)
}

// byteLimit is size with an upper bound.
func (v value) byteLimit(def, lo, hi int64) int64 {
	n := v.size(def, lo)
	if n > hi {
		v.fail("is more than this gateway can hold in memory for one request", "the most is 4GiB")
		return def
	}
	return n
}
