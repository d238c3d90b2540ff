package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// Remote is a second tier that several stores share: it is asked before a model's source, and given what was fetched.
type Remote interface {
	// Look finds a revision of a model. The source lists the commit whole and opens what the remote has of it; holds says which files that is.
	// The error wraps ErrIncomplete where it has nothing of the revision.
	Look(ctx context.Context, repo, revision string) (source Source, holds func(path string) bool, err error)
	// Push uploads the files of a snapshot that are not there, checks them on the way, and makes them visible to Look when all are. list is the
	// commit's listing; revision, a branch or tag that stands for it, may be a commit. progress is called by one goroutine at a time.
	Push(ctx context.Context, found Snapshot, list Listing, revision string, progress func(Progress)) error
}

// errNoSource is what a request without a source is told where the remote does not have it either.
var errNoSource = errors.New("there is no other source than the store's remote, which does not have it")

// fetch takes a model from the remote if that has it, else from its source.
func (s *Store) fetch(ctx context.Context, r Request, m *meter) (Snapshot, error) {
	if s.remote != nil {
		found, err := s.fetchRemote(ctx, r, m)
		switch {
		case err == nil:
			return found, nil
		case ctx.Err() != nil, errors.Is(err, ErrDiskFull):
			return Snapshot{}, err // the source would not help
		case r.Source == nil && !errors.Is(err, ErrIncomplete):
			return Snapshot{}, err
		case errors.Is(err, ErrIncomplete):
			s.log.Debug("the store's remote does not have the model", "repo", r.Repo, "revision", r.Revision)
		default:
			s.log.Warn("the store's remote cannot provide the model: its source is asked", "repo", r.Repo, "error", err)
		}
		m.update(func(p *Progress) { *p = Progress{} })
	}
	if r.Source == nil {
		return Snapshot{}, fmt.Errorf("%s at %s: %w: %w", r.Repo, r.Revision, errNoSource, ErrIncomplete)
	}
	return s.fetchFrom(ctx, r, m)
}

func (s *Store) fetchRemote(ctx context.Context, r Request, m *meter) (Snapshot, error) {
	revision := r.Revision
	if r.Fresh && r.Source != nil && !isHex(revision, 40) {
		m.phase(Asking)
		var list Listing
		err := retry(ctx, s.backoff, func() (bool, error) {
			var err error
			list, err = r.Source.List(ctx, r.Revision)
			return false, err
		})
		if err == nil {
			revision = list.Commit
		} else if ctx.Err() == nil {
			s.log.Warn("the model's source cannot be asked for news: what the store's remote has counts", "repo", r.Repo, "error", err)
		}
	}
	source, holds, err := s.remote.Look(ctx, r.Repo, revision)
	if err != nil {
		return Snapshot{}, err
	}
	list, err := source.List(ctx, revision)
	if err != nil {
		return Snapshot{}, err
	}
	for _, f := range r.Filter.choose(list.Files) {
		if !holds(f.Path) {
			return Snapshot{}, fmt.Errorf("%s: %w", f.Path, ErrIncomplete)
		}
	}
	r.Source = source
	return s.fetchFrom(ctx, r, m)
}

// HasRemote says whether there is a second tier.
func (s *Store) HasRemote() bool { return s.remote != nil }

// Push gives a model of the store to the remote, if there is one; what the remote has already is not sent again. revision "" is "main".
func (s *Store) Push(ctx context.Context, found Snapshot, revision string, progress func(Progress)) (err error) {
	if s.remote == nil {
		return nil
	}
	if revision == "" {
		revision = "main"
	}
	if err := errors.Join(CheckRepo(found.Repo), checkRevision(revision)); err != nil {
		return err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	use, err := s.Use(ctx, found.Repo, User{Who: "an upload to the store's remote"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, use.Close()) }()
	list, err := readTree(folderPath(s.path, found.Repo), found.Commit)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: no listing is kept of what another program fetched; prefetch it first: %w", found.Repo, ErrIncomplete)
	} else if err != nil {
		return err
	}
	if err := s.remote.Push(ctx, found, list, revision, progress); err != nil {
		return fmt.Errorf("giving %s to the store's remote: %w", found.Repo, err)
	}
	return nil
}

// RemoteFolder is what a model's folder is called in a remote, as in a store.
func RemoteFolder(repo string) string { return filepath.Base(folderPath("", repo)) }
