// Package hubtest is a model hub made for tests: it answers as the public one does in what its official client looks at, and fails in the ways
// that hubs and networks do. Test code only.
package hubtest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
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

// Hub answers as a hub does in what its official client looks at (huggingface_hub 2.4, file_download.py and hf_api.py): large files are
// redirected to a second host, small ones are served by the first.
type Hub struct {
	Repo, Commit string // of its only model
	Token        string // needed, if not ""
	Front, Back  *httptest.Server

	Mu       sync.Mutex // guards the fields below
	Files    map[string][]byte
	Large    map[string]bool
	Lists    int
	Refusals map[string]int    // by header X-Error-Code: status, for all requests
	Lies     map[string][]byte // content that the second host sends in place of a file's
	Secrets  []string          // Authorization headers that the second host saw
	Signed   int               // how many addresses of the second host were given out

	fail   func(w http.ResponseWriter, r *http.Request) bool
	served int64 // bytes of content of large files
}

// New starts a hub with an empty model.
func New(t *testing.T) *Hub {
	h := &Hub{
		Repo: "org/model", Commit: strings.Repeat("ab", 20),
		Files: map[string][]byte{}, Large: map[string]bool{}, Lies: map[string][]byte{},
	}
	h.Front = httptest.NewServer(http.HandlerFunc(h.ServeHub))
	h.Back = httptest.NewServer(http.HandlerFunc(h.serveCDN))
	t.Cleanup(h.Front.Close)
	t.Cleanup(h.Back.Close)
	return h
}

// Add puts a file there; a large one is served by the second host.
func (h *Hub) Add(name string, content []byte, large bool) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	h.Files[name], h.Large[name] = content, large
}

// GitOID is what git calls a blob of this content.
func GitOID(content []byte) string {
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(content)), content...))
	return hex.EncodeToString(sum[:])
}

// SHA256 is in hex.
func SHA256(content []byte) string {
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

// ServeHub is the first host's handler.
func (h *Hub) ServeHub(w http.ResponseWriter, r *http.Request) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	for code, status := range h.Refusals {
		refuse(w, status, code, "refused: "+code)
		return
	}
	if h.Token != "" && r.Header.Get("Authorization") != "Bearer "+h.Token {
		refuse(w, http.StatusUnauthorized, "", "Invalid username or password.")
		return
	}
	api := "/api/models/" + h.Repo
	switch {
	case strings.HasPrefix(r.URL.Path, api+"/revision/"):
		switch rev := strings.TrimPrefix(r.URL.Path, api+"/revision/"); rev {
		case "main", h.Commit:
			json.NewEncoder(w).Encode(map[string]any{"id": h.Repo, "sha": h.Commit, "siblings": []any{}})
		default:
			refuse(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+rev)
		}
	case r.URL.Path == api+"/tree/"+h.Commit:
		h.Lists++
		h.serveTree(w, r)
	case strings.HasPrefix(r.URL.Path, "/"+h.Repo+"/resolve/"+h.Commit+"/"):
		name := strings.TrimPrefix(r.URL.Path, "/"+h.Repo+"/resolve/"+h.Commit+"/")
		content, ok := h.Files[name]
		if !ok {
			refuse(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
			return
		}
		w.Header().Set("X-Repo-Commit", h.Commit)
		w.Header().Set("Accept-Ranges", "bytes")
		if !h.Large[name] {
			w.Header().Set("ETag", `"`+GitOID(content)+`"`)
			http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
			return
		}
		h.Signed++
		w.Header().Set("X-Linked-Size", strconv.Itoa(len(content)))
		w.Header().Set("X-Linked-ETag", `"`+SHA256(content)+`"`)
		w.Header().Set("Location", h.Back.URL+"/blob/"+url.PathEscape(name)+"?signature="+strconv.Itoa(h.Signed))
		w.WriteHeader(http.StatusFound)
	default:
		refuse(w, http.StatusNotFound, "RepoNotFound", "Repository not found")
	}
}

// serveTree gives two entries a page.
func (h *Hub) serveTree(w http.ResponseWriter, r *http.Request) {
	names := slices.Sorted(maps.Keys(h.Files))
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	to := min(from+2, len(names))
	if to < len(names) {
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&expand=false&cursor=%d>; rel="next"`, h.Front.URL, r.URL.Path, to))
	}
	page := []map[string]any{}
	for _, name := range names[from:to] {
		content := h.Files[name]
		entry := map[string]any{"type": "file", "path": name, "size": len(content), "oid": GitOID(content)}
		if h.Large[name] {
			entry["lfs"] = map[string]any{"oid": SHA256(content), "size": len(content), "pointerSize": 130}
			entry["oid"] = GitOID([]byte("pointer of " + name))
		}
		page = append(page, entry)
	}
	json.NewEncoder(w).Encode(page)
}

func (h *Hub) serveCDN(w http.ResponseWriter, r *http.Request) {
	h.Mu.Lock()
	if a := r.Header.Get("Authorization"); a != "" {
		h.Secrets = append(h.Secrets, a)
	}
	name := strings.TrimPrefix(r.URL.Path, "/blob/")
	content, ok := h.Files[name]
	if lie := h.Lies[name]; lie != nil {
		content = lie
	}
	fail := h.fail
	h.Mu.Unlock()
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
	hub *Hub
}

func (c *countingWriter) Write(p []byte) (int, error) {
	// Counted first, because whoever has got the bytes may look at the count at once.
	c.hub.Mu.Lock()
	c.hub.served += int64(len(p))
	c.hub.Mu.Unlock()
	return c.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (c *countingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// FailWith has the second host ask fail first, which says whether it answered.
func (h *Hub) FailWith(fail func(http.ResponseWriter, *http.Request) bool) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	h.fail = fail
}

// BytesServed is how much content of large files went out.
func (h *Hub) BytesServed() int64 {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	return h.served
}

// Fill gives the hub a small model's usual files.
func (h *Hub) Fill() {
	h.Add("config.json", []byte(`{"architectures":["X"]}`), false)
	h.Add("empty.txt", nil, false)
	h.Add("sub/dir/tokenizer é.json", []byte("{}"), false)
	h.Add("model-1.safetensors", Noise(1, 20<<20+12345), true)
	h.Add("model-2.safetensors", Noise(2, 3<<20), true)
	h.Add("copy.safetensors", h.Files["model-2.safetensors"], true)
}

// Noise is content that repeats only with its seed.
func Noise(seed byte, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0] = seed
	rand.NewChaCha8(key).Read(b)
	return b
}
