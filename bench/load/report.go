package load

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// WriteText prints the result for people.
func (r *Result) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', tabwriter.AlignRight)
	p := func(format string, args ...any) { fmt.Fprintf(t, format, args...) } // the writer keeps its error for Flush
	p("%s: %d planned, %d sent, %d ok, %d failed, %d dropped in %.1f s\n", r.URL, r.Planned, r.Sent, r.OK, r.Failed, r.Dropped, r.Seconds)
	p("%.1f requests/s and %.0f answer tokens/s; %d of the answers were cold\n", r.RequestsPerSecond, r.TokensPerSecond, r.Cold)
	if f := r.Fairness; f != nil {
		p("fairness among %d tenants: tokens %.3f, time %.3f; slowest 1 %% of %s takes %.2f times the least\n", len(r.Tenants), f.Tokens, f.Time, cmp.Or(f.Slowest, "nobody"), f.Ratio)
	}
	if r.Interrupted {
		p("interrupted before the plan's end; %d in flight were cancelled\n", r.Cancelled)
	}
	p("\nseconds\tcount\tmean\tp50\tp90\tp95\tp99\tp99.9\tmax\t\n")
	for _, q := range []struct {
		name string
		Quantiles
	}{{"first token", r.TTFT}, {"between tokens", r.InterToken}, {"end to end", r.EndToEnd}, {"cold: first token", r.ColdTTFT}, {"cold: end to end", r.ColdEnd}, {"generator late by", r.Late}} {
		if q.Count > 0 {
			p("%s\t%d\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t\n", q.name, q.Count, q.Mean, q.P50, q.P90, q.P95, q.P99, q.P999, q.Max)
		}
	}
	for _, list := range []struct {
		name  string
		parts []Part
	}{{"model", r.Models}, {"tenant", r.Tenants}} {
		if len(list.parts) > 1 {
			writeParts(p, list.name, list.parts)
		}
	}
	if len(r.Errors) > 0 {
		p("\nerror\tcount\t\n")
		for _, class := range slices.SortedFunc(maps.Keys(r.Errors), func(a, b string) int { return cmp.Or(cmp.Compare(r.Errors[b], r.Errors[a]), cmp.Compare(a, b)) }) {
			p("%s\t%d\t\n", class, r.Errors[class])
		}
		for _, class := range slices.Sorted(maps.Keys(r.Examples)) {
			p("%s, for example: %s\n", class, r.Examples[class])
		}
	}
	return t.Flush()
}

// mostParts bounds the table's models and tenants; JSON has all.
const mostParts = 40

func writeParts(p func(string, ...any), name string, parts []Part) {
	p("\n%s\tsent\tok\tfailed\tdropped\ttokens\tfirst token p50\tp99\tend to end p50\tp99\tcold\tp50\tp99\t\n", name)
	for _, x := range parts[:min(len(parts), mostParts)] {
		p("%s\t%d\t%d\t%d\t%d\t%d\t%.4f\t%.4f\t%.4f\t%.4f\t%d\t%.4f\t%.4f\t\n", printable(x.Name), x.Sent, x.OK, x.Failed, x.Dropped, x.Tokens,
			x.TTFT.P50, x.TTFT.P99, x.EndToEnd.P50, x.EndToEnd.P99, x.Cold, x.ColdEnd.P50, x.ColdEnd.P99)
	}
	if more := len(parts) - mostParts; more > 0 {
		p("and %d more\n", more)
	}
}

// WriteJSON writes the result as one JSON object.
func (r *Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
