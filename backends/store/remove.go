package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
)

// ErrOverBudget is a download that does not fit in Options.MaxBytes, whatever may be removed for it.
var ErrOverBudget = errors.New("it does not fit in the store's budget")

// removed begins the names of folders that are being deleted. They are hidden from whoever lists models.
const removed = ".pilotlight-removed-"

// Remove deletes a model, with all its revisions and what was fetched of it. It returns ErrInUse while somebody needs it, and otherwise how
// many bytes it occupied. Nobody ever sees a part of it.
func (s *Store) Remove(ctx context.Context, repo string) (freed int64, err error) {
	return s.remove(ctx, repo, false)
}

// remove is Remove; names: what was fetched of the model stays known by its names, so that it can be fetched again.
func (s *Store) remove(ctx context.Context, repo string, names bool) (freed int64, err error) {
	if err := CheckRepo(repo); err != nil {
		return 0, err
	}
	folder := filepath.Base(folderPath(s.path, repo))
	release, err := s.guard(ctx, folder)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, release()) }()
	return s.removeHeld(folder, names)
}

// removeHeld is remove for whoever holds the guard.
func (s *Store) removeHeld(folder string, names bool) (freed int64, err error) {
	users, err := s.users(folder, true)
	if err != nil {
		return 0, err
	}
	if len(users) > 0 {
		return 0, fmt.Errorf("%s: %w by %s (process %d)", repoOf(folder), ErrInUse, users[0].Who, users[0].PID)
	}
	dir := filepath.Join(s.path, folder)
	if freed, _, _, err = measure(dir); errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%s: %w", repoOf(folder), ErrIncomplete)
	} else if err != nil {
		return 0, err
	}
	gone := filepath.Join(s.path, fmt.Sprintf("%s%016x", removed, rand.Uint64()))
	if err := os.Rename(dir, gone); err != nil {
		return 0, err
	}
	if _, e := os.Stat(filepath.Join(gone, artefacts)); names && e == nil {
		if err = os.MkdirAll(filepath.Join(dir, ours), 0o777); err == nil {
			err = os.Rename(filepath.Join(gone, artefacts), filepath.Join(dir, artefacts))
		}
	}
	return freed, errors.Join(err, os.RemoveAll(gone))
}

// makeRoom removes models that nobody uses, least recently used first, until a download of need more bytes fits in the budget. Only models
// that Pilotlight fetched or served are removed; the names of what was fetched stay. It decides before it removes anything: what cannot be made to fit costs nobody anything.
// use is the download's, where what it will occupy is written for others to count.
func (s *Store) makeRoom(ctx context.Context, repo string, need int64, use *Use) (err error) {
	if s.maxBytes == 0 || need <= 0 {
		return nil
	}
	release, err := lock(ctx, filepath.Join(s.path, ".locks", "pilotlight-budget.lock"), func() {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	models, err := s.Models()
	if err != nil {
		return err
	}
	own := filepath.Base(folderPath(s.path, repo))
	total, planned, foreign, used := int64(0), need, int64(0), int64(0)
	var victims []Model
	for _, m := range models {
		size := m.Bytes
		for _, u := range m.Users {
			size = max(size, u.Planned) // of downloads under way, also by other processes
		}
		total += size
		switch {
		case m.folder == own:
			planned += m.Bytes
		case len(m.Users) > 0:
			used += size
		case !m.Ours:
			foreign += size
		case len(m.Revisions) == 0 && m.Unfinished == 0:
			// Evicted before: its names take no room to speak of.
		default:
			victims = append(victims, m)
		}
	}
	slices.SortFunc(victims, func(a, b Model) int { return cmp.Or(a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.Repo, b.Repo)) })
	excess := total + need - s.maxBytes
	n := 0
	for enough := excess; enough > 0 && n < len(victims); n++ {
		enough -= victims[n].Bytes
		excess = enough
	}
	if excess > 0 {
		return fmt.Errorf("%w: %s are to be fetched, the budget is %s, and of what is there %s are in use and %s were not fetched by Pilotlight", ErrOverBudget,
			humanize.IBytes(uint64(need)), humanize.IBytes(uint64(s.maxBytes)), humanize.IBytes(uint64(used)), humanize.IBytes(uint64(foreign)))
	}
	for _, v := range victims[:n] {
		freed, err := s.remove(ctx, v.Repo, true)
		if errors.Is(err, ErrInUse) {
			// A start was quicker. Whoever asks again finds other numbers.
			return fmt.Errorf("%w: %w", ErrOverBudget, err)
		} else if err != nil && !errors.Is(err, ErrIncomplete) {
			return err
		}
		s.log.Info("a model was removed to make room", "model", v.Repo, "bytes", freed, "last_used", v.LastUsed, "for", repo)
	}
	if use.File == nil {
		return nil
	}
	_, u, err := heldUser(use.path)
	if err != nil {
		return err
	}
	u.Planned = planned
	return use.write(u)
}

// sweepRemoved deletes what killed processes had begun to delete.
func (s *Store) sweepRemoved() error {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), removed) {
			errs = append(errs, os.RemoveAll(filepath.Join(s.path, e.Name())))
		}
	}
	return errors.Join(errs...)
}
