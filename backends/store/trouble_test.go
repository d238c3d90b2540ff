package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pilotlight/internal/testtools/hubtest"
)

// listed is a source of files whose content is made by their names.
type listed struct {
	files   []File
	content map[string][]byte // by path; nil: nothing may be opened
	opened  atomic.Int64
}

func newListed(content map[string][]byte) *listed {
	l := &listed{content: content}
	for name, c := range content {
		l.files = append(l.files, File{Path: name, Size: int64(len(c)), SHA256: hubtest.SHA256(c)})
	}
	return l
}

func (l *listed) List(context.Context, string) (Listing, error) {
	return Listing{Commit: strings.Repeat("1", 40), Files: l.files}, nil
}

func (l *listed) Open(_ context.Context, _ string, f File, offset, length int64) (io.ReadCloser, error) {
	l.opened.Add(1)
	if l.content == nil {
		return nil, errors.New("nothing may be fetched")
	}
	return io.NopCloser(bytes.NewReader(l.content[f.Path][offset : offset+length])), nil
}

// TestFullDiskIsForeseen has a model of 200 GB and a disk with 50 GB, of which some may already be there.
func TestFullDiskIsForeseen(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir)
	s.disk.free = func(string) (int64, int64, error) { return 50_000_000_000, 1000, nil }
	src := &listed{}
	for i := range 4 {
		src.files = append(src.files, File{Path: fmt.Sprintf("model-%d.safetensors", i), Size: 50_000_000_000, SHA256: fmt.Sprintf("%064d", i)})
	}
	refused := func(words ...string) {
		t.Helper()
		_, err := s.Fetch(t.Context(), Request{Repo: "org/wide", Source: src})
		for _, w := range words {
			if !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), w) {
				t.Errorf("got %v, want ErrDiskFull with %q", err, w)
			}
		}
		if n := src.opened.Load(); n > 0 {
			t.Errorf("%d files were opened", n)
		}
	}
	refused("186 GiB are to be fetched", "47 GiB are free", dir)

	// An unfinished file has its whole size and hardly any blocks. What it lacks is still to come.
	folder, err := openFolder(dir, "org/wide")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range src.files {
		p, err := openPartial(folder.root, f.SHA256, f)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := folder.root.Close(); err != nil {
		t.Fatal(err)
	}
	refused("186 GiB are to be fetched")

	s.disk.free = func(string) (int64, int64, error) { return 1 << 50, 7, nil }
	refused("12 files are to be made", "room for 7 more")
	s.disk.free, s.reserve = func(string) (int64, int64, error) { return 200_000_000_000, -1, nil }, 1<<30
	refused("1.0 GiB kept free")
}

// TestDiskThatFillsUp has the disk fill up in the middle, as when somebody else writes to it. What was fetched stays for the next time.
func TestDiskThatFillsUp(t *testing.T) {
	content := map[string][]byte{"w": hubtest.Noise(4, 12*chunk), "config.json": []byte("{}")}
	src, dir := newListed(content), t.TempDir()
	s := newStore(t, dir)
	s.backoff = time.Hour // a full disk is no network that may come back
	var written atomic.Int64
	s.disk.write = func(f *os.File, p []byte, offset int64) (int, error) {
		if written.Add(int64(len(p))) > 7*chunk {
			return 0, &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
		}
		return f.WriteAt(p, offset)
	}
	_, err := s.Fetch(t.Context(), Request{Repo: "w", Source: src})
	if !errors.Is(err, ErrDiskFull) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "w") {
		t.Fatalf("got %v, want ErrDiskFull", err)
	}
	if _, err := s.Find("w", "", Filter{}); !errors.Is(err, ErrIncomplete) {
		t.Errorf("got %v, want ErrIncomplete", err)
	}
	s = newStore(t, dir)
	var last Progress
	got, err := s.Fetch(t.Context(), Request{Repo: "w", Source: src, Progress: func(p Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, got, content)
	// Every connection may have lost a chunk that it had begun.
	if most := int64(12-7+6) * chunk; last.BytesFetched > most {
		t.Errorf("%d bytes were fetched after it, want at most %d", last.BytesFetched, most)
	}
}

// inMemory is a folder that costs no disk's time, where there is one.
func inMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "store-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestAHundredThousandFiles has as many as a hub advises to have at most, names that differ by case, and empty ones. They share contents,
// because writing each to disk would take minutes and show no more.
func TestAHundredThousandFiles(t *testing.T) {
	content := map[string][]byte{"Model.bin": []byte("upper"), "model.bin": []byte("lower"), "MODEL.BIN": nil}
	for i := range 100_000 - len(content) {
		content[fmt.Sprintf("%03d/%02d/file-%d.txt", i%100, i%7, i)] = fmt.Append(nil, i%200)
	}
	src := newListed(content)
	s := newStore(t, inMemory(t))
	got, err := s.Fetch(t.Context(), Request{Repo: "org/many", Source: src})
	if err != nil {
		t.Fatal(err)
	}
	if n := src.opened.Load(); n > 203 {
		t.Errorf("%d files were fetched, want one of each content", n)
	}
	found, err := s.Find("org/many", "", Filter{})
	if err != nil || len(found.Files) != 100_000 {
		t.Fatalf("found %d files, %v", len(found.Files), err)
	}
	for _, name := range []string{"Model.bin", "model.bin", "MODEL.BIN", "000/00/file-0.txt", "099/04/file-18799.txt"} {
		if b, err := os.ReadFile(filepath.Join(got.Path, name)); err != nil || !bytes.Equal(b, content[name]) {
			t.Errorf("%s: got %q, %v; want %q", name, b, err, content[name])
		}
	}
}

func TestOnlyEmptyFiles(t *testing.T) {
	content := map[string][]byte{"a": nil, "b/c": nil}
	var last Progress
	got, err := newStore(t, t.TempDir()).Fetch(t.Context(), Request{Repo: "org/empty", Source: newListed(content), Progress: func(p Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, got, content)
	if last.Phase != Finished || last.FilesDone != 2 {
		t.Errorf("progress at the end: %+v", last)
	}
}

func TestServersAreLeftAloneForAsLongAsTheySay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, tries := time.Now(), 0
		err := retry(t.Context(), time.Second, func() (bool, error) {
			if tries++; tries <= 2 {
				return false, fmt.Errorf("asking: %w", &StatusError{Status: 429, RetryAfter: 70 * time.Second})
			}
			return false, nil
		})
		if took := time.Since(began); err != nil || took != 140*time.Second {
			t.Errorf("got %v after %s, want success after 2m20s", err, took)
		}
		began = time.Now()
		err = retry(t.Context(), time.Second, func() (bool, error) { return false, &StatusError{Status: 503, RetryAfter: time.Hour} })
		if err == nil || !strings.Contains(err.Error(), "1h0m0s") || time.Since(began) > 0 {
			t.Errorf("got %v after %s, want to be told at once", err, time.Since(began))
		}
		began = time.Now()
		err = retry(t.Context(), time.Second, func() (bool, error) { return false, errStalled })
		if took := time.Since(began); !errors.Is(err, errStalled) || took != 61*time.Second {
			t.Errorf("got %v after %s, want to give up after 1m1s", err, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := retry(ctx, time.Minute, func() (bool, error) { return false, errStalled }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's error", err)
		}
	})
}

func TestServerThatNeverSendsABody(t *testing.T) {
	hub := hubtest.New(t)
	hub.Add("model.safetensors", hubtest.Noise(3, 3*chunk), true)
	hub.FailWith(func(w http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) })
	_, err := newStore(t, t.TempDir()).Fetch(t.Context(), Request{Repo: hub.Repo, Source: hubSource(t, hub)})
	if err == nil || !strings.Contains(err.Error(), "gave up after 7 tries") || !strings.Contains(err.Error(), "model.safetensors") {
		t.Errorf("got %v", err)
	}
}

// TestHubThatSpeaksOtherwiseOfFiles has a hub that lists a file and answers otherwise when it is fetched.
func TestHubThatSpeaksOtherwiseOfFiles(t *testing.T) {
	for _, c := range []struct {
		name   string
		header http.Header
		status int
		want   error
	}{
		{"gated, though its listing is not", http.Header{"X-Error-Code": {"GatedRepo"}}, 403, ErrGated},
		{"gone", http.Header{"X-Error-Code": {"EntryNotFound"}}, 404, ErrFileNotFound},
		{"another commit", http.Header{"X-Repo-Commit": {strings.Repeat("c", 40)}}, 200, ErrChanged},
		{"another size", http.Header{"X-Linked-Size": {"5"}}, 200, ErrChanged},
		{"another hash", http.Header{"X-Linked-Etag": {`"` + strings.Repeat("d", 64) + `"`}}, 200, ErrChanged},
		{"another length", http.Header{"Content-Length": {"1"}}, 200, ErrChanged},
	} {
		t.Run(c.name, func(t *testing.T) {
			hub, dir := hubtest.New(t), t.TempDir()
			hub.Add("config.json", []byte("{}"), false)
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.Contains(r.URL.Path, "/resolve/") {
					hub.ServeHub(w, r)
					return
				}
				for k, v := range c.header {
					w.Header()[k] = v
				}
				w.WriteHeader(c.status)
				if c.status == http.StatusOK {
					_, _ = w.Write([]byte("{}")) // longer than said, in one case
				}
			}))
			defer front.Close()
			src, err := NewHub(HubOptions{Repo: hub.Repo, Endpoint: front.URL})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			if _, err := newStore(t, dir).Fetch(t.Context(), Request{Repo: hub.Repo, Source: src}); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if _, err := os.Lstat(filepath.Join(dir, "models--org--model/snapshots", hub.Commit)); err == nil {
				t.Error("it was published")
			}
		})
	}
}

// TestPagesOfAListingAreRetriedOneByOne has the second page fail, after which the first need not come again.
func TestPagesOfAListingAreRetriedOneByOne(t *testing.T) {
	asked := map[string]int{} // by page; requests come one after another
	var hub *httptest.Server
	hub = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/revision/") {
			fmt.Fprintf(w, `{"sha":%q}`, strings.Repeat("a", 40))
			return
		}
		page := r.URL.Query().Get("cursor")
		asked[page]++
		if page == "2" && asked[page] < 3 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		if page == "" {
			w.Header().Set("Link", fmt.Sprintf(`<%s%s?cursor=2>; rel="next"`, hub.URL, r.URL.Path))
		}
		fmt.Fprintf(w, `[{"type":"file","path":"file%s","size":0,"oid":%q}]`, page, hubtest.GitOID(nil))
	}))
	defer hub.Close()
	src, err := NewHub(HubOptions{Repo: "org/model", Endpoint: hub.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	src.backoff = time.Millisecond
	list, err := src.List(t.Context(), "")
	if err != nil || len(list.Files) != 2 {
		t.Errorf("got %+v, %v", list, err)
	}
	if asked[""] != 1 || asked["2"] != 3 {
		t.Errorf("pages were asked for so often: %v", asked)
	}
}
