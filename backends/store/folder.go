package store

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Folder is a Source that reads a local folder. Links in it are followed if they lead to files in it or elsewhere; linked folders are not.
type Folder struct{ path string }

// NewFolder takes a folder that exists.
func NewFolder(path string) (*Folder, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(abs); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder", path)
	}
	return &Folder{path: abs}, nil
}

// List walks the folder. Its commit is a hash over names, sizes and times of change; there is one revision, "" or "main".
func (f *Folder) List(ctx context.Context, revision string) (Listing, error) {
	if revision != "" && revision != "main" {
		return Listing{}, fmt.Errorf("%w: a folder has no revision %q", ErrRevisionNotFound, revision)
	}
	var list Listing
	err := filepath.WalkDir(f.path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if d.IsDir() {
			return nil
		}
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(f.path, name)
		if err != nil {
			return err
		}
		list.Files = append(list.Files, File{Path: filepath.ToSlash(rel), Size: info.Size(), Version: folderVersion(info)})
		return nil
	})
	if err != nil {
		return Listing{}, err
	}
	list.Commit = DerivedCommit(list.Files)
	return list, list.Check()
}

func folderVersion(info fs.FileInfo) string {
	return info.ModTime().UTC().Format("2006-01-02T15:04:05.000000000Z")
}

// Open reads part of a file that must still be what was listed.
func (f *Folder) Open(_ context.Context, _ string, file File, offset, length int64) (io.ReadCloser, error) {
	if err := checkPath(file.Path); err != nil {
		return nil, err
	}
	r, err := os.Open(filepath.Join(f.path, filepath.FromSlash(file.Path)))
	if err != nil {
		return nil, err
	}
	info, err := r.Stat()
	if err == nil && (info.Size() != file.Size || folderVersion(info) != file.Version) {
		err = fmt.Errorf("%w: %s", ErrChanged, file.Path)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return &section{Reader: io.NewSectionReader(r, offset, length), Closer: r}, nil
}

type section struct {
	io.Reader
	io.Closer
}

// DerivedCommit gives sources without commits one, and sorts files by path: equal listings have equal commits.
func DerivedCommit(files []File) string {
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	h := sha1.New() // only for its 40 digits, which the cache layout wants; nothing is proven by it
	for _, f := range files {
		fmt.Fprintf(h, "%q %d %q %q %q\n", f.Path, f.Size, f.SHA256, f.GitOID, f.Version)
	}
	return hex.EncodeToString(h.Sum(nil))
}
