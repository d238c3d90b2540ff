package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"pilotlight/internal/testtools/hubtest"
)

func TestRateAndTimeLeft(t *testing.T) {
	const mib = 1 << 20
	now := time.Unix(1000, 0)
	m := &meter{}
	m.update(func(p *Progress) { p.Phase, p.Files, p.Bytes, p.BytesDone = Downloading, 1, 1000*mib, 100*mib })
	check := func(when string, rate float64, eta time.Duration) {
		t.Helper()
		if p := m.read(now); p.Rate < 0.99*rate || p.Rate > 1.01*rate || p.ETA != eta {
			t.Errorf("%s: got %.0f B/s and %s left, want %.0f and %s", when, p.Rate, p.ETA, rate, eta)
		}
	}
	check("before the first byte", 0, 0)
	now = now.Add(time.Minute) // a slow source; it does not count
	check("still before the first byte", 0, 0)
	m.fetched(5 * mib)
	now = now.Add(500 * time.Millisecond)
	check("too early", 0, 0)
	now = now.Add(500 * time.Millisecond)
	m.fetched(5 * mib)
	check("after a second", 10*mib, 89*time.Second)
	for range 200 { // 20 s at 50 MiB/s, half of it from elsewhere
		now = now.Add(100 * time.Millisecond)
		m.fetched(5 * mib / 2)
		m.elsewhere(5 * mib / 2)
		m.read(now)
	}
	if n := len(m.samples); n > int(rateWindow/sampleEvery)+2 {
		t.Errorf("%d samples are kept", n)
	}
	m.update(func(p *Progress) { p.BytesDone = 500 * mib })
	check("what was slow before is forgotten", 50*mib, 10*time.Second)
	m.elsewhere(-100 * mib) // it began again
	check("a new beginning elsewhere", 50*mib, 12*time.Second)
	for range 20 { // silence
		now = now.Add(time.Second)
		m.read(now)
	}
	check("a stall", 0, 0)
	m.phase(Finished)
	if p := m.read(now); p.Fraction() != 1 || p.ETA != 0 || p.Rate != 0 {
		t.Errorf("at the end: %+v", p)
	}
}

func TestProgressForPeople(t *testing.T) {
	for _, c := range []struct {
		p    Progress
		want string
	}{
		{Progress{}, "asking"},
		{Progress{Phase: Downloading, Files: 2, FilesDone: 1}, "downloading 50% (0 B of 0 B)"},
		{Progress{Phase: Downloading, Files: 1, Bytes: 3 << 29, BytesDone: 3<<29 - 1}, "downloading 99% (1.5 GiB of 1.5 GiB)"},
		{Progress{Phase: Downloading, Files: 1, Bytes: 200_000_000_000, BytesDone: 1023, Rate: 1 << 20, ETA: 90 * time.Second},
			"downloading 0% (1023 B of 186 GiB, 1.0 MiB/s, 1m30s left)"},
		{Progress{Phase: Finished}, "finished"},
	} {
		if got := c.p.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// until reports the first progress that ok takes.
func until(t *testing.T, progress <-chan Progress, what string, ok func(Progress) bool) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case p := <-progress:
			if ok(p) {
				return
			}
		case <-limit:
			t.Fatalf("it never was so: %s", what)
		}
	}
}

// TestProgressOfAnotherProcess has a file being fetched by somebody else, as seen by one who waits for it.
func TestProgressOfAnotherProcess(t *testing.T) {
	hub, dir := hubtest.New(t), t.TempDir()
	content := hubtest.Noise(5, 3*chunk+99)
	hub.Add("model.safetensors", content, true)
	folder, err := openFolder(dir, hub.Repo)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.root.Close()
	file := File{Path: "model.safetensors", Size: int64(len(content)), SHA256: hubtest.SHA256(content)}
	release, err := lock(t.Context(), filepath.Join(folder.locks, file.SHA256+".lock"), func() {})
	if err != nil {
		t.Fatal(err)
	}
	other, err := openPartial(folder.root, file.SHA256, file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(i int) {
		offset, length := other.span(i)
		_, err := other.data.WriteAt(content[offset:offset+length], offset)
		if err == nil {
			_, err = other.mark(i, i+1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(0)

	progress := make(chan Progress)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fetched := make(chan error, 1)
	go func() {
		_, err := newStore(t, dir).Fetch(ctx, Request{Repo: hub.Repo, Source: hubSource(t, hub), Progress: func(p Progress) {
			select {
			case progress <- p:
			case <-ctx.Done():
			default:
			}
		}})
		fetched <- err
	}()
	until(t, progress, "what lay there counts", func(p Progress) bool { return p.Elsewhere == 1 && p.BytesDone == chunk })
	write(1)
	until(t, progress, "what comes in elsewhere counts", func(p Progress) bool { return p.Elsewhere == 1 && p.BytesDone == 2*chunk })
	if got := hub.BytesServed(); got != 0 {
		t.Errorf("%d bytes were fetched meanwhile", got)
	}
	if err := errors.Join(other.close(), release()); err != nil { // as if it were killed
		t.Fatal(err)
	}
	if err := <-fetched; err != nil {
		t.Fatal(err)
	}
	if got, want := hub.BytesServed(), int64(len(content))-2*chunk; got != want {
		t.Errorf("%d bytes were fetched, want the %d that were missing", got, want)
	}
}

func TestProgressOfTheOfficialClient(t *testing.T) {
	dir := t.TempDir()
	folder, err := openFolder(dir, "org/model")
	if err != nil {
		t.Fatal(err)
	}
	defer folder.root.Close()
	tr := newTransfer(File{Path: "w", Size: 1000, SHA256: hubtest.SHA256(nil)})
	if n := incomplete(folder.root, tr); n != 0 {
		t.Errorf("got %d bytes of nothing", n)
	}
	for i, name := range []string{".incomplete", ".0123abcd.incomplete"} {
		name = filepath.Join(folder.path, "blobs", tr.key+name)
		if err := os.WriteFile(name, make([]byte, 100*(i+1)), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, time.Time{}, time.Unix(int64(1000+i), 0)); err != nil {
			t.Fatal(err)
		}
	}
	if n := incomplete(folder.root, tr); n != 200 {
		t.Errorf("got %d bytes, want those of the newest file", n)
	}
}

func TestOnlyTheNetworkIsAskedAgain(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, false},
		{fmt.Errorf("flushing: %w", syscall.EDQUOT), false},
		{syscall.EIO, false},
		{&os.SyscallError{Syscall: "connect", Err: syscall.ECONNREFUSED}, true},
		{fmt.Errorf("read: %w", syscall.ECONNRESET), true},
		{context.DeadlineExceeded, true}, // a time limit of one request
		{errStalled, true},
		{errors.New("certificate is not yours"), false},
		{&StatusError{Status: 500}, true},
		{&StatusError{Status: 410}, false},
	} {
		if got := temporary(c.err); got != c.want {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
	}
}

func TestFileSystemsWithoutLocks(t *testing.T) {
	// No descriptor stands for a file system that refuses: both are answered by the system call itself.
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := flock(f, syscall.LOCK_EX); !errors.Is(err, ErrNoLocks) {
		t.Errorf("got %v, want ErrNoLocks", err)
	}
}
