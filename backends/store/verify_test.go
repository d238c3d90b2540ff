package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pilotlight/internal/testtools/hubtest"
)

func TestVerifyFindsWhatIsDamaged(t *testing.T) {
	hub, dir := hubtest.New(t), t.TempDir()
	hub.Fill()
	s := newStore(t, dir)
	got, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(dir, "models--org--model", usedMark)
	old := time.Unix(1_000_000_000, 0)
	if err := os.Chtimes(mark, old, old); err != nil {
		t.Fatal(err)
	}
	var last Progress
	whole, err := s.Verify(t.Context(), hub.Repo, "", Filter{}, func(p Progress) { last = p })
	// copy.safetensors has the content of model-2.safetensors.
	if want := int64(23<<20 + 12345 + len(hub.Files["config.json"]) + 2); err != nil || !whole.OK() || whole.Files != 6 || whole.Bytes != want || len(whole.Unchecked) > 0 {
		t.Fatalf("a whole model: %+v, %v; want %d bytes", whole, err, want)
	}
	if last.Phase != Finished || last.BytesDone != last.Bytes || last.FilesDone != 6 {
		t.Errorf("progress at the end: %+v", last)
	}
	if info, err := os.Stat(mark); err != nil || !info.ModTime().Equal(old) {
		t.Errorf("verifying counts as a use: %v, %v", info.ModTime(), err)
	}

	blob := func(name string) string {
		path, err := filepath.EvalSymlinks(filepath.Join(got.Path, name))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	flip, err := os.OpenFile(blob("model-1.safetensors"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = flip.WriteAt([]byte{hub.Files["model-1.safetensors"][9<<20] ^ 1}, 9<<20)
	if err := errors.Join(err, flip.Close(), os.Truncate(blob("model-2.safetensors"), 5), os.Remove(filepath.Join(got.Path, "config.json"))); err != nil {
		t.Fatal(err)
	}
	damaged, err := s.Verify(t.Context(), hub.Repo, got.Commit, Filter{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Fault{"config.json": Missing, "copy.safetensors": WrongSize, "model-1.safetensors": Wrong, "model-2.safetensors": WrongSize}
	for _, p := range damaged.Problems {
		if want[p.Path] != p.Fault || p.Detail == "" {
			t.Errorf("%s: got %q (%s), want %q", p.Path, p.Fault, p.Detail, want[p.Path])
		}
		delete(want, p.Path)
	}
	if len(want) > 0 || damaged.OK() {
		t.Errorf("not found: %v", want)
	}
	if part, err := s.Verify(t.Context(), hub.Repo, "", Filter{Include: []string{"*.json"}, Exclude: []string{"config.json"}}, nil); err != nil || !part.OK() || part.Files != 1 {
		t.Errorf("one file that is right: %+v, %v", part, err)
	}

	// The wrong one has its size, so a fetch alone would take it for right.
	if n, err := s.Discard(t.Context(), damaged); err != nil || n != 2 {
		t.Errorf("discarded %d, %v; want the two damaged contents", n, err)
	}
	mended, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, mended, hub.Files)
	if again, err := s.Verify(t.Context(), hub.Repo, "", Filter{}, nil); err != nil || !again.OK() {
		t.Errorf("after mending: %+v, %v", again, err)
	}
}

// TestVerifyWithoutListing checks what an older client of the hub, or a source without hashes, left: contents are named by their hashes.
func TestVerifyWithoutListing(t *testing.T) {
	hub, dir := hubtest.New(t), t.TempDir()
	hub.Fill()
	s := newStore(t, dir)
	got, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "models--org--model/trees")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(got.Path, "notes.txt"), []byte("by hand"), 0o666); err != nil {
		t.Fatal(err)
	}
	report, err := s.Verify(t.Context(), hub.Repo, "", Filter{}, nil)
	if err != nil || !report.OK() || report.Files != 7 || len(report.Unchecked) != 1 || report.Unchecked[0] != "notes.txt" {
		t.Errorf("got %+v, %v", report, err)
	}
	name := filepath.Join(dir, "models--org--model/blobs", hubtest.GitOID([]byte("{}")))
	if err := os.WriteFile(name, []byte("[]"), 0o666); err != nil {
		t.Fatal(err)
	}
	report, err = s.Verify(t.Context(), hub.Repo, "", Filter{}, nil)
	if err != nil || len(report.Problems) != 1 || report.Problems[0].Fault != Wrong || report.Problems[0].Path != "sub/dir/tokenizer é.json" {
		t.Errorf("got %+v, %v; want the one that was changed", report, err)
	}
}

func TestVerifyOfNothing(t *testing.T) {
	s := newStore(t, t.TempDir())
	if _, err := s.Verify(t.Context(), "org/model", "", Filter{}, nil); !errors.Is(err, ErrIncomplete) {
		t.Errorf("got %v, want ErrIncomplete", err)
	}
	if models, err := s.Models(); err != nil || len(models) > 0 {
		t.Errorf("asking left %+v, %v", models, err)
	}
	hub := hubtest.New(t)
	hub.Fill()
	if _, err := s.Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Verify(ctx, hub.Repo, "", Filter{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
