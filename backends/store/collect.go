package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Garbage is something that nobody will need any more.
type Garbage struct {
	Repo  string
	What  string // "unfinished download", "revision", "unused content" or "leftover"
	Name  string // the file's or the commit's
	Bytes int64  // on disk
}

// Collect deletes, in models that Pilotlight fetched or served and that nobody uses at the moment: unfinished downloads and contents that no
// revision holds, both untouched for longer than age, and revisions that no branch, tag or artefact stands for any more. dry only lists.
func (s *Store) Collect(ctx context.Context, age time.Duration, dry bool) ([]Garbage, error) {
	if _, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if !dry {
		if err := s.sweepRemoved(); err != nil {
			return nil, err
		}
	}
	models, err := s.Models()
	if err != nil {
		return nil, err
	}
	var all []Garbage
	for _, m := range models {
		if !m.Ours {
			continue
		}
		found, err := s.collect(ctx, m.folder, age, dry)
		if all = append(all, found...); err != nil {
			return all, fmt.Errorf("%s: %w", m.Repo, err)
		}
	}
	return all, nil
}

func (s *Store) collect(ctx context.Context, folder string, age time.Duration, dry bool) (found []Garbage, err error) {
	release, err := s.guard(ctx, folder)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if users, err := s.users(folder, !dry); err != nil || len(users) > 0 {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Join(s.path, folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // removed meanwhile
	} else if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	c := collector{root: root, repo: repoOf(folder), before: time.Now().Add(-age), dry: dry}
	known, err := s.artefactsOf(folder)
	if err != nil {
		return nil, err
	}
	revisions, err := s.revisions(folder, known)
	if err != nil {
		return nil, err
	}
	linked := map[string]bool{}
	for _, r := range revisions {
		named := len(r.Refs) > 0 || slices.ContainsFunc(known, func(a Artefact) bool { return a.Commit == r.Commit || a.Revision == r.Commit })
		if snapshot := "snapshots/" + r.Commit; named {
			err = c.links(snapshot, linked)
		} else if err = c.drop("revision", r.Commit, snapshot); err == nil && !dry {
			err = root.RemoveAll("trees/" + r.Commit + ".json")
		}
		if err != nil {
			return c.found, err
		}
	}
	if err := c.each("blobs", func(name string) string {
		if linked[name] || strings.Contains(name, ".") { // the hub's client has NAME.incomplete there
			return ""
		}
		return "unused content"
	}); err != nil {
		return c.found, err
	}
	if err := c.each(partials, func(string) string { return "unfinished download" }); err != nil {
		return c.found, err
	}
	err = c.each(ours, func(name string) string {
		if kind, _, dashed := strings.Cut(name, "-"); dashed && slices.Contains([]string{"write", "link", "snapshot", "making"}, kind) {
			return "leftover"
		}
		return ""
	})
	return c.found, err
}

// collector works on one model's folder.
type collector struct {
	root   *os.Root
	repo   string
	before time.Time // what changed since then stays
	dry    bool
	found  []Garbage
}

// links notes the contents that a revision holds.
func (c *collector) links(snapshot string, linked map[string]bool) error {
	return fs.WalkDir(c.root.FS(), snapshot, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		to, err := c.root.Readlink(name)
		linked[path.Base(filepath.ToSlash(to))] = true
		return err
	})
}

// each drops the old entries of a folder to which what gives a name.
func (c *collector) each(dir string, what func(name string) string) error {
	entries, err := fs.ReadDir(c.root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		kind := what(e.Name())
		if kind == "" {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if info.ModTime().After(c.before) {
			continue
		}
		if err := c.drop(kind, e.Name(), path.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) drop(what, name, at string) error {
	size := int64(0)
	err := fs.WalkDir(c.root.FS(), at, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			size += stat.Blocks * 512
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !c.dry {
		if err := c.root.RemoveAll(at); err != nil {
			return err
		}
	}
	c.found = append(c.found, Garbage{Repo: c.repo, What: what, Name: name, Bytes: size})
	return nil
}
