package auth

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func open(t *testing.T, path string, log *slog.Logger) *Keys {
	t.Helper()
	k, err := Open(path, log)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(k.Close)
	return k
}

// bubble runs a test in fake time, in which files still are real.
func bubble(t *testing.T, test func(t *testing.T, path string)) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	synctest.Test(t, func(t *testing.T) { test(t, path) })
}

const soon = time.Second // the promise for a revoked key

// pass lets time go by and everything settle.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestReload(t *testing.T) {
	bubble(t, func(t *testing.T, path string) {
		k := open(t, path, nil)
		file := KeyFile{Path: path}
		if _, err := k.Identify([]byte("pl-x"), time.Now()); err != ErrInvalidKey || k.Len() != 0 {
			t.Fatalf("missing file: got %v and %d keys, want ErrInvalidKey and none", err, k.Len())
		}
		secret, key, err := file.New("team-a", "", time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		pass(soon)
		if got, err := k.Identify([]byte(secret), time.Now()); err != nil || got.KeyID != key.ID {
			t.Fatalf("new key: got %v, %v", got, err)
		}
		if err := file.Revoke(key.ID); err != nil {
			t.Fatal(err)
		}
		pass(soon)
		if _, err := k.Identify([]byte(secret), time.Now()); !errors.Is(err, ErrRevokedKey) {
			t.Fatalf("revoked key: got %v, want ErrRevokedKey", err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		pass(soon)
		if _, err := k.Identify([]byte(secret), time.Now()); err != ErrInvalidKey || k.Len() != 0 {
			t.Fatalf("removed file: got %v and %d keys, want ErrInvalidKey and none", err, k.Len())
		}
	})
}

// An editor that moves the old file away before it writes the new one leaves a moment without a file.
func TestReloadSurvivesAMomentWithoutTheFile(t *testing.T) {
	bubble(t, func(t *testing.T, path string) {
		secret, _, err := KeyFile{Path: path}.New("a", "", time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		k := open(t, path, nil)
		if err := os.Rename(path, path+"~"); err != nil {
			t.Fatal(err)
		}
		pass(pollInterval + time.Millisecond)
		if _, err := k.Identify([]byte(secret), time.Now()); err != nil {
			t.Errorf("at once after the file went: got %v, want the key still good", err)
		}
		if err := os.Rename(path+"~", path); err != nil {
			t.Fatal(err)
		}
		pass(soon)
		if _, err := k.Identify([]byte(secret), time.Now()); err != nil {
			t.Errorf("after it came back: got %v", err)
		}
	})
}

func TestBadFileKeepsTheOldKeys(t *testing.T) {
	bubble(t, func(t *testing.T, path string) {
		secret, _, err := KeyFile{Path: path}.New("a", "", time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		k := open(t, path, slog.New(slog.NewTextHandler(&log, nil)))
		if err := os.WriteFile(path, []byte("keys: {"), 0o600); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		if _, err := k.Identify([]byte(secret), time.Now()); err != nil {
			t.Errorf("bad file: got %v, want the old key to stay good", err)
		}
		if k.Err() == nil {
			t.Error("Err: got nil beside a bad file")
		}
		if n := strings.Count(log.String(), "keys not reloaded"); n != 1 {
			t.Errorf("logged %d times, want once:\n%s", n, log.String())
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		pass(soon)
		if k.Err() != nil || !strings.Contains(log.String(), "can be read again") {
			t.Errorf("mended file: got %v and log\n%s", k.Err(), log.String())
		}
		if strings.Contains(log.String(), secret) {
			t.Error("the log holds a secret")
		}
	})
}

func TestOpenRefusesWhatItCannotTrust(t *testing.T) {
	_, key := generate(t, "a")
	entry := "{id: " + key.ID + ", tenant: a, hash: " + key.Hash + "}"
	for _, tt := range []struct{ name, file, want string }{
		{"no YAML", "keys: [", "yaml"},
		{"unknown field", "keys: []\nusers: []", "users"},
		{"a limit of a later release", "keys: [{id: " + key.ID + ", tenant: a, hash: " + key.Hash + ", moods: [x]}]", "moods"},
		{"a model without a name", "keys: [{id: " + key.ID + ", tenant: a, hash: " + key.Hash + ", models: ['']}]", "has no name"},
		{"no model at all", "keys: [{id: " + key.ID + ", tenant: a, hash: " + key.Hash + ", models: []}]", "models is empty"},
		{"a limit below zero", "keys: [{id: " + key.ID + ", tenant: a, hash: " + key.Hash + ", limits: {requests_per_minute: -1}}]", "no limit is below 0"},
		{"max_tokens below zero", "keys: [{id: " + key.ID + ", tenant: a, hash: " + key.Hash + ", max_tokens: -1}]", "below 0"},
		{"two documents", "keys: []\n---\nkeys: []", "more than one document"},
		{"the same id twice", "keys: [" + entry + ", " + entry + "]", "same id"},
		{"no tenant", "keys: [{id: " + key.ID + ", hash: " + key.Hash + "}]", "tenant"},
		{"a secret in place of a hash", "keys: [{id: " + key.ID + ", tenant: a, hash: hunter2}]", "hash"},
		{"a date that is none", "keys: [{id: " + key.ID + ", tenant: a, hash: " + key.Hash + ", revoked: yes}]", "time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.yaml")
			if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			k, err := Open(path, nil)
			if err == nil {
				k.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want %q in it and no value", err, tt.want)
			}
			if _, err := (KeyFile{Path: path}).List(); err == nil {
				t.Error("List accepted it")
			}
			if _, _, err := (KeyFile{Path: path}).New("b", "", time.Time{}); err == nil {
				t.Error("New accepted it")
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != tt.file {
				t.Errorf("the file was changed to %q (%v)", after, err)
			}
		})
	}
}

func TestOpenWarnsOfAReadableFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(path, []byte("keys: []\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	open(t, path, slog.New(slog.NewTextHandler(&log, nil))).Close()
	if !strings.Contains(log.String(), "0600") {
		t.Errorf("got log %q, want a warning", log.String())
	}
}

// Identify never sees a mixture of two readings: while the file is rewritten all the time, a key that is in
// every version is always good, and one that is in none never is.
func TestIdentifyRacesReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	file := KeyFile{Path: path}
	secret, key, err := file.New("steady", "", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := generate(t, "stranger")
	k := open(t, path, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if got, err := k.Identify([]byte(secret), time.Now()); err != nil || got.KeyID != key.ID {
					t.Errorf("got %v, %v", got, err)
					return
				}
				if _, err := k.Identify([]byte(stranger), time.Now()); err != ErrInvalidKey {
					t.Errorf("stranger: got %v", err)
					return
				}
			}
		})
	}
	seen := fileState{}
	for range 20 {
		if _, _, err := file.New("more", "", time.Time{}); err != nil {
			t.Fatal(err)
		}
		if seen, err = k.load(seen); err != nil { // without waiting for the next look
			t.Fatal(err)
		}
	}
	cancel()
	readers.Wait()
	if k.Len() != 21 {
		t.Errorf("got %d keys, want 21", k.Len())
	}
}

// manyKeys are n keys that differ in id; all but the last share a hash that nobody knows the key for.
func manyKeys(t testing.TB, n int) (secret string, keys []Key) {
	t.Helper()
	secret, last := generate(t, "last")
	keys = make([]Key, n)
	for i := range keys {
		id := []byte("aaaaaaaaaaaa")
		for j, left := 0, i; left > 0; j, left = j+1, left/26 {
			id[j] = byte('a' + left%26)
		}
		keys[i] = Key{ID: string(id), Tenant: "many", Hash: "sha256:" + hex.EncodeToString(make([]byte, 32)), Created: noon}
	}
	keys[n-1] = last
	return secret, keys
}

// What a connection remembers must never outlive what the file says.
func TestIdentifyAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	first, one := generate(t, "first")
	second, two := generate(t, "second")
	two.Expires = noon.Add(time.Hour)
	if err := writeKeys(path, []Key{one, two}); err != nil {
		t.Fatal(err)
	}
	k := open(t, path, nil)
	var known Known
	ask := func(secret, tenant string, now time.Time, want error) {
		t.Helper()
		got, err := k.IdentifyAgain([]byte(secret), now, &known)
		if !errors.Is(err, want) || err == nil && got.Tenant != tenant {
			t.Errorf("got %v, %v; want %s, %v", got, err, tenant, want)
		}
	}
	for range 3 {
		ask(first, "first", noon, nil)
		ask(first, "first", noon, nil)
		ask(first[:len(first)-1]+"!", "", noon, ErrInvalidKey)
		ask("", "", noon, ErrNoKey)
		ask(second, "second", noon, nil)
		ask(second, "second", noon.Add(2*time.Hour), ErrExpiredKey)
		ask(second, "second", noon, nil)
	}
	presented := []byte(second)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := k.IdentifyAgain(presented, noon, &known); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if err := writeKeys(path, []Key{one}); err != nil { // the second is gone
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); k.Len() != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the file's change is not seen")
		}
	}
	ask(second, "", noon, ErrInvalidKey)
	ask(first, "first", noon, nil)
}

func TestAHundredThousandKeys(t *testing.T) {
	secret, keys := manyKeys(t, 100_000)
	k := static(t, keys...)
	if got, err := k.Identify([]byte(secret), noon); err != nil || got.Tenant != "last" {
		t.Errorf("got %v, %v", got, err)
	}
	// The way through the file is the same for any number; under the race detector, YAML takes 0.1 ms a key.
	few := keys[len(keys)-3000:]
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := writeKeys(path, few); err != nil {
		t.Fatal(err)
	}
	k = open(t, path, nil)
	if got, err := k.Identify([]byte(secret), noon); err != nil || got.Tenant != "last" || k.Len() != len(few) {
		t.Errorf("from the file: got %v, %v and %d keys, want %d", got, err, k.Len(), len(few))
	}
}

// BenchmarkOpen is what a start, or a reload of the file, costs.
func BenchmarkOpen(b *testing.B) {
	_, keys := manyKeys(b, 100_000)
	path := filepath.Join(b.TempDir(), "keys.yaml")
	if err := writeKeys(path, keys); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		k, err := Open(path, nil)
		if err != nil {
			b.Fatal(err)
		}
		k.Close()
	}
}

func BenchmarkIdentify(b *testing.B) {
	secret, keys := manyKeys(b, 100_000)
	k := static(b, keys...)
	unknown, _ := generate(b, "x")
	for _, bb := range []struct{ name, presented string }{{"known", secret}, {"unknown", unknown}, {"malformed", "sk-x"}} {
		b.Run(bb.name, func(b *testing.B) {
			presented := []byte(bb.presented)
			b.ReportAllocs()
			for b.Loop() {
				k.Identify(presented, noon)
			}
		})
	}
}
