package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// making begins the name of a folder in which an artefact is made.
const making = "making-"

// Making is a folder for files that are made on this machine and not fetched: an artefact, such as weights that an engine has cut up. Nobody
// sees it until Publish. Close it in every case. Not safe for concurrent use.
type Making struct {
	// Path is the folder: empty at first, on the store's own file system, and nobody else's until Close.
	Path string

	store    *Store
	repo     string
	revision string
	dir      *folder
	use      *Use // keeps others from removing the model meanwhile
	release  func() error
}

// Make prepares a folder for an artefact that will be known as repo at revision (a name, not a commit), for which need bytes are wanted, of the
// disk and of the store's budget; 0: nobody knows how many. who makes it, in a word for people. It waits while somebody else makes the same, in this process or another, so that callers look with Find again
// afterwards. What killed processes left of artefacts of this repo is removed.
func (s *Store) Make(ctx context.Context, repo, revision, who string, need int64) (_ *Making, err error) {
	if err := errors.Join(CheckRepo(repo), checkRevision(revision)); err != nil {
		return nil, err
	}
	if isHex(revision, 40) {
		return nil, fmt.Errorf("revision %s: a commit follows from the content, which is not made yet", revision)
	}
	use, err := s.Use(ctx, repo, User{Who: who})
	if err != nil {
		return nil, err
	}
	dir, err := openFolder(s.path, repo)
	if err != nil {
		return nil, errors.Join(err, use.Close())
	}
	m := &Making{store: s, repo: repo, revision: revision, dir: dir, use: use}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	sum := sha256.Sum256([]byte(revision))
	name := making + hex.EncodeToString(sum[:8])
	if m.release, err = lock(ctx, dir.lockOf(name), func() {}); err != nil {
		return nil, err
	}
	if err := dir.sweepMakings(name); err != nil {
		return nil, err
	}
	if err := s.tag(); err != nil {
		return nil, err
	}
	if err := errors.Join(s.makeRoom(ctx, repo, need, use), s.room(dir.path, need, 0)); err != nil {
		return nil, err
	}
	if err := dir.root.Mkdir(path.Join(ours, name), 0o700); err != nil {
		return nil, err
	}
	m.Path = filepath.Join(dir.path, ours, name)
	return m, nil
}

func (f *folder) lockOf(name string) string { return filepath.Join(f.locks, name+".lock") }

// sweepMakings removes the folder with this name, whose lock is held, and those that nobody holds the lock of.
func (f *folder) sweepMakings(held string) error {
	entries, err := fs.ReadDir(f.root.FS(), ours)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, making) {
			continue
		}
		release := func() error { return nil }
		if name != held {
			release, err = tryLock(f.lockOf(name))
			if errors.Is(err, unix.EWOULDBLOCK) {
				continue // somebody is at it
			} else if err != nil {
				return err
			}
		}
		if err := errors.Join(f.root.RemoveAll(path.Join(ours, name)), release()); err != nil {
			return err
		}
	}
	return nil
}

// Publish moves files of the folder into the store, where they are found at once and together. Their sizes are checked; a SHA256 is taken at
// its word, since only this process can have computed it, and is computed where there is none. Files that are not named are thrown away by Close.
// The commit follows from names and content.
func (m *Making) Publish(ctx context.Context, files []File) (Snapshot, error) {
	if len(files) == 0 {
		return Snapshot{}, fmt.Errorf("publishing %s: no files", m.repo)
	}
	list := Listing{Files: make([]File, 0, len(files))}
	for _, f := range files {
		if err := f.check(); err != nil {
			return Snapshot{}, err
		}
		sum, err := m.settle(ctx, f)
		if err != nil {
			return Snapshot{}, fmt.Errorf("publishing %s: %s: %w", m.repo, f.Path, err)
		}
		list.Files = append(list.Files, File{Path: f.Path, Size: f.Size, SHA256: sum})
	}
	list.Commit = DerivedCommit(list.Files)
	if err := list.Check(); err != nil {
		return Snapshot{}, err
	}
	blobs := make(map[string]string, len(list.Files))
	moved := map[string]bool{}
	for _, f := range list.Files {
		blobs[f.Path] = f.SHA256
		if moved[f.SHA256] {
			continue // two files with one content
		}
		if err := m.dir.root.Rename(m.name(f.Path), "blobs/"+f.SHA256); err != nil {
			return Snapshot{}, err
		}
		moved[f.SHA256] = true
	}
	if err := m.dir.publish(list.Commit, blobs); err != nil {
		return Snapshot{}, err
	}
	if err := m.dir.writeTree(list); err != nil {
		return Snapshot{}, err
	}
	if err := m.dir.replace("refs/"+m.revision, []byte(list.Commit)); err != nil {
		return Snapshot{}, err
	}
	return Snapshot{Repo: m.repo, Commit: list.Commit, Path: filepath.Join(m.dir.path, "snapshots", list.Commit), Files: list.Files}, nil
}

// name is a file's in the model's folder.
func (m *Making) name(file string) string { return path.Join(ours, filepath.Base(m.Path), file) }

// settle brings a file to disk for good and returns its hash.
func (m *Making) settle(ctx context.Context, f File) (string, error) {
	r, err := m.dir.root.OpenFile(m.name(f.Path), os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() != f.Size {
		return "", fmt.Errorf("it is not a file of %d bytes", f.Size)
	}
	sum := f.SHA256
	if sum == "" {
		if sum, err = HashFile(ctx, r); err != nil {
			return "", err
		}
	}
	// Engines make files that only their user reads; whoever may read the store may read them.
	return sum, errors.Join(r.Chmod(0o644), r.Sync())
}

// HashFile is the sha256 of what r yields, in hex. It ends early with ctx.
func HashFile(ctx context.Context, r io.Reader) (string, error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for ctx.Err() == nil {
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		} else if err != nil {
			return "", err
		}
	}
	return "", context.Cause(ctx)
}

// Close throws away what was not published, and lets others make the same.
func (m *Making) Close() error {
	var err error
	if m.Path != "" {
		err = m.dir.root.RemoveAll(path.Join(ours, filepath.Base(m.Path)))
	}
	if m.release != nil {
		err = errors.Join(err, m.release())
	}
	return errors.Join(err, m.dir.root.Close(), m.use.Close())
}
