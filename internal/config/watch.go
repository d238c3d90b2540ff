package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long after a change the file is read: an editor's or a volume's several steps become one.
// It counts from the first step, so that a file that changes all the time is still read ten times a second.
const settle = 100 * time.Millisecond

// Watch is WatchFiles for the file that loaded came from.
func Watch(ctx context.Context, path string, loaded *Config, onChange func()) error {
	return WatchFiles(ctx, []File{{path, loaded.Digest}}, onChange)
}

// File is a file as it was last read.
type File struct {
	Path   string
	Digest [sha256.Size]byte // SHA-256 of its bytes
}

// WatchFiles calls onChange, from its own goroutine only and never twice at once, each time the content of a file is
// another than before; the first comparison is with what was read, so that nothing between loading and watching is
// missed. It watches the folders, and those that symbolic links lead to: editors replace files, and
// Kubernetes swaps the link of a mounted ConfigMap. A file that is missing or unreadable at the moment counts
// as unchanged, and what comes of several files within a moment is one change.
//
// It blocks until ctx is done and then returns nil; any other return is an error of the watch, after which
// changes go unseen. No goroutine is left behind.
func WatchFiles(ctx context.Context, read []File, onChange func()) (err error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", read[0].Path, err)
	}
	defer func() { err = errors.Join(err, watcher.Close()) }()
	files, folders := slices.Clone(read), map[string]bool{}
	for _, f := range files {
		if err := watchFolder(watcher, folders, filepath.Dir(f.Path)); err != nil {
			return err
		}
	}
	timer := time.NewTimer(0) // the first look
	defer timer.Stop()
	pending := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-watcher.Events:
			if !ok {
				return fmt.Errorf("watching %s: the watcher has ended", files[0].Path)
			}
			// Every event in the folder counts, whatever its file: the swapped link has a name of its own, and
			// the content decides.
			if !pending {
				pending = true
				timer.Reset(settle)
			}
		case failure, ok := <-watcher.Errors:
			if !ok || !errors.Is(failure, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watching %s: %w", files[0].Path, failure)
			}
			if !pending {
				pending = true
				timer.Reset(settle)
			}
		case <-timer.C:
			pending = false
			// Links may lead elsewhere than before. Watch there first, then read: a change in between is an event.
			if err := followLinks(watcher, folders, files); err != nil {
				return err
			}
			changed := false
			for i := range files {
				if now, ok := digest(files[i].Path); ok && now != files[i].Digest {
					files[i].Digest, changed = now, true
				}
			}
			if changed {
				onChange()
			}
		}
	}
}

// followLinks watches the folders of the files that the paths lead to in the end.
func followLinks(watcher *fsnotify.Watcher, folders map[string]bool, files []File) error {
	wanted := map[string]bool{}
	for _, f := range files {
		wanted[filepath.Dir(f.Path)] = true
		real, err := filepath.EvalSymlinks(f.Path)
		if err != nil {
			return nil // missing at the moment; its return is an event of a folder that is watched
		}
		wanted[filepath.Dir(real)] = true
	}
	for folder := range folders {
		if wanted[folder] {
			continue
		}
		delete(folders, folder)
		if err := watcher.Remove(folder); err != nil && !errors.Is(err, fsnotify.ErrNonExistentWatch) {
			return fmt.Errorf("watching %s: %w", folder, err)
		}
	}
	for folder := range wanted {
		if err := watchFolder(watcher, folders, folder); err != nil {
			return err
		}
	}
	return nil
}

func watchFolder(watcher *fsnotify.Watcher, folders map[string]bool, folder string) error {
	if folders[folder] {
		return nil
	}
	if err := watcher.Add(folder); err != nil {
		return fmt.Errorf("watching %s: %w", folder, err)
	}
	folders[folder] = true
	return nil
}

// digest is File.Digest of the file as it is now; ok is false if it cannot be read.
func digest(path string) (sum [sha256.Size]byte, ok bool) {
	file, err := os.Open(path)
	if err != nil {
		return sum, false
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1)) // as Load reads it
	if err != nil {
		return sum, false
	}
	return sha256.Sum256(data), true
}
