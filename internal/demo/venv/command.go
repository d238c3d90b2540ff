package venv

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// command is one program to run to its end.
type command struct {
	argv []string
	env  []string
	dir  string
	// inherit is kept open by the program; nil: nothing is.
	inherit *os.File
}

// maxOutput bounds what is kept of a program's output, in bytes; the end is kept.
const maxOutput = 16 << 10

// run runs c in a process group of its own and returns its output, of which the end is kept. When ctx ends, the
// whole group is killed: pip starts processes of its own.
func run(ctx context.Context, c command) (string, error) {
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Env, cmd.Dir = c.env, c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	// A child that outlives its parent and holds the output open must not hold us.
	cmd.WaitDelay = 5 * time.Second
	if c.inherit != nil {
		cmd.ExtraFiles = []*os.File{c.inherit}
	}
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.String(), err
}

// tail keeps the last maxOutput bytes written to it.
type tail struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p)
	if extra := t.buf.Len() - maxOutput; extra > 0 {
		t.buf.Next(extra)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
