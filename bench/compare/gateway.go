package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// variant is how the gateway is configured. The zero value is the one that is compared: keys, one model, access log, metrics.
type variant struct {
	name     string
	models   int  // 0 means 1
	asked    int  // how many of them, in turn; 0 means all
	replicas int  // 0 means 1
	keys     int  // 0 means 1; all are used, in turn
	open     bool // no key is asked for
	noLog    bool
	traces   bool // one request in a hundred
}

// build makes the gateway's binary as it is shipped.
func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "pilotlight")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "./cmd/pilotlight")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return binary, nil
}

// newKey is a key in the gateway's form (README, "Keys") and its entry in a keys file.
func newKey(i int) (key, entry string) {
	var b [40]byte
	_, _ = rand.Read(b[:]) // never fails
	text := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
	key = "pl-" + text[:12] + "-" + text[12:55]
	sum := sha256.Sum256([]byte(key))
	return key, fmt.Sprintf("  - {id: %s, tenant: t%d, hash: \"sha256:%s\", created: 2026-01-01T00:00:00Z}\n", text[:12], i%50, hex.EncodeToString(sum[:]))
}

// gateway starts ourselves.
func (l *lab) gateway(ctx context.Context, v variant, engines []string) (*subject, error) {
	port, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	name := "pilotlight"
	if v.name != "" {
		name += " (" + v.name + ")"
	}
	dir, err := os.MkdirTemp(l.dir, "gateway-")
	if err != nil {
		return nil, err
	}
	s := &subject{name: name, addr: local(port)}
	var keys strings.Builder
	keys.WriteString("keys:\n")
	for i := range max(1, v.keys) {
		key, entry := newKey(i)
		s.keys = append(s.keys, key)
		keys.WriteString(entry)
	}
	if v.open {
		s.keys = []string{""}
	}
	if err := os.WriteFile(filepath.Join(dir, "keys.yaml"), []byte(keys.String()), 0o600); err != nil {
		return nil, err
	}
	urls := make([]string, max(1, v.replicas))
	for i := range urls {
		urls[i] = fmt.Sprintf("%q", "http://"+engines[i%len(engines)])
	}
	var c strings.Builder
	fmt.Fprintf(&c, "listen: %s\nadmin: {listen: %s}\nstate_dir: %s\nauth: {keys_file: keys.yaml}\ntelemetry: {access_log: %v", s.addr, local(port+1), filepath.Join(dir, "state"), !v.noLog)
	if v.traces {
		fmt.Fprintf(&c, ", otlp_endpoint: %q, traces: {sample: 0.01}", "http://"+l.engine) // which takes them as it takes everything
	}
	c.WriteString("}\nqueue: {max_requests: 20000}\nmodels:\n")
	for i := range max(1, v.models) {
		id := served
		if v.models > 0 {
			id = fmt.Sprintf("bench/%04d", i)
		}
		if v.asked == 0 || i < v.asked {
			s.models = append(s.models, id)
		}
		fmt.Fprintf(&c, "  - name: m%d\n    model_id: %s\n    requires_auth: %v\n    scaling: {metric: {concurrency: 100000}}\n    backend: {static: {urls: [%s], engine: sglang}}\n",
			i, id, !v.open, strings.Join(urls, ", "))
	}
	if err := os.WriteFile(filepath.Join(dir, "pilotlight.yaml"), []byte(c.String()), 0o600); err != nil {
		return nil, err
	}
	if s.process, err = start(dir, "gateway", nil, l.binary, "serve", "-c", "pilotlight.yaml"); err != nil {
		return nil, err
	}
	return s, l.ready(ctx, s, 30*time.Second)
}
