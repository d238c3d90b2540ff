package load

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// traceTimes are the forms of time stamps that public traces use.
var traceTimes = []string{"2006-01-02 15:04:05.9999999", "2006-01-02T15:04:05.9999999Z07:00", "2006-01-02 15:04:05.9999999-07:00"}

// Trace reads a plan from CSV whose header names a time stamp, the tokens of the prompt and those of the answer, as the Azure LLM
// inference traces do (TIMESTAMP, ContextTokens, GeneratedTokens), or BurstGPT (Timestamp, Request tokens, Response tokens); time stamps may
// also be seconds. Lines must be in the order of time. speed 10 plays it ten times as fast; 0 means 1. most bounds the requests, and
// within the length of the plan; 0: all.
func Trace(in io.Reader, speed float64, most int, within time.Duration) ([]Arrival, error) {
	if speed == 0 {
		speed = 1
	}
	if !(speed >= 1e-6 && speed <= 1e6) {
		return nil, fmt.Errorf("speed %v: it must lie between a millionth and a million", speed)
	}
	records := csv.NewReader(in)
	records.ReuseRecord = true
	header, err := records.Read()
	if err != nil {
		return nil, fmt.Errorf("the trace's header: %w", err)
	}
	columns, err := traceColumns(header)
	if err != nil {
		return nil, err
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
			if tokens[i], err = strconv.Atoi(strings.TrimSpace(record[columns[i+1]])); err != nil || tokens[i] < 0 || tokens[i] > maxTokens {
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
		since := float64(at-first) / speed
		if within > 0 && since >= float64(within) {
			break
		}
		if since > float64(maxLength) || len(plan) == maxArrivals {
			return nil, fmt.Errorf("line %d of the trace: the plan would have more than %d requests or %v", line, maxArrivals, maxLength)
		}
		plan = append(plan, Arrival{time.Duration(since), max(1, tokens[0]), max(1, tokens[1])})
	}
	if len(plan) == 0 {
		return nil, errors.New("the trace has no requests")
	}
	return plan, nil
}

// traceColumns finds the time stamp, the tokens of the prompt and those of the answer. The first column that fits is taken.
func traceColumns(header []string) (columns [3]int, err error) {
	columns = [3]int{-1, -1, -1}
	for i, name := range header {
		name = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")))
		has := func(words ...string) bool {
			return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(name, w) })
		}
		column := -1
		switch {
		case has("generated", "output", "completion", "response tokens"):
			column = 2
		case has("context", "prompt", "input", "request tokens"):
			column = 1
		case has("timestamp", "arriv"), name == "time":
			column = 0
		}
		if column >= 0 && columns[column] < 0 {
			columns[column] = i
		}
	}
	for i, what := range []string{"a time stamp", "the prompt's tokens", "the answer's tokens"} {
		if columns[i] < 0 {
			return columns, fmt.Errorf("the trace's header %q names no column for %s", header, what)
		}
	}
	return columns, nil
}

// traceTime is a time stamp as a duration since some beginning.
func traceTime(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0 && f < 9e9 {
		return time.Duration(f * float64(time.Second)), nil // seconds since 1970 included; 9.2e9 is the most that fits
	}
	for _, form := range traceTimes {
		if t, err := time.Parse(form, s); err == nil && t.Year() >= 1970 && t.Year() < 2200 { // beyond them nanoseconds overflow
			return time.Duration(t.UnixNano()), nil
		}
	}
	return 0, fmt.Errorf("%q is no time stamp", s)
}
