package venv

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePythons writes programs that answer the probe as a Python would, into the only folder on PATH.
func fakePythons(t *testing.T, answers map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, answer := range answers {
		text := "#!/bin/sh\n" + answer + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

func TestFindPython(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers map[string]string
		want    string   // the interpreter's name
		missing []string // words of the complaint
	}{
		{"none", nil, "", []string{"Python 3.10", "apt-get install python3", "python3-venv", "python3-pip", "dnf install"}},
		{"plain python3", map[string]string{"python3": "echo 3.12.1 venv ensurepip pip"}, "python3", nil},
		{"too old", map[string]string{"python3": "echo 3.9.2 venv ensurepip pip"}, "", []string{"Python 3.10", "python3 is 3.9.2"}},
		{"python 2", map[string]string{"python": "echo 2.7.18"}, "", []string{"python is 2.7.18"}},
		{"an old one beside a new one", map[string]string{"python3": "echo 3.8.0 venv ensurepip", "python3.11": "echo 3.11.0 venv ensurepip"}, "python3.11", nil},
		{"newest of several", map[string]string{"python3.10": "echo 3.10.0 venv ensurepip", "python3.13": "echo 3.13.0 venv ensurepip"}, "python3.13", nil},
		{"no venv", map[string]string{"python3": "echo 3.11.2 pip"}, "", []string{"venv module", "python3-venv", "3.11.2"}},
		{"no ensurepip and no pip", map[string]string{"python3": "echo 3.11.2 venv"}, "", []string{"ensurepip", "python3-venv", "dnf install python3-pip"}},
		{"no ensurepip but pip", map[string]string{"python3": "echo 3.11.2 venv pip"}, "python3", nil},
		{"an incomplete one beside a whole one", map[string]string{"python3": "echo 3.11.2 venv", "python3.12": "echo 3.12.0 venv ensurepip"}, "python3.12", nil},
		{"a shim without an interpreter", map[string]string{"python3": "echo no version set >&2; exit 127", "python3.14": "echo 3.14.0 venv ensurepip"}, "python3.14", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			fakePythons(t, c.answers)
			got, err := findPython(t.Context(), candidates(), nil)
			if c.want != "" {
				if err != nil || filepath.Base(got.path) != c.want {
					t.Fatalf("got %+v, %v; want %s", got, err, c.want)
				}
				return
			}
			var missing *MissingError
			if !errors.As(err, &missing) {
				t.Fatalf("got %+v, %v; want a MissingError", got, err)
			}
			for _, word := range c.missing {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("got %q, want %q in it", err, word)
				}
			}
		})
	}
}

func TestFindPythonStopsWithItsContext(t *testing.T) {
	fakePythons(t, map[string]string{"python3": "sleep 60"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := findPython(ctx, candidates(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestEnvironKeepsSourcesAndDropsTheRest(t *testing.T) {
	got := Environ([]string{
		"HOME=/h", "PIP_INDEX_URL=https://index", "PIP_CERT=/c", "HTTPS_PROXY=p", "PIP_USER=1", "PIP_TARGET=/t", "PIP_PREFIX=/p",
		"PIP_REQUIRE_VIRTUALENV=1", "PYTHONPATH=/x", "PYTHONHOME=/y", "PYTHONUSERBASE=/z", "VIRTUAL_ENV=/v", "CONDA_PREFIX=/k",
	})
	want := []string{"HOME=/h", "PIP_INDEX_URL=https://index", "PIP_CERT=/c", "HTTPS_PROXY=p", "PIP_USER=0", "PIP_NO_INPUT=1", "PIP_DISABLE_PIP_VERSION_CHECK=1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRunKeepsTheEndOfTheOutput(t *testing.T) {
	out, err := run(t.Context(), command{argv: []string{"/bin/sh", "-c", "yes 0123456 | head -n 10000; echo last; exit 3"}})
	if err == nil || len(out) > maxOutput || !strings.HasSuffix(out, "0123456\nlast\n") {
		t.Errorf("got %d bytes ending in %q, %v; want at most %d that end in last, and status 3", len(out), out[max(0, len(out)-20):], err, maxOutput)
	}
}

// pip starts processes of its own: none may live on after a cancelled step.
func TestRunKillsTheWholeGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	file := filepath.Join(t.TempDir(), "alive")
	done := make(chan error, 1)
	go func() {
		_, err := run(ctx, command{argv: []string{"/bin/sh", "-c", "(sleep 2; echo x > " + file + ") & echo > " + file + ".up; wait"}})
		done <- err
	}()
	for {
		if _, err := os.Stat(file + ".up"); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	// The pipes stay open as long as any of the group lives, so an early return shows that all are gone.
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the child lived on")
	}
}
