package shard

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pilotlight/backends"
	"pilotlight/backends/sglang"
)

//go:embed script.py
var script []byte

const (
	// pace is how often the program's output and files are looked at.
	pace = 200 * time.Millisecond
	// keptLines is how much output explains a failure; see sglang.Classify.
	keptLines = 200
	// endGrace is how long the program may take to leave the GPUs once all is written: SGLang waits a minute for its processes.
	endGrace = 90 * time.Second
)

// program is one run of script.py.
type program struct {
	python  string
	dir     string // working folder
	env     []string
	log     string // file for its output
	options []string
	out     string // folder
	maxPart int64
	expect  int64 // bytes that all ranks together will write, about
	stall   time.Duration
	report  func(Progress)

	version string // of SGLang, as it says itself
	writing bool
	written bool
	lines   []string // the last of its output
	sglang  sglang.Progress
}

// event is what it says on descriptor 3.
type event struct {
	Step    string `json:"step"`
	Version string `json:"version"`
}

// run starts the program and waits until it, and all that it has started, are gone. It ends well if the weights are written.
func (p *program) run(ctx context.Context) (err error) {
	temp, err := os.MkdirTemp(shortTemp(), "pl-shard-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	file := filepath.Join(temp, "pilotlight_shard.py") // a file, since spawned processes read it again
	if err := os.WriteFile(file, script, 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	events, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer events.Close()
	args := append([]string{file, p.out, strconv.FormatInt(p.maxPart, 10)}, p.options...)
	cmd := exec.Command(p.python, args...)
	if !strings.Contains(p.python, "/") { // env looks in the PATH that the program gets; we would look in our own
		cmd = exec.Command("/usr/bin/env", append([]string{p.python}, args...)...)
	}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = p.dir, append(p.env, "TMPDIR="+temp), log, log, []*os.File{tell}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that all of it can be ended
	life, err := cmd.StdinPipe()                          // its end, which comes with ours, ends the program
	if err != nil {
		return errors.Join(err, tell.Close())
	}
	err = cmd.Start()
	if err := errors.Join(err, tell.Close()); err != nil {
		return p.notStarted(errors.Join(err, life.Close()))
	}
	said := make(chan event)
	ended := make(chan error, 1)
	var wait sync.WaitGroup
	wait.Go(func() {
		defer close(said)
		for lines := bufio.NewScanner(events); lines.Scan(); {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) == nil { // else it is somebody else's line
				said <- e
			}
		}
	})
	// It is not waited for in the usual way until the rest of its group is dead: till then its number, which is the group's, is nobody else's.
	wait.Go(func() { ended <- unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) })
	over, err := p.watch(ctx, log, said, ended)
	err = errors.Join(err, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL), events.SetReadDeadline(time.Now().Add(time.Second)))
	for e := range said {
		p.hear(e)
	}
	wait.Wait()
	status := cmd.Wait()
	if over && !p.written {
		err = errors.Join(p.failed(status), err)
	}
	return errors.Join(err, gone(cmd.Process.Pid))
}

func (p *program) hear(e event) {
	switch e.Step {
	case "begun":
		p.version = e.Version
	case "writing":
		p.writing = true
	case "written":
		p.written = true
	}
}

// watch follows the program until it has ended by itself (over), or must be ended. nil without over: all is written, and it only does not go.
func (p *program) watch(ctx context.Context, log *os.File, said <-chan event, ended <-chan error) (over bool, err error) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	now := Progress{Phase: Starting}
	p.report(now)
	deadline, moved := time.Now().Add(p.stall), int64(0)
	follow := &follower{file: log, line: p.line}
	for {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case e, ok := <-said:
			if !ok {
				said = nil
				continue
			}
			was := p.written
			if p.hear(e); p.written && !was {
				deadline = time.Now().Add(endGrace)
			}
		case err := <-ended:
			return true, errors.Join(err, follow.read())
		case <-tick.C:
			if err := follow.read(); err != nil {
				return false, err
			}
			bytes, err := written(p.out)
			if err != nil {
				return false, err
			}
			if n := bytes + follow.at; n != moved && !p.written {
				moved, deadline = n, time.Now().Add(p.stall)
			}
			switch {
			case time.Now().After(deadline) && p.written:
				return false, nil
			case time.Now().After(deadline):
				return false, &backends.Failure{
					Class: backends.ClassHang, Message: fmt.Sprintf("cutting the weights up made no progress for %s", p.stall),
					Advice: "see what it waits for: the last lines of its log", Lines: p.lines,
				}
			}
			switch phase := p.sglang.Phase(); {
			case p.writing:
				now = Progress{Phase: Writing, Bytes: bytes, Total: max(bytes, p.expect)}
				now.Share = float64(now.Bytes) / float64(max(now.Total, 1))
			case phase == backends.PhaseWeights:
				now = Progress{Phase: Loading, Share: p.sglang.Share()}
			case phase != backends.PhaseLaunch: // it sets up what it needs for answering
				now = Progress{Phase: Loading, Share: 1}
			}
			p.report(now)
		}
	}
}

func (p *program) line(text string) {
	p.sglang.Line(text)
	if len(p.lines) == keptLines {
		p.lines = p.lines[1:]
	}
	p.lines = append(p.lines, sglang.Redact(text))
}

// failed explains the program's end by its last words.
func (p *program) failed(err error) error {
	status := sglang.ExitStatus{}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if w, ok := exit.Sys().(syscall.WaitStatus); ok {
			if status.Code = w.ExitStatus(); w.Signaled() {
				status = sglang.ExitStatus{Signal: w.Signal()}
			}
		}
	}
	f := sglang.Classify(p.lines, status, p.options...)
	f.Err = fmt.Errorf("cutting the weights up: %w", f.Err)
	return f
}

// notStarted is for a program that never was.
func (p *program) notStarted(err error) error {
	f := &backends.Failure{Class: backends.ClassLaunch, Message: "this machine could not start the engine's Python", Err: err}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		f.Class, f.Permanent = backends.ClassNotFound, true
		f.Advice = "install SGLang where the model's command finds it, or change the command"
	}
	return f
}

// shortTemp is where temporary folders with sockets in them go, whose names may have 107 bytes (unix(7)).
func shortTemp() string {
	if dir := os.TempDir(); len(dir) <= 40 {
		return dir
	}
	return "/tmp"
}

// written is how many bytes the files of a folder have.
func written(dir string) (n int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // renamed just now
		} else if err != nil {
			return 0, err
		}
		n += info.Size()
	}
	return n, nil
}

// follower reads lines from a file that grows. A carriage return ends one, too: progress bars are drawn over themselves.
type follower struct {
	file *os.File
	line func(string)
	at   int64
	rest []byte
}

// longestLine is what one line is cut at.
const longestLine = 16 << 10

func (f *follower) read() error {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.file.ReadAt(buf, f.at)
		f.at += int64(n)
		for _, b := range buf[:n] {
			if b != '\n' && b != '\r' {
				if len(f.rest) < longestLine {
					f.rest = append(f.rest, b)
				}
				continue
			}
			if text := strings.TrimSpace(strings.ToValidUTF8(string(f.rest), "\uFFFD")); text != "" {
				f.line(text)
			}
			f.rest = f.rest[:0]
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// gone waits until no process of a killed group is left but those that nobody has buried. Those that a device driver holds get some seconds.
func gone(group int) error {
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left, err := living(group)
		if err != nil || !left {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes of group %d do not go", group)
		}
	}
}

// living says whether a group has processes that are not dead (proc(5), stat: the state and, two fields later, the group).
func living(group int) (bool, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it went just now
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])) // what comes before may hold spaces
		if len(fields) > 2 && fields[2] == strconv.Itoa(group) && fields[0] != "Z" && fields[0] != "X" {
			return true, nil
		}
	}
	return false, nil
}
