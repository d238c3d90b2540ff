package load

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText prints the result for people.
func (r *Result) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', tabwriter.AlignRight)
	p := func(format string, args ...any) { fmt.Fprintf(t, format, args...) } // the writer keeps its error for Flush
	p("%s: %d planned, %d sent, %d ok, %d failed, %d dropped in %.1f s\n", r.URL, r.Planned, r.Sent, r.OK, r.Sent-r.OK, r.Dropped, r.Seconds)
	p("%.1f requests/s and %.0f answer tokens/s; fairness among %d tenants %.3f\n", r.RequestsPerSecond, r.TokensPerSecond, len(r.Tenants), r.Fairness)
	if r.Interrupted {
		p("interrupted before the plan's end\n")
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
		if len(list.parts) < 2 {
			continue
		}
		p("\n%s\tsent\tok\ttokens\tfirst token p50\tp99\tend to end p50\tp99\t\n", list.name)
		for _, x := range list.parts {
			p("%s\t%d\t%d\t%d\t%.4f\t%.4f\t%.4f\t%.4f\t\n", x.Name, x.Sent, x.OK, x.Tokens, x.TTFT.P50, x.TTFT.P99, x.EndToEnd.P50, x.EndToEnd.P99)
		}
	}
	if len(r.Errors) > 0 {
		p("\nerror\tcount\t\n")
		for _, class := range slices.SortedFunc(maps.Keys(r.Errors), func(a, b string) int { return cmp.Compare(r.Errors[b], r.Errors[a]) }) {
			p("%s\t%d\t\n", class, r.Errors[class])
		}
		for _, class := range slices.Sorted(maps.Keys(r.Examples)) {
			p("%s, for example: %s\n", class, strings.ReplaceAll(r.Examples[class], "\n", " "))
		}
	}
	return t.Flush()
}

// WriteJSON writes the result as one JSON object.
func (r *Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Charts are drawn by uPlot 1.6.32 (MIT; page/uPlot.LICENSE), which is part of the page: it needs no network.
var (
	//go:embed page/uPlot.iife.min.js
	uplotScript string
	//go:embed page/uPlot.min.css
	uplotStyle string
	//go:embed page/page.html
	pageText string

	page = template.Must(template.New("page").Parse(pageText))
)

// point is a call, for the page.
type point struct {
	At    float64 `json:"at"`
	First float64 `json:"first,omitempty"`
	Total float64 `json:"total"`
	Cold  bool    `json:"cold,omitempty"`
	Error string  `json:"error,omitempty"`
}

// mostPoints bounds the page: beyond it, every n-th call is drawn.
const mostPoints = 50_000

// WriteHTML writes a page with plots that needs nothing else.
func (r *Result) WriteHTML(w io.Writer) error {
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		return err
	}
	step := len(r.Calls)/mostPoints + 1
	points := []point{}
	for i := 0; i < len(r.Calls); i += step {
		c := r.Calls[i]
		points = append(points, point{seconds(c.At), seconds(c.First), seconds(c.Total), c.Cold, c.Error})
	}
	return page.Execute(w, map[string]any{
		"Script": template.JS(uplotScript), "Style": template.CSS(uplotStyle), "Text": text.String(), "Points": points, "Step": step,
		"Begun": r.Begun.UTC().Format(time.RFC3339), "URL": r.URL,
	})
}
