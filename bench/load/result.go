package load

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Result is what a run saw. All durations are in seconds; it is what the JSON output holds.
type Result struct {
	URL         string    `json:"url"`
	Begun       time.Time `json:"begun"`
	Seconds     float64   `json:"seconds"`
	Planned     int       `json:"planned"`
	Sent        int       `json:"sent"` // Warmup's not counted, as in all figures below
	OK          int       `json:"ok"`
	Dropped     int       `json:"dropped"`     // not sent, because too many were in flight
	Interrupted bool      `json:"interrupted"` // ended before the plan
	// Errors by class; Examples has one of each.
	Errors   map[string]int    `json:"errors"`
	Examples map[string]string `json:"examples,omitempty"`

	RequestsPerSecond float64 `json:"requests_per_second"` // answered whole
	TokensPerSecond   float64 `json:"tokens_per_second"`   // of answers

	Late       Quantiles `json:"late"`        // of the generator itself
	TTFT       Quantiles `json:"ttft"`        // streams that were not cold
	InterToken Quantiles `json:"inter_token"` // between events of streams
	EndToEnd   Quantiles `json:"end_to_end"`  // requests that were not cold
	ColdTTFT   Quantiles `json:"cold_ttft"`   // streams whose model was not ready
	ColdEnd    Quantiles `json:"cold_end_to_end"`

	Models  []Part `json:"models"`
	Tenants []Part `json:"tenants"`
	// Fairness is Jain's index over the tenants' answer tokens per request sent: 1 when all got the same, 1/n when one got all.
	Fairness float64 `json:"fairness"`

	Calls []Call `json:"-"`
}

// Part is one model's or tenant's share.
type Part struct {
	Name     string    `json:"name"`
	Sent     int       `json:"sent"`
	OK       int       `json:"ok"`
	Tokens   int       `json:"tokens"`
	TTFT     Quantiles `json:"ttft"`
	EndToEnd Quantiles `json:"end_to_end"`
}

// Quantiles of a duration in seconds. Count 0 means that nothing was measured.
type Quantiles struct {
	Count int     `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9"`
	Max   float64 `json:"max"`
}

// histogram holds microseconds up to a day, exact to three digits.
type histogram struct{ h *hdrhistogram.Histogram }

func newHistogram() histogram {
	return histogram{hdrhistogram.New(1, (24 * time.Hour).Microseconds(), 3)}
}

func (h histogram) add(d time.Duration) {
	us := min(max(d.Microseconds(), 1), (24 * time.Hour).Microseconds())
	if err := h.h.RecordValue(us); err != nil {
		panic("BUG: the value was clamped: " + err.Error())
	}
}

func (h histogram) quantiles() Quantiles {
	n := h.h.TotalCount()
	if n == 0 {
		return Quantiles{}
	}
	at := func(q float64) float64 { return float64(h.h.ValueAtQuantile(q)) / 1e6 }
	return Quantiles{int(n), h.h.Mean() / 1e6, at(50), at(90), at(95), at(99), at(99.9), float64(h.h.Max()) / 1e6}
}

func (r *run) result(interrupted bool) *Result {
	slices.SortFunc(r.calls, func(a, b Call) int { return cmp.Compare(a.At, b.At) })
	res := &Result{URL: r.o.URL, Begun: r.start, Seconds: seconds(r.end.Sub(r.start)), Planned: len(r.o.Plan), Dropped: r.dropped, Interrupted: interrupted,
		Errors: map[string]int{}, Examples: map[string]string{}}
	all := map[string]*histogram{}
	for _, name := range []string{"late", "ttft", "gap", "end", "coldttft", "coldend"} {
		h := newHistogram()
		all[name] = &h
	}
	models, tenants := map[string]*tally{}, map[string]*tally{}
	tokens := 0
	for _, c := range r.calls {
		if c.At < r.o.Warmup {
			continue
		}
		res.Calls = append(res.Calls, c)
		res.Sent++
		all["late"].add(c.Late)
		of := []*tally{part(models, c.Model), part(tenants, c.Tenant)}
		for _, t := range of {
			t.Sent++
		}
		if c.Error != "" {
			res.Errors[c.Error]++
			if res.Examples[c.Error] == "" {
				res.Examples[c.Error] = c.Detail
			}
			continue
		}
		res.OK++
		tokens += c.AnswerTokens
		first, end := "ttft", "end"
		if c.Cold {
			first, end = "coldttft", "coldend"
		}
		all[end].add(c.Total)
		if c.First > 0 {
			all[first].add(c.First)
		}
		for _, gap := range c.Gaps {
			all["gap"].add(gap)
		}
		for _, t := range of {
			t.OK++
			t.Tokens += c.AnswerTokens
			t.end.add(c.Total)
			if c.First > 0 {
				t.first.add(c.First)
			}
		}
	}
	if s := r.end.Sub(r.start).Seconds() - min(r.o.Warmup, r.end.Sub(r.start)).Seconds(); s > 0 {
		res.RequestsPerSecond, res.TokensPerSecond = float64(res.OK)/s, float64(tokens)/s
	}
	res.Late, res.TTFT, res.InterToken = all["late"].quantiles(), all["ttft"].quantiles(), all["gap"].quantiles()
	res.EndToEnd, res.ColdTTFT, res.ColdEnd = all["end"].quantiles(), all["coldttft"].quantiles(), all["coldend"].quantiles()
	res.Models, res.Tenants = parts(models), parts(tenants)
	var got []float64
	for _, t := range res.Tenants {
		got = append(got, float64(t.Tokens)/float64(max(1, t.Sent)))
	}
	res.Fairness = Jain(got)
	return res
}

type tally struct {
	Part
	first, end histogram
}

func part(m map[string]*tally, name string) *tally {
	t := m[name]
	if t == nil {
		t = &tally{Part: Part{Name: name}, first: newHistogram(), end: newHistogram()}
		m[name] = t
	}
	return t
}

func parts(m map[string]*tally) []Part {
	var list []Part
	for _, name := range slices.Sorted(maps.Keys(m)) {
		t := m[name]
		t.TTFT, t.EndToEnd = t.first.quantiles(), t.end.quantiles()
		list = append(list, t.Part)
	}
	return list
}

// Jain is Jain's fairness index of what each got: (Σx)² / (n·Σx²). Of nothing it is 1.
func Jain(got []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, x := range got {
		sum += x
		squares += x * x
	}
	if squares == 0 {
		return 1
	}
	return sum * sum / (float64(len(got)) * squares)
}
