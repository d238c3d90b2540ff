package store

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Model is what the store holds of one model.
type Model struct {
	Repo       string
	Bytes      int64 // that its files occupy on disk, finished or not
	Unfinished int64 // of these, in downloads that are not finished
	Revisions  []Revision
	Artefacts  []Artefact
	LastUsed   time.Time // when a replica or a download began or ended to use it, as far as that is known; else when something of it changed
	Users      []User    // who needs it now
	Ours       bool      // it was fetched or served by Pilotlight, not only by other programs

	folder string
}

// Revision is one state of a model.
type Revision struct {
	Commit string
	Refs   []string // branches and tags that stand for it
	// Whole says that the files of some artefact of this revision, or else all that its listing names, are there.
	Whole bool
}

// Models lists what is in the store, by name. Folders that no model's name could have made are left out.
func (s *Store) Models() ([]Model, error) {
	folders, err := s.folders()
	if err != nil {
		return nil, err
	}
	var out []Model
	for _, folder := range folders {
		if CheckRepo(repoOf(folder)) != nil {
			continue
		}
		m, err := s.model(folder)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		} else if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Model) int { return cmp.Compare(a.Repo, b.Repo) })
	return out, nil
}

func (s *Store) model(folder string) (m Model, err error) {
	m = Model{Repo: repoOf(folder), folder: folder}
	if m.Bytes, m.Unfinished, m.LastUsed, err = measure(filepath.Join(s.path, folder)); err != nil {
		return m, err
	}
	if info, err := os.Stat(filepath.Join(s.path, folder, ours)); err == nil && info.IsDir() {
		m.Ours = true
	}
	if info, err := os.Stat(filepath.Join(s.path, folder, usedMark)); err == nil {
		m.LastUsed = info.ModTime()
	}
	if m.Artefacts, err = s.artefactsOf(folder); err != nil {
		return m, err
	}
	if m.Users, err = s.users(folder, false); err != nil {
		return m, err
	}
	m.Revisions, err = s.revisions(folder, m.Artefacts)
	return m, err
}

// measure walks a model's folder. Links are not followed: each content is in blobs once.
func measure(dir string) (total, unfinished int64, latest time.Time, err error) {
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name != dir {
			return nil // moved on meanwhile
		} else if err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		size := info.Size()
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			size = stat.Blocks * 512
		}
		total += size
		if rel, err := filepath.Rel(dir, name); err == nil && (strings.HasPrefix(rel, partials) || strings.HasSuffix(rel, ".incomplete")) {
			unfinished += size
		}
		if info.ModTime().After(latest) {
			latest = info.ModTime()
		}
		return nil
	})
	return total, unfinished, latest, err
}

func (s *Store) revisions(folder string, known []Artefact) ([]Revision, error) {
	refs := map[string][]string{}
	base := filepath.Join(s.path, folder, "refs")
	err := filepath.WalkDir(base, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() {
			return nil
		} else if err != nil {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(base, name)
		commit := strings.TrimSpace(string(text))
		refs[commit] = append(refs[commit], filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(s.path, folder, "snapshots"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []Revision
	for _, e := range entries {
		if !isHex(e.Name(), 40) {
			continue
		}
		r := Revision{Commit: e.Name(), Refs: refs[e.Name()]}
		filters := []Filter{{}}
		for _, a := range known {
			if a.Commit == r.Commit {
				filters = append(filters, a.Filter())
			}
		}
		for _, f := range filters {
			found, err := s.Find(repoOf(folder), r.Commit, f)
			if err != nil && !errors.Is(err, ErrIncomplete) {
				return nil, err
			}
			r.Whole = r.Whole || err == nil && !found.Guessed
		}
		out = append(out, r)
	}
	return out, nil
}
