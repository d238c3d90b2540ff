package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a waiting process looks whether a lock became free: flock(2) with a deadline does not exist.
const lockPoll = 50 * time.Millisecond

// lock waits for an exclusive flock(2) on path, which is made if missing, and returns how to give it back. The kernel drops it with its
// owner, so a killed process leaves nothing to clear away. It conflicts within this process, too. The hub's client locks the same way
// (filelock on Unix) and may unlink the file on release, so a lock on a file that is no longer at path does not count.
// waiting is called each time that somebody else was found to hold it.
func lock(ctx context.Context, path string, waiting func()) (release func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, err
	}
	for {
		release, err := tryLock(path)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return release, err
		}
		waiting()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another download of the same: %w", context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// ErrNoLocks is a file system that does not lock files, so that two processes would write to the same ones.
var ErrNoLocks = errors.New("the store's file system does not lock files (flock); put the store on a local disk, or mount the file system with locks")

// flock locks f without waiting; unix.EWOULDBLOCK is a lock that somebody holds.
func flock(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	for err == unix.EINTR {
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	}
	switch err {
	case nil:
		return nil
	case unix.ENOSYS, unix.ENOTSUP, unix.ENOLCK, unix.EINVAL, unix.EBADF:
		// What network and FUSE file systems say that have no flock(2): Lustre without -o flock ENOSYS, NFS without a lock daemon ENOLCK, and
		// NFS EBADF where it turns flock into a lock by range of a file that cannot be written.
		err = fmt.Errorf("%w: %w", ErrNoLocks, err)
	}
	return fmt.Errorf("locking %s: %w", f.Name(), err)
}

// tryLock is lock that does not wait; a held lock is unix.EWOULDBLOCK.
func tryLock(path string) (release func() error, err error) {
	// 0664 as the hub's client does, so that users who share a cache can wait for each other.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o664)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	held, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if now, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(held, now) {
		return nil, errors.Join(fmt.Errorf("locking %s: replaced meanwhile: %w", path, unix.EWOULDBLOCK), f.Close())
	} else if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}
