package process

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// openFDs counts this process's descriptors.
func openFDs(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// files lists what lies under dir, folders left out.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Starting and stopping replicas over and over leaves no process, zombie, port, descriptor, goroutine,
// record or temporary folder; only the last logs. The driver's own checks are in newDriver.
func TestManyCyclesLeaveNothing(t *testing.T) {
	cycles := 500
	if testing.Short() {
		cycles = 50
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	d := newDriver(t, nil)
	fast := sglangSpec(t, "m", fake{})
	crash := specOf(t, "crash", fake{ExitNow: true, ExitCode: 1})

	cycle := func(i int) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		spec := fast
		switch i % 10 {
		case 3: // cancelled at some moment of the start
			time.AfterFunc(time.Duration(i%40)*time.Millisecond, cancel)
		case 7:
			spec = crash
		}
		r, err := d.Launch(ctx, spec, uint64(i), nil)
		if err != nil {
			if spec == fast && ctx.Err() == nil {
				t.Error(err)
			}
			return
		}
		if i%5 == 0 {
			if err := r.child.signal(9); err != nil {
				t.Error(err)
			}
		}
		if err := r.Stop(t.Context(), true); err != nil {
			t.Error(err)
		}
	}
	cycle(0) // what is made once is made before the count
	fds, goroutines := openFDs(t), runtime.NumGoroutine()
	began := time.Now()
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for i := next.Add(1); i <= int64(cycles); i = next.Add(1) {
				cycle(int(i))
			}
		})
	}
	workers.Wait()
	t.Logf("%d cycles in %v, each %v", cycles, time.Since(began), time.Since(began)/time.Duration(cycles))

	for range 100 { // connections of the last probes may still be closing
		if openFDs(t) <= fds && runtime.NumGoroutine() <= goroutines {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := openFDs(t); n > fds {
		t.Errorf("got %d descriptors, %d before", n, fds)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("got %d goroutines, %d before", n, goroutines)
	}
	if left := files(t, d.recordDir()); len(left) != 1 {
		t.Errorf("got %q, want only the lock", left)
	}
	// Launches that run at once spare each other's logs, so that a few more than the limit may stay.
	if logs := files(t, d.logDir()); len(logs) > 2*(keptLogs+4) {
		t.Errorf("got %d logs: %q", len(logs), logs)
	}
	if entries, err := os.ReadDir(tmp); err != nil || len(entries) > 0 {
		t.Errorf("temporary folders left: %v, %v", entries, err)
	}
}

func TestPruneLogsKeepsOtherModelsAndLivingReplicas(t *testing.T) {
	d := newDriver(t, nil)
	old := time.Now().Add(-time.Hour)
	put := func(name string, age int) {
		path := filepath.Join(d.logDir(), name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old.Add(-time.Duration(age)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 9 {
		put("a-"+strconv.Itoa(i)+".log", i)
		put("a-"+strconv.Itoa(i)+".log.1", i)
	}
	for i := range 9 {
		put("a-1-"+strconv.Itoa(i)+".log", i) // of model "a-1"
	}
	if !d.remember("a-8", &Replica{}) {
		t.Fatal("cannot remember")
	}
	if err := d.pruneLogs("a"); err != nil {
		t.Fatal(err)
	}
	d.forget("a-8")
	got := map[string]int{}
	for _, path := range files(t, d.logDir()) {
		got[filepath.Base(path)]++
	}
	for i := range 9 {
		name := "a-" + strconv.Itoa(i) + ".log"
		want := 0
		if i < keptLogs-1 || i == 8 {
			want = 1
		}
		if got[name] != want || got[name+".1"] != want {
			t.Errorf("%s: got %d and %d of its predecessor, want %d", name, got[name], got[name+".1"], want)
		}
		if got["a-1-"+strconv.Itoa(i)+".log"] != 1 {
			t.Errorf("log %d of another model is gone", i)
		}
	}
}
