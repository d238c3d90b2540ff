package load

import (
	"cmp"
	"slices"
	"time"
)

// Result is what a run saw, and the schema of the JSON output. Durations are in seconds. Requests of the warm-up are left out everywhere.
type Result struct {
	URL   string    `json:"url"`
	Begun time.Time `json:"begun"`
	// Seconds from the end of the warm-up to the end of the last answer.
	Seconds     float64 `json:"seconds"`
	Interrupted bool    `json:"interrupted"` // ended before the plan
	Planned     int     `json:"planned"`
	Counts
	// Errors of failed requests by class; Examples has the detail of one of each.
	Errors   map[string]int    `json:"errors"`
	Examples map[string]string `json:"examples,omitempty"`

	RequestsPerSecond float64 `json:"requests_per_second"` // answered whole
	TokensPerSecond   float64 `json:"tokens_per_second"`   // of those answers

	// Late is by how much the generator itself missed the planned times. It is part of the latencies below.
	Late Quantiles `json:"late"`
	Latencies

	Models  []Part `json:"models"`
	Tenants []Part `json:"tenants"`
	// Fairness among the tenants; nil: there is only one.
	Fairness *Fairness `json:"fairness,omitempty"`
	// Series shows the run over time.
	Series []Bucket `json:"series"`

	calls  []Call // by planned time
	curves []curve
}

// Counts of requests. Sent = OK + Failed + Cancelled.
type Counts struct {
	Sent   int `json:"sent"`
	OK     int `json:"ok"`
	Failed int `json:"failed"`
	// Cancelled were in flight when the run was interrupted.
	Cancelled int `json:"cancelled"`
	// Dropped were planned and not sent, because too many were in flight.
	Dropped int `json:"dropped"`
	Cold    int `json:"cold"` // of OK
	// PromptTokens and Tokens (of answers) are what the usage of whole answers says; without one, a stream's events count as tokens.
	PromptTokens int `json:"prompt_tokens"`
	Tokens       int `json:"tokens"`
}

// Latencies of whole answers, from the planned times on.
type Latencies struct {
	TTFT       Quantiles `json:"ttft"`        // first token of streams that were not cold
	InterToken Quantiles `json:"inter_token"` // between the events of a stream, cold ones too
	EndToEnd   Quantiles `json:"end_to_end"`  // not cold
	ColdTTFT   Quantiles `json:"cold_ttft"`   // first token of streams whose model was not ready
	ColdEnd    Quantiles `json:"cold_end_to_end"`
}

func (n *Counts) add(c *Call) {
	switch c.Error {
	case errDropped:
		n.Dropped++
		return
	case "":
		n.OK++
		n.PromptTokens += c.PromptTokens
		n.Tokens += c.AnswerTokens
		if c.Cold {
			n.Cold++
		}
	case errCancelled:
		n.Cancelled++
	default:
		n.Failed++
	}
	n.Sent++
}

// result is called once, after the last request's end.
func (r *record) result(of *run, interrupted bool) *Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortStableFunc(r.calls, func(a, b Call) int { return cmp.Compare(a.At, b.At) })
	measured := max(0, of.end.Sub(of.start)-r.warmup).Seconds()
	res := &Result{URL: of.o.URL, Begun: of.start, Seconds: measured, Interrupted: interrupted, Errors: map[string]int{}, Examples: map[string]string{}, calls: r.calls}
	for _, a := range of.o.Plan {
		if a.At >= r.warmup {
			res.Planned++
		}
	}
	m, late := newMeter(), newHistogram(fine)
	models, tenants := map[string][]*Call{}, map[string][]*Call{}
	for i := range r.calls {
		c := &r.calls[i]
		res.add(c)
		models[c.Model] = append(models[c.Model], c)
		tenants[c.Tenant] = append(tenants[c.Tenant], c)
		if c.Error != errDropped {
			late.add(c.Late)
		}
		switch c.Error {
		case "":
			m.add(c)
		case errDropped, errCancelled:
		default:
			res.Errors[c.Error]++
			if res.Examples[c.Error] == "" {
				res.Examples[c.Error] = c.Detail
			}
		}
	}
	if measured > 0 {
		res.RequestsPerSecond, res.TokensPerSecond = float64(res.OK)/measured, float64(res.Tokens)/measured
	}
	res.Late, res.Latencies = late.quantiles(), m.latencies(r.gaps.quantiles())
	res.curves = []curve{curveOf("first token", m.first), curveOf("between tokens", r.gaps), curveOf("end to end", m.end),
		curveOf("cold: first token", m.coldFirst), curveOf("cold: end to end", m.coldEnd)}
	res.Series = series(r.calls)
	byModel, byTenant := parts(models, r.byModel, m), parts(tenants, r.byTenant, m)
	res.Models, res.Tenants, res.Fairness = named(byModel), named(byTenant), fairness(byTenant)
	return res
}
