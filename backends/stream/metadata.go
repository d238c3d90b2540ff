package stream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"pilotlight/backends/store"
)

// done is the loader's own mark of a folder that it need not fill (runai_model_streamer, ObjectStorageModel.SENTINEL_NAME).
const done = ".runai_complete"

// lockPoll is how often a lock that another process holds is tried again.
const lockPoll = 50 * time.Millisecond

// CacheDir is where SGLang keeps what it fetched of streamed models, "" if nothing says where that is.
func CacheDir(env func(string) (string, bool)) string {
	base, _ := env("SGLANG_CACHE_DIR")
	if base == "" {
		home, _ := env("HOME")
		if home == "" {
			return ""
		}
		base = filepath.Join(home, ".cache", "sglang")
	}
	return filepath.Join(base, "model_streamer")
}

// Place lays links to the files of a snapshot into the folder of cacheDir in which SGLang looks for those of address. SGLang fills that folder
// once and never looks whether the model has changed since; links lead to what the store has verified, and are laid anew for each start. The
// folder is locked as the loader itself locks it. A release of SGLang that looks elsewhere fetches the files by itself.
func Place(ctx context.Context, cacheDir, address string, found store.Snapshot) (err error) {
	sum := sha256.Sum256([]byte(address))
	dir := filepath.Join(cacheDir, hex.EncodeToString(sum[:])[:16])
	if err := os.MkdirAll(cacheDir, 0o777); err != nil {
		return err
	}
	release, err := lock(ctx, dir+".lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	fresh := fmt.Sprintf("%s.%016x", dir, rand.Uint64())
	defer func() { err = errors.Join(err, os.RemoveAll(fresh)) }()
	if err := os.Mkdir(fresh, 0o777); err != nil {
		return err
	}
	for _, f := range found.Files {
		// To the content itself: a snapshot's own links are relative, and some programs look one step only.
		target, err := filepath.EvalSymlinks(filepath.Join(found.Path, filepath.FromSlash(f.Path)))
		if err != nil {
			return err
		}
		at := filepath.Join(fresh, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(at), 0o777); err != nil {
			return err
		}
		if err := os.Symlink(target, at); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(fresh, done), nil, 0o666); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(fresh, dir)
}

// lock takes an exclusive flock(2), as the loader's ObjectStorageModel does. The file stays.
func lock(ctx context.Context, name string) (release func() error, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(&fs.PathError{Op: "flock", Path: name, Err: err}, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(lockPoll):
		}
	}
}
