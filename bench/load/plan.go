package load

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Arrival is one request of a plan.
type Arrival struct {
	At           time.Duration // since the beginning
	PromptTokens int
	MaxTokens    int
}

// Bounds of a plan, against slips of the keyboard: more would fill the memory before the first request.
const (
	maxTokens   = 1 << 24
	maxArrivals = 20_000_000
	maxLength   = 10_000 * time.Hour
)

// Lengths is a distribution of token counts: fixed, or lognormal around a median.
type Lengths struct {
	Median int
	// Sigma is the standard deviation of the logarithm; 0 means that all are the same. 1 is about what is seen in chat traffic.
	Sigma float64
}

func (l Lengths) draw(rng *rand.Rand) int {
	if l.Sigma == 0 {
		return l.Median
	}
	return max(1, int(min(math.Round(float64(l.Median)*math.Exp(l.Sigma*rng.NormFloat64())), maxTokens)))
}

func (l Lengths) valid() bool {
	return l.Median >= 1 && l.Median <= maxTokens && l.Sigma >= 0 && l.Sigma <= 10
}

// Arrivals makes a plan of requests at a rate.
type Arrivals struct {
	Rate     float64       // per second
	Poisson  bool          // as independent callers come; false: at equal distances
	Requests int           // at most; 0: as many as fit into For
	For      time.Duration // at most; 0: until Requests are planned
	Prompt   Lengths
	Answer   Lengths
	Seed     uint64
}

// Plan makes the arrivals. The same Arrivals give the same plan.
func (a Arrivals) Plan() ([]Arrival, error) {
	switch {
	case !(a.Rate > 0) || math.IsInf(a.Rate, 0):
		return nil, fmt.Errorf("rate %v: it must be a number of requests per second above 0", a.Rate)
	case a.Requests < 0 || a.For < 0 || a.Requests == 0 && a.For == 0:
		return nil, errors.New("a number of requests or a duration above 0 must be given")
	case !a.Prompt.valid() || !a.Answer.valid():
		return nil, errors.New("lengths must be 1 to 16 million tokens, their spread 0 to 10")
	case a.Requests > maxArrivals, a.Requests == 0 && a.Rate*a.For.Seconds() > maxArrivals:
		return nil, fmt.Errorf("more than %d requests are planned", maxArrivals)
	case a.For == 0 && float64(a.Requests)/a.Rate > maxLength.Seconds():
		return nil, fmt.Errorf("the plan is longer than %v", maxLength)
	}
	rng := rand.New(rand.NewPCG(a.Seed, 1))
	var plan []Arrival
	gap := float64(time.Second) / a.Rate
	for at := 0.0; a.Requests == 0 || len(plan) < a.Requests; {
		if a.Poisson {
			at += rng.ExpFloat64() * gap
		} else if len(plan) > 0 {
			at += gap
		}
		if a.For > 0 && at >= float64(a.For) {
			break
		}
		plan = append(plan, Arrival{time.Duration(at), a.Prompt.draw(rng), a.Answer.draw(rng)})
	}
	if len(plan) == 0 {
		return nil, errors.New("no request falls into the duration; raise it, or the rate")
	}
	return plan, nil
}
