package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// vitals are what a replica's processes have used since they began. Those of processes that have ended are not in them, so a sum may
// fall.
type vitals struct {
	cpu time.Duration // of all processors together
	// read is what they asked for by read(2) and its like, or what came from disks, whichever is more: weights that are mapped into memory are
	// in the second only, and those that the kernel had kept in the first.
	read int64
}

// clockTick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 on all of Linux's architectures that SGLang runs on.
const clockTick = time.Second / 100

// vitals reads them. Processes that end meanwhile are left out; those that we may not look into count with their processor time alone.
func (f family) vitals() (vitals, error) {
	members, err := f.members()
	if err != nil {
		return vitals{}, err
	}
	var sum vitals
	for _, m := range members {
		if m.dead {
			continue
		}
		sum.cpu += time.Duration(m.ticks) * clockTick
		if text, err := os.ReadFile(procPath(m.pid, "io")); err == nil {
			sum.read += parseIO(text)
		}
	}
	return sum, nil
}

// parseIO reads "rchar: N", "read_bytes: N" and other lines (proc_pid_io(5)).
func parseIO(text []byte) int64 {
	var most int64
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(": "))
		if string(name) != "rchar" && string(name) != "read_bytes" {
			continue
		}
		if n, err := strconv.ParseInt(string(value), 10, 64); err == nil {
			most = max(most, n)
		}
	}
	return most
}

// oomKills is how many processes the kernel has killed for want of memory since boot, whichever control group's memory it was
// (vmstat's oom_kill, since Linux 4.13).
func oomKills() (int64, error) {
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0, fmt.Errorf("reading the kernel's counters: %w", err)
	}
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("oom_kill ")); ok {
			return strconv.ParseInt(string(value), 10, 64)
		}
	}
	return 0, nil // a kernel that does not count
}

// quiet watches for signs of life of processes that should be doing something.
type quiet struct {
	last  vitals
	lines int64
	since time.Time // of the last sign
	at    time.Time // of the last look; zero: there was none
	idle  time.Time // since when no processor time was used either, nor anything read
}

const (
	// idleShare of one processor is what waiting programs use: threads of Python that wake up for their timers.
	idleShare = 0.01
	// hangAfter is how long a start may say nothing, use no processor and read nothing. What an engine waits for by itself, such as
	// a port (30 s) or a hub that does not answer (retried within seconds), ends in a line of output before.
	hangAfter = 5 * time.Minute
	// vitalsPause is the time between two looks. One costs some microseconds for each process of the machine.
	vitalsPause = 5 * time.Second
)

// look takes what was found now. lines counts the lines of output so far.
func (q *quiet) look(v vitals, lines int64, now time.Time) {
	passed := now.Sub(q.at)
	first := q.at.IsZero()
	worked := first || abs(v.cpu-q.last.cpu) > time.Duration(idleShare*float64(passed)) || v.read != q.last.read
	if first || lines != q.lines {
		q.heard(lines, now)
	}
	if worked {
		q.idle = now
	}
	q.last, q.at = v, now
}

// heard takes new lines of output, which are sign enough.
func (q *quiet) heard(lines int64, now time.Time) { q.lines, q.since, q.idle = lines, now, now }

// silent is how long no line of output has come.
func (q *quiet) silent(now time.Time) time.Duration { return now.Sub(q.since) }

// still is how long there was no sign of life at all.
func (q *quiet) still(now time.Time) time.Duration { return now.Sub(q.idle) }

func abs(d time.Duration) time.Duration { return max(d, -d) }
