package store

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Errors that a Source tells apart. They come wrapped, with what was asked for.
var (
	ErrNotFound         = errors.New("no such model, or it is private and the token does not open it")
	ErrRevisionNotFound = errors.New("no such revision")
	ErrFileNotFound     = errors.New("no such file")
	ErrGated            = errors.New("access to this model must be granted first")
	ErrUnauthorized     = errors.New("the token was refused")
	ErrChanged          = errors.New("the source changed during the download")
	ErrBadListing       = errors.New("the source lists files that cannot be stored")
	errNoRanges         = errors.New("the server does not serve parts of files")
)

// MaxFiles is the most files that one listing may hold. A hub advises at most 100 000 files per repository.
const MaxFiles = 200_000

// Source is where a model comes from. Implementations are safe for concurrent use.
type Source interface {
	// List resolves a revision ("" is the source's default) and lists all files of what it stands for.
	List(ctx context.Context, revision string) (Listing, error)
	// Open reads length bytes of a file from offset on; the caller closes. A body that ends early reads as io.ErrUnexpectedEOF or a network
	// error. It returns errNoRanges when only whole files (offset 0, length = size) can be had.
	Open(ctx context.Context, commit string, file File, offset, length int64) (io.ReadCloser, error)
}

// Listing is what a revision holds.
type Listing struct {
	// Commit is 40 hex digits: the hub's commit, or for sources without commits a hash over names, sizes and versions.
	Commit string
	Files  []File
}

// File is one file of a listing.
type File struct {
	Path string // relative, with '/'
	Size int64  // bytes
	// SHA256 and GitOID are hex, "" where unknown. The content is checked against SHA256 if there is one, else against GitOID (the SHA-1 that
	// git gives a blob). Where both are known, the file is an LFS file and GitOID is that of its pointer.
	SHA256, GitOID string
	// Version tells two contents of one path apart where no hash is known: an ETag, or a time of change.
	Version string
	// Checker checks content for which there is neither SHA256 nor GitOID. Nil: there is nothing to check it against.
	Checker Checker
}

// Checker checks a file's content by what its source knows of it beside the hashes that name blobs, such as an object store's checksums.
type Checker interface {
	// Begin returns a hash to be fed the whole content in order, or nil if there is nothing to hash.
	Begin(ctx context.Context) hash.Hash
	// End judges the content by its sha256 in hex and the sum of Begin's hash (nil without one). It returns an error that wraps
	// ErrHashMismatch if the content is known to be wrong.
	End(ctx context.Context, sha256 string, sum []byte) error
}

// hashed says whether the content can be checked against something that the source said.
func (f File) hashed() bool { return f.SHA256 != "" || f.GitOID != "" }

// StatusError is an HTTP answer that is none of the errors above.
type StatusError struct {
	Status     int
	RetryAfter time.Duration // 0: not said
	Message    string        // what the server said of it, shortened; may be empty
}

func (e *StatusError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the server answered %d", e.Status)
	}
	return fmt.Sprintf("the server answered %d: %s", e.Status, e.Message)
}

// temporary says whether asking again may help.
func (e *StatusError) temporary() bool { return e.Status == 408 || e.Status == 429 || e.Status >= 500 }

// Check reports, all in one error that wraps ErrBadListing, what in the listing must not or cannot be stored.
func (l Listing) Check() error {
	var problems []error
	if !isHex(l.Commit, 40) {
		problems = append(problems, fmt.Errorf("commit %q is not 40 hex digits", l.Commit))
	}
	if len(l.Files) > MaxFiles {
		return fmt.Errorf("%w: %d files, more than %d", ErrBadListing, len(l.Files), MaxFiles)
	}
	seen := make(map[string]bool, len(l.Files))
	for _, f := range l.Files {
		if err := f.check(); err != nil {
			problems = append(problems, err)
		}
		if seen[f.Path] {
			problems = append(problems, fmt.Errorf("%q is listed twice", f.Path))
		}
		seen[f.Path] = true
		if len(problems) > 10 { // a hostile listing must not become a huge message
			break
		}
	}
	for _, f := range l.Files {
		if len(problems) > 10 {
			break
		}
		for dir := path.Dir(f.Path); dir != "." && dir != "/"; dir = path.Dir(dir) {
			if seen[dir] {
				problems = append(problems, fmt.Errorf("%q is both a file and a folder", dir))
				break
			}
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("%w: %w", ErrBadListing, errors.Join(problems...))
	}
	return nil
}

func (f File) check() error {
	switch {
	case f.Size < 0:
		return fmt.Errorf("%q has the size %d", f.Path, f.Size)
	case f.SHA256 != "" && !isHex(f.SHA256, 64):
		return fmt.Errorf("%q has the sha256 %q", f.Path, f.SHA256)
	case f.GitOID != "" && !isHex(f.GitOID, 40):
		return fmt.Errorf("%q has the git object id %q", f.Path, f.GitOID)
	}
	return checkPath(f.Path)
}

// checkPath allows what every file system takes as a relative name below a folder.
func checkPath(name string) error {
	// 255 and 4096 are Linux's NAME_MAX and PATH_MAX (limits.h); the store's own path needs room in the latter.
	if name == "" || len(name) > 3000 || !utf8.ValidString(name) || strings.ContainsAny(name, "\\") || strings.IndexFunc(name, unicode.IsControl) >= 0 {
		return fmt.Errorf("%q is not a usable file name", shorten(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || len(part) > 255 {
			return fmt.Errorf("%q is not a relative path below the model's folder", shorten(name))
		}
	}
	return nil
}

func shorten(s string) string {
	if len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// isHex says whether s is n lower-case hex digits.
func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}
