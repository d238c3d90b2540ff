package s3

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/minio/minio-go/v7"
	"go.uber.org/goleak"

	"pilotlight/backends/store"
	"pilotlight/internal/testtools"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// lookup is an environment.
func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// bucket is the folder at an address, for who has env.
func bucket(t testing.TB, address string, env map[string]string) *Bucket {
	t.Helper()
	b, err := open(t.Context(), address, lookup(env), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // it returns none
	return b
}

// server starts a real server with an empty bucket "models".
func server(t testing.TB, flags ...string) (testtools.S3, *Bucket) {
	t.Helper()
	s := testtools.S3Server(t, flags...)
	b := bucket(t, "s3://models", s.Env())
	if err := b.client.MakeBucket(t.Context(), "models", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return s, b
}

func put(t testing.TB, b *Bucket, key string, content []byte, opts minio.PutObjectOptions) {
	t.Helper()
	if _, err := b.client.PutObject(t.Context(), "models", key, bytes.NewReader(content), int64(len(content)), opts); err != nil {
		t.Fatal(err)
	}
}

func newStore(t testing.TB, dir string) *store.Store {
	t.Helper()
	s, err := store.New(store.Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fetch(ctx context.Context, s *store.Store, from store.Source) (store.Snapshot, error) {
	return s.Fetch(ctx, store.Request{Repo: "org/model", Source: from})
}

// check compares a snapshot with what it should hold.
func check(t testing.TB, got store.Snapshot, want map[string][]byte) {
	t.Helper()
	if len(got.Files) != len(want) {
		t.Errorf("got %d files, want %d", len(got.Files), len(want))
	}
	for name, content := range want {
		b, err := os.ReadFile(filepath.Join(got.Path, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(b, content) {
			t.Errorf("%s: got other content than was uploaded", name)
		}
	}
}
