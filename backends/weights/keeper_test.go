package weights

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pilotlight/backends"
	"pilotlight/backends/store"
	"pilotlight/internal/testtools/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKeeper(t *testing.T, dir string) (*Keeper, *store.Store) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := store.New(store.Options{Path: dir, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	return New(s, log), s
}

// env is a hub's address and token as variables.
func env(hub *hubtest.Hub, token string) func(string) (string, bool) {
	vars := map[string]string{"HF_ENDPOINT": hub.Front.URL, "HF_TOKEN": token}
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

func hold(t *testing.T, k *Keeper, r Request) *Held {
	t.Helper()
	h, err := k.Hold(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func TestHoldFetchesOnceAndThenNeedsNobody(t *testing.T) {
	hub, dir := hubtest.New(t), t.TempDir()
	hub.Token = "hf_secret"
	hub.Fill()
	k, s := newKeeper(t, dir)
	r := Request{Weights: backends.Weights{Origin: hub.Repo, Name: "chat"}, Who: "chat replica 1", Env: env(hub, "hf_secret")}
	var wait sync.WaitGroup
	for range 5 {
		wait.Go(func() {
			h, err := k.Hold(context.Background(), r)
			if err != nil {
				t.Error(err)
				return
			}
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if want := int64(len(hub.Files["model-1.safetensors"]) + len(hub.Files["model-2.safetensors"])); hub.BytesServed() != want {
		t.Errorf("%d bytes were fetched, want %d", hub.BytesServed(), want)
	}
	hub.Front.Close()
	h := hold(t, k, r)
	text, err := os.ReadFile(filepath.Join(h.Path, "config.json"))
	if err != nil || string(text) != string(hub.Files["config.json"]) {
		t.Errorf("config.json: %q, %v", text, err)
	}
	if h.File() == nil {
		t.Error("nothing to inherit")
	}
	if _, err := s.Remove(t.Context(), hub.Repo); !errors.Is(err, store.ErrInUse) || !strings.Contains(err.Error(), "chat replica 1") {
		t.Errorf("Remove: %v", err)
	}
	// By the name alone, as store:chat does.
	byName := hold(t, k, Request{Weights: backends.Weights{Name: "chat"}})
	if byName.Path != h.Path {
		t.Errorf("by name: %s, want %s", byName.Path, h.Path)
	}
	if found, err := k.Find(backends.Weights{Name: "chat"}); err != nil || found.Path != h.Path {
		t.Errorf("Find: %+v, %v", found, err)
	}
}

func TestIfPresentFetchesNothing(t *testing.T) {
	hub, dir := hubtest.New(t), t.TempDir()
	hub.Fill()
	k, _ := newKeeper(t, dir)
	r := Request{Weights: backends.Weights{Origin: hub.Repo, IfPresent: true}, Env: env(hub, "")}
	if h, err := k.Hold(t.Context(), r); h != nil || err != nil {
		t.Errorf("got %v, %v", h, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "models--org--model")); err == nil {
		t.Error("a look left a folder")
	}
	// A choice of files that somebody has fetched counts as all that is needed.
	chosen := r
	chosen.Weights = backends.Weights{Origin: hub.Repo, Exclude: []string{"copy*"}}
	if _, err := k.Fetch(t.Context(), chosen); err != nil {
		t.Fatal(err)
	}
	h := hold(t, k, r)
	if h == nil || len(h.Files) != 5 {
		t.Errorf("got %+v", h)
	}
}

func TestFetchSeesThatABranchHasMoved(t *testing.T) {
	hub := hubtest.New(t)
	hub.Fill()
	k, _ := newKeeper(t, t.TempDir())
	r := Request{Weights: backends.Weights{Origin: hub.Repo}, Env: env(hub, "")}
	before, err := k.Fetch(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	hub.Mu.Lock()
	hub.Commit = strings.Repeat("cd", 20)
	hub.Mu.Unlock()
	hub.Add("config.json", []byte("{}"), false)
	if h := hold(t, k, r); h.Path != before.Path {
		t.Errorf("a start asked the hub: %s", h.Path)
	}
	after, err := k.Fetch(t.Context(), r)
	if err != nil || after.Commit != hub.Commit {
		t.Errorf("Fetch: %+v, %v", after, err)
	}
}

func TestFailuresAreClassified(t *testing.T) {
	for _, c := range []struct {
		name      string
		arrange   func(hub *hubtest.Hub)
		weights   backends.Weights
		class     backends.Class
		permanent bool
	}{
		{"gated", func(h *hubtest.Hub) { h.Refusals = map[string]int{"GatedRepo": http.StatusForbidden} }, backends.Weights{Origin: "org/model"}, backends.ClassGated, true},
		{"missing", func(*hubtest.Hub) {}, backends.Weights{Origin: "org/other"}, backends.ClassModelNotFound, true},
		{"revision", func(*hubtest.Hub) {}, backends.Weights{Origin: "org/model", Revision: "v9"}, backends.ClassModelNotFound, true},
		{"patterns", func(*hubtest.Hub) {}, backends.Weights{Origin: "org/model", Include: []string{"*.gguf"}}, backends.ClassModelNotFound, true},
		{"hash", func(h *hubtest.Hub) {
			h.Lies["model-1.safetensors"] = hubtest.Noise(9, len(h.Files["model-1.safetensors"]))
		}, backends.Weights{Origin: "org/model"}, backends.ClassUnreachable, false},
		{"name", func(*hubtest.Hub) {}, backends.Weights{Name: "nobody"}, backends.ClassModelNotFound, false},
		{"folder", func(*hubtest.Hub) {}, backends.Weights{Origin: "/does/not/exist"}, backends.ClassModelNotFound, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			hub := hubtest.New(t)
			hub.Fill()
			c.arrange(hub)
			k, stored := newKeeper(t, t.TempDir())
			_, err := k.Hold(t.Context(), Request{Weights: c.weights, Env: env(hub, "hf_secret")})
			var f *backends.Failure
			if !errors.As(err, &f) || f.Class != c.class || f.Permanent != c.permanent || f.Message == "" {
				t.Errorf("got %+v, want class %s, permanent %t", err, c.class, c.permanent)
			}
			if models, err := stored.Models(); err != nil || len(models) > 1 || len(models) == 1 && models[0].Repo != "org/model" {
				t.Errorf("left in the store: %+v, %v", models, err)
			}
			if f != nil {
				for _, secret := range []string{"hf_secret", hub.Front.URL, "/does/not"} {
					if strings.Contains(f.Message+f.Advice, secret) {
						t.Errorf("clients are told %s", secret)
					}
				}
			}
		})
	}
}

func TestWhatDoesNotFitIsADiskThatIsFull(t *testing.T) {
	hub := hubtest.New(t)
	hub.Fill()
	s, err := store.New(store.Options{Path: t.TempDir(), MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(s, nil).Hold(t.Context(), Request{Weights: backends.Weights{Origin: hub.Repo}, Env: env(hub, "")})
	var f *backends.Failure
	if !errors.As(err, &f) || f.Class != backends.ClassDiskFull || f.Permanent || !strings.Contains(f.Advice, "store.max_bytes") {
		t.Errorf("got %+v", err)
	}
	if hub.BytesServed() != 0 {
		t.Errorf("%d bytes were fetched all the same", hub.BytesServed())
	}
}

func TestWhoLeavesEndsTheDownload(t *testing.T) {
	hub := hubtest.New(t)
	hub.Fill()
	began := make(chan struct{}, 100)
	hub.FailWith(func(_ http.ResponseWriter, r *http.Request) bool {
		began <- struct{}{}
		<-r.Context().Done()
		return true
	})
	k, s := newKeeper(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	_, err := k.Hold(ctx, Request{Weights: backends.Weights{Origin: hub.Repo}, Env: env(hub, "")})
	var f *backends.Failure
	if !errors.As(err, &f) || f.Class != backends.ClassStopped || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if models, err := s.Models(); err != nil || len(models) != 1 || len(models[0].Users) != 0 {
		t.Errorf("left: %+v, %v", models, err)
	}
}

func TestDetail(t *testing.T) {
	for want, p := range map[string]store.Progress{
		"asking what there is":                         {},
		"400 MB of 1.0 GB":                             {Phase: store.Downloading, Bytes: 1000e6, BytesDone: 400e6},
		"400 MB of 1.0 GB, 10 MB/s, 1m0s left":         {Phase: store.Downloading, Bytes: 1000e6, BytesDone: 400e6, Rate: 10e6, ETA: time.Minute},
		"1.0 MB of 2.0 MB, in part by another process": {Phase: store.Downloading, Bytes: 2e6, BytesDone: 1e6, Elsewhere: 1},
		"": {Phase: store.Publishing, Bytes: 2e6, BytesDone: 2e6},
	} {
		if got := Detail(p); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
