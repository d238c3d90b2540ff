package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval is how often the file's identity is looked at. One fstatat is cheap, works on every file
// system and for every way to replace a file, and shows a revoked key in a quarter of a second.
const pollInterval = 250 * time.Millisecond

// Keys identifies callers by the keys of a file, which it follows.
type Keys struct {
	path    string
	log     *slog.Logger
	current atomic.Pointer[table]
	failure atomic.Pointer[error]

	stop    chan struct{}
	once    sync.Once
	polling sync.WaitGroup
}

// Open reads the file and follows its changes until Close. A missing file holds no keys and may come later.
// A later version that cannot be read leaves the last good one in force; the log and Err say so. log may be nil.
func Open(path string, log *slog.Logger) (*Keys, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &Keys{path: path, log: log, stop: make(chan struct{})}
	seen, err := k.load(fileState{})
	if err != nil {
		return nil, err
	}
	k.polling.Go(func() { k.poll(seen) })
	return k, nil
}

// Static holds the given keys, for tests and demonstrations. It follows no file and needs no Close.
func Static(keys ...Key) (*Keys, error) {
	t, err := newTable(keys)
	if err != nil {
		return nil, err
	}
	k := &Keys{log: slog.New(slog.DiscardHandler), stop: make(chan struct{})}
	k.current.Store(t)
	return k, nil
}

// Identify tells whose key was presented, without a "Bearer" or other decoration. It returns ErrNoKey for
// nothing, or an error that matches ErrInvalidKey. It allocates nothing and does not keep presented.
func (k *Keys) Identify(presented []byte, now time.Time) (Identity, error) {
	return k.current.Load().identify(presented, now)
}

// IdentifyAgain is Identify for a caller who may have presented the same key before; what known holds only makes it faster.
func (k *Keys) IdentifyAgain(presented []byte, now time.Time, known *Known) (Identity, error) {
	return k.current.Load().identifyAgain(presented, now, known)
}

// Len is the number of keys, revoked and expired ones included.
func (k *Keys) Len() int { return len(k.current.Load().list) }

// Err is why the file's present version is not in force; nil if it is.
func (k *Keys) Err() error {
	if err := k.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Close stops following the file and waits until that has ended. Identify goes on with the last version.
func (k *Keys) Close() {
	k.once.Do(func() { close(k.stop) })
	k.polling.Wait()
}

func (k *Keys) poll(seen fileState) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	missing := false
	for {
		select {
		case <-k.stop:
			return
		case <-ticker.C:
		}
		if state, err := stat(k.path); err == nil && state == (fileState{}) && seen != state && !missing {
			missing = true // some editors move the old file away before they write the new one: look once more
			continue
		}
		missing = false
		next, err := k.load(seen)
		seen = next
		if err != nil && (k.Err() == nil || k.Err().Error() != err.Error()) {
			k.log.Error("keys not reloaded; the last good ones stay in force", "file", k.path, "error", err)
		}
		switch {
		case err != nil:
			k.failure.Store(&err)
		case k.failure.Swap(nil) != nil:
			k.log.Info("the keys file can be read again", "file", k.path)
		}
	}
}

// load reads the file unless it is the one already seen, and returns what is to be seen as known from now on.
// After an error that is the zero state, so that the next look tries again.
func (k *Keys) load(seen fileState) (fileState, error) {
	state, err := stat(k.path)
	if err != nil {
		return fileState{}, fmt.Errorf("reading the keys: %w", err)
	}
	if state == seen && k.current.Load() != nil {
		return seen, nil
	}
	keys, err := readKeys(k.path)
	if err != nil {
		return fileState{}, err
	}
	t, err := newTable(keys)
	if err != nil {
		return fileState{}, fmt.Errorf("%s: %w", k.path, err)
	}
	if old := k.current.Swap(t); old != nil {
		k.log.Info("keys reloaded", "file", k.path, "keys", len(keys), "before", len(old.list))
	}
	if state.mode&0o077 != 0 {
		k.log.Warn("others may read the keys file; it needs mode 0600", "file", k.path)
	}
	return state, nil
}

// fileState tells versions of a file apart. The inode shows a replaced file, the change time one that was
// written in place within the resolution of its modification time. The zero state is a missing file.
type fileState struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds
	mode         uint32
}

func stat(path string) (fileState, error) {
	var st unix.Stat_t
	for {
		err := unix.Stat(path, &st)
		switch {
		case err == nil:
			return fileState{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Mode}, nil
		case errors.Is(err, fs.ErrNotExist):
			return fileState{}, nil
		case !errors.Is(err, unix.EINTR):
			return fileState{}, &fs.PathError{Op: "stat", Path: path, Err: err}
		}
	}
}
