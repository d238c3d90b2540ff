package store

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/internal/testtools/hubtest"
)

func TestListingsThatCannotBeStored(t *testing.T) {
	commit := strings.Repeat("a", 40)
	for _, c := range []struct {
		name  string
		files []File
		ok    bool
	}{
		{"plain names", []File{{Path: "a"}, {Path: "b/c.json"}, {Path: ".gitattributes"}, {Path: "..."}}, true},
		{"names differing by case", []File{{Path: "Model.bin"}, {Path: "model.bin"}}, true},
		{"up", []File{{Path: "../a"}}, false},
		{"up inside", []File{{Path: "a/../../b"}}, false},
		{"absolute", []File{{Path: "/etc/passwd"}}, false},
		{"this folder", []File{{Path: "./a"}}, false},
		{"empty", []File{{Path: ""}}, false},
		{"empty part", []File{{Path: "a//b"}}, false},
		{"folder", []File{{Path: "a/"}}, false},
		{"backslash", []File{{Path: `..\a`}}, false},
		{"nul", []File{{Path: "a\x00b"}}, false},
		{"newline", []File{{Path: "a\nb"}}, false},
		{"not UTF-8", []File{{Path: "a\xff"}}, false},
		{"long part", []File{{Path: strings.Repeat("x", 256)}}, false},
		{"twice", []File{{Path: "a"}, {Path: "a"}}, false},
		{"file and folder", []File{{Path: "a"}, {Path: "a/b/c"}}, false},
		{"negative size", []File{{Path: "a", Size: -1}}, false},
		{"hash that is a path", []File{{Path: "a", SHA256: "../../" + strings.Repeat("a", 58)}}, false},
		{"object id that is a path", []File{{Path: "a", GitOID: "../../x"}}, false},
		{"too many", make([]File, MaxFiles+1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Listing{Commit: commit, Files: c.files}.Check()
			if c.ok && err != nil || !c.ok && !errors.Is(err, ErrBadListing) {
				t.Errorf("got %v, want ok %v", err, c.ok)
			}
			if err != nil && len(err.Error()) > 5000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestHostileHubWritesNothingOutside(t *testing.T) {
	hub := hubtest.New(t)
	hub.Fill()
	hub.Add("../../../escaped", []byte("x"), false)
	parent := t.TempDir()
	if _, err := newStore(t, filepath.Join(parent, "cache")).Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)}); !errors.Is(err, ErrBadListing) {
		t.Fatalf("got %v, want ErrBadListing", err)
	}
	if left, _ := os.ReadDir(parent); len(left) > 0 {
		t.Errorf("something was written: %v", left)
	}
}

// TestLinkedSnapshotFolder has a folder of a snapshot lead elsewhere, as somebody who may write to a shared cache could make it.
func TestLinkedSnapshotFolder(t *testing.T) {
	hub, dir, outside := hubtest.New(t), t.TempDir(), t.TempDir()
	hub.Fill()
	snapshot := filepath.Join(dir, "models--org--model/snapshots", hub.Commit)
	if err := os.MkdirAll(snapshot, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(snapshot, "sub")); err != nil {
		t.Fatal(err)
	}
	if _, err := newStore(t, dir).Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)}); err == nil {
		t.Error("it was written through a link that leads out of the store")
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("something was written outside: %v", left)
	}
}

func TestRepoNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"gpt2": true, "Qwen/Qwen3-0.6B": true, "a_b/c.d": true,
		"": false, "a/b/c": false, "../x": false, "a/..": false, "a--b": false, "-a": false, "a-": false, "a.git": false, "a b": false, "a/": false, "/a": false,
		strings.Repeat("x", 97): false,
	} {
		if err := CheckRepo(name); (err == nil) != ok {
			t.Errorf("%q: got %v, want ok %v", name, err, ok)
		}
	}
}

func TestFilterMatchesAsTheHubsClient(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*.json", "config.json", true},
		{"*.json", "sub/config.json", true},
		{"*.json", "config.jsonl", false},
		{"sub/", "sub/a/b", true},
		{"sub/", "sub", false},
		{"model-?.bin", "model-1.bin", true},
		{"model-?.bin", "model-12.bin", false},
		{"[ab]*", "bc", true},
		{"[!ab]*", "bc", false},
		{"[]]", "]", true},
		{"[", "[", true},
		{"a.b", "axb", false},
		{"é*", "élan", true},
	} {
		if err := (Filter{Include: []string{c.pattern}}).Check(); err != nil {
			t.Fatal(err)
		}
		if got := len(Filter{Include: []string{c.pattern}}.choose([]File{{Path: c.name}})) == 1; got != c.want {
			t.Errorf("%q on %q: got %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		key, value string
		want       time.Duration
	}{
		{"Retry-After", "7", 7 * time.Second},
		{"Retry-After", "Fri, 02 Jan 2026 03:05:05 GMT", time.Minute},
		{"Retry-After", "Fri, 02 Jan 2026 03:00:00 GMT", 0},
		{"Retry-After", "soon", 0},
		{"Ratelimit", `"api";r=0;t=55`, 55 * time.Second},
		{"Ratelimit", `"api";r=3;t=55`, 0},
		{"X", "", 0},
	} {
		if got := retryAfter(http.Header{c.key: {c.value}}, now); got != c.want {
			t.Errorf("%s: %s: got %s, want %s", c.key, c.value, got, c.want)
		}
	}
}

func TestTokenStaysWithItsOrigin(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	note := func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Host+r.URL.Path+" "+r.Header.Get("Authorization"))
	}
	third := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { note(r) }))
	defer third.Close()
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note(r)
		switch r.URL.Path {
		case "/a":
			w.Header().Set("Location", "/b") // as for a renamed model
		case "/b":
			w.Header().Set("Location", third.URL+"/c")
		}
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	defer first.Close()
	base, err := parseBase(first.URL)
	if err != nil {
		t.Fatal(err)
	}
	web := newWeb(base, "secret", 1)
	defer web.close()
	resp, _, err := web.do(t.Context(), http.MethodGet, first.URL+"/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	a, c := strings.TrimPrefix(first.URL, "http://"), strings.TrimPrefix(third.URL, "http://")
	if got, want := fmt.Sprint(seen), fmt.Sprint([]string{a + "/a Bearer secret", a + "/b Bearer secret", c + "/c "}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// someFiles makes a folder and returns its content by name.
func someFiles(t *testing.T) (string, map[string][]byte) {
	t.Helper()
	dir := t.TempDir()
	files := map[string][]byte{"config.json": []byte("{}"), "empty": nil, "sub/a b#?.txt": []byte("x"), "model.safetensors": hubtest.Noise(5, 18<<20+1)}
	for name, content := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir, files
}

func TestFetchFromFolder(t *testing.T) {
	from, files := someFiles(t)
	src, err := NewFolder(from)
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, t.TempDir())
	got, err := s.Fetch(t.Context(), Request{Repo: "local", Source: src})
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, got, files)
	if err := os.WriteFile(filepath.Join(from, "config.json"), []byte(`{"a":1}`), 0o666); err != nil {
		t.Fatal(err)
	}
	again, err := s.Fetch(t.Context(), Request{Repo: "local", Source: src})
	if err != nil {
		t.Fatal(err)
	}
	if again.Commit == got.Commit {
		t.Error("another content has the same commit")
	}
	files["config.json"] = []byte(`{"a":1}`)
	checkSnapshot(t, again, files)
}

func TestFetchFromPlainServer(t *testing.T) {
	from, files := someFiles(t)
	// net/http's file server makes index pages; noRanges is as simple servers are.
	noRanges := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			next.ServeHTTP(w, r)
		})
	}
	for _, c := range []struct {
		name string
		sums bool
		wrap func(http.Handler) http.Handler
	}{
		{"index pages", false, func(h http.Handler) http.Handler { return h }},
		{"no ranges", false, noRanges},
		{"sums", true, func(h http.Handler) http.Handler { return h }},
	} {
		t.Run(c.name, func(t *testing.T) {
			sums := filepath.Join(from, sumsFile)
			if c.sums {
				var text strings.Builder
				for name, content := range files {
					fmt.Fprintf(&text, "%s  %s\n", hubtest.SHA256(content), name)
				}
				if err := os.WriteFile(sums, []byte(text.String()), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			server := httptest.NewServer(c.wrap(http.StripPrefix("/models/x", http.FileServer(http.Dir(from)))))
			defer server.Close()
			src, err := NewPlain(server.URL+"/models/x", "", 0)
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			var last Progress
			got, err := newStore(t, t.TempDir()).Fetch(t.Context(), Request{Repo: "plain", Source: src, Progress: func(p Progress) { last = p }})
			if err != nil {
				t.Fatal(err)
			}
			if last.BytesDone != last.Bytes || last.FilesDone != last.Files || last.BytesFetched < last.Bytes {
				t.Errorf("progress at the end: %+v", last)
			}
			checkSnapshot(t, got, files)
			for _, f := range got.Files {
				if (f.SHA256 != "") != c.sums {
					t.Errorf("%s has the hash %q", f.Path, f.SHA256)
				}
			}
		})
	}
}

func TestWrongSumOnPlainServer(t *testing.T) {
	from, _ := someFiles(t)
	if err := os.WriteFile(filepath.Join(from, sumsFile), []byte(hubtest.SHA256([]byte("other"))+" *config.json\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(from)))
	defer server.Close()
	src, err := NewPlain(server.URL, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := newStore(t, t.TempDir()).Fetch(t.Context(), Request{Repo: "plain", Source: src}); !errors.Is(err, ErrHashMismatch) {
		t.Errorf("got %v, want ErrHashMismatch", err)
	}
}

func TestFileThatChangesOnPlainServer(t *testing.T) {
	var mu sync.Mutex
	size, tag := 20<<20, `"1"`
	content := hubtest.Noise(8, size)
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/w" {
			w.Header().Set("Content-Type", "text/html")
			if r.URL.Path == "/" {
				fmt.Fprint(w, `<a href="../">up</a><a href="?C=M">sort</a><a href="w">w</a><a href="//elsewhere/x">x</a>`)
			} else {
				w.WriteHeader(http.StatusNotFound)
			}
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodGet {
			if asked++; asked > 1 {
				tag = `"2"`
			}
		}
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "w", time.Time{}, strings.NewReader(string(content)))
	}))
	defer server.Close()
	src, err := NewPlain(server.URL, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	s := newStore(t, t.TempDir())
	s.connections = 1
	if _, err := s.Fetch(t.Context(), Request{Repo: "plain", Source: src}); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v, want ErrChanged", err)
	}
}
