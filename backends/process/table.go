package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// markName is the environment variable by which a replica's processes are known even after they left its
// process group, or when their parent and the gateway that started it are both gone.
const markName = "PILOTLIGHT_REPLICA"

// family says which processes belong to one replica: those of its group, and those that inherited its
// mark. A process that both left the group and overwrote its environment is not found.
type family struct {
	// group is the process group, 0 if it is not known or may have been reused since.
	group int
	// found: the group's leader is no child of ours. Its parent reaps it whenever it likes, and its number is free once its group is
	// empty, too; so the group is killed one by one, each process looked at first.
	found bool
	mark  string
	// since is the start time of the first of them, in ticks since boot; 0 asks all. It spares reading
	// the environment of everything that is older.
	since uint64
}

// member is one process, as its line in /proc tells (proc_pid_stat(5)).
type member struct {
	pid    int
	parent int
	group  int
	start  uint64 // ticks since boot
	ticks  uint64 // of processor time that it has used
	dead   bool   // a zombie: it holds nothing but its number
	kernel bool   // a thread of the kernel, which has no environment
}

// members lists a family. Processes that end meanwhile, or that we may not look at, are left out.
//
// It looks at every process of the machine, at some 6 µs each; that is why it reads /proc itself: a
// general library takes four times as long, and the ends of replicas wait for it.
func (f family) members() ([]member, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	self := os.Getpid()
	var out []member
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == self {
			continue
		}
		m, err := memberOf(pid)
		if err == nil && f.includes(m) { // on error it is gone
			out = append(out, m)
		}
	}
	return out, nil
}

func (f family) includes(m member) bool {
	if f.group != 0 && m.group == f.group && (!f.found || m.start >= f.since) {
		return true
	}
	if m.start < f.since || m.dead || m.kernel {
		return false
	}
	env, err := environ(m.pid)
	if err != nil {
		return false // gone, or somebody else's
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if value, ok := bytes.CutPrefix(entry, []byte(markName+"=")); ok {
			return string(value) == f.mark
		}
	}
	return false
}

// environ reads a process's environment. It is empty for a moment while a new program is loaded, long
// enough on a busy machine to overlook a process that was just started, so an empty one is looked at again.
func environ(pid int) ([]byte, error) {
	for pause := time.Millisecond; ; pause *= 2 {
		env, err := os.ReadFile(procPath(pid, "environ"))
		if err != nil || len(env) > 0 || pause > 16*time.Millisecond {
			return env, err
		}
		time.Sleep(pause)
	}
}

// memberOf reads one process.
func memberOf(pid int) (member, error) {
	// Plain system calls: os.ReadFile would register each file with the poller.
	fd, err := unix.Open(procPath(pid, "stat"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return member{}, fmt.Errorf("process %d: %w", pid, err)
	}
	var buf [1024]byte // a line has about 300 bytes
	n, err := unix.Read(fd, buf[:])
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return member{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return parseStat(pid, buf[:n])
}

// parseStat reads "pid (name) state ppid pgrp …". The name may hold anything, also ") ", so the last
// parenthesis counts. Processor times are the 14th and 15th field, start time is the 22nd.
func parseStat(pid int, line []byte) (member, error) {
	_, rest, ok := strings.Cut(string(line[max(0, bytes.LastIndexByte(line, ')')):]), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return member{}, fmt.Errorf("process %d: unknown form of stat", pid)
	}
	m := member{pid: pid, dead: fields[0] == "Z" || fields[0] == "X"}
	var err1, err2, err3 error
	m.parent, err1 = strconv.Atoi(fields[1])
	m.group, err2 = strconv.Atoi(fields[2])
	m.start, err3 = strconv.ParseUint(fields[19], 10, 64)
	flags, err4 := strconv.ParseUint(fields[6], 10, 64)
	user, err5 := strconv.ParseUint(fields[11], 10, 64)
	system, err6 := strconv.ParseUint(fields[12], 10, 64)
	m.ticks = user + system
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return member{}, fmt.Errorf("process %d: %w", pid, err)
	}
	const kernelThread = 0x00200000 // PF_KTHREAD of linux/sched.h
	m.kernel = flags&kernelThread != 0
	return m, nil
}

// kill sends SIGKILL to exactly the process that was listed: a pidfd names a process for good, and the
// start time shows that it is still the one.
func (m member) kill() error {
	fd, err := unix.PidfdOpen(m.pid, 0)
	if err != nil {
		return ignoreGone(err)
	}
	var sent error
	if now, err := memberOf(m.pid); err == nil && now.start == m.start {
		sent = ignoreGone(unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
	}
	return errors.Join(sent, unix.Close(fd))
}

// reap takes a dead process away that became our child when its parent died, as happens to a gateway that
// is process 1 of a container.
func (m member) reap() error {
	if m.parent != os.Getpid() {
		return nil
	}
	_, err := unix.Wait4(m.pid, nil, unix.WNOHANG, nil)
	return ignoreNoChild(err)
}

// sockets adds the process's open sockets to set, as their descriptors' link targets. It reports false if
// the process has no descriptors: it is gone, or about to be. One that we may not look into adds nothing.
func (m member) sockets(set map[string]bool) bool {
	dir := procPath(m.pid, "fd")
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil && strings.HasPrefix(target, "socket:") {
			set[target] = true
		}
	}
	return len(entries) > 0 || errors.Is(err, fs.ErrPermission)
}

func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("reading the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// startTime is when a process started, in ticks since boot.
func startTime(pid int) (uint64, error) {
	m, err := memberOf(pid)
	return m.start, err
}
