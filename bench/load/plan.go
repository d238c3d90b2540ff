package load

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Arrival is one request of a plan.
type Arrival struct {
	At           time.Duration // since the beginning
	PromptTokens int
	MaxTokens    int
}

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
	return max(1, int(math.Round(float64(l.Median)*math.Exp(l.Sigma*rng.NormFloat64()))))
}

// Arrivals makes a plan of requests at a rate.
type Arrivals struct {
	Rate     float64 // per second
	Poisson  bool    // as independent callers come; false: at equal distances
	Requests int     // 0: as many as fit into For
	For      time.Duration
	Prompt   Lengths
	Answer   Lengths
	Seed     uint64
}

// Plan makes the arrivals.
func (a Arrivals) Plan() ([]Arrival, error) {
	switch {
	case !(a.Rate > 0) || math.IsInf(a.Rate, 0):
		return nil, fmt.Errorf("rate %v: it must be a number of requests per second above 0", a.Rate)
	case a.Requests <= 0 && a.For <= 0:
		return nil, errors.New("neither a number of requests nor a duration is given")
	}
	rng := rand.New(rand.NewPCG(a.Seed, 1))
	var plan []Arrival
	gap := float64(time.Second) / a.Rate
	for at := 0.0; a.Requests <= 0 || len(plan) < a.Requests; {
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

// traceTimes are the forms of time stamps that public traces use.
var traceTimes = []string{"2006-01-02 15:04:05.9999999", "2006-01-02T15:04:05.9999999Z07:00", "2006-01-02 15:04:05.9999999-07:00"}

// Trace reads a plan from CSV whose header names a time stamp, the tokens of the prompt and those of the answer, as the Azure LLM
// inference traces do (TIMESTAMP, ContextTokens, GeneratedTokens); time stamps may also be seconds. speed 10 plays it ten times as fast;
// 0 means 1. most bounds the requests; 0: all.
func Trace(in io.Reader, speed float64, most int) ([]Arrival, error) {
	if speed == 0 {
		speed = 1
	}
	if !(speed > 0) || math.IsInf(speed, 0) {
		return nil, fmt.Errorf("speed %v: it must be above 0", speed)
	}
	records := csv.NewReader(in)
	records.ReuseRecord = true
	header, err := records.Read()
	if err != nil {
		return nil, fmt.Errorf("the trace's header: %w", err)
	}
	columns := [3]int{-1, -1, -1}
	for i, name := range header {
		switch name = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))); {
		case strings.Contains(name, "time"), name == "arrival":
			columns[0] = i
		case strings.Contains(name, "context"), strings.Contains(name, "prompt"), strings.Contains(name, "input"):
			columns[1] = i
		case strings.Contains(name, "generated"), strings.Contains(name, "output"), strings.Contains(name, "completion"):
			columns[2] = i
		}
	}
	for i, what := range []string{"a time stamp", "the prompt's tokens", "the answer's tokens"} {
		if columns[i] < 0 {
			return nil, fmt.Errorf("the trace's header %q names no column for %s", header, what)
		}
	}
	var plan []Arrival
	var first, last time.Duration
	for most <= 0 || len(plan) < most {
		record, err := records.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("the trace: %w", err)
		}
		line, _ := records.FieldPos(0)
		at, err := traceTime(record[columns[0]])
		if err != nil {
			return nil, fmt.Errorf("line %d of the trace: %w", line, err)
		}
		var tokens [2]int
		for i := range tokens {
			if tokens[i], err = strconv.Atoi(strings.TrimSpace(record[columns[i+1]])); err != nil || tokens[i] < 0 {
				return nil, fmt.Errorf("line %d of the trace: %q is no number of tokens", line, record[columns[i+1]])
			}
		}
		if len(plan) == 0 {
			first, last = at, at
		}
		if at < last {
			return nil, fmt.Errorf("line %d of the trace: it is earlier than the one before", line)
		}
		last = at
		plan = append(plan, Arrival{time.Duration(float64(at-first) / speed), max(1, tokens[0]), max(1, tokens[1])})
	}
	if len(plan) == 0 {
		return nil, errors.New("the trace has no requests")
	}
	return plan, nil
}

// traceTime is a time stamp as a duration since some beginning.
func traceTime(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0 && f < 1e9 {
		return time.Duration(f * float64(time.Second)), nil
	}
	for _, form := range traceTimes {
		if t, err := time.Parse(form, s); err == nil {
			return time.Duration(t.UnixNano()), nil
		}
	}
	return 0, fmt.Errorf("%q is no time stamp", s)
}
