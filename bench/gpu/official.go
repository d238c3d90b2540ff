package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"
)

// clientScript asks once with openai-python: a question as JSON on standard input, the answer as JSON on standard output.
//
//go:embed client.py
var clientScript string

// official is openai-python, run by this interpreter anew for each question.
type official struct{ python string }

func (c official) ask(ctx context.Context, g *gateway, q question) (a answer, err error) {
	job, err := json.Marshal(map[string]any{
		"base_url": g.base, "api_key": g.key, "params": q.params, "stream": q.stream, "leave_after": q.leaveAfter, "retries": q.retries, "id": q.id,
	})
	if err != nil {
		return a, err
	}
	cmd := exec.CommandContext(ctx, c.python, "-c", clientScript)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(job), &stderr
	text, err := cmd.Output()
	if err != nil {
		return a, fmt.Errorf("openai-python: %w: %s", err, stderr.Bytes())
	}
	var seen struct {
		answer
		Sent, First, End, Left float64 // seconds of the Unix clock; 0: did not happen
	}
	if err := json.Unmarshal(text, &seen); err != nil {
		return a, fmt.Errorf("openai-python: %w: %s", err, text)
	}
	a = seen.answer
	a.Sent, a.First, a.End, a.Left = clock(seen.Sent), clock(seen.First), clock(seen.End), clock(seen.Left)
	return a, nil
}

func clock(seconds float64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(seconds * 1e6))
}
