package process

import (
	"os"
	"strings"
	"testing"
	"time"

	"pilotlight/backends"
)

func TestParseIO(t *testing.T) {
	for text, want := range map[string]int64{
		"rchar: 323934931\nwchar: 323929600\nsyscr: 632687\nread_bytes: 10\nwrite_bytes: 323932160\n": 323934931,
		"rchar: 5\nread_bytes: 4096\ncancelled_write_bytes: 9000\n":                                   4096, // mapped files
		"rchar: x\n": 0,
		"":           0,
	} {
		if got := parseIO([]byte(text)); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

// What this machine's kernel tells of a real process, which reads a file and works meanwhile.
func TestVitalsOfARealProcess(t *testing.T) {
	dir := t.TempDir()
	const size = 8 << 20
	if err := os.WriteFile(dir+"/weights", make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, nil)
	s := specOf(t, "m", fake{})
	s.Command = []string{"/bin/sh", "-c", "while :; do cat '" + dir + "/weights' >/dev/null; done; : {port}"}
	s.StartTimeout = time.Minute
	got := make(chan vitals, 1)
	d.opts.vitalsPace = 20 * time.Millisecond
	d.opts.vitals = func(f family) (vitals, error) {
		v, err := f.vitals()
		if err == nil && v.cpu > 0 && v.read > 0 {
			select {
			case got <- v:
			default:
			}
		}
		return v, err
	}
	read := make(chan int64, 1)
	done := make(chan error, 1)
	go func() {
		_, err := d.Launch(t.Context(), s, 1, func(p backends.Progress) {
			if p.ReadBytes > 0 {
				select {
				case read <- p.ReadBytes:
				default:
				}
			}
		})
		done <- err
	}()
	for _, c := range []any{got, read} {
		switch c := c.(type) {
		case chan vitals:
			select {
			case <-c:
			case <-time.After(30 * time.Second):
				t.Error("no sign of life was seen")
			}
		case chan int64:
			select {
			case <-c:
			case <-time.After(30 * time.Second):
				t.Error("no bytes were reported")
			}
		}
	}
	for _, r := range living(d) {
		if err := r.Stop(t.Context(), true); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; err == nil {
		t.Error("a shell that serves nothing became ready")
	}
}

// living are the replicas that exist now.
func living(d *Driver) []*Replica {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*Replica
	for _, r := range d.live {
		all = append(all, r)
	}
	return all
}

func TestQuiet(t *testing.T) {
	var q quiet
	now := time.Now()
	for i, step := range []struct {
		after         time.Duration
		cpu           time.Duration // used meanwhile; a negative one is a process that ended
		read          int64
		lines         int64
		silent, still time.Duration
	}{
		{0, time.Second, 0, 3, 0, 0},
		{5 * time.Second, 0, 0, 0, 5 * time.Second, 5 * time.Second},
		{5 * time.Second, 40 * time.Millisecond, 0, 0, 10 * time.Second, 10 * time.Second}, // less than a hundredth of a processor
		{5 * time.Second, 60 * time.Millisecond, 0, 0, 15 * time.Second, 0},
		{5 * time.Second, 0, 0, 0, 20 * time.Second, 5 * time.Second},
		{5 * time.Second, 0, 1, 0, 25 * time.Second, 0},
		{5 * time.Second, 0, 0, 1, 0, 0},
		{time.Hour, 0, 0, 0, time.Hour, time.Hour},
		{time.Second, -10 * time.Second, 0, 0, time.Hour + time.Second, 0},
	} {
		now = now.Add(step.after)
		v := vitals{cpu: q.last.cpu + step.cpu, read: q.last.read + step.read}
		q.look(v, q.lines+step.lines, now)
		if q.silent(now) != step.silent || q.still(now) != step.still {
			t.Errorf("step %d: silent for %v, still for %v; want %v, %v", i, q.silent(now), q.still(now), step.silent, step.still)
		}
	}
}

// A start that says nothing and does nothing is given up long before its time-out; one that works, or reads, or speaks, is not.
func TestStartHang(t *testing.T) {
	quick := func(o *Options) { o.vitalsPace, o.hangAfter = 20*time.Millisecond, 500*time.Millisecond }
	t.Run("nothing happens", func(t *testing.T) {
		d := newDriver(t, quick)
		f := failed(t, t.Context(), d, sglangSpec(t, "m", fake{Hang: true, Print: []string{"Load weight begin. avail mem=1 GB"}}), backends.ClassHang)
		if !strings.Contains(f.Message, "used no processor") || !strings.Contains(f.Message, "in phase weights") || f.Advice == "" || f.Permanent || len(f.Lines) == 0 {
			t.Errorf("got %+v", f)
		}
	})
	// The clock of a machine that is busy with other tests is no judge of what a process does, so the kernel's answers are made up here.
	for name, more := range map[string]vitals{"it works": {cpu: time.Second}, "it reads": {read: 4096}} {
		t.Run(name, func(t *testing.T) {
			d := newDriver(t, quick)
			var sum vitals
			d.opts.vitals = func(family) (vitals, error) {
				sum.cpu += more.cpu
				sum.read += more.read
				return sum, nil
			}
			s := sglangSpec(t, "m", fake{Hang: true})
			s.StartTimeout = 3 * time.Second
			if f := failed(t, t.Context(), d, s, backends.ClassHang); !strings.Contains(f.Message, "no progress for 3s") {
				t.Errorf("got %q", f.Message)
			}
		})
	}
	t.Run("an engine that need not do", func(t *testing.T) {
		d := newDriver(t, quick)
		s := specOf(t, "m", fake{Hang: true})
		s.StartTimeout = 3 * time.Second
		if f := failed(t, t.Context(), d, s, backends.ClassHang); !strings.Contains(f.Message, "no progress for 3s") {
			t.Errorf("got %q", f.Message)
		}
	})
}

func TestKilledByTheKernel(t *testing.T) {
	for grown, want := range map[int64]string{0: "killed from outside", 1: "the kernel killed"} {
		kills := int64(7)
		d := newDriver(t, func(o *Options) { o.oomKills = func() (int64, error) { kills += grown; return kills, nil } })
		s := specOf(t, "m", fake{})
		s.Command = []string{"/bin/sh", "-c", "kill -KILL $$; : {port}"}
		if f := failed(t, t.Context(), d, s, backends.ClassKilled); !strings.Contains(f.Message, want) {
			t.Errorf("%d more kills: got %q, want %q in it", grown, f.Message, want)
		}
	}
	if _, err := oomKills(); err != nil {
		t.Errorf("this machine's kernel: %v", err)
	}
}
