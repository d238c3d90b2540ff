package process

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRecordIsWrittenBeforeTheProcess(t *testing.T) {
	var states []State
	d := newDriver(t, func(o *Options) {
		o.write = func(path string, data []byte) error {
			var r Record
			if err := json.Unmarshal(data, &r); err != nil {
				return err
			}
			if (r.PID == 0) != (r.State == StateLaunching) {
				t.Errorf("record %s has pid %d", r.State, r.PID)
			}
			if r.Mark == "" || r.Port == 0 || r.BootID == "" || r.APIKey == "" || r.TempDir == "" {
				t.Errorf("incomplete record %s", data)
			}
			states = append(states, r.State)
			return writeAtomically(path, data)
		}
	})
	r := mustLaunch(t, d, sglangSpec(t, "m", fake{}), 1)
	if got, want := states, []State{StateLaunching, StateStarting, StateReady}; len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("got %v, want %v", got, want)
	}
	info, err := os.Stat(d.recordPath("m-1"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v; want mode 0600, since it holds the API key", info, err)
	}
	if info, err := os.Stat(r.record.TempDir); err != nil || info.Mode().Perm() != 0o700 || len(r.record.TempDir) > 60 {
		t.Errorf("got temporary folder %s: %v, %v", r.record.TempDir, info, err)
	}
}

func TestOneGatewayPerStateFolder(t *testing.T) {
	d := newDriver(t, nil)
	if _, err := New(Options{StateDir: d.opts.StateDir}); !errors.Is(err, ErrStateDirInUse) {
		t.Errorf("got %v, want %v", err, ErrStateDirInUse)
	}
	if _, err := New(Options{}); err == nil {
		t.Error("no state folder was accepted")
	}
}

// What a gateway leaves that dies at a bad moment is found and ended by the next one.
func TestLeftoversOfADeadGateway(t *testing.T) {
	dir := t.TempDir()
	tmp := t.TempDir()
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"replicas", "logs"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	spawn := func(mark string, children int, escape bool) *child {
		t.Helper()
		log, err := openLog(filepath.Join(dir, "logs", mark+".log"))
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		s := specOf(t, "m", fake{Hang: true, Children: children, Escape: escape})
		c, err := startChild([]string{os.Args[0]}, append(os.Environ(), fakeVar+"="+s.Env[fakeVar], markName+"="+mark), "", log, mark)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	record := func(r Record) {
		t.Helper()
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "replicas", r.name()+".json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// 1: started and recorded. 2: the gateway died before it noted the pid. 3: another process has the
	// recorded pid now. 4: from before a reboot, with a pid and ticks that exist by chance.
	// 5: the engine is dead, a process of it that left the group is not.
	known := spawn("mark-1", 1, false)
	unknown := spawn("mark-2", 0, false)
	innocent := spawn("innocent-1", 0, false)
	rebooted := spawn("innocent-2", 0, false)
	orphan := spawn("mark-5", 1, true)
	time.Sleep(300 * time.Millisecond) // for the grandchildren
	if err := orphan.signal(9); err != nil {
		t.Fatal(err)
	}
	if err := orphan.wait(); err != nil {
		t.Fatal(err)
	}
	temp := filepath.Join(tmp, "pl-1")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	record(Record{Model: "m", ID: 1, Mark: "mark-1", BootID: boot, PID: known.pid, StartTicks: known.start, TempDir: temp})
	record(Record{Model: "m", ID: 2, Mark: "mark-2", BootID: boot, State: StateLaunching})
	record(Record{Model: "m", ID: 3, Mark: "mark-3", BootID: boot, PID: innocent.pid, StartTicks: innocent.start + 1})
	record(Record{Model: "m", ID: 4, Mark: "innocent-2", BootID: "another", PID: rebooted.pid, StartTicks: rebooted.start})
	record(Record{Model: "m", ID: 5, Mark: "mark-5", BootID: boot, PID: orphan.pid, StartTicks: orphan.start})
	for name, text := range map[string]string{"broken.json": "{", "other.json": `{"model":"x"}`, ".tmp-1": "half"} {
		if err := os.WriteFile(filepath.Join(dir, "replicas", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	d, err := New(Options{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	records, err := d.Records()
	if len(records) > 0 || err == nil || !strings.Contains(err.Error(), "broken.json") {
		t.Errorf("got records %v, %v; want none, and the broken files told", records, err)
	}
	for _, path := range []string{temp, filepath.Join(dir, "replicas", ".tmp-1")} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	for name, c := range map[string]*child{"known": known, "unknown": unknown} {
		if alive(c.pid) {
			t.Errorf("the %s process lives on", name)
		}
	}
	for _, mark := range []string{"mark-1", "mark-2", "mark-5"} {
		left, err := family{mark: mark}.members()
		if err != nil || len(left) > 0 {
			t.Errorf("left of %s: %v, %v", mark, left, err)
		}
	}
	for name, c := range map[string]*child{"innocent": innocent, "rebooted": rebooted} {
		if !alive(c.pid) {
			t.Errorf("the %s process was killed", name)
		}
	}
	for _, c := range []*child{known, unknown, innocent, rebooted, orphan} {
		if err := c.signal(9); err != nil {
			t.Error(err)
		}
		if err := c.wait(); err != nil {
			t.Error(err)
		}
		if err := c.kin.sweep(t.Context()); err != nil {
			t.Error(err)
		}
		// Being this process's children, some were reaped by the sweep, as orphans of a process 1 are.
		if _, err := c.reap(); err != nil && !errors.Is(err, syscall.ECHILD) {
			t.Error(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// An engine that is left to itself by a dead gateway must not be hurt by it: its output is a file.
func TestEngineOutputIsAFileAndInputIsEmpty(t *testing.T) {
	d := newDriver(t, nil)
	r := mustLaunch(t, d, specOf(t, "m", fake{}), 1)
	for fd, want := range map[string]string{"0": "/dev/null", "1": r.record.Log, "2": r.record.Log} {
		got, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(r.PID()), "fd", fd))
		if err != nil || got != want {
			t.Errorf("descriptor %s: got %s, %v; want %s", fd, got, err, want)
		}
	}
}

func TestFamilyOfADeadMarkIsEmpty(t *testing.T) {
	if got, err := (family{mark: "nobody"}).members(); err != nil || len(got) > 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func BenchmarkMembers(b *testing.B) {
	f := family{group: 1 << 30, mark: "nobody", since: 1 << 62}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.members(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListener(b *testing.B) {
	f := family{group: 1 << 30, mark: "nobody", since: 1 << 62}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.listener("127.0.0.1", 1); err != nil {
			b.Fatal(err)
		}
	}
}
