package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// DefaultEndpoint is the public hub, as in the official client.
const DefaultEndpoint = "https://huggingface.co"

// listPage bounds one page of a listing: 1000 entries of a few hundred bytes each come in one.
const listPage = 32 << 20

// HubOptions say which model of which hub.
type HubOptions struct {
	Repo        string // "org/name", or "name" for the oldest models
	Endpoint    string // "" is DefaultEndpoint; HF_ENDPOINT of the official client
	Token       string // "" is anonymous; sent to the endpoint's own scheme, host and port only
	Connections int    // idle connections to keep; 0 is 96
}

// Hub is a Source that speaks the protocol of huggingface_hub 2.4 (its plain file downloads, not Xet).
type Hub struct {
	repo string
	base string // endpoint without a final slash
	web  *web
	// backoff is the first wait before a page of a listing is asked for again; tests shorten it.
	backoff time.Duration

	mu        sync.Mutex // guards the fields below
	locations map[string]string
	asking    map[string]chan struct{} // closed when somebody has asked where a file lies
}

// NewHub checks the options; it connects to nothing.
func NewHub(o HubOptions) (*Hub, error) {
	if err := CheckRepo(o.Repo); err != nil {
		return nil, err
	}
	if o.Endpoint == "" {
		o.Endpoint = DefaultEndpoint
	}
	base, err := parseBase(o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("hub endpoint: %w", err)
	}
	if o.Connections == 0 {
		o.Connections = defaultConnections
	}
	return &Hub{
		repo: o.Repo, base: strings.TrimRight(base.String(), "/"), web: newWeb(base, o.Token, o.Connections),
		backoff: time.Second, locations: map[string]string{}, asking: map[string]chan struct{}{},
	}, nil
}

// parseBase takes an absolute http or https address.
func parseBase(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, withoutQuery(err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not an http or https address", u.Redacted())
	}
	return u, nil
}

// Close lets go of idle connections.
func (h *Hub) Close() { h.web.close() }

// List asks for the revision's commit, then for the commit's files, so that a push between the two cannot mix them.
func (h *Hub) List(ctx context.Context, revision string) (Listing, error) {
	if revision == "" {
		revision = "main"
	}
	if err := checkRevision(revision); err != nil {
		return Listing{}, err
	}
	var info struct {
		SHA string `json:"sha"`
	}
	if _, err := h.getJSON(ctx, h.base+"/api/models/"+h.repo+"/revision/"+url.PathEscape(revision), &info); err != nil {
		return Listing{}, fmt.Errorf("looking up %s at %s: %w", h.repo, revision, err)
	}
	if !isHex(info.SHA, 40) {
		return Listing{}, fmt.Errorf("looking up %s at %s: %w: commit %q", h.repo, revision, ErrBadListing, shorten(info.SHA))
	}
	list := Listing{Commit: info.SHA}
	for next := h.base + "/api/models/" + h.repo + "/tree/" + info.SHA + "?recursive=true&expand=false"; next != ""; {
		var page []struct {
			Type, Path, OID string
			Size            int64
			LFS             *struct {
				OID  string
				Size int64
			}
		}
		var header http.Header
		// Page by page, because a hundred pages that must all come at once would not come from a hub that is busy.
		err := retry(ctx, h.backoff, func() (_ bool, err error) {
			page = nil
			header, err = h.getJSON(ctx, next, &page)
			return false, err
		})
		if err != nil {
			return Listing{}, fmt.Errorf("listing %s: %w", h.repo, err)
		}
		for _, e := range page {
			if e.Type != "file" {
				continue
			}
			f := File{Path: e.Path, Size: e.Size, GitOID: e.OID}
			if e.LFS != nil {
				f.SHA256, f.Size = strings.TrimPrefix(e.LFS.OID, "sha256:"), e.LFS.Size
			}
			if f.GitOID == "" && f.SHA256 == "" {
				return Listing{}, fmt.Errorf("listing %s: %w: %q has no hash", h.repo, ErrBadListing, shorten(f.Path))
			}
			list.Files = append(list.Files, f)
		}
		if len(list.Files) > MaxFiles || len(page) == 0 {
			break
		}
		if next, err = h.nextPage(next, header.Values("Link")); err != nil {
			return Listing{}, fmt.Errorf("listing %s: %w", h.repo, err)
		}
	}
	return list, list.Check()
}

// nextPage is the target of `<…>; rel="next"` (RFC 8288), which must be on the hub itself, or "".
func (h *Hub) nextPage(current string, links []string) (string, error) {
	for link := range strings.SplitSeq(strings.Join(links, ","), ",") {
		target, params, _ := strings.Cut(strings.TrimSpace(link), ";")
		if !strings.Contains(strings.ReplaceAll(params, " ", ""), `rel="next"`) {
			continue
		}
		base, err := url.Parse(current)
		if err != nil {
			return "", err
		}
		u, err := base.Parse(strings.Trim(target, "<>"))
		if err != nil {
			return "", withoutQuery(err)
		}
		if u.Scheme != base.Scheme || u.Host != base.Host || u.String() == current {
			return "", fmt.Errorf("%w: the next page is said to be elsewhere", ErrBadListing)
		}
		return u.String(), nil
	}
	return "", nil
}

func (h *Hub) getJSON(ctx context.Context, address string, into any) (http.Header, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, &StatusError{Status: http.StatusRequestTimeout, Message: "no whole answer in two minutes"})
	defer cancel()
	resp, _, err := h.web.do(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, h.refusal(resp, ErrNotFound)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, listPage+1))
	if err != nil {
		return nil, err
	}
	if len(text) > listPage {
		return nil, fmt.Errorf("%w: a page of more than %d MiB", ErrBadListing, listPage>>20)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadListing, err)
	}
	return resp.Header, nil
}

// refusal tells the hub's answers apart as the official client does (hf_raise_for_status): by X-Error-Code, else by status. missing is what
// a 404 without a code means.
func (h *Hub) refusal(resp *http.Response, missing error) error {
	code, message := resp.Header.Get("X-Error-Code"), shorten(resp.Header.Get("X-Error-Message"))
	var kind error
	switch {
	case code == "RevisionNotFound":
		kind = ErrRevisionNotFound
	case code == "EntryNotFound":
		kind = ErrFileNotFound
	case code == "GatedRepo":
		kind = ErrGated
	case code == "RepoNotFound":
		kind = ErrNotFound
	case resp.StatusCode == http.StatusUnauthorized && h.web.token != "" && strings.HasPrefix(message, "Invalid"):
		kind = ErrUnauthorized
	case resp.StatusCode == http.StatusUnauthorized:
		kind = ErrNotFound // what hubs answer to strangers for missing and private alike
	case resp.StatusCode == http.StatusForbidden:
		kind = ErrUnauthorized
	case resp.StatusCode == http.StatusNotFound:
		kind = missing
	default:
		return &StatusError{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header, time.Now()), Message: message}
	}
	if message != "" {
		return fmt.Errorf("%w (%s)", kind, message)
	}
	return kind
}

// Open asks the hub where the file lies once, however many ask for parts of it at once, because hubs count such questions. Further parts are
// had there directly, until that address is refused, as signed addresses are when they get old.
func (h *Hub) Open(ctx context.Context, commit string, file File, offset, length int64) (io.ReadCloser, error) {
	key := commit + "/" + file.Path
	known, answer, err := h.location(ctx, key)
	if err != nil {
		return nil, err
	}
	if answer != nil {
		defer answer()
	}
	if known != "" {
		r, resp, _, err := h.web.ranged(ctx, known, nil, file.Size, offset, length)
		if r != nil || err != nil {
			return r, err
		}
		if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
			return nil, h.refusal(resp, ErrFileNotFound)
		}
		h.mu.Lock()
		if h.locations[key] == known {
			delete(h.locations, key)
		}
		h.mu.Unlock()
	}
	address := h.base + "/" + h.repo + "/resolve/" + commit + "/" + escapePath(file.Path)
	r, resp, first, err := h.web.ranged(ctx, address, nil, file.Size, offset, length)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, h.refusal(resp, ErrFileNotFound)
	}
	if err := described(first, commit, file); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if at := resp.Request.URL.String(); at != address {
		h.mu.Lock()
		h.locations[key] = at
		h.mu.Unlock()
	}
	return r, nil
}

// location is where a file is known to lie; "" is for the caller to ask, who calls answer when it has, or has not, been told. Others that
// want to know wait for that, if answer is not nil.
func (h *Hub) location(ctx context.Context, key string) (known string, answer func(), err error) {
	h.mu.Lock()
	known, asking := h.locations[key], h.asking[key]
	if known == "" && asking == nil {
		asked := make(chan struct{})
		h.asking[key] = asked
		h.mu.Unlock()
		return "", func() {
			h.mu.Lock()
			delete(h.asking, key)
			h.mu.Unlock()
			close(asked)
		}, nil
	}
	h.mu.Unlock()
	if known != "" {
		return known, nil, nil
	}
	select {
	case <-asking:
	case <-ctx.Done():
		return "", nil, context.Cause(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.locations[key], nil, nil // "": the hub serves it itself, or did not answer, and everybody asks
}

// described compares what the hub says about a file with the listing: X-Repo-Commit, X-Linked-Size and X-Linked-ETag, or ETag.
func described(h http.Header, commit string, file File) error {
	if c := h.Get("X-Repo-Commit"); c != "" && c != commit {
		return fmt.Errorf("%w: asked for commit %s, got %s", ErrChanged, commit, shorten(c))
	}
	if v := h.Get("X-Linked-Size"); v != "" {
		if size, err := strconv.ParseInt(v, 10, 64); err != nil || size != file.Size {
			return fmt.Errorf("%w: %d bytes were listed, the hub now says %s", ErrChanged, file.Size, shorten(v))
		}
	}
	etag := h.Get("X-Linked-Etag")
	if etag == "" {
		return nil // the ETag of whatever host it was; the content is checked in the end
	}
	if tag := strings.Trim(strings.TrimPrefix(etag, "W/"), `"`); tag != file.SHA256 && tag != file.GitOID {
		return fmt.Errorf("%w: the hub now says ETag %s", ErrChanged, shorten(etag))
	}
	return nil
}

// escapePath escapes each part of a path, as urllib's quote does, '/' aside.
func escapePath(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}
