package process

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pilotlight/backends"
)

// launchFor launches a replica that a later driver shall find.
func launchFor(t *testing.T, d *Driver, spec *backends.Spec) *Replica {
	t.Helper()
	r, err := d.Launch(t.Context(), spec, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// succeed closes d, which leaves its replicas as a dead gateway does, and makes another driver over its state folder.
func succeed(t *testing.T, d *Driver, change func(*Options)) *Driver {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return newDriver(t, func(o *Options) {
		o.StateDir = d.opts.StateDir
		if change != nil {
			change(o)
		}
	})
}

func mustAdopt(t *testing.T, d *Driver) *Replica {
	t.Helper()
	left := d.Leftovers()
	if len(left) != 1 || left[0].State != StateReady {
		t.Fatalf("got leftovers %+v, want one that is ready", left)
	}
	r, err := d.Adopt(t.Context(), left[0].Model, left[0].ID)
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

func TestAdoptedReplicaIsAsGoodAsOwn(t *testing.T) {
	d := newDriver(t, nil)
	old := launchFor(t, d, simulated("--max-running-requests", "48"))
	next := succeed(t, d, nil)
	r := mustAdopt(t, next)
	if r.PID() != old.PID() || r.Endpoint() != old.Endpoint() || r.Endpoint().Concurrency != 48 || r.Endpoint().APIKey == "" {
		t.Errorf("got process %d, %+v; want %d, %+v", r.PID(), r.Endpoint(), old.PID(), old.Endpoint())
	}
	if !slices.Equal(r.args, old.args) {
		t.Errorf("got arguments %q, want %q", r.args, old.args)
	}
	if left := next.Leftovers(); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
	if _, err := next.Adopt(t.Context(), "sim", 1); err == nil {
		t.Error("adopted twice")
	}
	if _, err := next.Launch(t.Context(), simulated(), 1, nil); err == nil {
		t.Error("another was launched under its number")
	}
	// Nobody else gets its port.
	next.ports.next = r.record.Port
	if port, err := next.ports.acquire(); err != nil || port == r.record.Port {
		t.Errorf("got port %d, %v", port, err)
	} else if err := next.ports.release(port); err != nil {
		t.Error(err)
	}
	// Its output still comes to us, and the key in it does not come out.
	line := "what it says " + r.record.APIKey
	f, err := os.OpenFile(r.record.Log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), r.out.catchUp()); err != nil {
		t.Fatal(err)
	}
	tail := strings.Join(r.Tail(400), "\n")
	if !strings.Contains(tail, "what it says ") || strings.Contains(tail, r.record.APIKey) || !strings.Contains(tail, "max_total_num_tokens") {
		t.Errorf("got output %s", tail)
	}
	if err := r.Stop(t.Context(), true); err != nil || alive(r.PID()) {
		t.Errorf("stopped: %v, alive: %v", err, alive(r.PID()))
	}
}

// Its end is seen although it is nobody's child here, and what it leaves behind is swept.
func TestEndOfAnAdoptedReplicaIsSeen(t *testing.T) {
	d := newDriver(t, nil)
	old := launchFor(t, d, specOf(t, "m", fake{Children: 2}))
	children := grandchildren(t, old, 2)
	r := mustAdopt(t, succeed(t, d, nil))
	if err := unix.Kill(r.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.Exited():
	case <-time.After(20 * time.Second):
		t.Fatal("its end was not seen")
	}
	var f *backends.Failure
	if !errors.As(r.Cause(), &f) || f.Class == backends.ClassStopped {
		t.Errorf("got cause %v", r.Cause())
	}
	for _, pid := range children {
		if alive(pid) {
			t.Errorf("its child %d is left", pid)
		}
	}
}

func TestStartIsResumed(t *testing.T) {
	d := newDriver(t, nil)
	spec := simulated("--sim-start", "3s", "--max-running-requests", "48")
	launched := make(chan *Replica, 1)
	go func() {
		r, err := d.Launch(t.Context(), spec, 1, nil)
		if err != nil {
			t.Errorf("the first driver: %v", err)
		}
		launched <- r
	}()
	var rec Record
	for deadline := time.Now().Add(20 * time.Second); rec.State != StateStarting; time.Sleep(5 * time.Millisecond) {
		if records, err := d.Records(); err == nil && len(records) == 1 {
			rec = records[0]
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not start")
		}
	}
	// A second driver in the place of the first one, which is not closed: its Launch would go on.
	if err := d.lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.ports.release(rec.Port); err != nil {
		t.Fatal(err)
	}
	next := newDriver(t, func(o *Options) { o.StateDir = d.opts.StateDir })
	var phases []backends.Phase
	r, err := next.Launch(t.Context(), spec, 1, func(p backends.Progress) { phases = append(phases, p.Phase) })
	if err != nil {
		t.Fatal(err)
	}
	if r.PID() != rec.PID || r.Endpoint().Concurrency != 48 || !slices.Contains(phases, backends.PhaseWeights) {
		t.Errorf("got process %d, %+v, phases %v; want %d going on", r.PID(), r.Endpoint(), phases, rec.PID)
	}
	first := <-launched
	if err := r.Stop(t.Context(), true); err != nil {
		t.Error(err)
	}
	if first != nil {
		<-first.Exited()
	}
}

// A start of another spec is not the one that was asked for.
func TestStartOfAnotherSpecIsEnded(t *testing.T) {
	d := newDriver(t, nil)
	old := launchFor(t, d, specOf(t, "m", fake{}))
	rec := *old.record
	rec.State = StateStarting
	if err := d.save(&rec); err != nil {
		t.Fatal(err)
	}
	next := succeed(t, d, nil)
	r := mustLaunch(t, next, specOf(t, "m", fake{Print: []string{"other"}}), 1)
	if r.PID() == old.PID() || alive(old.PID()) || r.adopted {
		t.Errorf("got process %d, alive %v", r.PID(), alive(old.PID()))
	}
	reapNow(t, old.PID())
}

// What answers on the port, and how, decides whether it is worth having.
func TestAdoptRefuses(t *testing.T) {
	elsewhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	foreign := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a stranger was asked") })}
	go func() { _ = foreign.Serve(elsewhere) }()
	defer foreign.Close()
	for _, c := range []struct {
		name   string
		change func(*Record)
		want   string
	}{
		{"somebody else's port", func(r *Record) { r.Port = elsewhere.Addr().(*net.TCPAddr).Port }, "listener"},
		{"nobody's port", func(r *Record) { r.Port = 1 }, "refused"},
		{"a bad probe", func(r *Record) { r.Probe = "/unhealthy" }, "404"},
		{"no log", func(r *Record) { r.Log += ".gone" }, "log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDriver(t, nil)
			old := launchFor(t, d, specOf(t, "m", fake{Probe: "/health"}))
			rec := *old.record
			c.change(&rec)
			if err := d.save(&rec); err != nil {
				t.Fatal(err)
			}
			next := succeed(t, d, nil)
			if _, err := next.Adopt(t.Context(), "m", 1); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if alive(old.PID()) {
				t.Error("it lives on")
			}
			reapNow(t, old.PID())
		})
	}
}

// reapNow takes a dead child away that was adopted, and ended without having been.
func reapNow(t *testing.T, pid int) {
	t.Helper()
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil && !errors.Is(err, unix.ECHILD) {
		t.Error(err)
	}
}

// The values of secrets are those that the engine was started with, whatever their files say by now.
func TestAdoptedReplicasSecretsAreMasked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("first-secret-value"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, nil)
	spec := specOf(t, "m", fake{PrintEnv: []string{"TOKEN"}, Print: []string{strings.Repeat("x", 70<<10)}})
	spec.Secrets = []backends.Secret{{Name: "token", Env: "TOKEN", File: file}}
	old := launchFor(t, d, spec)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(d.recordPath("m-1"))
	if err != nil || strings.Contains(string(b), "first-secret-value") {
		t.Errorf("the record holds the secret, or %v", err)
	}
	r := mustAdopt(t, succeed(t, d, nil))
	f, err := os.OpenFile(old.record.Log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("token is first-secret-value\n")
	if err := errors.Join(err, f.Close(), r.out.catchUp()); err != nil {
		t.Fatal(err)
	}
	if tail := r.Tail(400); len(tail) == 0 || slices.ContainsFunc(tail, func(l string) bool { return strings.Contains(l, "first-secret") }) {
		t.Errorf("got output %v", tail)
	}
}

// The reading of a log that is taken over begins behind the end of a line: half a key would not be known for one.
func TestFollowFromTheMiddle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("half of this\nwhole\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := follow(path, 3, 1<<20, nil, func(s string) string { return s }, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	if got := o.tail(10); len(got) != 1 || got[0] != "whole" {
		t.Errorf("got %q", got)
	}
}

// An adopted engine's requests are unknown until it says that it has none, twice.
func TestSettleWaitsForTheEngine(t *testing.T) {
	d := newDriver(t, nil)
	old := launchFor(t, d, simulated("--sim-itl", "10ms", "--sim-disconnect-delay", "50ms"))
	if err := old.Settle(t.Context()); err != nil {
		t.Errorf("one that was not adopted: %v", err)
	}
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+old.Endpoint().Addr+"/v1/chat/completions",
		strings.NewReader(`{"model":"sim","stream":true,"max_tokens":5000,"messages":[{"role":"user","content":"x"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+old.Endpoint().APIKey)
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	defer resp.Body.Close()
	r := mustAdopt(t, succeed(t, d, nil))
	settled := make(chan error, 1)
	go func() { settled <- r.Settle(t.Context()) }()
	select {
	case err := <-settled:
		t.Fatalf("settled with %v while a stream runs", err)
	case <-time.After(500 * time.Millisecond):
	}
	leave()
	select {
	case err := <-settled:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("never settled")
	}
	if err := r.Stop(t.Context(), true); err != nil {
		t.Error(err)
	}
	if err := r.Settle(t.Context()); err == nil {
		t.Error("one that is gone has settled")
	}
}

func TestSecondGatewayIsToldWhoIsFirst(t *testing.T) {
	d := newDriver(t, nil)
	_, err := New(Options{StateDir: d.opts.StateDir})
	want := "(pid " + strconv.Itoa(os.Getpid()) + "); stop that one, or give this one a state_dir of its own"
	if !errors.Is(err, ErrStateDirInUse) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// A record that a gateway of before adoption wrote says too little.
func TestRecordOfAnOldGatewayIsEnded(t *testing.T) {
	d := newDriver(t, nil)
	old := launchFor(t, d, specOf(t, "m", fake{}))
	b, err := json.Marshal(old.record)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	delete(fields, "engine")
	if b, err = json.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.recordPath("m-1"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	next := succeed(t, d, nil)
	if left := next.Leftovers(); len(left) > 0 || alive(old.PID()) {
		t.Errorf("left %+v, alive %v", left, alive(old.PID()))
	}
	reapNow(t, old.PID())
}
