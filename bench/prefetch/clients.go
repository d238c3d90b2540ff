package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"pilotlight/backends/store"
)

// model is what is fetched: files of these sizes, which are named as the server names them.
type model struct {
	name  string
	what  string // for people
	sizes []int64
}

func (m model) file(i int) string { return fmt.Sprintf("file-%03d.bin", i) }

func (m model) total() (n int64) {
	for _, size := range m.sizes {
		n += size
	}
	return n
}

func (m model) argument() string {
	var sizes []string
	for _, size := range m.sizes {
		sizes = append(sizes, strconv.FormatInt(size, 10))
	}
	return m.name + "=" + strings.Join(sizes, ",")
}

// fetched is what one fetch took.
type fetched struct {
	Seconds float64 // from the start of the process to its end
	PeakKiB int64   // of ours: the most memory that it had (VmHWM)
}

// client fetches a model from the server at address into an empty folder.
type client struct {
	name  string
	fetch func(ctx context.Context, address string, m model, dir string) (fetched, error)
	for_  func(m model) bool
}

const (
	ours       = "pilotlight"
	unverified = "pilotlight, unverified"
)

func clients() []client {
	always := func(model) bool { return true }
	return []client{
		{ours, oursWith("verified"), always},
		{unverified, oursWith("unverified"), always},
		{"curl, 16 ranges", curlRanges, func(m model) bool { return len(m.sizes) == 1 }},
		{"curl -Z, a connection a file", curlFiles, func(m model) bool { return len(m.sizes) > 1 }},
		{"aria2c -x16 -s16", aria2With(), always},
		{"aria2c -x16 -s16 -k1M", aria2With("-k1M"), always},
	}
}

func command(ctx context.Context, name string, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

func oursWith(mode string) func(context.Context, string, model, string) (fetched, error) {
	return func(ctx context.Context, address string, m model, dir string) (fetched, error) {
		began := time.Now()
		out, err := command(ctx, os.Args[0], "role", "fetch", address+"/"+m.name+"/", dir, mode)
		f := fetched{Seconds: time.Since(began).Seconds()}
		if err != nil {
			return f, err
		}
		return f, json.Unmarshal(out, &f.PeakKiB)
	}
}

// runFetch is the role "fetch": ADDRESS FOLDER verified|unverified [PROFILE]. It prints the process's VmHWM in KiB.
func runFetch(args []string) (err error) {
	source, err := store.NewPlain(args[0], "", 0)
	if err != nil {
		return err
	}
	defer source.Close()
	s, err := store.New(store.Options{Path: args[1], Unverified: args[2] == "unverified"})
	if err != nil {
		return err
	}
	if len(args) > 3 {
		f, err := os.Create(args[3])
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if _, err := s.Fetch(context.Background(), store.Request{Repo: "bench/model", Source: source}); err != nil && !errors.Is(err, store.ErrUnverified) {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Println(strings.Fields(text)[0])
		}
	}
	return nil
}

// timed runs a command and checks what it left.
func timed(ctx context.Context, m model, dir, name string, args ...string) (fetched, error) {
	began := time.Now()
	_, err := command(ctx, name, args...)
	f := fetched{Seconds: time.Since(began).Seconds()}
	for i, size := range m.sizes {
		if err != nil {
			break
		}
		var info os.FileInfo
		if info, err = os.Stat(filepath.Join(dir, m.file(i))); err == nil && info.Size() != size {
			err = fmt.Errorf("%s left %d bytes of %d", name, info.Size(), size)
		}
	}
	return f, err
}

// curlRanges gets the parts of a file by a process each, and puts them together, as people do.
func curlRanges(ctx context.Context, address string, m model, dir string) (fetched, error) {
	const parts = 16
	step := m.sizes[0]/parts + 1
	var script strings.Builder
	script.WriteString("set -e; cd " + strconv.Quote(dir) + "; pids=;")
	for i := range int64(parts) {
		fmt.Fprintf(&script, "curl -sf -r %d-%d -o part%02d %s/%s/%s & pids=\"$pids $!\";", i*step, min((i+1)*step, m.sizes[0])-1, i, address, m.name, m.file(0))
	}
	script.WriteString("for p in $pids; do wait $p; done; cat part* >" + m.file(0))
	return timed(ctx, m, dir, "sh", "-c", script.String())
}

func curlFiles(ctx context.Context, address string, m model, dir string) (fetched, error) {
	args := []string{"-sfZ", "--parallel-max", "64", "--output-dir", dir}
	for i := range m.sizes {
		args = append(args, "-o", m.file(i), address+"/"+m.name+"/"+m.file(i))
	}
	return timed(ctx, m, dir, "curl", args...)
}

// aria2With runs aria2c, which with "-k1M" also gives small files all their connections: for eight large ones they are 128.
func aria2With(more ...string) func(context.Context, string, model, string) (fetched, error) {
	return func(ctx context.Context, address string, m model, dir string) (fetched, error) {
		list := filepath.Join(dir, "list")
		var text strings.Builder
		for i := range m.sizes {
			fmt.Fprintf(&text, "%s/%s/%s\n", address, m.name, m.file(i))
		}
		if err := os.WriteFile(list, []byte(text.String()), 0o600); err != nil {
			return fetched{}, err
		}
		// Without allocation, which would write the file twice; -j is how many files at once.
		return timed(ctx, m, dir, "aria2c", append(more, "-q", "-x16", "-s16", "-j16", "--file-allocation=none", "-d", dir, "-i", list)...)
	}
}
