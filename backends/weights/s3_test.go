package weights

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/backends"
	"pilotlight/backends/store"
	"pilotlight/backends/store/s3"
	"pilotlight/internal/testtools"
	"pilotlight/internal/testtools/hubtest"
)

func lookup(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

// TestTwoMachinesShareRemote prefetches a hub's model on one machine, which gives it to the object store; another one starts from there without
// the hub, and a third reads the place as a model of its own.
func TestTwoMachinesShareRemote(t *testing.T) {
	server := testtools.S3Server(t)
	if err := os.Mkdir(filepath.Join(server.Folder, "models"), 0o755); err != nil { // a bucket
		t.Fatal(err)
	}
	machine := func() *Keeper {
		remote, err := s3.OpenRemote(t.Context(), "s3://models/tier", lookup(server.Env()), 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = remote.Close() }) // it returns none
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		s, err := store.New(store.Options{Path: t.TempDir(), Remote: remote, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		return New(s, log)
	}
	hub := hubtest.New(t)
	hub.Fill()
	r := Request{Weights: backends.Weights{Origin: hub.Repo}, Who: "test", Env: env(hub, "")}
	pushed := false
	r.Progress = func(p store.Progress) { pushed = pushed || p.Phase == store.Pushing && p.Bytes > 0 }
	fetched, err := machine().Fetch(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if !pushed {
		t.Error("no progress of the upload was told")
	}
	hub.Front.Close()
	second := hold(t, machine(), Request{Weights: backends.Weights{Origin: hub.Repo}, Who: "test", Env: env(hub, "")})
	if second.Commit != fetched.Commit {
		t.Errorf("got commit %s, want %s", second.Commit, fetched.Commit)
	}
	vars := server.Env()
	place := "s3://models/tier/" + store.RemoteFolder(hub.Repo) + "/snapshots/" + fetched.Commit
	k, _ := newKeeper(t, t.TempDir())
	third := hold(t, k, Request{Weights: backends.Weights{Origin: place}, Who: "test", Env: lookup(vars)})
	for name, content := range hub.Files {
		for _, at := range []string{second.Path, third.Path} {
			text, err := os.ReadFile(filepath.Join(at, name))
			if err != nil || string(text) != string(content) {
				t.Errorf("%s is not what the hub has: %v", name, err)
			}
		}
	}

	// What is refused is explained without a word of the secret.
	vars["AWS_SECRET_ACCESS_KEY"] = "not-the-secret"
	k, _ = newKeeper(t, t.TempDir())
	_, err = k.Fetch(t.Context(), Request{Weights: backends.Weights{Origin: place}, Env: lookup(vars)})
	f, ok := errors.AsType[*backends.Failure](err)
	if !ok || f.Class != backends.ClassGated || !f.Permanent || !strings.Contains(f.Advice, "AWS_SECRET_ACCESS_KEY") || strings.Contains(err.Error(), "not-the-secret") {
		t.Errorf("got %v", err)
	}
}
