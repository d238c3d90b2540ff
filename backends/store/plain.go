package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/html"
)

// sumsFile is the name of a listing with hashes, in the form that sha256sum(1) writes and reads.
const sumsFile = "SHA256SUMS"

// plainPages bounds how many folders of a web server are looked into.
const plainPages = 1000

// Plain is a Source that reads a folder of a plain web server. It takes names and hashes from a SHA256SUMS file there, else names from the
// index pages that file servers make (nginx autoindex, Apache, python -m http.server, …); without SHA256SUMS, content is checked by size and
// by an unchanged ETag or Last-Modified only.
type Plain struct {
	base *url.URL // ends in '/'
	web  *web
}

// NewPlain takes the folder's address. token, if any, is sent as a bearer token to that host only. connections 0 is 96.
func NewPlain(address, token string, connections int) (*Plain, error) {
	base, err := parseBase(address)
	if err != nil {
		return nil, err
	}
	if base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("%s: an address of a folder has no query or fragment", base.Redacted())
	}
	if connections == 0 {
		connections = defaultConnections
	}
	if !strings.HasSuffix(base.Path, "/") {
		base = base.JoinPath("/")
	}
	return &Plain{base: base, web: newWeb(base, token, connections)}, nil
}

// Close lets go of idle connections.
func (p *Plain) Close() { p.web.close() }

// List reads SHA256SUMS or the index pages, then asks for every file's size and version. There is one revision, "" or "main".
func (p *Plain) List(ctx context.Context, revision string) (Listing, error) {
	if revision != "" && revision != "main" {
		return Listing{}, fmt.Errorf("%w: a web server has no revision %q", ErrRevisionNotFound, revision)
	}
	files, err := p.sums(ctx)
	if errors.Is(err, ErrFileNotFound) {
		files, err = p.indexes(ctx)
	}
	if err != nil {
		return Listing{}, err
	}
	if err := p.heads(ctx, files); err != nil {
		return Listing{}, err
	}
	list := Listing{Files: files, Commit: DerivedCommit(files)}
	return list, list.Check()
}

func (p *Plain) get(ctx context.Context, method, address string) (*http.Response, error) {
	resp, _, err := p.web.do(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, plainRefusal(resp)
	}
	return resp, nil
}

func plainRefusal(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrUnauthorized
	case http.StatusNotFound, http.StatusGone:
		return ErrFileNotFound
	}
	return &StatusError{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header, time.Now())}
}

func (p *Plain) sums(ctx context.Context) ([]File, error) {
	resp, err := p.get(ctx, http.MethodGet, p.base.JoinPath(sumsFile).String())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var files []File
	lines := bufio.NewScanner(io.LimitReader(resp.Body, listPage))
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		sum, name, ok := strings.Cut(lines.Text(), " ")
		if !ok || !isHex(strings.ToLower(sum), 64) || len(name) < 2 {
			return nil, fmt.Errorf("%w: %s has the line %q", ErrBadListing, sumsFile, shorten(lines.Text()))
		}
		// The character after the space is ' ' for text and '*' for binary (coreutils).
		files = append(files, File{Path: strings.TrimPrefix(name[1:], "./"), SHA256: strings.ToLower(sum)})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(files) > MaxFiles {
		return nil, fmt.Errorf("%w: more than %d files", ErrBadListing, MaxFiles)
	}
	return files, errors.Join(checkPaths(files)...)
}

// checkPaths looks at names before they become part of an address.
func checkPaths(files []File) (problems []error) {
	for _, f := range files {
		if err := checkPath(f.Path); err != nil {
			return []error{fmt.Errorf("%w: %w", ErrBadListing, err)}
		}
	}
	return nil
}

// indexes follows the links of index pages to files and folders below each page.
func (p *Plain) indexes(ctx context.Context) ([]File, error) {
	var files []File
	seen := map[string]bool{"": true}
	for queue := []string{""}; len(queue) > 0; queue = queue[1:] {
		if len(seen) > MaxFiles || len(queue) > plainPages {
			return nil, fmt.Errorf("%w: more than %d files or %d folders", ErrBadListing, MaxFiles, plainPages)
		}
		page := *p.base
		page.Path += queue[0]
		page.RawPath = ""
		names, err := p.links(ctx, &page)
		if err != nil {
			return nil, fmt.Errorf("reading the index of %s: %w", page.Redacted(), err)
		}
		for _, name := range names {
			name = queue[0] + name
			if seen[name] {
				continue
			}
			seen[name] = true
			if strings.HasSuffix(name, "/") {
				queue = append(queue, name)
			} else {
				files = append(files, File{Path: name})
			}
		}
	}
	return files, errors.Join(checkPaths(files)...)
}

// links are the names that an index page links to directly below itself; those of folders end in '/'.
func (p *Plain) links(ctx context.Context, page *url.URL) ([]string, error) {
	resp, err := p.get(ctx, http.MethodGet, page.String())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/html") {
		return nil, fmt.Errorf("%w: it is %q and not an HTML index; put a %s file beside the files", ErrBadListing, shorten(kind), sumsFile)
	}
	var names []string
	tokens := html.NewTokenizer(io.LimitReader(resp.Body, listPage))
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			if err := tokens.Err(); err != io.EOF {
				return nil, err
			}
			return names, nil
		case html.StartTagToken:
			token := tokens.Token()
			for _, a := range token.Attr {
				if token.Data != "a" || a.Key != "href" {
					continue
				}
				target, err := page.Parse(a.Val)
				if err != nil || target.Host != page.Host || target.Scheme != page.Scheme || target.RawQuery != "" {
					continue // a link for people: elsewhere, or one that sorts the table
				}
				name, below := strings.CutPrefix(target.Path, page.Path)
				if below && name != "" && !strings.Contains(strings.TrimSuffix(name, "/"), "/") {
					names = append(names, name)
				}
			}
		}
	}
}

// heads fills in sizes and versions, several at a time: each costs a round trip, and there may be a hundred thousand.
func (p *Plain) heads(ctx context.Context, files []File) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var askers sync.WaitGroup
	for range min(firstConnections, len(files)) {
		askers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(files) {
					return
				}
				if err := p.head(ctx, &files[i]); err != nil {
					cancel(fmt.Errorf("%s: %w", shorten(files[i].Path), err))
				}
			}
		})
	}
	askers.Wait()
	return context.Cause(ctx)
}

// head fills in size and version.
func (p *Plain) head(ctx context.Context, f *File) error {
	return retry(ctx, time.Second, func() (bool, error) {
		resp, err := p.get(ctx, http.MethodHead, p.address(f.Path))
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		if resp.ContentLength < 0 {
			return false, fmt.Errorf("%w: the server does not say its size", ErrBadListing)
		}
		f.Size = resp.ContentLength
		f.Version = version(resp.Header)
		return false, nil
	})
}

// version prefers a strong ETag: a weak one may stay when bytes change (RFC 9110 §8.8.1).
func version(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return h.Get("Last-Modified")
}

func (p *Plain) address(name string) string {
	return strings.TrimRight(p.base.String(), "/") + "/" + escapePath(name)
}

// Open reads part of a file that must still have the listed version.
func (p *Plain) Open(ctx context.Context, _ string, file File, offset, length int64) (io.ReadCloser, error) {
	r, resp, _, err := p.web.ranged(ctx, p.address(file.Path), nil, file.Size, offset, length)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, plainRefusal(resp)
	}
	if now := version(resp.Header); now != file.Version {
		return nil, errors.Join(fmt.Errorf("%w: version %q was listed, now it is %q", ErrChanged, file.Version, shorten(now)), r.Close())
	}
	return r, nil
}
