package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// results is all that a run saw; it is what results.json holds.
type results struct {
	Command  string        `json:"command"`
	Begun    time.Time     `json:"begun"`
	Took     time.Duration `json:"took_ns"`
	Rounds   int           `json:"rounds"`
	Machine  string        `json:"machine"`
	Commit   string        `json:"commit"`
	Versions [][2]string   `json:"versions"`
	Missing  []string      `json:"missing,omitempty"`
	Targets  []target      `json:"targets"`

	Plain        map[string][]sample `json:"plain,omitempty"`
	Latency      map[string][]sample `json:"latency,omitempty"`
	Frames       map[string][]sample `json:"frames,omitempty"`
	OpenStreams  int                 `json:"open_streams,omitempty"`
	Open         map[string][]sample `json:"open,omitempty"`
	Growth       []growth            `json:"growth,omitempty"`
	HeldRequests int                 `json:"held_requests,omitempty"`
	Held         *held               `json:"held,omitempty"`
	Switched     []switched          `json:"switched,omitempty"`
	Features     map[string]float64  `json:"features_ns,omitempty"`
	Scan         map[string]float64  `json:"scan_ns,omitempty"`
}

// growth is the same work with little and with much configured. Where much means more connections to engines, each used less often, the
// same is done to a bare proxy: what that grows by is the floor.
type growth struct {
	Name     string   `json:"name"`
	Few      []sample `json:"few"`
	Many     []sample `json:"many"`
	BareFew  []sample `json:"bare_few,omitempty"`
	BareMany []sample `json:"bare_many,omitempty"`
}

// switched is the same work with a feature on; the first of them has none.
type switched struct {
	Name string   `json:"name"`
	Seen []sample `json:"seen"`
}

const us = "pilotlight"

func (r *results) describe(ctx context.Context) error {
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	model := "unknown processor"
	for line := range strings.Lines(string(cpu)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	r.Machine = fmt.Sprintf("%s, %d cores, Linux %s, %s, loopback", model, runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version())
	commit, err := run(ctx, "git", "describe", "--always", "--dirty")
	r.Commit = strings.TrimSpace(commit)
	return err
}
