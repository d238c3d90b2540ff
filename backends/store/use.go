package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	usersDir = ours + "/users"
	usedMark = ours + "/used" // its time of change is the last use
)

// ErrInUse is a model that a replica or a download needs.
var ErrInUse = errors.New("in use")

// User is who needs a model's files, in a word for people.
type User struct {
	Who   string    `json:"who"` // such as "qwen3 replica 4"
	PID   int       `json:"pid"` // of the process that said so
	Since time.Time `json:"since"`
	// Planned is how many bytes the model will have when its download is done; 0: it is no download.
	Planned int64 `json:"planned,omitempty"`
}

// Use keeps a model from being removed by any process until it is closed. It rests on a flock(2) on a file of its own: a process that inherits
// File holds it for as long as that process lives, and one that is killed lets go.
type Use struct {
	// File is to be inherited by an engine. nil where the store cannot be written to: then nothing can be removed there either.
	File *os.File
	path string
	mark string // "": this is not to count as a use
}

// guard is what entering a model's users and removing the model exclude each other by. It lies outside of what is removed.
func (s *Store) guard(ctx context.Context, folder string) (release func() error, err error) {
	return lock(ctx, filepath.Join(s.path, ".locks", folder, "pilotlight-users.lock"), func() {})
}

// Use enters a user of a model. What the model's files are is to be looked up after it.
func (s *Store) Use(ctx context.Context, repo string, u User) (*Use, error) {
	return s.use(ctx, repo, u, true)
}

// use is Use, which counts as the last use of the model only if noted is set.
func (s *Store) use(ctx context.Context, repo string, u User, noted bool) (_ *Use, err error) {
	if err := CheckRepo(repo); err != nil {
		return nil, err
	}
	dir := folderPath(s.path, repo)
	release, err := s.guard(ctx, filepath.Base(dir))
	if readOnly(err) {
		return &Use{}, nil
	} else if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := os.MkdirAll(filepath.Join(dir, usersDir), 0o777); readOnly(err) {
		return &Use{}, nil
	} else if err != nil {
		return nil, err
	}
	if u.PID == 0 {
		u.PID = os.Getpid()
	}
	if u.Since.IsZero() {
		u.Since = time.Now()
	}
	use := &Use{path: filepath.Join(dir, usersDir, fmt.Sprintf("%016x", rand.Uint64()))}
	if noted {
		use.mark = filepath.Join(dir, usedMark)
	}
	if use.File, err = os.OpenFile(use.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o664); err != nil {
		return nil, err
	}
	err = flock(use.File, unix.LOCK_EX)
	if err == nil {
		err = use.write(u)
	}
	if err == nil && noted {
		err = touch(use.mark)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("entering the use of %s: %w", repo, err), use.File.Close(), os.Remove(use.path))
	}
	return use, nil
}

func (u *Use) write(user User) error {
	text, err := json.Marshal(user)
	if err != nil {
		return err
	}
	if _, err := u.File.WriteAt(text, 0); err != nil {
		return err
	}
	return u.File.Truncate(int64(len(text)))
}

// Close ends the use by this process, which counts as the last use. One that others inherited goes on.
func (u *Use) Close() error {
	if u == nil || u.File == nil {
		return nil
	}
	err := u.File.Close()
	u.File = nil
	if held, _, e := heldUser(u.path); !held {
		err = errors.Join(err, e)
		if e := os.Remove(u.path); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if u.mark == "" {
		return err
	}
	if e := touch(u.mark); !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS)
}

// touch sets a file's time of change, and makes the file if need be.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	now := time.Now()
	return os.Chtimes(path, now, now)
}

// heldUser looks whether somebody holds a user's file, and reads it. A file that is gone is held by nobody.
func heldUser(path string) (held bool, u User, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, User{}, nil
	} else if err != nil {
		return false, User{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := flock(f, unix.LOCK_EX); err == nil {
		return false, User{}, nil
	} else if !errors.Is(err, unix.EWOULDBLOCK) {
		return false, User{}, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return true, User{}, err
	}
	if err := json.Unmarshal(text, &u); err != nil {
		u = User{Who: "somebody"} // entered this moment, or by a newer release
	}
	return true, u, nil
}

// users are the living ones of a model's folder. What dead ones left is removed if sweep is set, which only the guard's holder may.
func (s *Store) users(folder string, sweep bool) ([]User, error) {
	dir := filepath.Join(s.path, folder, usersDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var out []User
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") { // what network file systems leave
			continue
		}
		path := filepath.Join(dir, e.Name())
		held, u, err := heldUser(path)
		switch {
		case err != nil:
			return nil, err
		case held:
			out = append(out, u)
		case sweep:
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	return out, nil
}
