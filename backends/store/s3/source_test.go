package s3

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"pilotlight/backends/store"
)

func TestFetchFromRealServer(t *testing.T) {
	s, b := server(t)
	want := map[string][]byte{
		"config.json": []byte(`{"a": 1}`), "empty": {}, "sub/dir/tokenizer é.json": noise(1, 3000), "whole.safetensors": noise(2, 9<<20),
		"parts.safetensors": noise(3, 23<<20), "summed.safetensors": noise(4, 2<<20),
	}
	for name, content := range want {
		opts := minio.PutObjectOptions{PartSize: 5 << 20, DisableMultipart: name == "whole.safetensors"}
		if name == "summed.safetensors" {
			opts.DisableMultipart = true
			sum := sha256.Sum256(content)
			opts.UserMetadata = map[string]string{"X-Amz-Checksum-Sha256": base64.StdEncoding.EncodeToString(sum[:])}
		}
		put(t, b, "llama/7b/"+name, content, opts)
	}
	put(t, b, "llama/7b/folder/", nil, minio.PutObjectOptions{}) // as consoles mark folders
	put(t, b, "llama/7b-chat/config.json", []byte("another model"), minio.PutObjectOptions{})

	from := bucket(t, "s3://models/llama/7b/", s.Env())
	local := newStore(t, t.TempDir())
	got, err := fetch(t.Context(), local, from)
	if err != nil {
		t.Fatal(err)
	}
	check(t, got, want)
	list, err := from.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list.Files {
		if c := f.Checker.(*checker); f.Path == "summed.safetensors" && (c.Begin(t.Context()) == nil || c.sha256 == "") {
			t.Errorf("no checksum of %s was learnt: %+v", f.Path, c)
		}
	}
	if list.Commit != got.Commit {
		t.Errorf("an unchanged folder got the commit %s, then %s", got.Commit, list.Commit)
	}
	again, err := fetch(t.Context(), local, from)
	if err != nil || again.Path != got.Path {
		t.Errorf("got %q, %v, want %q", again.Path, err, got.Path)
	}
	put(t, b, "llama/7b/config.json", []byte(`{"a": 2}`), minio.PutObjectOptions{})
	if again, err = fetch(t.Context(), local, from); err != nil || again.Commit == got.Commit {
		t.Fatalf("after a change: commit %s, %v", again.Commit, err)
	}
	want["config.json"] = []byte(`{"a": 2}`)
	check(t, again, want)
}

// TestDamagedObjectIsFound changes bytes behind the server's back: what it then sends no longer fits the ETags that it lists.
func TestDamagedObjectIsFound(t *testing.T) {
	s, b := server(t)
	for name, size := range map[string]int{"small": 4000, "whole": 3 << 20, "parts": 12 << 20} {
		t.Run(name, func(t *testing.T) {
			content := noise(9, size)
			put(t, b, name+"/model.safetensors", content, minio.PutObjectOptions{PartSize: 5 << 20})
			from := bucket(t, "s3://models/"+name, s.Env())
			if got, err := fetch(t.Context(), newStore(t, t.TempDir()), from); err != nil {
				t.Fatal(err)
			} else {
				check(t, got, map[string][]byte{"model.safetensors": content})
			}
			path := filepath.Join(s.Folder, "models", name, "model.safetensors")
			content[size/2] ^= 1
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
			local := newStore(t, t.TempDir())
			if _, err := fetch(t.Context(), local, from); !errors.Is(err, store.ErrHashMismatch) {
				t.Fatalf("got %v, want %v", err, store.ErrHashMismatch)
			}
			if _, err := local.Find("org/model", "", store.Filter{}); !errors.Is(err, store.ErrIncomplete) {
				t.Errorf("a damaged model was published: %v", err)
			}
		})
	}
}

// TestLongListing has more objects than a page holds (1000), none of which has an ETag: they were copied into the server's folder.
func TestLongListing(t *testing.T) {
	s, b := server(t)
	for i := range 2345 {
		path := filepath.Join(s.Folder, "models", "long", fmt.Sprint(i%7), fmt.Sprint(i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, fmt.Append(nil, i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(t, b, "other", nil, minio.PutObjectOptions{})
	list, err := bucket(t, "s3://models/long", s.Env()).List(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Files) != 2345 {
		t.Errorf("got %d files, want 2345", len(list.Files))
	}
	for _, f := range list.Files {
		if f.Version == "" || !strings.Contains(f.Version, ":") {
			t.Fatalf("%s: version %q, want a time", f.Path, f.Version)
		}
	}
}

func TestObjectChangesAfterListing(t *testing.T) {
	s, b := server(t)
	content := noise(5, 2<<20)
	put(t, b, "m/model.safetensors", content, minio.PutObjectOptions{})
	put(t, b, "m/config.json", []byte("{}"), minio.PutObjectOptions{})
	from := bucket(t, "s3://models/m", s.Env())
	list, err := from.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "m/config.json", []byte("[]"), minio.PutObjectOptions{}) // of the same size
	put(t, b, "m/model.safetensors", content[:1<<20], minio.PutObjectOptions{})
	for _, f := range list.Files {
		if r, err := from.Open(t.Context(), list.Commit, f, 0, f.Size); !errors.Is(err, store.ErrChanged) {
			t.Errorf("%s: got %v, %v, want %v", f.Path, r, err, store.ErrChanged)
		}
	}
	if err := b.client.RemoveObject(t.Context(), "models", "m/config.json", minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, f := range list.Files {
		if f.Path != "config.json" {
			continue
		}
		if r, err := from.Open(t.Context(), list.Commit, f, 0, f.Size); !errors.Is(err, store.ErrFileNotFound) {
			t.Errorf("got %v, %v, want %v", r, err, store.ErrFileNotFound)
		}
	}
}

func TestHostileKeysAreRefused(t *testing.T) {
	s, b := server(t)
	put(t, b, "m/config.json", []byte("{}"), minio.PutObjectOptions{})
	put(t, b, `m/a\b`, []byte("{}"), minio.PutObjectOptions{})
	if list, err := bucket(t, "s3://models/m", s.Env()).List(t.Context(), ""); !errors.Is(err, store.ErrBadListing) {
		t.Errorf("got %v, %v, want %v", list, err, store.ErrBadListing)
	}
}
