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

	"pilotlight/auth/limits"
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

func TestRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	at := func(now time.Time) KeyFile { return KeyFile{Path: path, Now: func() time.Time { return now }} }
	grant := Grant{Models: []string{"org/*"}, MaxTokens: 5, Limits: limits.Limits{RequestsPerMinute: 9}}
	first, lasting, err := at(noon).Add("team-a", "app", time.Time{}, grant)
	if err != nil {
		t.Fatal(err)
	}
	brief, passing, err := at(noon).New("team-b", "", noon.Add(10*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	turn := noon.Add(time.Hour)
	second, fresh, err := at(turn).Rotate(lasting.ID, 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if fresh.Tenant != "team-a" || fresh.Name != "app" || !reflect.DeepEqual(fresh.Grant, grant) || !fresh.Expires.IsZero() || !fresh.Created.Equal(turn) {
		t.Errorf("the new key is %+v", fresh)
	}
	_, next, err := at(turn).Rotate(passing.ID, 20*time.Hour) // it ends before the overlap does
	if err != nil || !next.Expires.Equal(turn.Add(10*time.Hour)) {
		t.Errorf("got %+v, %v, want a key for ten hours", next, err)
	}
	list, err := at(turn).List()
	if err != nil {
		t.Fatal(err)
	}
	keys := static(t, list...)
	for _, tt := range []struct {
		name, secret string
		now          time.Time
		want         error
	}{
		{"the old one within the overlap", first, turn.Add(2*time.Hour - time.Second), nil},
		{"the old one after it", first, turn.Add(2 * time.Hour), ErrExpiredKey},
		{"the new one", second, turn, nil},
		{"the new one later", second, turn.Add(1000 * time.Hour), nil},
		{"one that ends earlier", brief, noon.Add(10 * time.Hour), ErrExpiredKey},
	} {
		identity, err := keys.Identify([]byte(tt.secret), tt.now)
		if !errors.Is(err, tt.want) || err == nil && identity.Grant != nil && !reflect.DeepEqual(*identity.Grant, grant) {
			t.Errorf("%s: %+v, %v, want %v", tt.name, identity, err, tt.want)
		}
	}
	if _, _, err := at(turn.Add(3*time.Hour)).Rotate(lasting.ID, 0); !errors.Is(err, ErrExpiredKey) {
		t.Errorf("an expired key: %v", err)
	}
	if _, _, err := at(turn).Rotate("aaaaaaaaaaaa", 0); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("an unknown key: %v", err)
	}
	if list, err := at(turn).List(); err != nil || len(list) != 4 {
		t.Errorf("%d keys, %v; refused rotations must change nothing", len(list), err)
	}
	if _, _, err := at(turn).Add("team-a", "", time.Time{}, Grant{MaxTokens: -1}); err == nil {
		t.Error("a grant that makes no sense was added")
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
