package load

import (
	_ "embed"
	"html/template"
	"io"
	"math"
	"strings"
	"time"
)

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

// point is a call, for the page. Times are in seconds, to the microsecond.
type point struct {
	At    float64 `json:"at"`
	First float64 `json:"first,omitempty"`
	Total float64 `json:"total"`
	Cold  bool    `json:"cold,omitempty"`
	Error bool    `json:"error,omitempty"`
}

// mostPoints bounds the points of each kind: beyond it, every n-th call is drawn.
const mostPoints = 10_000

// points are the calls to be drawn, and the n of every n-th, of answers and of failures: a few failures among many answers are all seen.
func points(calls []Call) (list []point, answers, failures int) {
	ok, failed := 0, 0
	for i := range calls {
		switch calls[i].Error {
		case "":
			ok++
		case errDropped, errCancelled:
		default:
			failed++
		}
	}
	answers, failures = 1+max(0, ok-1)/mostPoints, 1+max(0, failed-1)/mostPoints
	list = []point{}
	ok, failed = 0, 0
	for i := range calls {
		n, step := &ok, answers
		switch calls[i].Error {
		case "":
		case errDropped, errCancelled:
			continue
		default:
			n, step = &failed, failures
		}
		if *n++; (*n-1)%step == 0 {
			c := &calls[i]
			list = append(list, point{seconds(c.At), seconds(c.First), seconds(c.Total), c.Cold, c.Error != ""})
		}
	}
	return list, answers, failures
}

// seconds is d to the microsecond.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1e6 }

// curve is a distribution: Seconds[i] is not exceeded by the share shares[i] of what was measured.
type curve struct {
	Name    string     `json:"name"`
	Seconds []*float64 `json:"seconds"` // null where too little was measured to say
}

// nines are the places of a curve, as -log10(1 - share): 1 is 90 %, 2 is 99 %. So the far end, which matters, is as wide as the rest. The
// first is 10.9 %: of the very fastest there is little to learn.
var nines = func() (list []float64) {
	for i := 1; i <= 80; i++ {
		list = append(list, float64(i)/20)
	}
	return list
}()

// curveOf reads the places off h. Beyond the last measurement there is nothing to read: 100 of them say nothing about 99.9 %.
func curveOf(name string, h histogram) curve {
	c := curve{Name: name, Seconds: make([]*float64, len(nines))}
	for i, n := range nines {
		rest := math.Pow(10, -n)
		if rest*float64(h.h.TotalCount()) < 1-1e-9 {
			break
		}
		v := h.at(1 - rest)
		c.Seconds[i] = &v
	}
	return c
}

// WriteHTML writes a page with plots that needs nothing else.
func (r *Result) WriteHTML(w io.Writer) error {
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		return err
	}
	list, answers, failures := points(r.calls)
	curves := []curve{}
	for _, c := range r.curves {
		if c.Seconds[0] != nil {
			curves = append(curves, c)
		}
	}
	return page.Execute(w, map[string]any{
		"Script": template.JS(uplotScript), "Style": template.CSS(uplotStyle), "Text": text.String(), "Begun": r.Begun.UTC().Format(time.RFC3339), "URL": r.URL,
		"Points": list, "Answers": answers, "Failures": failures, "Series": r.Series, "Nines": nines, "Curves": curves,
	})
}
