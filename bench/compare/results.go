package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
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

	Plain        map[string][]sample `json:"plain,omitempty"`
	Latency      map[string][]sample `json:"latency,omitempty"`
	Frames       map[string][]sample `json:"frames,omitempty"`
	OpenStreams  int                 `json:"open_streams,omitempty"`
	Open         map[string][]sample `json:"open,omitempty"`
	Growth       []growth            `json:"growth,omitempty"`
	HeldRequests int                 `json:"held_requests,omitempty"`
	Held         *held               `json:"held,omitempty"`
	Features     map[string]float64  `json:"features_ns,omitempty"`
	Scan         map[string]float64  `json:"scan_ns,omitempty"`
}

// growth is the same work with little and with much configured.
type growth struct {
	Name string   `json:"name"`
	Few  []sample `json:"few"`
	Many []sample `json:"many"`
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

func median(of []sample, value func(sample) float64) float64 {
	if len(of) == 0 {
		return 0
	}
	v := make([]float64, len(of))
	for i, s := range of {
		v[i] = value(s)
	}
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// spread is half of what lies between the quartiles, as a share of the median.
func spread(of []sample, value func(sample) float64) float64 {
	v := make([]float64, len(of))
	for i, s := range of {
		v[i] = value(s)
	}
	slices.Sort(v)
	m := median(of, value)
	if len(v) < 2 || m == 0 {
		return 0
	}
	return (v[(3*len(v))/4] - v[len(v)/4]) / 2 / m
}

func perRequest(s sample) float64 {
	return float64(s.CPU.Nanoseconds()) / float64(max(1, s.Requests)) / 1e3
} // µs
func perFrame(s sample) float64 {
	return float64(s.CPU.Nanoseconds()) / float64(max(1, s.Frames)) / 1e3
}                                // µs
func perSecond(s sample) float64 { return float64(s.Requests) / s.Elapsed.Seconds() }
func p99(s sample) float64       { return float64(s.P99.Nanoseconds()) / 1e3 } // µs
func failures(of []sample) (n int64) {
	for _, s := range of {
		n += s.Errors
	}
	return n
}

func order(m map[string][]sample) []string {
	names := slices.Collect(maps.Keys(m))
	slices.SortFunc(names, func(a, b string) int {
		rank := func(name string) int {
			return slices.Index([]string{us, "direct", "fasthttp", "haproxy", "nginx", "nethttp", "smg", "litellm"}, name)
		}
		return rank(a) - rank(b)
	})
	return names
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "**missed**"
}

func (r *results) markdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Beside other proxies\n")
	p("Written by `%s` on %s, commit %s; it took %s. Machine: %s.\n", strings.TrimSpace(r.Command), r.Begun.UTC().Format("2006-01-02"), r.Commit, r.Took.Round(time.Second), r.Machine)
	p("Client, engine and all subjects share the machine; subjects are measured in turn, %d rounds, and figures are medians. CPU is user and system time of a subject's", r.Rounds)
	p("processes. The gateway has API keys, routing, access log to a file, and metrics on; its peers do none of that, but for smg's and litellm's own.\n")
	for _, v := range r.Versions {
		if v[1] != "" {
			p("- %s: %s", v[0], v[1])
		}
	}
	for _, m := range r.Missing {
		p("- not compared: %s", m)
	}
	bare := "fasthttp"
	if m := r.Plain; m != nil {
		p("\n## Requests: 1.0 KB in, 0.6 KB out, 64 connections\n")
		p("| subject | CPU µs/request | ± | requests/s | CPU ratio to bare fasthttp | errors |\n|---|---|---|---|---|---|")
		for _, name := range order(m) {
			p("| %s | %.1f | %.0f %% | %.0f | %.2f | %d |", name, median(m[name], perRequest), 100*spread(m[name], perRequest), median(m[name], perSecond),
				median(m[name], perRequest)/median(m[bare], perRequest), failures(m[name]))
		}
		if len(m[bare]) > 0 {
			more := median(m[us], perRequest) - median(m[bare], perRequest)
			p("\n- CPU: bare fasthttp %+.1f µs (target ≤ +4): %s", more, verdict(more <= 4))
			share := median(m[us], perSecond) / median(m[bare], perSecond)
			p("- throughput: %.2f × bare fasthttp (target ≥ 0.85): %s", share, verdict(share >= 0.85))
		}
		if len(m["haproxy"]) > 0 {
			p("- stretch: CPU %.2f × HAProxy (≤ 1.25), throughput %.2f × HAProxy (≥ 0.8)", median(m[us], perRequest)/median(m["haproxy"], perRequest),
				median(m[us], perSecond)/median(m["haproxy"], perSecond))
		}
	}
	if m := r.Latency; m != nil {
		p("\n## Latency: the same request, one connection\n")
		p("| subject | p50 µs | p99 µs | p99 beyond direct | errors |\n|---|---|---|---|---|")
		for _, name := range order(m) {
			p("| %s | %.0f | %.0f | %+.0f | %d |", name, median(m[name], func(s sample) float64 { return float64(s.P50.Nanoseconds()) / 1e3 }), median(m[name], p99),
				median(m[name], p99)-median(m["direct"], p99), failures(m[name]))
		}
		if len(m[bare]) > 0 {
			more := median(m[us], p99) - median(m[bare], p99)
			p("\n- p99: bare fasthttp %+.0f µs (target ≤ +40): %s", more, verdict(more <= 40))
		}
	}
	if m := r.Frames; m != nil {
		p("\n## Streams: 400 at once, 50 frames a second each\n")
		p("| subject | CPU µs/frame | ± | ratio to bare fasthttp | ratio to nginx | frames | errors |\n|---|---|---|---|---|---|---|")
		for _, name := range order(m) {
			p("| %s | %.1f | %.0f %% | %.2f | %.2f | %.0f | %d |", name, median(m[name], perFrame), 100*spread(m[name], perFrame), median(m[name], perFrame)/median(m[bare], perFrame),
				median(m[name], perFrame)/max(1e-9, median(m["nginx"], perFrame)), median(m[name], func(s sample) float64 { return float64(s.Frames) }), failures(m[name]))
		}
		if len(m[bare]) > 0 {
			ratio := median(m[us], perFrame) / median(m[bare], perFrame)
			p("\n- CPU per frame: %.2f × bare fasthttp (target ≤ 1.1): %s", ratio, verdict(ratio <= 1.1))
		}
	}
	if m := r.Open; m != nil {
		p("\n## Memory: %d open streams, one frame a second each\n", r.OpenStreams)
		p("| subject | resident KiB per stream | streams whole and in order | frames | errors |\n|---|---|---|---|---|")
		for _, name := range order(m) {
			s := m[name][0]
			p("| %s | %.1f | %d | %d | %d |", name, float64(s.Grown)/1024/float64(r.OpenStreams), s.Requests, s.Frames, s.Errors)
		}
		s := m[us][0]
		p("\n- %.1f KiB each (target ≤ 32), all frames in order: %s", float64(s.Grown)/1024/float64(r.OpenStreams),
			verdict(float64(s.Grown)/1024/float64(r.OpenStreams) <= 32 && s.Errors == 0))
	}
	if h := r.Held; h != nil {
		p("\n## Waiting: %d requests of 4 KiB held for a model that takes 40 s to start\n", r.HeldRequests)
		p("- resident %.0f MiB at most (target ≤ 512), %.1f %% of one core while all wait (target ≤ 5), %d of %d heartbeats more than a second early or late, %d lost: %s", float64(h.Resident)/(1<<20), 100*h.Share,
			h.LateBeat, h.Beats, h.Errors, verdict(h.Resident <= 512<<20 && h.Share <= 0.05 && h.LateBeat == 0 && h.Errors == 0))
	}
	if len(r.Growth) > 0 {
		p("\n## Growth: CPU per request with little and with much configured\n")
		p("| from → to | µs | µs | ratio |\n|---|---|---|---|")
		for _, g := range r.Growth {
			few, many := median(g.Few, perRequest), median(g.Many, perRequest)
			p("| %s | %.1f | %.1f | %.3f |", g.Name, few, many, many/few)
		}
	}
	for _, t := range []struct {
		title string
		from  map[string]float64
	}{{"What each feature costs: Go benchmarks on one core (target ≤ 1 µs each)", r.Features}, {"Finding the model in a 22 MB body (target ≤ 1.5 ms, strict)", r.Scan}} {
		if len(t.from) > 0 {
			p("\n## %s\n\n| benchmark | µs |\n|---|---|", t.title)
			for _, name := range slices.Sorted(maps.Keys(t.from)) {
				p("| %s | %.2f |", name, t.from[name]/1e3)
			}
		}
	}
	return b.String()
}
