package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"
)

func (r row) server() string {
	if r.limited {
		return "4 MB/s a connection, 30 ms"
	}
	return "no limits"
}

// best is the fastest of the others.
func (r row) best() (name string, seconds float64) {
	for _, c := range clients() {
		if seen := r.seen[c.name]; len(seen) > 0 && c.name != ours && c.name != unverified {
			if s := median(seen); name == "" || s < seconds {
				name, seconds = c.name, s
			}
		}
	}
	return name, seconds
}

func (r row) table() string {
	var b strings.Builder
	for _, c := range clients() {
		if seen := r.seen[c.name]; len(seen) > 0 {
			s := median(seen)
			fmt.Fprintf(&b, "| %s | %s | %s | %.2f | %.0f |\n", r.model.what, r.server(), c.name, s, float64(r.model.total())/1e6/s)
		}
	}
	return b.String()
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "**missed**"
}

func (r result) text(o options) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Fetching a model\n")
	p("Written by `%s` on %s; it took %s. Machine: %d cores, loopback, %s; server and clients share it, and its load average was %s before and %s after. Medians of %d rounds, in turns; whole processes, from start to end.", o.command,
		r.began.UTC().Format("2006-01-02"), time.Since(r.began).Round(time.Second), runtime.NumCPU(), runtime.Version(), r.load[0], r.load[1], o.rounds)
	p("Ours checks every byte against SHA256SUMS and flushes to disk before it ends; curl and aria2c do neither. What is fetched \"unverified\" is ours without the check, and is not published.")
	p("With -k1M aria2c gives each of eight files 16 connections, 128 at once; ours begins with 16 and stops at 96. Without limits, server and client keep all cores busy, so that the")
	p("check, which is one SHA-256 per byte in parallel to everything else, takes its processor time from them; where the network is the limit it does not.\n")
	p("| what | target | seen | |\n|---|---|---|---|")
	for _, row := range r.rows {
		mine := median(row.seen[ours])
		name, s := row.best()
		p("| %s, %s: rate ÷ the best other | ≥ 0.8 | %.2f (%s) | %s |", row.model.what, row.server(), s/mine, name, verdict(s/mine >= 0.8))
	}
	for _, row := range r.rows {
		cost := median(row.seen[ours])/median(row.seen[unverified]) - 1
		p("| %s, %s: time that the check adds | ≤ 10 %% | %+.1f %% | %s |", row.model.what, row.server(), 100*cost, verdict(cost <= 0.1))
	}
	most := int64(0)
	for _, row := range r.rows {
		for _, f := range row.seen[ours] {
			most = max(most, f.PeakKiB)
		}
	}
	p("| memory (VmHWM) of any fetch above | ≤ 64 MiB | %.1f MiB | %s |", float64(most)/1024, verdict(most <= 64<<10))
	for _, k := range r.peaks {
		p("| memory (VmHWM), one file of %d MiB, no limits | ≤ 64 MiB | %.1f MiB (%.0f MB/s) | %s |", k.bytes>>20, float64(k.PeakKiB)/1024, float64(k.bytes)/1e6/k.Seconds, verdict(k.PeakKiB <= 64<<10))
	}
	p("\n| model | server | client | s | MB/s |\n|---|---|---|---|---|")
	for _, row := range r.rows {
		b.WriteString(row.table())
	}
	return b.String()
}

// The part of RESULTS.md that is ours lies between these lines.
const (
	begin = "<!-- begin: bench/prefetch -->\n"
	end   = "<!-- end: bench/prefetch -->\n"
)

// insert replaces our part of a file, or adds it at the end.
func insert(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before, rest, found := strings.Cut(string(old), begin)
	after := ""
	if found {
		if _, after, found = strings.Cut(rest, end); !found {
			return fmt.Errorf("%s: the line %q is missing", file, strings.TrimSpace(end))
		}
	} else if before != "" {
		before = strings.TrimRight(before, "\n") + "\n\n"
	}
	return os.WriteFile(file, []byte(before+begin+text+end+after), 0o644)
}
