package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pilotlight/backends/sglang"
)

// child is the main process of a replica, from its start to the moment that it is reaped.
type child struct {
	cmd   *exec.Cmd // nil: started by an earlier gateway
	pid   int
	start uint64   // ticks since boot, from /proc: with the boot id it makes a pid unique
	pidfd *os.File // non-blocking, so that waiting costs a goroutine and no thread
	kin   family
}

// startChild runs argv in its own process group with output appended to out. Standard input is /dev/null.
func startChild(argv, env []string, dir string, out *os.File, mark string, inherit ...*os.File) (*child, error) {
	path, err := lookPath(argv[0], env)
	if err != nil {
		return nil, err
	}
	fd := -1
	cmd := &exec.Cmd{
		Path: path, Args: argv, Env: env, Dir: dir, Stdout: out, Stderr: out, ExtraFiles: inherit,
		// A terminal's Ctrl-C goes to the gateway's group alone. The parent's death signal is left out on
		// purpose: replicas outlive a gateway that dies.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, PidFD: &fd},
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, pid: cmd.Process.Pid}
	if err := c.watchable(fd); err != nil {
		// Without it we could never tell its end: better not to have it.
		kill := unix.Kill(-c.pid, unix.SIGKILL)
		var exit *exec.ExitError
		wait := cmd.Wait()
		if errors.As(wait, &exit) {
			wait = nil
		}
		return nil, errors.Join(err, kill, wait)
	}
	c.kin = family{group: c.pid, mark: mark, since: c.start}
	return c, nil
}

// watchable takes the pidfd and the start time of a process that is not reaped yet, so that its pid cannot
// mean another.
func (c *child) watchable(fd int) error {
	if fd < 0 {
		var err error
		if fd, err = unix.PidfdOpen(c.pid, 0); err != nil {
			return fmt.Errorf("opening the process's descriptor: %w", err)
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return errors.Join(fmt.Errorf("process descriptor: %w", err), unix.Close(fd))
	}
	c.pidfd = os.NewFile(uintptr(fd), "pidfd")
	start, err := startTime(c.pid)
	if err != nil {
		return errors.Join(err, c.pidfd.Close())
	}
	c.start = start
	return nil
}

// wait blocks until the main process has ended. It leaves it unreaped: while it is a zombie its pid, and
// with it the number of its group, belongs to nobody else, so that the group can be swept safely.
func (c *child) wait() error {
	conn, err := c.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n == 1
	})
}

// signal sends to the main process alone: SGLang takes a signal at its schedulers for a crash. A process
// that is gone is no error.
func (c *child) signal(sig unix.Signal) error {
	conn, err := c.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return errors.Join(err, ignoreGone(sent))
}

// reap collects the exit status and closes the pidfd. Only after wait, and after the group was swept.
func (c *child) reap() (sglang.ExitStatus, error) {
	if c.cmd == nil {
		return c.reapFound()
	}
	err := c.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	err = errors.Join(err, c.pidfd.Close())
	if c.cmd.ProcessState == nil { // somebody else has reaped it
		return sglang.ExitStatus{Unknown: true}, err
	}
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		return sglang.ExitStatus{Unknown: true}, err
	}
	return exitStatus(status), err
}

// reapFound is reap for a process of an earlier gateway. Its status goes to whoever has become its parent: process 1, as a rule.
func (c *child) reapFound() (sglang.ExitStatus, error) {
	closed := c.pidfd.Close()
	m, err := memberOf(c.pid)
	if err != nil || m.start != c.start || m.parent != os.Getpid() {
		return sglang.ExitStatus{Unknown: true}, closed
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(c.pid, &status, unix.WNOHANG, nil); err != nil {
		return sglang.ExitStatus{Unknown: true}, errors.Join(ignoreNoChild(err), closed)
	}
	return exitStatus(syscall.WaitStatus(status)), closed
}

func ignoreNoChild(err error) error {
	if errors.Is(err, unix.ECHILD) {
		return nil
	}
	return err
}

func exitStatus(status syscall.WaitStatus) sglang.ExitStatus {
	if status.Signaled() {
		return sglang.ExitStatus{Signal: status.Signal()}
	}
	return sglang.ExitStatus{Code: status.ExitStatus()}
}

// findChild opens the main process of a record of this boot. It fails unless exactly that process still runs.
func findChild(rec *Record) (*child, error) {
	fd, err := unix.PidfdOpen(rec.PID, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", rec.PID, err)
	}
	c := &child{pid: rec.PID}
	if err := c.watchable(fd); err != nil {
		return nil, err
	}
	// After the descriptor, which stands for one process for good, was opened.
	m, err := memberOf(rec.PID)
	if err == nil && (m.start != rec.StartTicks || m.dead) {
		err = fmt.Errorf("process %d is not the one that was recorded", rec.PID)
	}
	if err != nil {
		return nil, errors.Join(err, c.pidfd.Close())
	}
	c.kin = rec.family()
	return c, nil
}

// errNotGone means that killed processes are still there, which only a device driver can do.
var errNotGone = errors.New("processes did not end after SIGKILL")

// sweep kills whatever is left of a family and returns when all of it is gone. It must be called while
// f.group, if set, cannot have been reused.
func (f family) sweep(ctx context.Context) error {
	known := make(map[int]member)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if f.group != 0 && !f.found {
			// EPERM: some member runs as another user; those that may be killed were.
			if err := unix.Kill(-f.group, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("killing process group: %w", err)
			}
		}
		members, err := f.members()
		if err != nil {
			return err
		}
		for _, m := range members {
			known[m.pid] = m
		}
		alive := 0
		for pid, m := range known {
			// A dying process loses its environment, and with it the mark, before it is dead: once seen it is
			// waited for by its number.
			now, err := memberOf(pid)
			if err != nil || now.start != m.start {
				delete(known, pid) // gone
				continue
			}
			m = now
			switch {
			case m.dead && pid != f.group:
				err = m.reap()
			case !m.dead:
				alive++
				err = m.kill()
			}
			if err != nil && !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("sweeping process %d: %w", pid, err)
			}
		}
		if alive == 0 {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %d left", errNotGone, alive)
		}
	}
}
