package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

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

// bare is the subject that most targets are held against.
const bare = "fasthttp"

// times writes the median of ratios; a dash if there is none.
func times(ratios []float64) string {
	if len(ratios) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", middle(ratios))
}

func (r *results) markdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Beside other proxies\n")
	p("Written by `%s` on %s, commit %s; it took %s. Machine: %s.\n", strings.TrimSpace(r.Command), r.Begun.UTC().Format("2006-01-02"), r.Commit, r.Took.Round(time.Second), r.Machine)
	p("Client, engine and all subjects share the machine; subjects are measured in turn, %d rounds, and figures are medians. Ratios and differences are medians over", r.Rounds)
	p("pairs of one round; ± is half of what lies between the quartiles. CPU is user and system time of a subject's processes. The gateway has API keys, routing, an access")
	p("log to a file, and metrics on; its peers do none of that, but for smg's and litellm's own.\n")
	for _, v := range r.Versions {
		p("- %s: %s", v[0], v[1])
	}
	for _, m := range r.Missing {
		p("- not compared: %s", m)
	}
	if len(r.Targets) > 0 {
		p("\n## Targets\n\n| what | target | seen | |\n|---|---|---|---|")
		for _, t := range r.Targets {
			p("| %s | %s | %s | %s |", t.What, t.Target, t.Seen, t.verdict())
		}
	}
	if m := r.Plain; m != nil {
		p("\n## Requests: 1.0 KB in, 0.6 KB out, 64 connections\n")
		p("| subject | CPU µs/request | ± | requests/s | CPU ÷ bare fasthttp | ± | errors |\n|---|---|---|---|---|---|---|")
		for _, name := range order(m) {
			of := against(m[name], m[bare], perRequest, ratio)
			p("| %s | %.1f | %.0f %% | %.0f | %s | %.0f %% | %d |", name, median(m[name], perRequest), 100*spread(m[name], perRequest), median(m[name], perSecond),
				times(of), 100*deviation(of), failures(m[name]))
		}
	}
	if m := r.Latency; m != nil {
		p("\n## Latency: the same request, one connection\n")
		p("| subject | p50 µs | p99 µs | ± | p99 beyond direct, µs | errors |\n|---|---|---|---|---|---|")
		for _, name := range order(m) {
			p("| %s | %.0f | %.0f | %.0f %% | %+.0f | %d |", name, median(m[name], p50), median(m[name], p99), 100*spread(m[name], p99),
				middle(against(m[name], m["direct"], p99, difference)), failures(m[name]))
		}
	}
	if m := r.Frames; m != nil {
		p("\n## Streams: 400 at once, 50 frames a second each\n")
		p("| subject | CPU µs/frame | ± | ÷ bare fasthttp | ÷ nginx | streams | frames | errors |\n|---|---|---|---|---|---|---|---|")
		for _, name := range order(m) {
			p("| %s | %.1f | %.0f %% | %s | %s | %.0f | %.0f | %d |", name, median(m[name], perFrame), 100*spread(m[name], perFrame),
				times(against(m[name], m[bare], perFrame, ratio)), times(against(m[name], m["nginx"], perFrame, ratio)),
				median(m[name], requests), median(m[name], frames), failures(m[name]))
		}
	}
	if m := r.Open; m != nil {
		p("\n## Memory: %d open streams, one frame a second each\n", r.OpenStreams)
		p("| subject | resident KiB per whole stream | ± | streams whole and in order | frames | errors |\n|---|---|---|---|---|---|")
		for _, name := range order(m) {
			p("| %s | %.1f | %.0f %% | %.0f | %.0f | %d |", name, median(m[name], perStream), 100*spread(m[name], perStream), median(m[name], requests), median(m[name], frames), failures(m[name]))
		}
	}
	if h := r.Held; h != nil {
		p("\n## Waiting: %d requests of 4 KiB held for a model that takes %s to start\n", r.HeldRequests, heldFor)
		p("Resident %.0f MiB at most, %.1f %% of one core while all wait; %d answered, %d lost; %d heartbeats, each %s after the one before, %d of them more than a second early or late, and %s the most.",
			float64(h.Resident)/(1<<20), 100*h.Share, h.Requests, h.Errors, h.Beats, heldBeat, h.LateBeat, h.OffBeat.Round(time.Millisecond))
	}
	if len(r.Growth) > 0 {
		p("\n## Growth: CPU per request with little and with much configured\n")
		p("| from → to | µs | µs | ratio | ± | errors |\n|---|---|---|---|---|---|")
		line := func(name string, few, many []sample) {
			of := against(many, few, perRequest, ratio)
			p("| %s | %.1f | %.1f | %.3f | %.1f %% | %d |", name, median(few, perRequest), median(many, perRequest), middle(of), 100*deviation(of), failures(few)+failures(many))
		}
		for _, g := range r.Growth {
			line(g.Name, g.Few, g.Many)
			if len(g.BareMany) > 0 {
				line("the same connections, bare fasthttp", g.BareFew, g.BareMany)
			}
		}
	}
	if len(r.Switched) > 0 {
		p("\n## What each feature costs: the whole gateway with some of them on\n")
		p("| on | CPU µs/request | beyond none, µs | ± | errors |\n|---|---|---|---|---|")
		for _, s := range r.Switched {
			more := against(s.Seen, r.Switched[0].Seen, perRequest, difference)
			p("| %s | %.1f | %+.2f | %.2f | %d |", s.Name, median(s.Seen, perRequest), middle(more), quartile(more), failures(s.Seen))
		}
	}
	for _, t := range []struct {
		title string
		from  map[string]float64
	}{{"What each feature costs: Go benchmarks on one core", r.Features}, {"Finding the model in a 22 MB body", r.Scan}} {
		if len(t.from) > 0 {
			p("\n## %s\n\n| benchmark | µs |\n|---|---|", t.title)
			for _, name := range slices.Sorted(maps.Keys(t.from)) {
				p("| %s | %.2f |", name, t.from[name]/1e3)
			}
		}
	}
	return b.String()
}
