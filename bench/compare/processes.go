package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is one of the parts, with its children.
type process struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
}

// start runs a command with its output in a file of dir.
func start(dir, name string, env []string, argv ...string) (*process, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = dir, log, log, append(os.Environ(), env...)
	// Killed with us, and with all its children, whatever happens.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		_ = log.Close()
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(p.done)
	}()
	return p, nil
}

func (p *process) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
	_ = p.log.Close()
}

// tail is the end of what the process has said.
func (p *process) tail() string {
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// await returns once addr accepts connections.
func (p *process) await(ctx context.Context, addr string, limit time.Duration) error {
	for end := time.Now().Add(limit); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.cmd.Path, p.tail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not listen on %s: %s", p.cmd.Path, addr, p.tail())
		}
	}
}

// usage is what a process and its descendants have used so far.
type usage struct {
	cpu      time.Duration // user and system; the kernel counts it in hundredths of a second
	resident int64         // bytes
}

// stat is one line of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	parent       int
	ticks, pages int64
}

func parseStat(line []byte) (s stat, err error) {
	i := bytes.LastIndexByte(line, ')') // the name before may hold anything
	if i < 0 {
		return s, errors.New("no name in a line of /proc/PID/stat")
	}
	f := strings.Fields(string(line[i+1:]))
	if len(f) < 22 {
		return s, fmt.Errorf("%d fields in a line of /proc/PID/stat", len(f))
	}
	var numbers [4]int64
	for k, at := range [...]int{1, 11, 12, 21} { // fields 4, 14, 15 and 24
		if numbers[k], err = strconv.ParseInt(f[at], 10, 64); err != nil {
			return s, err
		}
	}
	return stat{parent: int(numbers[0]), ticks: numbers[1] + numbers[2], pages: numbers[3]}, nil
}

const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on

// usage is that of the process and all below it.
func (p *process) usage() (usage, error) { return p.read(true) }

// own is that of the process alone.
func (p *process) own() (usage, error) { return p.read(false) }

func (p *process) read(children bool) (usage, error) {
	all := map[int]stat{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return usage{}, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has ended meanwhile
		}
		s, err := parseStat(line)
		if err != nil {
			return usage{}, err
		}
		all[pid] = s
	}
	if _, ok := all[p.cmd.Process.Pid]; !ok {
		return usage{}, fmt.Errorf("%s ended: %s", p.cmd.Path, p.tail())
	}
	var u usage
	for pid, s := range all {
		if pid != p.cmd.Process.Pid && !children {
			continue
		}
		for up := pid; up > 1; up = all[up].parent {
			if up == p.cmd.Process.Pid {
				u.cpu += time.Duration(s.ticks) * tick
				u.resident += s.pages * int64(os.Getpagesize())
				break
			}
		}
	}
	return u, nil
}

// drive runs a client process to its end.
func drive(ctx context.Context, self string, j job) (seen, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return seen{}, err
	}
	cmd := exec.CommandContext(ctx, self, "role", "client")
	cmd.Stdin = bytes.NewReader(text)
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return seen{}, fmt.Errorf("client: %w: %s", err, failed.Stderr)
	}
	if err != nil {
		return seen{}, err
	}
	var s seen
	return s, json.Unmarshal(out, &s)
}

func run(ctx context.Context, argv ...string) (string, error) {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out[max(0, len(out)-1000):])
	}
	return string(out), nil
}

// freePorts returns the first of n consecutive ports on which nobody listens.
func freePorts(n int) (int, error) {
next:
	for first := 18_000; first < 30_000; first += n {
		for port := first; port < first+n; port++ {
			ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err != nil {
				continue next
			}
			if err := ln.Close(); err != nil {
				return 0, err
			}
		}
		return first, nil
	}
	return 0, errors.New("no free ports")
}
