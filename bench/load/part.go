package load

import (
	"maps"
	"slices"
)

// Part is one model's or tenant's share.
type Part struct {
	Name string `json:"name"`
	Counts
	Latencies
}

// Fairness compares tenants. Jain's index is 1 when all got the same, and 1/n when one of n got all.
type Fairness struct {
	// Tokens is Jain's index over each tenant's answer tokens per token it asked for (max_tokens, dropped requests too).
	Tokens float64 `json:"tokens_jain"`
	// Time is Jain's index over each tenant's mean time to the end, cold answers too. Who has no answer is left out.
	Time float64 `json:"time_jain"`
	// Slowest is the tenant with the highest 99th percentile of the time to the end, and Ratio by how much it exceeds the lowest.
	Slowest string  `json:"slowest"`
	Ratio   float64 `json:"slowest_ratio"`
}

// meter measures one group of calls after the other.
type meter struct{ first, end, coldFirst, coldEnd, all histogram }

func newMeter() *meter {
	return &meter{newHistogram(fine), newHistogram(fine), newHistogram(fine), newHistogram(fine), newHistogram(fine)}
}

func (m *meter) reset() {
	for _, h := range []histogram{m.first, m.end, m.coldFirst, m.coldEnd, m.all} {
		h.h.Reset()
	}
}

func (m *meter) add(c *Call) {
	first, end := m.first, m.end
	if c.Cold {
		first, end = m.coldFirst, m.coldEnd
	}
	m.all.add(c.Total)
	end.add(c.Total)
	if c.First > 0 {
		first.add(c.First)
	}
}

func (m *meter) latencies(gaps Quantiles) Latencies {
	return Latencies{m.first.quantiles(), gaps, m.end.quantiles(), m.coldFirst.quantiles(), m.coldEnd.quantiles()}
}

// portion is a Part with what fairness is judged by.
type portion struct {
	Part
	asked    int     // tokens of answers
	mean     float64 // seconds to the end, of warm and cold answers
	slowest1 float64 // of a hundred, likewise
}

// parts measures each group, by name. It uses m and leaves it as it comes.
func parts(groups map[string][]*Call, gaps map[string]histogram, m *meter) (list []portion) {
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		p := portion{Part: Part{Name: name}}
		m.reset()
		for _, c := range groups[name] {
			p.add(c)
			p.asked += c.MaxTokens
			if c.Error == "" {
				m.add(c)
			}
		}
		var between Quantiles
		if h, ok := gaps[name]; ok {
			between = h.quantiles()
		}
		all := m.all.quantiles()
		p.Latencies, p.mean, p.slowest1 = m.latencies(between), all.Mean, all.P99
		list = append(list, p)
	}
	return list
}

func named(list []portion) []Part {
	var parts []Part
	for _, p := range list {
		parts = append(parts, p.Part)
	}
	return parts
}

func fairness(tenants []portion) *Fairness {
	if len(tenants) < 2 {
		return nil
	}
	var f Fairness
	var tokens, times []float64
	var lowest, highest float64
	for _, t := range tenants {
		tokens = append(tokens, float64(t.Tokens)/float64(max(1, t.asked)))
		if t.OK == 0 {
			continue
		}
		times = append(times, t.mean)
		if lowest == 0 || t.slowest1 < lowest {
			lowest = t.slowest1
		}
		if t.slowest1 > highest {
			highest, f.Slowest = t.slowest1, t.Name
		}
	}
	f.Tokens, f.Time = Jain(tokens), Jain(times)
	if lowest > 0 {
		f.Ratio = highest / lowest
	}
	return &f
}

// Jain is Jain's fairness index of what each got (Jain, Chiu, Hawe: DEC-TR-301, 1984): (Σx)² / (n·Σx²). Where nobody got anything it is 1.
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
