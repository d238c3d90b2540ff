package auth

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "keys.yaml")
	file := KeyFile{Path: path, Now: func() time.Time { return noon }}
	if keys, err := file.List(); err != nil || len(keys) != 0 {
		t.Fatalf("missing file: got %v, %v", keys, err)
	}
	secret, key, err := file.New("team-a", "laptop of Ann", noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	_, second, err := file.New("team-b", "", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
	if text, err := os.ReadFile(path); err != nil || strings.Contains(string(text), secret[16:]) {
		t.Errorf("the file holds the secret (or %v)", err)
	}
	if err := file.Revoke(second.ID); err != nil {
		t.Fatal(err)
	}
	later := KeyFile{Path: path, Now: func() time.Time { return noon.Add(time.Minute) }}
	if err := later.Revoke(second.ID); err != nil {
		t.Fatal(err)
	}
	if err := file.Revoke("aaaaaaaaaaaa"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("unknown id: got %v, want ErrUnknownKey", err)
	}
	second.Revoked = noon // the first time
	keys, err := file.List()
	if err != nil || len(keys) != 2 || !reflect.DeepEqual(keys[0], key) || !reflect.DeepEqual(keys[1], second) {
		t.Errorf("got %+v, %v,\nwant %+v and %+v", keys, err, key, second)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "keys.yaml" && e.Name() != "keys.yaml.lock" {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func TestKeyFileKeepsASymbolicLink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real.yaml"), filepath.Join(dir, "keys.yaml")
	if err := os.WriteFile(real, []byte("keys: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (KeyFile{Path: link}).New("a", "", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info.Mode(), err)
	}
	if keys, err := (KeyFile{Path: real}).List(); err != nil || len(keys) != 1 {
		t.Errorf("got %v, %v, want one key in the real file", keys, err)
	}
}

func TestConcurrentChangesLoseNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	const writers, each = 8, 5
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range each {
				_, key, err := KeyFile{Path: path}.New(fmt.Sprintf("team-%d", w), "", time.Time{})
				if err != nil {
					t.Error(err)
					return
				}
				if err := (KeyFile{Path: path}).Revoke(key.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	keys, err := KeyFile{Path: path}.List()
	if err != nil || len(keys) != writers*each {
		t.Fatalf("got %d keys, %v, want %d", len(keys), err, writers*each)
	}
	for _, key := range keys {
		if key.Revoked.IsZero() {
			t.Errorf("key %s lost its revocation", key.ID)
		}
	}
}

// writerEnv makes the test binary one of several processes that change one file.
const writerEnv = "PILOTLIGHT_TEST_KEYFILE"

func TestProcessesLoseNothing(t *testing.T) {
	if path := os.Getenv(writerEnv); path != "" {
		for range 5 {
			if _, _, err := (KeyFile{Path: path}).New("child", "", time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	path := filepath.Join(t.TempDir(), "keys.yaml")
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			child := exec.Command(os.Args[0], "-test.run=^TestProcessesLoseNothing$")
			child.Env = append(os.Environ(), writerEnv+"="+path)
			if out, err := child.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	if keys, err := (KeyFile{Path: path}).List(); err != nil || len(keys) != 15 {
		t.Errorf("got %d keys, %v, want 15", len(keys), err)
	}
}

func TestAFailedWriteLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.yaml")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (KeyFile{Path: path}).New("a", "", time.Time{}); err == nil {
		t.Error("a folder was taken for a file")
	}
	if err := writeKeys(path, nil); err == nil {
		t.Error("a folder was replaced")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "keys.yaml" && e.Name() != "keys.yaml.lock" {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func TestLockGivesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(path, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(path, 20*time.Millisecond); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a lock that is taken: got %v", err)
	}
	unlock()
	again, err := lock(path, time.Second)
	if err != nil {
		t.Fatalf("a lock given back: got %v", err)
	}
	again()
	if _, err := lock(filepath.Join(path, "below"), time.Second); err == nil {
		t.Error("a lock below a file was taken")
	}
}

// An operator who works as root must not lock the gateway's user out.
func TestTheOwnerStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(path, []byte("keys: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := os.Getuid()
	if want == 0 {
		want = 12345
		if err := os.Chown(path, want, want); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := (KeyFile{Path: path}).New("a", "", time.Time{}); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || int(st.Uid) != want {
		t.Errorf("got owner %d, %v, want %d", st.Uid, err, want)
	}
}

func TestAFileThatCannotBeReadIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.Symlink("keys.yaml", path); err != nil { // a link to itself
		t.Fatal(err)
	}
	if _, _, err := (KeyFile{Path: path}).New("a", "", time.Time{}); err == nil {
		t.Error("New: no error")
	}
	if k, err := Open(path, nil); err == nil {
		k.Close()
		t.Error("Open: no error")
	}
}
