package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pilotlight/internal/testtools/hubtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
	}
	goleak.VerifyTestMain(m)
}

// hubSource is a source of the hub's model.
func hubSource(t *testing.T, hub *hubtest.Hub) *Hub {
	t.Helper()
	s, err := NewHub(HubOptions{Repo: hub.Repo, Endpoint: hub.Front.URL, Token: hub.Token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.backoff = time.Millisecond
	return s
}

func newStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := New(Options{Path: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.backoff = time.Millisecond
	return s
}

// checkContent compares a snapshot with the hub's files, byte for byte.
func checkContent(t *testing.T, got Snapshot, want map[string][]byte) {
	t.Helper()
	if len(got.Files) != len(want) {
		t.Errorf("got %d files, want %d", len(got.Files), len(want))
	}
	for name, content := range want {
		b, err := os.ReadFile(filepath.Join(got.Path, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(b, content) {
			t.Errorf("%s: got other content than the source has", name)
		}
	}
}

// checkSnapshot compares a snapshot with the hub's files and looks for what must not be left.
func checkSnapshot(t *testing.T, got Snapshot, want map[string][]byte) {
	t.Helper()
	checkContent(t, got, want)
	left, err := filepath.Glob(filepath.Join(got.Path, "../..", ours, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range left {
		if !strings.Contains(l, "/named/") {
			t.Errorf("left over: %s", l)
		}
	}
}

func TestFetchFromHub(t *testing.T) {
	hub, dir := hubtest.New(t), t.TempDir()
	hub.Token = "hf_secret"
	hub.Fill()
	s := newStore(t, dir)
	var last Progress
	got, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub), Progress: func(p Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, got, hub.Files)
	if len(hub.Secrets) > 0 {
		t.Error("the second host got the token")
	}
	if last.Phase != Finished || last.FilesDone != 6 || last.Files != 6 || last.BytesDone != last.Bytes || last.Bytes == 0 {
		t.Errorf("progress at the end: %+v", last)
	}
	// copy.safetensors has the content of model-2.safetensors, which need not be fetched twice.
	if want := int64(len(hub.Files["model-1.safetensors"]) + len(hub.Files["model-2.safetensors"])); hub.BytesServed() != want {
		t.Errorf("large files: %d bytes were served, want %d", hub.BytesServed(), want)
	}
	if hub.Signed > 4 {
		t.Errorf("the hub was asked %d times where the four chunks of two files lie", hub.Signed)
	}
	found, err := s.Find(hub.Repo, "", Filter{})
	if err != nil || found.Guessed || len(found.Files) != 6 || found.Path != got.Path {
		t.Errorf("Find: %+v, %v", found, err)
	}
	if to, err := os.Readlink(filepath.Join(got.Path, "sub/dir/tokenizer é.json")); err != nil || to != "../../../../blobs/"+hubtest.GitOID([]byte("{}")) {
		t.Errorf("link: %s, %v", to, err)
	}
	before := hub.BytesServed()
	if _, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)}); err != nil || hub.BytesServed() != before {
		t.Errorf("the second fetch: %v; it fetched %d bytes", err, hub.BytesServed()-before)
	}
}

func TestFetchWithFilterThenRest(t *testing.T) {
	hub := hubtest.New(t)
	hub.Fill()
	s := newStore(t, t.TempDir())
	some := Filter{Include: []string{"*.json"}, Exclude: []string{"config*"}}
	got, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub), Filter: some})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Files) != 1 || hub.BytesServed() != 0 {
		t.Errorf("got %d files and %d bytes of weights, want 1 and 0", len(got.Files), hub.BytesServed())
	}
	if _, err := s.Find(hub.Repo, "main", some); err != nil {
		t.Errorf("what was asked for is there: %v", err)
	}
	if _, err := s.Find(hub.Repo, "main", Filter{}); !errors.Is(err, ErrIncomplete) {
		t.Errorf("got %v, want ErrIncomplete", err)
	}
	got, err = s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, got, hub.Files)
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, code string
		status     int
		want       error
	}{
		{"missing", "RepoNotFound", 404, ErrNotFound},
		{"missing, told to a stranger", "RepoNotFound", 401, ErrNotFound},
		{"gated", "GatedRepo", 403, ErrGated},
		{"gated, told to a stranger", "GatedRepo", 401, ErrGated},
		{"revision", "RevisionNotFound", 404, ErrRevisionNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			hub, dir := hubtest.New(t), t.TempDir()
			hub.Refusals = map[string]int{c.code: c.status}
			_, err := newStore(t, dir).Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("the store has %v", left)
			}
		})
	}
}

func TestWrongTokenIsToldApart(t *testing.T) {
	hub := hubtest.New(t)
	hub.Token = "right"
	src, err := NewHub(HubOptions{Repo: hub.Repo, Endpoint: hub.Front.URL, Token: "wrong"})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := src.List(t.Context(), ""); !errors.Is(err, ErrUnauthorized) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("got %v, want ErrUnauthorized without the token", err)
	}
}

// once fails the first n requests in a way, for each path and range.
func once(n int, how func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	var mu sync.Mutex
	seen := map[string]int{}
	return func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		key := r.URL.Path + r.Header.Get("Range")
		seen[key]++
		fail := seen[key] <= n
		mu.Unlock()
		if fail {
			how(w, r)
		}
		return fail
	}
}

func TestTroublesOnTheWay(t *testing.T) {
	for _, c := range []struct {
		name string
		fail func(http.ResponseWriter, *http.Request) bool
	}{
		{"too many requests", once(2, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "0"); w.WriteHeader(429) })},
		{"server errors", once(3, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })},
		{"connections that break", once(1, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })},
	} {
		t.Run(c.name, func(t *testing.T) {
			hub := hubtest.New(t)
			hub.Fill()
			hub.FailWith(c.fail)
			got, err := newStore(t, t.TempDir()).Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
			if err != nil {
				t.Fatal(err)
			}
			checkSnapshot(t, got, hub.Files)
		})
	}
}

func TestSilentConnectionsAreGivenUp(t *testing.T) {
	hub := hubtest.New(t)
	hub.Fill()
	var silent atomic.Bool
	hub.FailWith(func(w http.ResponseWriter, r *http.Request) bool {
		if !silent.CompareAndSwap(false, true) {
			return false
		}
		w.Header().Set("Content-Length", "3145728")
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-r.Context().Done() // until the client hangs up
		return true
	})
	src := hubSource(t, hub)
	src.web.stall = 100 * time.Millisecond
	s := newStore(t, t.TempDir())
	got, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: src, Filter: Filter{Include: []string{"model-2*"}}})
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, got, map[string][]byte{"model-2.safetensors": hub.Files["model-2.safetensors"]})
	if !silent.Load() {
		t.Error("no connection was silent")
	}
}

func TestDamagedCacheIsMended(t *testing.T) {
	hub, dir := hubtest.New(t), t.TempDir()
	hub.Fill()
	s := newStore(t, dir)
	got, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err != nil {
		t.Fatal(err)
	}
	blobs := filepath.Join(dir, "models--org--model/blobs")
	for _, damage := range []func(blob string) error{
		os.Remove,
		func(blob string) error { return os.Truncate(blob, 7) },
		func(blob string) error { return errors.Join(os.Remove(blob), os.Symlink("/nowhere/at/all", blob)) },
		func(string) error { return os.Remove(filepath.Join(got.Path, "config.json")) },
	} {
		if err := damage(filepath.Join(blobs, hubtest.SHA256(hub.Files["model-2.safetensors"]))); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Find(hub.Repo, "", Filter{}); !errors.Is(err, ErrIncomplete) {
			t.Errorf("got %v, want ErrIncomplete", err)
		}
		mended, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
		if err != nil {
			t.Fatal(err)
		}
		checkSnapshot(t, mended, hub.Files)
	}
}

func TestManySmallFiles(t *testing.T) {
	hub := hubtest.New(t)
	for i := range 1000 {
		hub.Add(fmt.Sprintf("d%d/f%d", i%7, i), fmt.Appendf(nil, "%d", i), false)
	}
	got, err := newStore(t, t.TempDir()).Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, got, hub.Files)
}

func BenchmarkFetch(b *testing.B) {
	content := hubtest.Noise(1, 256<<20)
	want := hubtest.SHA256(content)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if filepath.Base(r.URL.Path) == sumsFile {
			fmt.Fprintf(w, "%s  w\n", want)
			return
		}
		http.ServeContent(w, r, "w", time.Time{}, bytes.NewReader(content))
	}))
	defer server.Close()
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		src, err := NewPlain(server.URL, "", 0)
		if err != nil {
			b.Fatal(err)
		}
		s, err := New(Options{Path: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Fetch(b.Context(), Request{Repo: "w", Source: src}); err != nil {
			b.Fatal(err)
		}
		src.Close()
	}
}

func TestAddressesThatGetOldAreAskedForAgain(t *testing.T) {
	hub := hubtest.New(t)
	hub.Fill()
	var mu sync.Mutex
	used := map[string]bool{}
	hub.FailWith(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		old := used[r.URL.RawQuery]
		used[r.URL.RawQuery] = true
		if old {
			w.WriteHeader(http.StatusForbidden)
		}
		return old
	})
	got, err := newStore(t, t.TempDir()).Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, got, hub.Files)
}

func TestListingsAreRetried(t *testing.T) {
	hub := hubtest.New(t)
	hub.Fill()
	var tries atomic.Int32
	flaky := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		hub.ServeHub(w, r)
	}))
	defer flaky.Close()
	src, err := NewHub(HubOptions{Repo: hub.Repo, Endpoint: flaky.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	// The pages' links lead to the hub itself, which is another origin than the one that was asked.
	if _, err := newStore(t, t.TempDir()).Fetch(t.Context(), Request{Repo: hub.Repo, Source: src}); !errors.Is(err, ErrBadListing) {
		t.Errorf("got %v, want ErrBadListing for a next page elsewhere", err)
	}
	if n := tries.Load(); n < 3 {
		t.Errorf("the hub was asked %d times, want 3 or more", n)
	}
}

func TestBodiesThatEndEarlyGoOnWhereTheyStopped(t *testing.T) {
	hub := hubtest.New(t)
	hub.Add("model.safetensors", hubtest.Noise(3, fewestChunks*chunk), true)
	content := hub.Files["model.safetensors"]
	cut := false
	hub.FailWith(func(w http.ResponseWriter, r *http.Request) bool {
		if cut {
			return false
		}
		cut = true
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.WriteHeader(200)
		w.Write(content[:3*len(content)/4])
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		panic(http.ErrAbortHandler)
	})
	got, err := newStore(t, t.TempDir()).Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, got, hub.Files)
	if !cut || hub.BytesServed() > int64(len(content)+len(content)/4) { // what was in flight when the connection broke may be lost
		t.Errorf("%d bytes were served for a file of %d", hub.BytesServed(), len(content))
	}
}

func TestWrongContentIsNeverPublished(t *testing.T) {
	hub, dir := hubtest.New(t), t.TempDir()
	hub.Fill()
	lie := bytes.Clone(hub.Files["model-1.safetensors"])
	lie[len(lie)-1] ^= 1
	hub.Lies["model-1.safetensors"] = lie
	s := newStore(t, dir)
	if _, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)}); !errors.Is(err, ErrHashMismatch) {
		t.Fatalf("got %v, want ErrHashMismatch", err)
	}
	for _, p := range []string{"models--org--model/blobs/" + hubtest.SHA256(hub.Files["model-1.safetensors"]), "models--org--model/snapshots/" + hub.Commit, "models--org--model/refs/main"} {
		if _, err := os.Lstat(filepath.Join(dir, p)); err == nil {
			t.Errorf("%s was published", p)
		}
	}
	hub.Mu.Lock()
	delete(hub.Lies, "model-1.safetensors")
	hub.Mu.Unlock()
	got, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, got, hub.Files)
}

func TestAnotherSizeIsAChange(t *testing.T) {
	hub := hubtest.New(t)
	hub.Fill()
	hub.Lies["model-1.safetensors"] = hubtest.Noise(9, 21<<20)
	if _, err := newStore(t, t.TempDir()).Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)}); !errors.Is(err, ErrChanged) {
		t.Fatalf("got %v, want ErrChanged", err)
	}
}

func TestManyAskersOneDownload(t *testing.T) {
	hub, dir := hubtest.New(t), t.TempDir()
	hub.Fill()
	src := hubSource(t, hub)
	// Two stores on one folder stand for two processes: their locks conflict as those of processes do.
	stores := []*Store{newStore(t, dir), newStore(t, dir)}
	var askers sync.WaitGroup
	for i := range 40 {
		askers.Go(func() {
			if _, err := stores[i%2].Fetch(t.Context(), Request{Repo: hub.Repo, Source: src}); err != nil {
				t.Error(err)
			}
		})
	}
	askers.Wait()
	if want := int64(23<<20 + 12345); hub.BytesServed() != want {
		t.Errorf("%d bytes were served, want %d", hub.BytesServed(), want)
	}
}

func TestLastAskerToLeaveEndsTheDownload(t *testing.T) {
	hub := hubtest.New(t)
	hub.Add("model.safetensors", hubtest.Noise(3, 6<<20), true)
	reached, free := make(chan struct{}), make(chan struct{})
	var first sync.Once
	hub.FailWith(func(_ http.ResponseWriter, r *http.Request) bool {
		first.Do(func() { close(reached) })
		select {
		case <-free:
		case <-r.Context().Done():
		}
		return false
	})
	s := newStore(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	go func() {
		_, err := s.Fetch(ctx, Request{Repo: hub.Repo, Source: hubSource(t, hub)})
		errs <- err
	}()
	<-reached
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	close(free)
	got, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, got, hub.Files)
}
