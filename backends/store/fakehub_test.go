package store

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeHub answers as a hub does in what its official client looks at (huggingface_hub 2.4, file_download.py and hf_api.py): large files are
// redirected to a second host, small ones are served by the first.
type fakeHub struct {
	repo, commit string
	token        string // needed, if not ""
	hub, cdn     *httptest.Server

	mu       sync.Mutex // guards the fields below
	files    map[string][]byte
	large    map[string]bool
	lists    int
	refusals map[string]int    // by header X-Error-Code: status, for all requests
	lies     map[string][]byte // content that the second host sends in place of a file's
	fail     func(w http.ResponseWriter, r *http.Request) bool
	secrets  []string // Authorization headers that the second host saw
	served   int64    // bytes of content of large files
	signed   int      // how many addresses of the second host were given out
}

func newFakeHub(t *testing.T) *fakeHub {
	h := &fakeHub{
		repo: "org/model", commit: strings.Repeat("ab", 20),
		files: map[string][]byte{}, large: map[string]bool{}, lies: map[string][]byte{},
	}
	h.hub = httptest.NewServer(http.HandlerFunc(h.serveHub))
	h.cdn = httptest.NewServer(http.HandlerFunc(h.serveCDN))
	t.Cleanup(h.hub.Close)
	t.Cleanup(h.cdn.Close)
	return h
}

func (h *fakeHub) add(name string, content []byte, large bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[name], h.large[name] = content, large
}

func gitOID(content []byte) string {
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(content)), content...))
	return hex.EncodeToString(sum[:])
}

func sha(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	if code != "" {
		w.Header().Set("X-Error-Code", code)
	}
	w.Header().Set("X-Error-Message", message)
	w.WriteHeader(status)
}

func (h *fakeHub) serveHub(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for code, status := range h.refusals {
		refuse(w, status, code, "refused: "+code)
		return
	}
	if h.token != "" && r.Header.Get("Authorization") != "Bearer "+h.token {
		refuse(w, http.StatusUnauthorized, "", "Invalid username or password.")
		return
	}
	api := "/api/models/" + h.repo
	switch {
	case strings.HasPrefix(r.URL.Path, api+"/revision/"):
		switch rev := strings.TrimPrefix(r.URL.Path, api+"/revision/"); rev {
		case "main", h.commit:
			json.NewEncoder(w).Encode(map[string]any{"id": h.repo, "sha": h.commit, "siblings": []any{}})
		default:
			refuse(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+rev)
		}
	case r.URL.Path == api+"/tree/"+h.commit:
		h.lists++
		h.serveTree(w, r)
	case strings.HasPrefix(r.URL.Path, "/"+h.repo+"/resolve/"+h.commit+"/"):
		name := strings.TrimPrefix(r.URL.Path, "/"+h.repo+"/resolve/"+h.commit+"/")
		content, ok := h.files[name]
		if !ok {
			refuse(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
			return
		}
		w.Header().Set("X-Repo-Commit", h.commit)
		w.Header().Set("Accept-Ranges", "bytes")
		if !h.large[name] {
			w.Header().Set("ETag", `"`+gitOID(content)+`"`)
			http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
			return
		}
		h.signed++
		w.Header().Set("X-Linked-Size", strconv.Itoa(len(content)))
		w.Header().Set("X-Linked-ETag", `"`+sha(content)+`"`)
		w.Header().Set("Location", h.cdn.URL+"/blob/"+url.PathEscape(name)+"?signature="+strconv.Itoa(h.signed))
		w.WriteHeader(http.StatusFound)
	default:
		refuse(w, http.StatusNotFound, "RepoNotFound", "Repository not found")
	}
}

// serveTree gives two entries a page.
func (h *fakeHub) serveTree(w http.ResponseWriter, r *http.Request) {
	names := slices.Sorted(maps.Keys(h.files))
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	to := min(from+2, len(names))
	if to < len(names) {
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&expand=false&cursor=%d>; rel="next"`, h.hub.URL, r.URL.Path, to))
	}
	page := []map[string]any{}
	for _, name := range names[from:to] {
		content := h.files[name]
		entry := map[string]any{"type": "file", "path": name, "size": len(content), "oid": gitOID(content)}
		if h.large[name] {
			entry["lfs"] = map[string]any{"oid": sha(content), "size": len(content), "pointerSize": 130}
			entry["oid"] = gitOID([]byte("pointer of " + name))
		}
		page = append(page, entry)
	}
	json.NewEncoder(w).Encode(page)
}

func (h *fakeHub) serveCDN(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	if a := r.Header.Get("Authorization"); a != "" {
		h.secrets = append(h.secrets, a)
	}
	name := strings.TrimPrefix(r.URL.Path, "/blob/")
	content, ok := h.files[name]
	if lie := h.lies[name]; lie != nil {
		content = lie
	}
	fail := h.fail
	h.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	counted := &countingWriter{ResponseWriter: w, hub: h}
	if fail != nil && fail(counted, r) {
		return
	}
	http.ServeContent(counted, r, "blob", time.Time{}, bytes.NewReader(content))
}

type countingWriter struct {
	http.ResponseWriter
	hub *fakeHub
}

func (c *countingWriter) Write(p []byte) (int, error) {
	// Counted first, because whoever has got the bytes may look at the count at once.
	c.hub.mu.Lock()
	c.hub.served += int64(len(p))
	c.hub.mu.Unlock()
	return c.ResponseWriter.Write(p)
}

// failWith has the second host ask fail first, which says whether it answered.
func (h *fakeHub) failWith(fail func(http.ResponseWriter, *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = fail
}

// bytesServed is how much content of large files went out.
func (h *fakeHub) bytesServed() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.served
}

func (h *fakeHub) source(t *testing.T) *Hub {
	t.Helper()
	s, err := NewHub(HubOptions{Repo: h.repo, Endpoint: h.hub.URL, Token: h.token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// fill gives the hub a small model's usual files.
func (h *fakeHub) fill() {
	h.add("config.json", []byte(`{"architectures":["X"]}`), false)
	h.add("empty.txt", nil, false)
	h.add("sub/dir/tokenizer é.json", []byte("{}"), false)
	h.add("model-1.safetensors", noise(1, 20<<20+12345), true)
	h.add("model-2.safetensors", noise(2, 3<<20), true)
	h.add("copy.safetensors", h.files["model-2.safetensors"], true)
}
