package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// target is one promise, and what became of it in a run.
type target struct {
	What    string `json:"what"`
	Target  string `json:"target"`
	Seen    string `json:"seen"`
	Met     bool   `json:"met"`
	Stretch bool   `json:"stretch,omitempty"` // a wish rather than a promise
}

func (t target) verdict() string {
	switch {
	case t.Met:
		return "met"
	case t.Stretch:
		return "not reached"
	}
	return "**missed**"
}

// targets judges what was measured. Rows that were left out have no targets, and a row in which the gateway gave a wrong answer meets none.
func (r *results) targets() []target {
	var all []target
	add := func(of []sample, stretch bool, what, limit, seen string, met bool) {
		if n := failures(of); n > 0 {
			seen, met = fmt.Sprintf("%s; %d errors", seen, n), false
		}
		all = append(all, target{what, limit, seen, met, stretch})
	}
	// versus adds a target about pairs of us and another, if both were measured.
	versus := func(m map[string][]sample, base string, value func(sample) float64, f func(a, b float64) float64, stretch bool, what, limit, format string, met func(float64) bool) {
		if pairs := against(m[us], m[base], value, f); pairs != nil {
			seen := middle(pairs)
			add(m[us], stretch, what, limit, fmt.Sprintf(format, seen), met(seen))
		}
	}
	most := func(limit float64) func(float64) bool { return func(seen float64) bool { return seen <= limit } }
	least := func(limit float64) func(float64) bool { return func(seen float64) bool { return seen >= limit } }

	versus(r.Plain, bare, perRequest, difference, false, "CPU per request, beyond bare fasthttp", "≤ 4 µs", "%+.1f µs", most(4))
	versus(r.Plain, "haproxy", perRequest, ratio, true, "CPU per request, ÷ HAProxy", "≤ 1.25", "%.2f", most(1.25))
	versus(r.Plain, bare, perSecond, ratio, false, "throughput, ÷ bare fasthttp", "≥ 0.85", "%.2f", least(0.85))
	versus(r.Plain, "haproxy", perSecond, ratio, true, "throughput, ÷ HAProxy", "≥ 0.8", "%.2f", least(0.8))
	versus(r.Latency, bare, p99, difference, false, "p99 at one connection, beyond bare fasthttp", "≤ 40 µs", "%+.0f µs", most(40))
	versus(r.Latency, "direct", p99, difference, true, "p99 at one connection, beyond direct", "≤ 120 µs", "%+.0f µs", most(120))
	versus(r.Frames, bare, perFrame, ratio, false, "CPU per frame, ÷ bare fasthttp", "≤ 1.1", "%.2f", most(1.1))
	versus(r.Frames, "nginx", perFrame, ratio, true, "CPU per frame, ÷ nginx", "≤ 1.1", "%.2f", most(1.1))
	if of := r.Open[us]; len(of) > 0 {
		kib, whole := median(of, perStream), int64(r.OpenStreams)
		for _, s := range of {
			whole = min(whole, s.Requests)
		}
		add(of, false, fmt.Sprintf("memory of %d open streams", r.OpenStreams), "≤ 32 KiB each, every frame in order", fmt.Sprintf("%.1f KiB, %d whole", kib, whole),
			kib <= 32 && whole == int64(r.OpenStreams))
	}
	if h := r.Held; h != nil {
		of, what := []sample{h.sample}, fmt.Sprintf("%d requests held for a cold model: ", r.HeldRequests)
		add(of, false, what+"memory", "≤ 512 MiB", fmt.Sprintf("%.0f MiB", float64(h.Resident)/(1<<20)), h.Resident <= 512<<20)
		add(of, false, what+"CPU", "≤ 5 % of a core", fmt.Sprintf("%.1f %%", 100*h.Share), h.Share <= 0.05)
		add(of, false, what+"heartbeats", "each within 1 s", fmt.Sprintf("%d of %d were not; %s off at most", h.LateBeat, h.Beats, h.OffBeat.Round(time.Millisecond)), h.LateBeat == 0 && h.Beats >= heldBeats*int64(r.HeldRequests))
		add(of, false, what+"lost", "0", fmt.Sprint(int64(r.HeldRequests)-h.Requests), h.Requests == int64(r.HeldRequests))
	}
	for _, g := range r.Growth {
		seen := middle(against(g.Many, g.Few, perRequest, ratio))
		text := fmt.Sprintf("%+.1f %%", 100*(seen-1))
		if bare := against(g.BareMany, g.BareFew, perRequest, ratio); bare != nil {
			text += fmt.Sprintf("; bare fasthttp with as many connections %+.1f %%", 100*(middle(bare)-1))
		}
		add(slices.Concat(g.Few, g.Many), false, "CPU per request, "+g.Name, "± 5 %", text, seen >= 0.95 && seen <= 1.05)
	}
	if len(r.Features) > 0 {
		dearest := slices.MaxFunc(slices.Collect(maps.Keys(r.Features)), func(a, b string) int { return int(r.Features[a] - r.Features[b]) })
		add(nil, false, "each feature, by its benchmark", "≤ 1 µs", fmt.Sprintf("%.2f µs at most, for %s", r.Features[dearest]/1e3, dearest), r.Features[dearest] <= 1e3)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Scan)) {
		// What makes bodies so large is base64; text of that size is a wish.
		if text, ok := strings.CutPrefix(name, "Scan/"); ok {
			beside := r.Scan["EncodingJSON/"+text]
			add(nil, text != "base64/22528KiB", "model found in 22 MB, "+text, "≤ 1.5 ms", fmt.Sprintf("%.1f ms (encoding/json %.0f)", r.Scan[name]/1e6, beside/1e6), r.Scan[name] <= 1.5e6)
		}
	}
	return all
}
