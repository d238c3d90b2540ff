package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// result is one workload at one subject.
type result struct {
	Workload, Subject string
	Seed              uint64
	Requests, Failed  int
	Hits, Skew        float64 // share of prompt tokens that were cached; most requests at one replica over the mean
	P50, P95, Mean    float64 // time to the first token, in seconds
	FirstError        string  `json:",omitempty"`
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// drive plays the sessions against base, and measures each request from when it was sent.
func drive(ctx context.Context, base string, sessions []session, output int) (ttft []time.Duration, failed int, first error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10_000, DisableCompression: true}}
	defer client.CloseIdleConnections()
	begin := time.Now()
	var mu sync.Mutex // guards the results
	var work sync.WaitGroup
	for _, s := range sessions {
		work.Go(func() {
			if !pause(ctx, time.Until(begin.Add(s.start))) {
				return
			}
			history := []message{{"system", s.system}}
			for i, t := range s.turns {
				if i > 0 && !pause(ctx, t.think) {
					return
				}
				history = append(history, message{"user", t.text})
				took, answer, err := ask(ctx, client, base, history, output)
				mu.Lock()
				if err != nil {
					if failed++; first == nil {
						first = err
					}
					mu.Unlock()
					return
				}
				ttft = append(ttft, took)
				mu.Unlock()
				history = append(history, message{"assistant", answer})
			}
		})
	}
	work.Wait()
	return ttft, failed, first
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// ask streams one answer.
func ask(ctx context.Context, client *http.Client, base string, history []message, output int) (first time.Duration, answer string, err error) {
	body, err := json.Marshal(map[string]any{"model": servedModel, "messages": history, "max_tokens": output, "stream": true, "stream_options": map[string]bool{"include_usage": true}})
	if err != nil {
		return 0, "", err
	}
	start := time.Now()
	req, err := http.NewRequestWithContext(ctx, "POST", base+"/chat/completions", bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // whatever there is
		return 0, "", fmt.Errorf("%s: %s", resp.Status, text)
	}
	var text strings.Builder
	for lines := bufio.NewReader(resp.Body); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return 0, "", fmt.Errorf("the stream broke off: %w", err)
		}
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			_, _ = io.Copy(io.Discard, lines) // so that the connection is used again
			return first, text.String(), nil
		}
		var chunk struct {
			Error   json.RawMessage
			Choices []struct{ Delta struct{ Content string } }
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return 0, "", err
		}
		if len(chunk.Error) > 0 && string(chunk.Error) != "null" {
			return 0, "", fmt.Errorf("%s", chunk.Error)
		}
		if len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
			if first == 0 {
				first = time.Since(start)
			}
			text.WriteString(chunk.Choices[0].Delta.Content)
		}
	}
}

// percentile of sorted values; 0 if there are none.
func percentile(sorted []time.Duration, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))].Seconds()
}

// play runs one workload at one subject, with a fleet and a process of its own.
func play(ctx context.Context, w *workload, s *subject, p *parameters, seed uint64) (result, error) {
	f, err := newFleet(p)
	if err != nil {
		return result{}, err
	}
	defer f.close()
	r, err := s.start(ctx, f.urls())
	if err != nil {
		return result{}, err
	}
	defer r.stop()
	sessions := w.make(p.random(seed), p)
	ttft, failed, first := drive(ctx, r.base, sessions, p.output)
	slices.Sort(ttft)
	out := result{Workload: w.name, Subject: s.name, Seed: seed, Requests: len(ttft) + failed, Failed: failed, P50: percentile(ttft, 0.5), P95: percentile(ttft, 0.95)}
	out.Hits, out.Skew = f.hits()
	for _, d := range ttft {
		out.Mean += d.Seconds() / float64(len(ttft))
	}
	if first != nil {
		out.FirstError = first.Error()
	}
	return out, ctx.Err()
}
