package main

import "slices"

// middle is the median of v, which is left alone; 0 for none.
func middle(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// quartile is half of what lies between the quartiles of v; 0 for fewer than two.
func quartile(v []float64) float64 {
	if len(v) < 2 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(3*len(v))/4] - v[len(v)/4]) / 2
}

// deviation is the quartile as a share of the median; 0 if that is 0.
func deviation(v []float64) float64 { return ratio(quartile(v), middle(v)) }

func values(of []sample, value func(sample) float64) []float64 {
	v := make([]float64, len(of))
	for i, s := range of {
		v[i] = value(s)
	}
	return v
}

func median(of []sample, value func(sample) float64) float64 { return middle(values(of, value)) }

func spread(of []sample, value func(sample) float64) float64 { return deviation(values(of, value)) }

// against pairs the rounds of two subjects and applies f to each pair: what disturbs the machine for longer than a round disturbs both of
// a pair, and less of it is left in a ratio than in a ratio of medians. A subject with other rounds than its base is held against
// the base's median. None if either has none.
func against(of, base []sample, value func(sample) float64, f func(a, b float64) float64) []float64 {
	if len(of) == 0 || len(base) == 0 {
		return nil
	}
	a, b := values(of, value), values(base, value)
	for i := range a {
		if len(a) == len(b) {
			a[i] = f(a[i], b[i])
		} else {
			a[i] = f(a[i], middle(b))
		}
	}
	return a
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func difference(a, b float64) float64 { return a - b }

// perRequest is processor time in µs.
func perRequest(s sample) float64 {
	return ratio(float64(s.CPU.Nanoseconds()), float64(s.Requests)) / 1e3
}

// perFrame is processor time in µs.
func perFrame(s sample) float64 {
	return ratio(float64(s.CPU.Nanoseconds()), float64(s.Frames)) / 1e3
}

func perSecond(s sample) float64 { return ratio(float64(s.Requests), s.Elapsed.Seconds()) }

// p50 and p99 are in µs.
func p50(s sample) float64 { return float64(s.P50.Nanoseconds()) / 1e3 }
func p99(s sample) float64 { return float64(s.P99.Nanoseconds()) / 1e3 }

func failures(of []sample) (n int64) {
	for _, s := range of {
		n += s.Errors
	}
	return n
}

// perStream is resident memory in KiB that was taken for each stream that came whole.
func perStream(s sample) float64 { return ratio(float64(s.Grown)/1024, float64(s.Requests)) }

func requests(s sample) float64 { return float64(s.Requests) }

func frames(s sample) float64 { return float64(s.Frames) }
