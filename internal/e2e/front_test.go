package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pilotlight/internal/testtools"
)

// front is a proxy that speaks HTTP/2, as its file in examples sets it up.
type front struct {
	name string
	// command runs the file at path; replace puts this machine's addresses and files into the example.
	command func(path, dir string) []string
	replace func(text, listen, gateway, dir string) string
}

// substitute fails the test if the example does not hold what is to be replaced.
func substitute(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the example does not hold %q", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

func fronts(t *testing.T) []front {
	return []front{
		{"nginx.conf", func(path, dir string) []string {
			return []string{"nginx", "-p", dir, "-c", path, "-e", "stderr", "-g", "daemon off; master_process off; pid " + dir + "/pid;"}
		}, func(text, listen, gateway, dir string) string {
			temporary := ""
			for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				temporary += fmt.Sprintf("  %s_temp_path %s/%s;\n", kind, dir, kind)
			}
			return substitute(t, text, "127.0.0.1:8000", gateway, "listen 443", "listen "+listen, "/etc/nginx/", dir+"/",
				"http {\n", "http {\n  access_log off;\n"+temporary)
		}},
		{"haproxy.cfg", func(path, _ string) []string { return []string{"haproxy", "-db", "-f", path} },
			func(text, listen, gateway, dir string) string {
				return substitute(t, text, "127.0.0.1:8000", gateway, "bind :443", "bind "+listen, "/etc/haproxy/", dir+"/")
			}},
	}
}

// start runs the proxy and returns its address and a client that speaks HTTP/2 to it.
func (f front) start(t *testing.T, gateway string) (base string, client *http.Client) {
	t.Helper()
	dir := t.TempDir()
	argv := f.command(filepath.Join(dir, f.name), dir)
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Fatalf("%s is not installed, and examples/%s cannot be tried; install it (Debian: apt-get install nginx-light haproxy)", argv[0], f.name)
	}
	certificate, key := testtools.Certificate(t, "front")
	for name, text := range map[string][]byte{"cert.pem": certificate, "key.pem": key, "cert-and-key.pem": append(certificate, key...)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := ln.Addr().String()
	ln.Close()
	text, err := os.ReadFile(filepath.Join("../../examples", f.name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.replace(string(text), listen, gateway, dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	output := &testtools.Buffer{}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said: %s", argv[0], output)
		}
	})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	client = &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	t.Cleanup(client.CloseIdleConnections)
	base = "https://" + listen + "/v1"
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get(base + "/health")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return base, client
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v: %s", argv[0], err, output)
		}
	}
}

// Behind the recommended proxies streams come over HTTP/2 as they are made, and who leaves frees the engine.
func TestFrontsWithHTTP2(t *testing.T) {
	const pause = 150 * time.Millisecond
	words := strings.Repeat("word ", 8)
	s := serve(t, config(simModel(t, "m", "scaling: {replicas: 1}", "--sim-start", "0s", "--sim-ttft", "50ms", "--sim-itl", pause.String())))
	s.Until(20*time.Second, "the model is ready", func() bool { return s.model("m").State == "ready" })
	at, err := url.Parse(s.BaseURL)
	if err != nil {
		t.Fatal(err)
	}
	inFlight := func() int { return s.model("m").Replicas[0].InFlight }
	for _, f := range fronts(t) {
		t.Run(f.name, func(t *testing.T) {
			base, client := f.start(t, at.Host)
			older := &http.Client{Transport: &http.Transport{TLSClientConfig: client.Transport.(*http.Transport).TLSClientConfig.Clone()}}
			older.Transport.(*http.Transport).TLSClientConfig.NextProtos = []string{"http/1.1"}
			defer older.CloseIdleConnections()
			ask := func(ctx context.Context, client *http.Client, stream bool) (*http.Response, error) {
				body := fmt.Sprintf(`{"model":"m","stream":%v,"messages":[{"role":"user","content":"echo: %s"}]}`, stream, words)
				req, err := http.NewRequestWithContext(ctx, "POST", base+"/chat/completions", strings.NewReader(body))
				if err != nil {
					return nil, err
				}
				req.Header.Set("Authorization", "Bearer "+s.Key("a"))
				return client.Do(req)
			}

			// As they are made: one by one, not all at the end.
			resp, err := ask(t.Context(), client, true)
			if err != nil {
				t.Fatal(err)
			}
			if resp.ProtoMajor != 2 || resp.StatusCode != 200 {
				t.Fatalf("%s %s", resp.Proto, resp.Status)
			}
			var times []time.Time
			done := false
			for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
				if lines.Text() == "data: [DONE]" {
					done = true
				} else if strings.HasPrefix(lines.Text(), "data: ") {
					times = append(times, time.Now())
				}
			}
			resp.Body.Close()
			if !done || len(times) < 8 {
				t.Fatalf("%d events, done %v", len(times), done)
			}
			apart := 0
			for i := range times[1:] {
				if times[i+1].Sub(times[i]) > pause/2 {
					apart++
				}
			}
			if apart < 6 {
				t.Errorf("of %d events only %d came apart from the one before", len(times), apart)
			}

			// Who leaves, leaves.
			for i := range 4 {
				stream, client := i%2 == 0, client
				if i >= 2 {
					client = older
				}
				ctx, cancel := context.WithCancel(t.Context())
				answered := make(chan struct{})
				go func() {
					defer close(answered)
					if resp, err := ask(ctx, client, stream); err == nil {
						_, _ = bufio.NewReader(resp.Body).ReadString('\n')
						<-ctx.Done()
						resp.Body.Close()
					}
				}()
				s.Until(5*time.Second, "the engine works", func() bool { return inFlight() == 1 })
				cancel()
				start := time.Now()
				s.Until(5*time.Second, "the engine is free", func() bool { return inFlight() == 0 })
				if d := time.Since(start); d > time.Second {
					t.Errorf("HTTP/2 %v, stream %v: the engine worked for %v for a client that has left", client != older, stream, d)
				}
				<-answered
			}
		})
	}
}
