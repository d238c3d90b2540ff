package config

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// patience is for a busy machine; a change is seen in a little more than settle.
const patience = 10 * time.Second

// watching runs Watch on a file and hands out its calls. The watch has looked once when it returns.
type watching struct {
	t       *testing.T
	changes chan struct{}
}

func watch(t *testing.T, path string) *watching {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// What is loaded differs from the file, as if that had changed before the watch began: the first call
	// tells that the watch is in place.
	w := startWatch(t, path, &Config{Digest: sha256.Sum256(append(data, "older"...))})
	w.want("the change before the watch")
	return w
}

func startWatch(t *testing.T, path string, loaded *Config) *watching {
	t.Helper()
	w := &watching{t: t, changes: make(chan struct{}, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Watch(ctx, path, loaded, func() { w.changes <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Watch: %v", err)
			}
		case <-time.After(patience):
			t.Error("Watch goes on after its context has ended")
		}
	})
	return w
}

func (w *watching) want(what string) {
	w.t.Helper()
	select {
	case <-w.changes:
	case <-time.After(patience):
		w.t.Fatalf("%s was not seen", what)
	}
}

// wantNone fails if a change is seen within two settling times.
func (w *watching) wantNone(what string) {
	w.t.Helper()
	select {
	case <-w.changes:
		w.t.Errorf("%s counted as a change", what)
	case <-time.After(2*settle + 50*time.Millisecond):
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWatchAFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p.yaml")
	write(t, path, "one")
	w := watch(t, path)

	write(t, path, "two")
	w.want("a file written in place")

	write(t, path+".new", "three")
	do(t, os.Rename(path+".new", path))
	w.want("a file renamed over it")

	do(t, os.Rename(path, path+"~")) // as some editors do
	write(t, path, "four")
	w.want("a file moved away and written anew")

	do(t, os.Remove(path))
	w.wantNone("a missing file")
	write(t, path, "five")
	w.want("a file that came back")

	write(t, path, "five")
	w.wantNone("the same content")
	write(t, filepath.Join(dir, "other"), "x")
	w.wantNone("another file")
	do(t, os.Chmod(path, 0o640))
	w.wantNone("another mode")
}

func TestWatchSeesAChangeBeforeItBegan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yaml")
	write(t, path, valid)
	loaded, err := Load(path, testEnv)
	if err != nil {
		t.Fatal(err)
	}
	same := startWatch(t, path, loaded)
	same.wantNone("a file that is as it was loaded")
	write(t, path, valid+"# changed\n")
	startWatch(t, path, loaded).want("a change between loading and watching")
}

// A mounted ConfigMap: the file is a link through ..data, a link to a folder, and an update swaps ..data.
func TestWatchAKubernetesVolume(t *testing.T) {
	dir := t.TempDir()
	version := func(n int) {
		folder := fmt.Sprintf("..version_%d", n)
		do(t, os.Mkdir(filepath.Join(dir, folder), 0o700))
		write(t, filepath.Join(dir, folder, "p.yaml"), fmt.Sprint("content ", n))
		do(t, os.Symlink(folder, filepath.Join(dir, "..data_tmp")))
		do(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		if n > 1 {
			do(t, os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..version_%d", n-1))))
		}
	}
	version(1)
	path := filepath.Join(dir, "p.yaml")
	do(t, os.Symlink(filepath.Join("..data", "p.yaml"), path))
	w := watch(t, path)
	for n := 2; n <= 4; n++ {
		version(n)
		w.want("a swapped link")
	}
	w.wantNone("a swap that is over")
}

func TestWatchTheTargetOfALink(t *testing.T) {
	linked, first, second := t.TempDir(), t.TempDir(), t.TempDir()
	path := filepath.Join(linked, "p.yaml")
	write(t, filepath.Join(first, "real.yaml"), "one")
	write(t, filepath.Join(second, "real.yaml"), "two")
	do(t, os.Symlink(filepath.Join(first, "real.yaml"), path))
	w := watch(t, path)

	write(t, filepath.Join(first, "real.yaml"), "one again")
	w.want("a change of the link's target")

	do(t, os.Symlink(filepath.Join(second, "real.yaml"), path+".new"))
	do(t, os.Rename(path+".new", path))
	w.want("another target")
	write(t, filepath.Join(second, "real.yaml"), "two again")
	w.want("a change of the new target")
	write(t, filepath.Join(first, "real.yaml"), "nobody's any more")
	w.wantNone("a change of the old target")
}

// A file that changes all the time is read all the same, and its last version is always seen.
func TestWatchConstantChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yaml")
	write(t, path, "begin")
	w := watch(t, path)
	during := 0
	for n := range 100 {
		write(t, path, fmt.Sprint("content ", n))
		time.Sleep(settle / 10)
		for len(w.changes) > 0 {
			<-w.changes
			during++
		}
	}
	if during == 0 {
		t.Error("nothing was seen for ten settling times")
	}
	time.Sleep(3 * settle)
	for len(w.changes) > 0 {
		<-w.changes
	}
	if now, ok := digest(path); !ok || now != sha256.Sum256([]byte("content 99")) {
		t.Fatal("the file is not its last version")
	}
	w.wantNone("a file at rest")
}

func TestWatchReportsWhatItCannotWatch(t *testing.T) {
	err := Watch(context.Background(), filepath.Join(t.TempDir(), "nowhere", "p.yaml"), &Config{}, func() {})
	if err == nil {
		t.Error("a missing folder was watched")
	}
}
