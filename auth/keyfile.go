package auth

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

// ErrUnknownKey means that no key has the given id.
var ErrUnknownKey = errors.New("no key has this id")

// KeyFile is the operator's half: it changes the file that Keys reads. Each change takes a lock beside the
// file (PATH.lock), reads, and replaces the file whole, so that concurrent changes lose nothing and a reader
// never sees half a file. Comments in the file are not kept.
type KeyFile struct {
	Path   string
	Random io.Reader        // nil: crypto/rand
	Now    func() time.Time // nil: time.Now
}

// New is Add for a key that may do what its tenant may.
func (f KeyFile) New(tenant, name string, expires time.Time) (secret string, key Key, err error) {
	return f.Add(tenant, name, expires, Grant{})
}

// Add makes a key and adds it to the file, which is created with mode 0600 if missing, as is its folder (0700).
// The secret is returned here and stored nowhere. Zero expires means never.
func (f KeyFile) Add(tenant, name string, expires time.Time, grant Grant) (secret string, key Key, err error) {
	err = f.change(func(keys []Key) ([]Key, error) {
		if secret, key, err = Generate(f.random(), f.now(), tenant, name, expires); err != nil {
			return nil, err
		}
		key.Grant = grant
		return append(keys, key), nil
	})
	if err != nil {
		return "", Key{}, err
	}
	return secret, key, nil
}

// Rotate makes a key that may do what the one with this id may, and lets that one expire overlap from now, unless it does so earlier; 0:
// at once. The new key expires as long after now as the old one lived in all; never, if it was to live for ever. It returns
// ErrUnknownKey for an id that the file does not hold, and an error that matches ErrInvalidKey for a key that is not accepted any more.
func (f KeyFile) Rotate(id string, overlap time.Duration) (secret string, key Key, err error) {
	err = f.change(func(keys []Key) ([]Key, error) {
		now := f.now().UTC().Truncate(time.Second)
		for i := range keys {
			old := &keys[i]
			if old.ID != id {
				continue
			}
			if err := old.refusal(now); err != nil {
				return nil, fmt.Errorf("key %s: %w", id, err)
			}
			var expires time.Time
			if !old.Expires.IsZero() {
				expires = now.Add(old.Expires.Sub(old.Created))
			}
			if secret, key, err = Generate(f.random(), now, old.Tenant, old.Name, expires); err != nil {
				return nil, err
			}
			key.Grant = old.Grant
			if end := now.Add(overlap); old.Expires.IsZero() || end.Before(old.Expires) {
				old.Expires = end
			}
			return append(keys, key), nil
		}
		return nil, fmt.Errorf("%w: %s", ErrUnknownKey, id)
	})
	if err != nil {
		return "", Key{}, err
	}
	return secret, key, nil
}

func (f KeyFile) random() io.Reader {
	if f.Random == nil {
		return rand.Reader
	}
	return f.Random
}

// List returns the keys in the order of the file; a missing file has none.
func (f KeyFile) List() ([]Key, error) {
	keys, err := readKeys(f.Path)
	if err != nil {
		return nil, err
	}
	_, err = newTable(keys)
	return keys, err
}

// Revoke refuses the key from now on; running gateways see it within a second. Revoking twice keeps the first
// time. It returns ErrUnknownKey for an id that the file does not hold.
func (f KeyFile) Revoke(id string) error {
	return f.change(func(keys []Key) ([]Key, error) {
		for i := range keys {
			if keys[i].ID != id {
				continue
			}
			if keys[i].Revoked.IsZero() {
				keys[i].Revoked = f.now().UTC().Truncate(time.Second)
			}
			return keys, nil
		}
		return nil, fmt.Errorf("%w: %s", ErrUnknownKey, id)
	})
}

func (f KeyFile) now() time.Time {
	if f.Now == nil {
		return time.Now()
	}
	return f.Now()
}

// change replaces the file by what edit makes of it. A file that does not hold valid keys is left alone.
func (f KeyFile) change(edit func([]Key) ([]Key, error)) error {
	path, err := target(f.Path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("writing the keys: %w", err)
	}
	unlock, err := lock(path+".lock", lockPatience)
	if err != nil {
		return err
	}
	defer unlock()
	keys, err := readKeys(path)
	if err != nil {
		return err
	}
	if keys, err = edit(keys); err != nil {
		return err
	}
	if _, err := newTable(keys); err != nil {
		return err
	}
	return writeKeys(path, keys)
}

// target follows symbolic links, so that replacing the file does not replace the link to it.
func target(path string) (string, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return resolved, err
}

// document is the file's form.
type document struct {
	Keys []Key `yaml:"keys"`
}

// maxFileBytes is room for some 400,000 keys.
const maxFileBytes = 128 << 20

func readKeys(path string) ([]Key, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the keys: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading the keys: %w", err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d MiB", path, maxFileBytes>>20)
	}
	if keys, ok := readPlain(data); ok {
		return keys, nil
	}
	return parseKeys(path, data)
}

// parseKeys reads a file of any form.
func parseKeys(path string, data []byte) ([]Key, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true) // a limit that this release does not know must not be taken for none
	var doc document
	if err := decoder.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the keys: %s: %w", path, err)
	}
	if err := decoder.Decode(&document{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the keys: %s holds more than one document", path)
	}
	return doc.Keys, nil
}

const header = "# API keys, hashed. Change them with `pilotlight keys new` and `pilotlight keys revoke`;\n" +
	"# a running gateway sees changes by itself. Comments are not kept.\n"

// writeKeys replaces the file in one step that survives a crash: a temporary file beside it is written,
// flushed and renamed over it, and the folder is flushed.
func writeKeys(path string, keys []Key) error {
	body, err := yaml.Marshal(document{Keys: keys})
	if err != nil {
		return fmt.Errorf("writing the keys: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing the keys: %w", err)
	}
	if err := errors.Join(fill(temporary, path, append([]byte(header), body...)), temporary.Close()); err != nil {
		return fmt.Errorf("writing the keys: %w", errors.Join(err, os.Remove(temporary.Name())))
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return fmt.Errorf("writing the keys: %w", errors.Join(err, os.Remove(temporary.Name())))
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return fmt.Errorf("writing the keys: %w", err)
	}
	return nil
}

func fill(temporary *os.File, path string, data []byte) error {
	if err := keepOwner(temporary, path); err != nil {
		return err
	}
	if _, err := temporary.Write(data); err != nil {
		return err
	}
	return temporary.Sync()
}

// keepOwner gives the new file to the old one's owner: an operator working as root must not lock the gateway
// out of its keys.
func keepOwner(file *os.File, path string) error {
	var old, fresh unix.Stat_t
	if err := unix.Stat(path, &old); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if err := unix.Fstat(int(file.Fd()), &fresh); err != nil {
		return err
	}
	if old.Uid == fresh.Uid && old.Gid == fresh.Gid {
		return nil
	}
	return file.Chown(int(old.Uid), int(old.Gid))
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

const (
	lockPatience = 10 * time.Second // a change takes milliseconds, with 100,000 keys two seconds
	lockRetry    = 5 * time.Millisecond
)

// lock waits for the lock file, at most as long as patience. The file stays: removing it would let two holders lock
// two files of one name.
func lock(path string, patience time.Duration) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the keys: %w", err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(lockRetry) {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil // closing gives the lock back
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("locking the keys: %s: %w", path, err), file.Close())
		}
	}
}
