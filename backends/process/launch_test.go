package process

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pilotlight/backends"
)

func mustLaunch(t testing.TB, d *Driver, spec *backends.Spec, id uint64) *Replica {
	t.Helper()
	r, err := d.Launch(t.Context(), spec, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(context.Background(), true); err != nil {
			t.Error(err)
		}
	})
	return r
}

// failed launches and wants a failure of a class.
func failed(t *testing.T, ctx context.Context, d *Driver, spec *backends.Spec, class backends.Class) *backends.Failure {
	t.Helper()
	r, err := d.Launch(ctx, spec, 1, nil)
	if err == nil {
		t.Errorf("launch succeeded, want %s", class)
		err = r.Stop(context.Background(), true)
		t.Fatal(err)
	}
	var f *backends.Failure
	if !errors.As(err, &f) || f.Class != class {
		t.Fatalf("got %v, want class %s", err, class)
	}
	return f
}

// grandchildren reads the pids that a fake has printed.
func grandchildren(t *testing.T, r *Replica, want int) []int {
	t.Helper()
	if err := r.out.catchUp(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	var pids []int
	for _, line := range r.Tail(100) {
		if text, ok := strings.CutPrefix(line, "grandchild "); ok {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	if len(pids) != want {
		t.Fatalf("got grandchildren %v, want %d", pids, want)
	}
	return pids
}

func TestLaunchAndStop(t *testing.T) {
	d := newDriver(t, nil)
	r := mustLaunch(t, d, specOf(t, "m", fake{BindAfter: 30 * time.Millisecond, ReadyAfter: 30 * time.Millisecond}), 7)
	if r.Cause() != nil {
		t.Errorf("a living replica has cause %v", r.Cause())
	}
	e := r.Endpoint()
	if e.Engine != backends.EngineOpenAI || e.ServedName != "m" || e.APIKey != "" {
		t.Errorf("got endpoint %+v", e)
	}
	resp, err := http.Get("http://" + e.Addr + "/health")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v, %v", resp, err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	records, err := d.Records()
	if err != nil || len(records) != 1 {
		t.Fatalf("got records %v, %v", records, err)
	}
	if rec := records[0]; rec.PID != r.PID() || rec.State != StateReady || rec.Model != "m" || rec.ID != 7 || rec.StartTicks == 0 || rec.SpecHash == "" {
		t.Errorf("got record %+v", rec)
	}
	pgid, err := unix.Getpgid(r.PID())
	if err != nil || pgid != r.PID() {
		t.Errorf("got process group %d, %v; want its own, %d", pgid, err, r.PID())
	}
	if err := r.Stop(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.Exited():
	default:
		t.Error("Stop returned before Exited")
	}
	var f *backends.Failure
	if !errors.As(r.Cause(), &f) || f.Class != backends.ClassStopped {
		t.Errorf("got cause %v, want stopped", r.Cause())
	}
	if alive(r.PID()) {
		t.Error("the process lives on")
	}
	if err := r.Stop(t.Context(), false); err != nil {
		t.Errorf("stopping again: %v", err)
	}
}

// Ready must be seen within 100 ms after the server says so; the fake prints when that is. The quickest counts, on a machine that
// is busy with other tests.
func TestReadyIsSeenAtOnce(t *testing.T) {
	d := newDriver(t, nil)
	var took []time.Duration
	for i := range 5 {
		r := mustLaunch(t, d, specOf(t, "m", fake{ReadyAfter: 130*time.Millisecond + time.Duration(i)*7*time.Millisecond}), uint64(i))
		now := time.Now()
		if err := r.out.catchUp(); err != nil {
			t.Fatal(err)
		}
		at, ok := strings.CutPrefix(strings.Join(r.Tail(1), ""), "ready-at ")
		nanos, err := strconv.ParseInt(at, 10, 64)
		if !ok || err != nil {
			t.Fatalf("got tail %q", r.Tail(1))
		}
		took = append(took, now.Sub(time.Unix(0, nanos)))
	}
	slices.Sort(took)
	t.Logf("ready was seen after %v", took)
	if took[0] > 100*time.Millisecond {
		t.Errorf("ready was seen after %v, want 100 ms at most", took[0])
	}
}

// An end is seen, and all of the replica is gone, within 100 ms. The quickest of a few counts, because the
// machine that runs the tests may be busy with others.
func TestKilledEngineIsSeenAtOnce(t *testing.T) {
	d := newDriver(t, nil)
	var took []time.Duration
	for i := range 5 {
		r := mustLaunch(t, d, specOf(t, "m", fake{Children: 2}), uint64(i))
		kids := grandchildren(t, r, 2)
		began := time.Now()
		if err := unix.Kill(r.PID(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {
		case <-r.Exited():
		case <-time.After(5 * time.Second):
			t.Fatal("the end was not seen")
		}
		took = append(took, time.Since(began))
		var f *backends.Failure
		if !errors.As(r.Cause(), &f) || f.Class != backends.ClassKilled || f.Permanent {
			t.Errorf("got %v, want killed", r.Cause())
		}
		for _, pid := range kids {
			if alive(pid) {
				t.Errorf("grandchild %d lives on", pid)
			}
		}
	}
	slices.Sort(took)
	t.Logf("ends were seen after %v", took)
	if took[0] > 100*time.Millisecond {
		t.Errorf("seen after %v, want 100 ms at most", took[0])
	}
}

func TestStopSweepsGrandchildren(t *testing.T) {
	for _, c := range []struct {
		name string
		fake fake
	}{
		{"in the group", fake{Children: 3}},
		{"that left the group", fake{Children: 2, Escape: true}},
		{"of a parent that ignores SIGTERM", fake{Children: 1, IgnoreTerm: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDriver(t, nil)
			r := mustLaunch(t, d, specOf(t, "m", c.fake), 1)
			kids := grandchildren(t, r, c.fake.Children)
			for _, pid := range kids {
				if !alive(pid) {
					t.Fatalf("grandchild %d is gone before the stop", pid)
				}
			}
			began := time.Now()
			if err := r.Stop(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); c.fake.IgnoreTerm && took < d.opts.IdleGrace {
				t.Errorf("killed after %v, within the grace of %v", took, d.opts.IdleGrace)
			}
			for _, pid := range kids {
				if alive(pid) {
					t.Errorf("grandchild %d lives on", pid)
				}
			}
			// SGLang takes a signal at its schedulers for a crash: only the main process may get one.
			for _, line := range r.Tail(100) {
				if strings.Contains(line, "grandchild got") {
					t.Error(line)
				}
			}
		})
	}
}

// A busy replica gets the long grace, unless the caller's context ends it.
func TestStopOfABusyReplica(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.StopGrace = time.Minute })
	r := mustLaunch(t, d, specOf(t, "m", fake{IgnoreTerm: true}), 1)
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := r.Stop(ctx, false); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 400*time.Millisecond || took > 10*time.Second {
		t.Errorf("took %v, want the context's 400 ms", took)
	}
}

func TestLaunchFailures(t *testing.T) {
	for _, c := range []struct {
		name      string
		spec      func(t *testing.T) *backends.Spec
		class     backends.Class
		permanent bool
	}{
		{"no command", func(t *testing.T) *backends.Spec {
			s := specOf(t, "m", fake{})
			s.Command = nil
			return s
		}, backends.ClassNotFound, true},
		{"missing program", func(t *testing.T) *backends.Spec {
			s := specOf(t, "m", fake{})
			s.Command = []string{"no-such-engine"}
			return s
		}, backends.ClassNotFound, true},
		{"missing program by path", func(t *testing.T) *backends.Spec {
			s := specOf(t, "m", fake{})
			s.Command = []string{"/no/such/engine"}
			return s
		}, backends.ClassNotFound, true},
		{"a folder as program", func(t *testing.T) *backends.Spec {
			s := specOf(t, "m", fake{})
			s.Command = []string{t.TempDir()}
			return s
		}, backends.ClassNotFound, true},
		{"missing working folder", func(t *testing.T) *backends.Spec {
			s := specOf(t, "m", fake{})
			s.Dir = filepath.Join(t.TempDir(), "nowhere")
			return s
		}, backends.ClassNotFound, true},
		{"missing secret", func(t *testing.T) *backends.Spec {
			s := specOf(t, "m", fake{})
			s.Secrets = []backends.Secret{{Name: "hf", Env: "HF_TOKEN", File: filepath.Join(t.TempDir(), "nowhere")}}
			return s
		}, backends.ClassSecret, false},
		{"exit at once", func(t *testing.T) *backends.Spec {
			return specOf(t, "m", fake{ExitNow: true, ExitCode: 3})
		}, backends.ClassExited, false},
		{"exit while it loads", func(t *testing.T) *backends.Spec {
			return sglangSpec(t, "m", fake{Hang: true, ExitAfter: 200 * time.Millisecond, ExitCode: 1, Print: []string{"RuntimeError: CUDA out of memory."}})
		}, backends.ClassOutOfMemory, true},
		{"refused flag", func(t *testing.T) *backends.Spec {
			return sglangSpec(t, "m", fake{ExitNow: true, ExitCode: 2, Print: []string{"sglang serve: error: unrecognized arguments: --max-model-len 5"}})
		}, backends.ClassBadFlag, true},
		{"exit between bind and ready", func(t *testing.T) *backends.Spec {
			return specOf(t, "m", fake{ReadyAfter: time.Hour, ExitAfter: 200 * time.Millisecond})
		}, backends.ClassExited, false},
		{"hang before bind", func(t *testing.T) *backends.Spec {
			s := specOf(t, "m", fake{Hang: true, IgnoreTerm: true, Children: 1})
			s.StartTimeout = 300 * time.Millisecond
			return s
		}, backends.ClassHang, false},
		{"hang after bind", func(t *testing.T) *backends.Spec {
			s := sglangSpec(t, "m", fake{ReadyAfter: time.Hour})
			s.StartTimeout = 400 * time.Millisecond
			return s
		}, backends.ClassHang, false},
		{"wrong probe path", func(t *testing.T) *backends.Spec {
			s := specOf(t, "m", fake{Probe: "/elsewhere"})
			s.StartTimeout = 300 * time.Millisecond
			return s
		}, backends.ClassHang, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDriver(t, nil)
			if f := failed(t, t.Context(), d, c.spec(t), c.class); f.Permanent != c.permanent {
				t.Errorf("got permanent %t, want %t", f.Permanent, c.permanent)
			}
		})
	}
}

// A start may take longer than its timeout as long as it gets on.
func TestProgressRearmsTheDeadline(t *testing.T) {
	d := newDriver(t, nil)
	s := sglangSpec(t, "m", fake{Progress: 8, Pause: 150 * time.Millisecond, PrintLast: []string{
		"max_total_num_tokens=1000, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=17, context_len=8192",
	}})
	s.StartTimeout = 700 * time.Millisecond
	var mu sync.Mutex
	var phases []backends.Phase
	var percents []float64
	r, err := d.Launch(t.Context(), s, 1, func(p backends.Progress) {
		mu.Lock()
		defer mu.Unlock()
		phases, percents = append(phases, p.Phase), append(percents, p.Percent)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop(t.Context(), true)
	if got := r.Endpoint().Concurrency; got != 17 {
		t.Errorf("got concurrency %d, want the engine's 17", got)
	}
	if len(r.Endpoint().APIKey) != 64 {
		t.Errorf("got an API key of %d characters, want 64", len(r.Endpoint().APIKey))
	}
	if phases[0] != backends.PhaseLaunch || len(phases) < 2 || !slices.IsSorted(percents) {
		t.Errorf("got phases %v, percents %v", phases, percents)
	}
}

func TestRepeatedLinesAreNoProgress(t *testing.T) {
	d := newDriver(t, nil)
	s := sglangSpec(t, "m", fake{Hang: true, Print: slices.Repeat([]string{"Load weight begin. avail mem=1 GB"}, 50)})
	s.StartTimeout = 400 * time.Millisecond
	began := time.Now()
	failed(t, t.Context(), d, s, backends.ClassHang)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// A server of somebody else on the chosen port answers every probe well, and must not be taken for ours.
func TestForeignServerOnThePort(t *testing.T) {
	d := newDriver(t, nil)
	d.ports.mu.Lock()
	next := d.ports.next
	d.ports.mu.Unlock()
	s := specOf(t, "m", fake{BindAfter: 400 * time.Millisecond})
	thief := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("a probe was sent to the foreign server: %s %q", r.URL, r.Header)
	})}
	var served sync.WaitGroup
	stolen := make(chan error, 1)
	served.Go(func() {
		// The port is stolen once it has been chosen, while the engine loads.
		for range 2000 {
			d.ports.mu.Lock()
			var port int
			for p := range d.ports.taken {
				port = p
			}
			d.ports.mu.Unlock()
			if port == 0 {
				time.Sleep(100 * time.Microsecond)
				continue
			}
			if port < next {
				t.Errorf("got port %d, want one from %d on", port, next)
			}
			l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
			stolen <- err
			if err == nil {
				_ = thief.Serve(l) // ends by Close
			}
			return
		}
		stolen <- errors.New("no port was chosen")
	})
	f := failed(t, t.Context(), d, s, backends.ClassPortTaken)
	if f.Permanent {
		t.Error("a stolen port is permanent")
	}
	if err := <-stolen; err != nil {
		t.Fatal(err)
	}
	if err := thief.Close(); err != nil {
		t.Error(err)
	}
	served.Wait()
}

// The same noticed by the engine first, when it binds.
func TestEngineFindsItsPortTaken(t *testing.T) {
	d := newDriver(t, nil)
	f := failed(t, t.Context(), d, sglangSpec(t, "m", fake{ExitNow: true, ExitCode: 1, Print: []string{
		"ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 30000): address already in use",
	}}), backends.ClassPortTaken)
	if f.Permanent || strings.Contains(f.Message+f.Advice, "127.0.0.1") {
		t.Errorf("got %+v", f)
	}
}

func TestCancelledAtEachPhase(t *testing.T) {
	for _, c := range []struct {
		name  string
		fake  fake
		after time.Duration
	}{
		{"before the start", fake{}, 0},
		{"at the start", fake{Hang: true}, time.Millisecond},
		{"while it loads", fake{Hang: true, Children: 2}, 250 * time.Millisecond},
		{"while it loads and ignores SIGTERM", fake{Hang: true, IgnoreTerm: true, Children: 1}, 250 * time.Millisecond},
		{"between bind and ready", fake{ReadyAfter: time.Hour}, 250 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDriver(t, nil)
			ctx, cancel := context.WithTimeout(t.Context(), c.after)
			defer cancel()
			began := time.Now()
			f := failed(t, ctx, d, specOf(t, "m", c.fake), backends.ClassStopped)
			if !errors.Is(f, context.DeadlineExceeded) {
				t.Errorf("got %v, which does not wrap the context's error", f)
			}
			if took := time.Since(began) - c.after; took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestEnvironmentAndSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first-secret-value\n")
	d := newDriver(t, func(o *Options) {
		o.Environ = []string{"PATH=" + os.Getenv("PATH"), "PILOTLIGHT_ADMIN_TOKEN=hidden", "INHERITED=yes", "OWN=inherited"}
	})
	s := specOf(t, "m", fake{PrintEnv: []string{"PILOTLIGHT_ADMIN_TOKEN", "INHERITED", "OWN", "TOKEN", "PYTHONUNBUFFERED"}})
	s.Env["OWN"] = "model's"
	s.Secrets = []backends.Secret{{Name: "token", Env: "TOKEN", File: file}}
	check := func(id uint64, secret string) {
		t.Helper()
		r := mustLaunch(t, d, s, id)
		if err := r.out.catchUp(); err != nil {
			t.Fatal(err)
		}
		want := []string{"PILOTLIGHT_ADMIN_TOKEN=", "INHERITED=yes", "OWN=model's", "TOKEN=***", "PYTHONUNBUFFERED=1"}
		if got := r.Tail(10); !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		log, err := os.ReadFile(r.record.Log)
		if err != nil || !strings.Contains(string(log), "TOKEN="+secret+"\n") {
			t.Errorf("got log %q, %v; want the engine to have had %s", log, err, secret)
		}
		info, err := os.Stat(r.record.Log)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("got log mode %v, %v; want 0600, since it may hold secrets", info.Mode(), err)
		}
	}
	check(1, "first-secret-value")
	write("rotated-secret-value") // read anew at each start
	check(2, "rotated-secret-value")
}

func TestKeyPlaceholder(t *testing.T) {
	argv, key := commandLine(&backends.Spec{
		Engine: backends.EngineOpenAI, ModelPath: "some/model", ServedName: "s",
		Command: []string{"serve", "{model_path}", "--listen={host}:{port}"}, ExtraArgs: []string{"--key", "{api_key}", "--name={served_name}"},
	}, backends.Placement{}, "127.0.0.1", 61000, "k")
	want := "serve some/model --listen=127.0.0.1:61000 --key k --name=s"
	if got := strings.Join(argv, " "); got != want || key != "k" {
		t.Errorf("got %q, key %q; want %q, key k", got, key, want)
	}
	if _, key := commandLine(&backends.Spec{Engine: backends.EngineOpenAI, Command: []string{"serve"}}, backends.Placement{}, "h", 1, "k"); key != "" {
		t.Errorf("got key %q for an engine that was told none", key)
	}
}

func TestProgramIsFoundInTheModelsOwnPath(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/proc/self/exe", filepath.Join(dir, "unused")); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "my-engine")); err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, nil)
	s := specOf(t, "m", fake{})
	s.Command[0] = "my-engine"
	s.Env["PATH"] = ":relative:" + dir
	mustLaunch(t, d, s, 1)
}

func TestAReplicaNumberIsTakenOnce(t *testing.T) {
	d := newDriver(t, nil)
	s := specOf(t, "m", fake{})
	mustLaunch(t, d, s, 1)
	if _, err := d.Launch(t.Context(), s, 1, nil); err == nil {
		t.Error("the same number was launched twice")
	}
	mustLaunch(t, d, s, 2)
}

func TestFullDisk(t *testing.T) {
	full := &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	t.Run("at the first record", func(t *testing.T) {
		d := newDriver(t, func(o *Options) { o.write = func(string, []byte) error { return full } })
		failed(t, t.Context(), d, sglangSpec(t, "m", fake{}), backends.ClassDiskFull)
	})
	t.Run("at the record of the process", func(t *testing.T) {
		writes := 0
		d := newDriver(t, func(o *Options) {
			o.write = func(path string, data []byte) error {
				if writes++; writes == 2 {
					return full
				}
				return writeAtomically(path, data)
			}
		})
		failed(t, t.Context(), d, sglangSpec(t, "m", fake{Hang: true}), backends.ClassDiskFull)
	})
	t.Run("at the record of readiness, which is not worth a replica", func(t *testing.T) {
		writes := 0
		d := newDriver(t, func(o *Options) {
			o.write = func(path string, data []byte) error {
				if writes++; writes == 3 {
					return full
				}
				return writeAtomically(path, data)
			}
		})
		mustLaunch(t, d, specOf(t, "m", fake{}), 1)
	})
	t.Run("so that the engine could not even say so", func(t *testing.T) {
		d := newDriver(t, func(o *Options) { o.freeBytes = func(string) (uint64, error) { return 0, nil } })
		failed(t, t.Context(), d, specOf(t, "m", fake{ExitNow: true, ExitCode: 1}), backends.ClassDiskFull)
	})
}
