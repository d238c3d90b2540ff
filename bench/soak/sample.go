package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sample is the gateway's process at one moment.
type sample struct {
	Seconds  float64 `json:"seconds"`
	Requests int64   `json:"requests"`
	Resident int64   `json:"resident_bytes"`
	// Heap is what the collector has not freed, Goroutines and Open as the gateway itself says; 0: not asked this time.
	Heap       float64 `json:"heap_bytes,omitempty"`
	Goroutines float64 `json:"goroutines,omitempty"`
	Open       int     `json:"descriptors"`
}

// resident is a process's resident memory in bytes.
func resident(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("statm of %d: %q", pid, text)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// open lists what a process's descriptors are.
func open(pid int) (files []string, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if file, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil { // else closed meanwhile
			files = append(files, file)
		}
	}
	return files, err
}

// cpu is the processor time that a process has used, user's and system's. The kernel counts in hundredths of a second.
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(text), ") ") // the program's name may hold spaces
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("stat of %d: %q", pid, text)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat of %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// watch takes samples until stop. The first error ends it.
func watch(g *gateway, done func() int64, every time.Duration, stop <-chan struct{}) (samples []sample, err error) {
	const pageEvery = 4 // samples: the metrics page costs the gateway as much as some hundred requests
	pid, begin := g.cmd.Process.Pid, time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return samples, nil
		case <-g.ended:
			return samples, fmt.Errorf("the gateway ended: %w\n%s", g.err, g.tail())
		case <-tick.C:
		}
		s := sample{Seconds: time.Since(begin).Seconds(), Requests: done()}
		if s.Resident, err = resident(pid); err != nil {
			return samples, err
		}
		files, err := open(pid)
		if err != nil {
			return samples, err
		}
		s.Open = len(files)
		if n%pageEvery == 0 {
			page, err := g.metrics()
			if err != nil {
				return samples, err
			}
			s.Heap, s.Goroutines = page["go_memstats_heap_alloc_bytes"], page["go_goroutines"]
		}
		samples = append(samples, s)
	}
}

// growth fits a line through the resident memory of all samples from 25 % to 100 % of the requests, and gives its values at both
// ends and its rise in percent. Single samples would tell where the collector happened to stand.
func growth(samples []sample, requests int64) (from, to, percent float64, err error) {
	const atLeast = 20
	first := float64(requests) / 4
	var n, mx, my float64 // count and means
	for _, s := range samples {
		if x := float64(s.Requests); x >= first {
			n++
			mx += (x - mx) / n
			my += (float64(s.Resident) - my) / n
		}
	}
	if n < atLeast {
		return 0, 0, 0, fmt.Errorf("%v samples after the first quarter are too few for a line; run longer", n)
	}
	var sxx, sxy float64
	for _, s := range samples {
		if x := float64(s.Requests); x >= first {
			sxx += (x - mx) * (x - mx)
			sxy += (x - mx) * (float64(s.Resident) - my)
		}
	}
	if sxx == 0 {
		return 0, 0, 0, errors.New("no request ended between the samples")
	}
	at := func(x float64) float64 { return my + sxy/sxx*(x-mx) }
	from, to = at(first), at(float64(requests))
	return from, to, (to/from - 1) * 100, nil
}
