package stream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"pilotlight/backends"
	"pilotlight/backends/sglang/installed"
	"pilotlight/backends/store"
	"pilotlight/backends/store/s3"
	"pilotlight/internal/testtools"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

func with(env map[string]string, name, value string) map[string]string {
	env = maps.Clone(env)
	env[name] = value
	return env
}

// fakeLoader is what a Python said.
type fakeLoader struct {
	has installed.Streamer
	err error
}

func (f fakeLoader) Streamer(context.Context, []string, string, map[string]string) (installed.Streamer, error) {
	return f.has, f.err
}

var good = fakeLoader{has: installed.Streamer{Core: "0.17.0", S3: "0.17.0"}}

// tensors is a safetensors file of one tensor of n bytes.
func tensors(n int) string {
	header := `{"w":{"dtype":"U8","shape":[` + strings.Repeat(" ", 10) + `1],"data_offsets":[0,1]}}`
	return string([]byte{byte(len(header)), 0, 0, 0, 0, 0, 0, 0}) + header + strings.Repeat("x", n)
}

// model uploads a model through a store with a remote, as any client of S3 would, and returns its address.
func model(t *testing.T, server testtools.S3, files map[string]string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(server.Folder, "models"), 0o755); err != nil { // a bucket
		t.Fatal(err)
	}
	folder := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Join(folder, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	source, err := store.NewFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	place := "s3://models/" + filepath.Base(filepath.Dir(folder))
	remote, err := s3.OpenRemote(t.Context(), place, lookup(server.Env()), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close() // it returns no error
	local, err := store.New(store.Options{Path: t.TempDir(), Remote: remote})
	if err != nil {
		t.Fatal(err)
	}
	found, err := local.Fetch(t.Context(), store.Request{Repo: "org/model", Source: source})
	if err == nil {
		err = local.Push(t.Context(), found, "", nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return place + "/models--org--model/snapshots/" + found.Commit
}

var whole = map[string]string{
	"config.json": "{}", "tokenizer.json": "{}", "model-1.safetensors": tensors(1), "model-2.safetensors": tensors(1),
	indexFile: `{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}`,
}

func TestCheckAllows(t *testing.T) {
	server := testtools.S3Server(t)
	address := model(t, server, whole)
	plan, err := Check(t.Context(), &backends.Spec{ModelPath: address}, lookup(server.Env()), good)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Address != address || plan.Files != 2 || plan.Bytes != int64(2*len(tensors(1))) || !strings.HasSuffix(address, plan.Commit) {
		t.Errorf("got %+v", plan)
	}
	want := map[string]string{
		"AWS_ENDPOINT_URL": server.URL, "AWS_ENDPOINT_URL_S3": server.URL, "RUNAI_STREAMER_S3_ENDPOINT": server.URL, "AWS_REGION": "us-east-1",
		"AWS_DEFAULT_REGION": "us-east-1", "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0", "AWS_EC2_METADATA_DISABLED": "true",
		"RUNAI_STREAMER_CHUNK_BYTESIZE": "2097152", "RUNAI_STREAMER_OBJ_CONCURRENCY": "64",
	}
	if !maps.Equal(plan.Env, want) {
		t.Errorf("got %v, want %v", plan.Env, want)
	}
	for _, text := range append([]string{plan.String()}, strings.Join(os.Environ(), "\n")) {
		if strings.Contains(text, server.Secret) {
			t.Error("the secret is where it must not be")
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	server := testtools.S3Server(t)
	address := model(t, server, whole)
	copied := filepath.Join(server.Folder, "models", "copied")
	if err := os.MkdirAll(copied, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config.json", "model.safetensors"} {
		if err := os.WriteFile(filepath.Join(copied, name), []byte(tensors(1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	env := server.Env()
	for _, tt := range []struct {
		name    string
		files   map[string]string // uploaded; nil: address
		address string
		env     map[string]string
		loader  Loader
		class   backends.Class
		says    string
	}{
		{name: "no loader", loader: fakeLoader{}, class: backends.ClassBadFlag, says: "pip install 'runai-model-streamer[s3]'"},
		{name: "no part for S3", loader: fakeLoader{has: installed.Streamer{Core: "0.17.0"}}, class: backends.ClassBadFlag, says: "runai-model-streamer-s3==0.17.0"},
		{name: "two versions", loader: fakeLoader{has: installed.Streamer{Core: "0.17.0", S3: "0.16.0"}}, class: backends.ClassBadFlag, says: "must have one version"},
		{name: "no boto3", loader: fakeLoader{has: installed.Streamer{Core: "1", S3: "1", Lacks: []string{"boto3"}}}, class: backends.ClassBadFlag, says: "pip install boto3"},
		{name: "other libc", loader: fakeLoader{has: installed.Streamer{Core: "1", S3: "1", Broken: "GLIBC_2.30 not found"}}, class: backends.ClassBadFlag, says: "GLIBC_2.30"},
		{name: "no Python", loader: fakeLoader{err: errors.New("no")}, class: backends.ClassLaunch, says: "not known whether"},
		{name: "half a key", env: with(env, "AWS_SECRET_ACCESS_KEY", ""), class: backends.ClassSecret, says: "AWS_SECRET_ACCESS_KEY"},
		{name: "wrong secret", env: with(env, "AWS_SECRET_ACCESS_KEY", "wrong"), class: backends.ClassGated, says: "secret key does not fit"},
		{name: "no credentials", env: with(with(env, "AWS_SECRET_ACCESS_KEY", ""), "AWS_ACCESS_KEY_ID", ""), class: backends.ClassGated, says: "not public"},
		{name: "nobody answers", env: with(env, "AWS_ENDPOINT_URL", "http://127.0.0.1:1"), class: backends.ClassUnreachable, says: "AWS_ENDPOINT_URL"},
		{name: "no bucket", address: "s3://no-such-bucket/m", class: backends.ClassModelNotFound, says: "no bucket"},
		{name: "nothing there", address: "s3://models/no-such-prefix", class: backends.ClassModelNotFound, says: "nothing lies below"},
		{name: "copied, not uploaded", address: "s3://models/copied", class: backends.ClassBadFlag, says: "has no ETag"},
		{name: "sharded", files: map[string]string{"config.json": "{}", "model-rank-0-part-0.safetensors": tensors(1)}, class: backends.ClassBadFlag, says: "cut for tensor parallelism"},
		{name: "no safetensors", files: map[string]string{"config.json": "{}", "pytorch_model.bin": "x"}, class: backends.ClassBadFlag, says: "only safetensors"},
		{name: "no weights", files: map[string]string{"config.json": "{}"}, class: backends.ClassBadFlag, says: "no *.safetensors"},
		{name: "below", files: map[string]string{"config.json": "{}", "unet/model.safetensors": tensors(1)}, class: backends.ClassBadFlag, says: "folders below"},
		{name: "no config", files: map[string]string{"model.safetensors": tensors(1)}, class: backends.ClassBadFlag, says: "no config.json"},
		{name: "twice", files: map[string]string{"config.json": "{}", "model.safetensors": tensors(1), "consolidated.safetensors": tensors(1)}, class: backends.ClassBadFlag, says: "twice"},
		{name: "holes", files: map[string]string{"config.json": "{}", "model-1.safetensors": tensors(1), indexFile: whole[indexFile]}, class: backends.ClassBadFlag, says: "model-2.safetensors is missing"},
		{name: "not a weight file", files: map[string]string{"config.json": "{}", "model.safetensors": "version https://git-lfs.github.com/spec/v1"}, class: backends.ClassBadFlag, says: "not a safetensors file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := address
			if tt.address != "" {
				at = tt.address
			} else if tt.files != nil {
				at = model(t, server, tt.files)
			}
			if tt.env == nil {
				tt.env = env
			}
			if tt.loader == nil {
				tt.loader = good
			}
			_, err := Check(t.Context(), &backends.Spec{ModelPath: at}, lookup(tt.env), tt.loader)
			f, ok := errors.AsType[*backends.Failure](err)
			if !ok {
				t.Fatalf("got %v, want a failure", err)
			}
			if f.Class != tt.class || !strings.Contains(f.Message+" "+f.Advice, tt.says) || f.Advice == "" {
				t.Errorf("got %s: %s; %s, want %s that says %q", f.Class, f.Message, f.Advice, tt.class, tt.says)
			}
			if strings.Contains(err.Error(), server.Secret) {
				t.Errorf("the secret is in %v", err)
			}
		})
	}
}

// TestPlace does what SGLang and its loader do: look for the mark under their lock, and read.
func TestPlace(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{"config.json": "one", "sub/x.py": "two"} {
		if err := os.MkdirAll(filepath.Join(folder, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found := store.Snapshot{Path: folder, Files: []store.File{{Path: "config.json"}, {Path: "sub/x.py"}}}
	cache := CacheDir(lookup(map[string]string{"SGLANG_CACHE_DIR": t.TempDir()}))
	const address = "s3://weights/llama"
	sum := sha256.Sum256([]byte(address))
	dir := filepath.Join(cache, hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("of an older state"), 0o644); err != nil {
		t.Fatal(err)
	}
	var starts sync.WaitGroup
	for range 4 {
		starts.Go(func() {
			if err := Place(context.Background(), cache, address, found); err != nil {
				t.Error(err)
			}
		})
	}
	starts.Wait()
	for name, want := range map[string]string{"config.json": "one", "sub/x.py": "two", done: ""} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	entries, err := os.ReadDir(cache)
	if err != nil || len(entries) != 2 { // the folder and its lock
		t.Errorf("got %v, %v", entries, err)
	}
	release, err := lock(t.Context(), dir+".lock")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Place(ctx, cache, address, found); !errors.Is(err, context.Canceled) {
		t.Errorf("while the engine fills it: got %v, want %v", err, context.Canceled)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if got := CacheDir(lookup(map[string]string{"HOME": "/home/op"})); got != "/home/op/.cache/sglang/model_streamer" {
		t.Errorf("got %q", got)
	}
}
