package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/internal/testtools"
)

// writePair puts a new certificate and its key into dir, and returns its subject.
func writePair(t *testing.T, dir, subject string) {
	t.Helper()
	cert, key := testtools.Certificate(t, subject)
	for name, text := range map[string][]byte{"cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// shown is the subject of what clients are shown now.
func (s *started) shown() string {
	s.t.Helper()
	addr := strings.TrimSuffix(strings.TrimPrefix(s.BaseURL(), "https://"), "/v1")
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // which one it is, is the question
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func (s *started) wantShown(subject string) {
	s.t.Helper()
	got := ""
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if got = s.shown(); got == subject {
			return
		}
	}
	s.t.Fatalf("clients are shown %q, want %q", got, subject)
}

// lockedBuffer is a log that others read meanwhile.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) has(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Contains(b.buf.String(), text)
}

// startSecure starts an App with the pair "first" in its folder. It follows files only if asked to.
func startSecure(t *testing.T, watch bool) (*started, *lockedBuffer) {
	t.Helper()
	s, log := &started{t: t, dir: t.TempDir()}, &lockedBuffer{}
	writePair(t, s.dir, "first")
	s.set("tls: {cert: cert.pem, key: DIR/key.pem}\n" + models("a"))
	if err := os.WriteFile(filepath.Join(s.dir, "pilotlight.yaml"), []byte(s.text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	s.App, err = Start(t.Context(), Options{Config: c, Load: s.load, Watch: watch, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		http.DefaultClient.CloseIdleConnections()
		if err := s.Shutdown(ctx, nil); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	s.wantShown("first")
	return s, log
}

func TestCertificateFollowsItsFiles(t *testing.T) {
	s, log := startSecure(t, true)
	writePair(t, s.dir, "second")
	s.wantShown("second")

	if err := os.WriteFile(filepath.Join(s.dir, "key.pem"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !log.has("certificate not reloaded"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a broken key is not told")
		}
	}
	s.wantShown("second")
	writePair(t, s.dir, "third")
	s.wantShown("third")
}

func TestCertificateReloads(t *testing.T) {
	s, _ := startSecure(t, false)
	writePair(t, s.dir, "second")
	s.wantShown("first") // nobody looks
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	s.wantShown("second")

	// Other files, which are no good at first: nothing changes, the rest of the configuration included.
	other := filepath.Join(s.dir, "other")
	s.set("tls: {cert: DIR/other/cert.pem, key: DIR/other/key.pem}\n" + models("a", "b"))
	if err := s.Reload(); err == nil || !strings.Contains(err.Error(), "tls: ") {
		t.Errorf("got %v, want an error about tls", err)
	}
	if got := modelNames(s.State()); len(got) != 1 {
		t.Errorf("models %v after a reload that was refused", got)
	}
	s.wantShown("second")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	writePair(t, other, "third")
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	s.wantShown("third")

	// Clear text would be another listener.
	s.set(models("a", "b"))
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := s.State().Config.NeedsRestart; len(got) != 1 || got[0] != "tls" {
		t.Errorf("needs restart: %v, want tls", got)
	}
	s.wantShown("third")
}

func TestStartRefusesBadCertificates(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(dir string) error
		want   string
	}{
		{"no key", func(dir string) error { return os.Remove(filepath.Join(dir, "key.pem")) }, "key.pem: no such file"},
		{"no certificate in the file", func(dir string) error { return os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("x"), 0o600) }, "cert.pem"},
		{"the key of another", func(dir string) error {
			_, key := testtools.Certificate(t, "other")
			return os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600)
		}, "private key does not match"},
	} {
		s := &started{t: t, dir: t.TempDir()}
		writePair(t, s.dir, "first")
		if err := c.change(s.dir); err != nil {
			t.Fatal(err)
		}
		s.set("tls: {cert: cert.pem, key: key.pem}\n" + models("a"))
		loaded, err := s.load()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Start(t.Context(), Options{Config: loaded, Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}
