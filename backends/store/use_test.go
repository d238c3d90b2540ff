package store

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pilotlight/internal/testtools/hubtest"
)

// put makes a model of one file of so many bytes, last used so long ago, as a download would.
func put(t *testing.T, s *Store, repo string, size int, ago time.Duration) Snapshot {
	t.Helper()
	from := t.TempDir()
	if err := os.WriteFile(filepath.Join(from, "weights"), hubtest.Noise(byte(len(repo)), size), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := NewFolder(from)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Fetch(t.Context(), Request{Repo: repo, Source: src})
	if err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-ago)
	if err := os.Chtimes(filepath.Join(folderPath(s.path, repo), usedMark), then, then); err != nil {
		t.Fatal(err)
	}
	return got
}

func repos(t *testing.T, s *Store) []string {
	t.Helper()
	models, err := s.Models()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range models {
		if len(m.Revisions) > 0 {
			out = append(out, m.Repo)
		}
	}
	return out
}

func use(t *testing.T, s *Store, repo string) *Use {
	t.Helper()
	u, err := s.Use(t.Context(), repo, User{Who: "replica 1"})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestAUsedModelStays(t *testing.T) {
	s := newStore(t, t.TempDir())
	put(t, s, "org/a", 1000, time.Hour)
	first, second := use(t, s, "org/a"), use(t, s, "org/a")
	other := newStore(t, s.path) // as another process would
	if _, err := other.Remove(t.Context(), "org/a"); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove of a used model: %v", err)
	}
	m, err := other.Models()
	if err != nil || len(m) != 1 || len(m[0].Users) != 2 || m[0].Users[0].Who != "replica 1" || m[0].Users[0].PID != os.Getpid() {
		t.Errorf("models: %+v, %v", m, err)
	}
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Error(err)
	}
	if _, err := other.Remove(t.Context(), "org/a"); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove with one user left: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if m, err := other.Models(); err != nil || len(m[0].Users) != 0 || time.Since(m[0].LastUsed) > time.Minute {
		t.Errorf("after the use: %+v, %v", m, err)
	}
	if freed, err := other.Remove(t.Context(), "org/a"); err != nil || freed < 1000 {
		t.Errorf("Remove: %d, %v", freed, err)
	}
	if got := repos(t, s); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	if _, err := other.Remove(t.Context(), "org/a"); !errors.Is(err, ErrIncomplete) {
		t.Errorf("a second Remove: %v", err)
	}
}

// An engine goes on using a model when the gateway that started it is gone.
func TestAnInheritedUseOutlivesItsMaker(t *testing.T) {
	s := newStore(t, t.TempDir())
	put(t, s, "org/a", 1000, time.Hour)
	u := use(t, s, "org/a")
	engine := exec.Command("sleep", "600")
	engine.ExtraFiles = []*os.File{u.File}
	if err := engine.Start(); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Remove(t.Context(), "org/a"); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove while the engine lives: %v", err)
	}
	if err := engine.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := engine.Wait(); err == nil {
		t.Error("it was not killed")
	}
	if _, err := s.Remove(t.Context(), "org/a"); err != nil {
		t.Errorf("Remove after its death: %v", err)
	}
}

func TestTheBudgetEvictsWhatWasUsedLongestAgo(t *testing.T) {
	const mib = 1 << 20
	s := newStore(t, t.TempDir())
	put(t, s, "org/old", mib, 3*time.Hour)
	put(t, s, "org/older", mib, 4*time.Hour)
	put(t, s, "org/young", mib, time.Hour)
	if err := s.Remember(Artefact{Name: "chat", Origin: "org/old", Repo: "org/old", Revision: "main", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	oldest := use(t, s, "org/older")
	limited, err := New(Options{Path: s.path, MaxBytes: 3*mib + mib/2, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	put(t, limited, "org/new", mib, 0)
	if got, want := repos(t, s), []string{"org/new", "org/older", "org/young"}; !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
	// What it was called is still known, so that it can be fetched again.
	if a, err := s.Lookup("chat"); err != nil || a.Origin != "org/old" {
		t.Errorf("Lookup of what was evicted: %+v, %v", a, err)
	}

	// What cannot fit costs nothing.
	from := t.TempDir()
	if err := os.WriteFile(filepath.Join(from, "weights"), bytes.Repeat([]byte{1}, 3*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := NewFolder(from)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := limited.Fetch(t.Context(), Request{Repo: "org/huge", Source: src}); !errors.Is(err, ErrOverBudget) {
		t.Errorf("Fetch over budget: %v", err)
	}
	for _, repo := range []string{"org/new", "org/older", "org/young"} {
		if _, err := s.Find(repo, "", Filter{}); err != nil {
			t.Error(err)
		}
	}
	if err := oldest.Close(); err != nil {
		t.Error(err)
	}
	if _, err := limited.Fetch(t.Context(), Request{Repo: "org/huge", Source: src}); err != nil {
		t.Errorf("Fetch when there is room: %v", err)
	}
	if got, want := repos(t, s), []string{"org/huge"}; !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
}

// What other programs keep in the same cache is counted, and left to them.
func TestTheBudgetLeavesOthersModels(t *testing.T) {
	const mib = 1 << 20
	s := newStore(t, t.TempDir())
	put(t, s, "org/theirs", mib, 9*time.Hour)
	if err := os.RemoveAll(filepath.Join(folderPath(s.path, "org/theirs"), ours)); err != nil {
		t.Fatal(err)
	}
	from := t.TempDir()
	if err := os.WriteFile(filepath.Join(from, "weights"), hubtest.Noise(1, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := NewFolder(from)
	if err != nil {
		t.Fatal(err)
	}
	limited, err := New(Options{Path: s.path, MaxBytes: mib + mib/2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := limited.Fetch(t.Context(), Request{Repo: "org/new", Source: src}); !errors.Is(err, ErrOverBudget) {
		t.Errorf("Fetch: %v", err)
	}
	if _, err := s.Find("org/theirs", "", Filter{}); err != nil {
		t.Error(err)
	}
}

func TestArtefactsAreFoundByName(t *testing.T) {
	s := newStore(t, t.TempDir())
	a, b := put(t, s, "org/a", 1000, 0), put(t, s, "org/b", 1000, 0)
	if _, err := s.Lookup("chat"); !errors.Is(err, ErrIncomplete) {
		t.Errorf("Lookup before: %v", err)
	}
	remember := func(name string, of Snapshot, at time.Time) {
		if err := s.Remember(Artefact{Name: name, Origin: of.Repo, Repo: of.Repo, Revision: "main", Commit: of.Commit, At: at}); err != nil {
			t.Fatal(err)
		}
	}
	remember("chat", a, time.Now())
	remember("org/a", a, time.Now())
	if got, err := s.Lookup("chat"); err != nil || got.Repo != "org/a" || got.Commit != a.Commit {
		t.Errorf("Lookup: %+v, %v", got, err)
	}
	remember("chat", b, time.Now()) // the name moves on
	if got, err := s.Lookup("chat"); err != nil || got.Repo != "org/b" {
		t.Errorf("Lookup after: %+v, %v", got, err)
	}
	models, err := s.Models()
	if err != nil || len(models) != 2 || len(models[0].Artefacts) != 1 || models[0].Artefacts[0].Name != "org/a" {
		t.Errorf("models: %+v, %v", models, err)
	}
	if _, found, err := s.Known("org/b", ""); err != nil || found.Path != b.Path {
		t.Errorf("Known: %+v, %v", found, err)
	}
	if _, _, err := s.Known("org/b", "v2"); !errors.Is(err, ErrIncomplete) {
		t.Errorf("Known of another revision: %v", err)
	}
	if err := os.Remove(filepath.Join(b.Path, "weights")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Known("org/b", ""); !errors.Is(err, ErrIncomplete) {
		t.Errorf("Known without a file: %v", err)
	}
	if _, err := s.Lookup("../x"); err == nil || errors.Is(err, ErrIncomplete) {
		t.Errorf("Lookup of a path: %v", err)
	}
}

func TestCollect(t *testing.T) {
	hub, dir := hubtest.New(t), t.TempDir()
	hub.Fill()
	s := newStore(t, dir)
	got, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err != nil {
		t.Fatal(err)
	}
	model := folderPath(dir, hub.Repo)
	old := time.Now().Add(-48 * time.Hour)
	leave := func(name string, at time.Time) {
		file := filepath.Join(model, name)
		if err := os.WriteFile(file, []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	leave(partials+"/old.data", old)
	leave(partials+"/old.marks", old)
	leave(partials+"/young.data", time.Now())
	leave("blobs/"+hubtest.SHA256([]byte("left")), old)
	leave("blobs/young", time.Now())
	stale := "snapshots/" + hub.Commit[:38] + "00"
	if err := os.MkdirAll(filepath.Join(model, stale), 0o700); err != nil {
		t.Fatal(err)
	}

	running := use(t, s, hub.Repo)
	if found, err := s.Collect(t.Context(), 24*time.Hour, false); err != nil || len(found) != 0 {
		t.Errorf("Collect of a used model: %+v, %v", found, err)
	}
	if err := running.Close(); err != nil {
		t.Fatal(err)
	}
	dry, err := s.Collect(t.Context(), 24*time.Hour, true)
	if err != nil || len(dry) != 4 {
		t.Errorf("Collect, dry: %+v, %v", dry, err)
	}
	wet, err := s.Collect(t.Context(), 24*time.Hour, false)
	if err != nil || !slices.Equal(dry, wet) {
		t.Errorf("Collect: %+v, %v; dry %+v", wet, err, dry)
	}
	if again, err := s.Collect(t.Context(), 24*time.Hour, false); err != nil || len(again) != 0 {
		t.Errorf("Collect again: %+v, %v", again, err)
	}
	for name, want := range map[string]bool{partials + "/old.data": false, partials + "/young.data": true, "blobs/young": true, stale: false} {
		if _, err := os.Stat(filepath.Join(model, name)); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %t", name, err, want)
		}
	}
	checkContent(t, got, hub.Files)
	if found, err := s.Find(hub.Repo, "", Filter{}); err != nil || found.Guessed {
		t.Errorf("Find: %+v, %v", found, err)
	}
}
