package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// eachProcess calls f for every process of the machine. Those that end meanwhile are nobody's loss.
func eachProcess(f func(pid int)) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return // no Linux: nothing is found, and every step that looks for processes fails
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			f(pid)
		}
	}
}

// writers are the processes whose standard output goes to a file below dir. Engines and their children write there, and zombies have none.
func writers(dir string) (pids []int) {
	eachProcess(func(pid int) {
		file, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/1", pid))
		if err == nil && strings.HasPrefix(file, dir+string(filepath.Separator)) {
			pids = append(pids, pid)
		}
	})
	return pids
}

// children are the processes that pid has started, by their titles.
func children(pid int) map[int]string {
	out := map[int]string{}
	eachProcess(func(child int) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		if err != nil {
			return
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // what comes before may hold spaces
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			return
		}
		title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))
		if err == nil {
			out[child] = strings.TrimSpace(strings.ReplaceAll(string(title), "\x00", " "))
		}
	})
	return out
}

// descendants are the processes that pid has started, and those have, by their titles.
func descendants(pid int) map[int]string {
	out := children(pid)
	for child := range maps.Clone(out) {
		maps.Copy(out, descendants(child))
	}
	return out
}

// killAll ends processes with SIGKILL; those that are gone already are fine.
func killAll(pids []int) (err error) {
	for _, pid := range pids {
		if e := syscall.Kill(pid, syscall.SIGKILL); e != nil && !errors.Is(e, syscall.ESRCH) {
			err = errors.Join(err, fmt.Errorf("killing %d: %w", pid, e))
		}
	}
	return err
}

func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
