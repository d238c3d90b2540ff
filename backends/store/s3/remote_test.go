package s3

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pilotlight/backends/store"
	"pilotlight/internal/testtools"
)

// origin is a folder that counts what is asked of it.
type origin struct {
	*store.Folder
	dir           string
	lists, opened atomic.Int64
	gone          atomic.Bool
}

func newOrigin(t *testing.T, files map[string][]byte) *origin {
	t.Helper()
	o := &origin{dir: t.TempDir()}
	for name, content := range files {
		o.write(t, name, content)
	}
	folder, err := store.NewFolder(o.dir)
	if err != nil {
		t.Fatal(err)
	}
	o.Folder = folder
	return o
}

func (o *origin) write(t *testing.T, name string, content []byte) {
	t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (o *origin) List(ctx context.Context, revision string) (store.Listing, error) {
	o.lists.Add(1)
	if o.gone.Load() {
		return store.Listing{}, store.ErrNotFound
	}
	return o.Folder.List(ctx, revision)
}

func (o *origin) Open(ctx context.Context, commit string, f store.File, offset, length int64) (io.ReadCloser, error) {
	o.opened.Add(1)
	return o.Folder.Open(ctx, commit, f, offset, length)
}

// withRemote is a new store that shares the remote s3://models/shared.
func withRemote(t *testing.T, s testtools.S3) *store.Store {
	t.Helper()
	r, err := OpenRemote(t.Context(), "s3://models/shared/tier", lookup(s.Env()), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // it returns none
	local, err := store.New(store.Options{Path: t.TempDir(), Remote: r})
	if err != nil {
		t.Fatal(err)
	}
	return local
}

func model() map[string][]byte {
	return map[string][]byte{
		"config.json": []byte(`{"a": 1}`), "sub/tokenizer é.json": noise(1, 3000), "empty": {},
		"model-1.safetensors": noise(2, 37<<20), "model-2.safetensors": noise(3, 5<<20),
	}
}

func push(t *testing.T, local *store.Store, found store.Snapshot) (last store.Progress) {
	t.Helper()
	if err := local.Push(t.Context(), found, "", func(p store.Progress) { last = p }); err != nil {
		t.Fatal(err)
	}
	return last
}

func TestTwoStoresShareRemote(t *testing.T) {
	s, _ := server(t)
	files := model()
	from := newOrigin(t, files)
	first, second := withRemote(t, s), withRemote(t, s)
	found, err := fetch(t.Context(), first, from)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(t.Context(), second, nil); !errors.Is(err, store.ErrIncomplete) {
		t.Errorf("before the push: got %v, want %v", err, store.ErrIncomplete)
	}
	last := push(t, first, found)
	if last.FilesDone != len(files) || last.BytesDone != last.Bytes || last.BytesFetched < last.Bytes {
		t.Errorf("the last progress was %+v", last)
	}
	if again := push(t, first, found); again.BytesFetched != 0 || again.FilesDone != len(files) {
		t.Errorf("a second push sent %d bytes: %+v", again.BytesFetched, again)
	}
	lists, opened := from.lists.Load(), from.opened.Load()
	got, err := fetch(t.Context(), second, from)
	if err != nil {
		t.Fatal(err)
	}
	check(t, got, files)
	if got.Commit != found.Commit {
		t.Errorf("got commit %s, want %s", got.Commit, found.Commit)
	}
	if from.lists.Load() != lists || from.opened.Load() != opened {
		t.Error("the origin was asked though the remote has the model")
	}
	// An engine streams from there: names are as in the model, and an object store's own listing is whole.
	address := "s3://models/shared/tier/models--org--model/snapshots/" + found.Commit
	direct, err := fetch(t.Context(), newStore(t, t.TempDir()), bucket(t, address, s.Env()))
	if err != nil {
		t.Fatal(err)
	}
	check(t, direct, files)
	if direct.Commit != found.Commit {
		t.Errorf("read directly: got commit %s, want %s", direct.Commit, found.Commit)
	}
}

// TestInterruptedPushIsNotSeen cancels in the middle; the next push goes on.
func TestInterruptedPushIsNotSeen(t *testing.T) {
	s, _ := server(t)
	files := model()
	from := newOrigin(t, files)
	first := withRemote(t, s)
	found, err := fetch(t.Context(), first, from)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = first.Push(ctx, found, "", func(p store.Progress) {
		if p.FilesDone >= 2 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want %v", err, context.Canceled)
	}
	if _, err := fetch(t.Context(), withRemote(t, s), nil); !errors.Is(err, store.ErrIncomplete) {
		t.Errorf("got %v, want %v", err, store.ErrIncomplete)
	}
	if got, err := fetch(t.Context(), withRemote(t, s), from); err != nil {
		t.Errorf("with a source: %v", err)
	} else {
		check(t, got, files)
	}
	last := push(t, first, found)
	if last.BytesFetched >= last.Bytes {
		t.Errorf("sent %d of %d bytes again", last.BytesFetched, last.Bytes)
	}
	if got, err := fetch(t.Context(), withRemote(t, s), nil); err != nil {
		t.Error(err)
	} else {
		check(t, got, files)
	}
}

func TestDamagedRemoteIsNotBelieved(t *testing.T) {
	s, _ := server(t)
	files := model()
	from := newOrigin(t, files)
	first := withRemote(t, s)
	found, err := fetch(t.Context(), first, from)
	if err != nil {
		t.Fatal(err)
	}
	push(t, first, found)
	path := filepath.Join(s.Folder, "models/shared/tier/models--org--model/snapshots", found.Commit, "model-2.safetensors")
	damaged := noise(3, 5<<20)
	damaged[3<<20]++
	if err := os.WriteFile(path, damaged, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(t.Context(), withRemote(t, s), nil); !errors.Is(err, store.ErrHashMismatch) {
		t.Errorf("without a source: got %v, want %v", err, store.ErrHashMismatch)
	}
	got, err := fetch(t.Context(), withRemote(t, s), from)
	if err != nil {
		t.Fatal(err)
	}
	check(t, got, files)

	// Nor is what is damaged here handed on.
	other := newOrigin(t, map[string][]byte{"a": noise(4, 1000)})
	local := withRemote(t, s)
	snapshot, err := local.Fetch(t.Context(), store.Request{Repo: "org/other", Source: bucketOf(t, s, other)})
	if err != nil {
		t.Fatal(err)
	}
	blob, err := filepath.EvalSymlinks(filepath.Join(snapshot.Path, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blob, noise(5, 999), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := local.Push(t.Context(), snapshot, "", nil); !errors.Is(err, store.ErrHashMismatch) {
		t.Errorf("got %v, want %v", err, store.ErrHashMismatch)
	}
}

// bucketOf uploads an origin's files and returns them as a source.
func bucketOf(t *testing.T, s testtools.S3, o *origin) store.Source {
	t.Helper()
	all := bucket(t, "s3://models/copy", s.Env())
	list, err := o.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list.Files {
		content, err := os.ReadFile(filepath.Join(o.dir, f.Path))
		if err != nil {
			t.Fatal(err)
		}
		if err := all.write(t.Context(), f.Path, content); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestRemoteAndNews(t *testing.T) {
	s, _ := server(t)
	from := newOrigin(t, map[string][]byte{"config.json": []byte("old"), "model.safetensors": noise(6, 1<<20)})
	first := withRemote(t, s)
	found, err := fetch(t.Context(), first, from)
	if err != nil {
		t.Fatal(err)
	}
	push(t, first, found)
	from.write(t, "config.json", []byte("newer"))
	ask := func(fresh bool) store.Snapshot {
		t.Helper()
		got, err := withRemote(t, s).Fetch(t.Context(), store.Request{Repo: "org/model", Source: from, Fresh: fresh})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := ask(false); got.Commit != found.Commit {
		t.Error("a start asked for news")
	}
	if got := ask(true); got.Commit == found.Commit {
		t.Error("a prefetch did not ask for news")
	}
	from.gone.Store(true)
	if got := ask(true); got.Commit != found.Commit {
		t.Errorf("without the source: got commit %s, want %s", got.Commit, found.Commit)
	}
}

func TestPartOfModelInRemote(t *testing.T) {
	s, _ := server(t)
	files := model()
	from := newOrigin(t, files)
	only := store.Filter{Include: []string{"*.json"}}
	first := withRemote(t, s)
	part, err := first.Fetch(t.Context(), store.Request{Repo: "org/model", Source: from, Filter: only})
	if err != nil {
		t.Fatal(err)
	}
	push(t, first, part)
	if _, err := withRemote(t, s).Fetch(t.Context(), store.Request{Repo: "org/model", Filter: only}); err != nil {
		t.Error(err)
	}
	if _, err := fetch(t.Context(), withRemote(t, s), nil); !errors.Is(err, store.ErrIncomplete) {
		t.Errorf("got %v, want %v", err, store.ErrIncomplete)
	}
	whole, err := fetch(t.Context(), first, from)
	if err != nil {
		t.Fatal(err)
	}
	push(t, first, whole)
	got, err := fetch(t.Context(), withRemote(t, s), nil)
	if err != nil {
		t.Fatal(err)
	}
	check(t, got, files)
}

func TestPushesAtOnce(t *testing.T) {
	s, _ := server(t)
	files := model()
	from := newOrigin(t, files)
	var both sync.WaitGroup
	for range 2 {
		local := withRemote(t, s)
		both.Go(func() {
			found, err := fetch(t.Context(), local, from)
			if err == nil {
				err = local.Push(t.Context(), found, "", nil)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	got, err := fetch(t.Context(), withRemote(t, s), nil)
	if err != nil {
		t.Fatal(err)
	}
	check(t, got, files)
}

// TestRemoteThatMayOnlyBeRead provides models, and says what is missing when it is to be given one.
func TestRemoteThatMayOnlyBeRead(t *testing.T) {
	s, b := server(t, "--iam-dir", t.TempDir())
	addUser(t, s)
	policy := `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": ["AKOTHER"]}, "Action": ["s3:ListBucket", "s3:GetObject"],
		"Resource": ["arn:aws:s3:::models", "arn:aws:s3:::models/*"]}]}`
	if err := b.client.SetBucketPolicy(t.Context(), "models", policy); err != nil {
		t.Fatal(err)
	}
	from := newOrigin(t, map[string][]byte{"a": []byte("b")})
	owner := withRemote(t, s)
	found, err := fetch(t.Context(), owner, from)
	if err != nil {
		t.Fatal(err)
	}
	push(t, owner, found)
	r, err := OpenRemote(t.Context(), "s3://models/shared/tier", lookup(with(s.Env(), "AWS_ACCESS_KEY_ID", "AKOTHER", "AWS_SECRET_ACCESS_KEY", "other-secret")), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() // it returns no error
	reader, err := store.New(store.Options{Path: t.TempDir(), Remote: r})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(t.Context(), reader, nil); err != nil {
		t.Error(err)
	}
	other, err := reader.Fetch(t.Context(), store.Request{Repo: "org/other", Source: from})
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Push(t.Context(), other, "", nil); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "s3:PutObject") {
		t.Errorf("got %v, want %v", err, ErrDenied)
	}
}
