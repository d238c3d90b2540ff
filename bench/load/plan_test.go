package load

import (
	"math"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestArrivals(t *testing.T) {
	for _, poisson := range []bool{false, true} {
		p, err := Arrivals{Rate: 100, Poisson: poisson, For: 100 * time.Second, Seed: 7, Prompt: Lengths{Median: 200, Sigma: 1}, Answer: Lengths{Median: 9}}.Plan()
		if err != nil {
			t.Fatal(err)
		}
		var sum, squares float64
		longer := 0
		for i := 1; i < len(p); i++ {
			gap := (p[i].At - p[i-1].At).Seconds()
			sum, squares = sum+gap, squares+gap*gap
			if p[i].PromptTokens > 200 {
				longer++
			}
			if p[i].MaxTokens != 9 {
				t.Fatal(p[i])
			}
		}
		n := float64(len(p) - 1)
		mean := sum / n
		variation := math.Sqrt(squares/n-mean*mean) / mean // 1 for exponential gaps, 0 for equal ones
		want := 0.0
		if poisson {
			want = 1
		}
		if math.Abs(n-10_000) > 400 || math.Abs(variation-want) > 0.05 || math.Abs(float64(longer)/n-0.5) > 0.03 {
			t.Errorf("poisson %v: %v arrivals, variation %v, %d longer than the median", poisson, n, variation, longer)
		}
	}
	good := Arrivals{Rate: 10, For: time.Minute, Prompt: Lengths{Median: 1}, Answer: Lengths{Median: 1}}
	for name, mutate := range map[string]func(*Arrivals){
		"no rate": func(a *Arrivals) { a.Rate = 0 }, "less": func(a *Arrivals) { a.Rate = -1 }, "NaN": func(a *Arrivals) { a.Rate = math.NaN() }, "endless": func(a *Arrivals) { a.Rate = math.Inf(1) },
		"no end": func(a *Arrivals) { a.For = 0 }, "less time": func(a *Arrivals) { a.For = -1 }, "fewer": func(a *Arrivals) { a.Requests = -1 },
		"none fits": func(a *Arrivals) { a.For, a.Poisson = time.Nanosecond, true }, "too many": func(a *Arrivals) { a.Rate = 1e9 }, "too many asked for": func(a *Arrivals) { a.Requests = 1 << 30 },
		"too long": func(a *Arrivals) { a.For, a.Requests, a.Rate = 0, 2, 1e-9 }, "no prompt": func(a *Arrivals) { a.Prompt.Median = 0 }, "long answer": func(a *Arrivals) { a.Answer.Median = maxTokens + 1 },
		"spread": func(a *Arrivals) { a.Prompt.Sigma = math.NaN() },
	} {
		a := good
		mutate(&a)
		if _, err := a.Plan(); err == nil {
			t.Errorf("%s makes a plan", name)
		}
	}
}

// The gaps of Poisson arrivals are exponential: no part of their distribution is further from it than Kolmogorov and Smirnov's
// bound for one in a thousand, 1.95/√n.
func TestPoissonGapsAreExponential(t *testing.T) {
	p, err := Arrivals{Rate: 50, Poisson: true, Requests: 20_000, Seed: 3, Prompt: Lengths{Median: 1}, Answer: Lengths{Median: 1}}.Plan()
	if err != nil || len(p) != 20_000 {
		t.Fatal(len(p), err)
	}
	var gaps []float64
	last := time.Duration(0)
	for _, a := range p {
		gaps = append(gaps, (a.At - last).Seconds())
		last = a.At
	}
	slices.Sort(gaps)
	furthest := 0.0
	for i, gap := range gaps {
		furthest = max(furthest, math.Abs(1-math.Exp(-50*gap)-float64(i)/float64(len(gaps))))
	}
	if bound := 1.95 / math.Sqrt(float64(len(gaps))); furthest > bound {
		t.Errorf("%v from an exponential distribution, bound %v", furthest, bound)
	}
}

func TestPlansAreRepeatable(t *testing.T) {
	a := Arrivals{Rate: 50, Poisson: true, Requests: 100, Seed: 3, Prompt: Lengths{200, 1}, Answer: Lengths{50, 1}}
	one, err := a.Plan()
	if err != nil {
		t.Fatal(err)
	}
	two, err := a.Plan()
	if err != nil || !reflect.DeepEqual(one, two) {
		t.Error("the same seed makes another plan", err)
	}
	a.Seed++
	if other, err := a.Plan(); err != nil || reflect.DeepEqual(one, other) {
		t.Error("another seed makes the same plan", err)
	}
	a.Poisson, a.For = false, time.Second
	if p, err := a.Plan(); err != nil || len(p) != 50 || p[1].At != 20*time.Millisecond {
		t.Error(len(p), err)
	}
}
