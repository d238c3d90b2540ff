package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"
)

// Call is what became of one request. Durations count from the planned time, and are 0 where they do not apply.
type Call struct {
	At     time.Duration // planned, since the beginning
	Tenant string
	Model  string
	Stream bool
	// Cold: the model was seen not to be ready as the request went out or waited, or the server said that it waits for a start.
	Cold bool
	// Late is by how much the generator missed the planned time.
	Late time.Duration
	// First is the time to the first token (a stream's first event with content), Total to the end.
	First time.Duration
	Total time.Duration
	// PromptTokens and AnswerTokens are what the server's usage says; where it says none, a stream's events count.
	PromptTokens int
	AnswerTokens int
	// MaxTokens is the length of answer that was asked for.
	MaxTokens int
	// Error is the class of a failure; empty: the answer is whole.
	Error string
	// Detail is an example of it: text of the server or the connection, without the caller's key.
	Detail string

	gaps []time.Duration // between a stream's events
}

// ask sends one request and waits for its end.
func (r *run) ask(ctx context.Context, q question, planned time.Time) Call {
	c := Call{Tenant: q.caller.Tenant, Model: q.model, Stream: q.stream, MaxTokens: q.maxTokens, Late: max(0, time.Since(planned)), Cold: r.states.cold(q.model)}
	ctx, cancel := context.WithDeadlineCause(ctx, planned.Add(r.o.Timeout), errTooLate)
	defer cancel()
	err := r.exchange(ctx, q, planned, &c)
	c.Total = time.Since(planned)
	if err != nil {
		var f *failure
		if !errors.As(err, &f) {
			f = broken(ctx, err, errConnect)
		}
		if q.caller.Key != "" {
			f.detail = strings.ReplaceAll(f.detail, q.caller.Key, "[key]") // some servers repeat it
		}
		c.Error, c.Detail = f.class, printable(f.detail)
	}
	return c
}

func (r *run) exchange(ctx context.Context, q question, planned time.Time, c *Call) error {
	sent := time.Now()
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.o.URL+"/chat/completions", bytes.NewReader(q.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if q.caller.Key != "" {
		req.Header.Set("Authorization", "Bearer "+q.caller.Key)
	}
	resp, err := r.client.Do(req)
	c.Cold = c.Cold || r.states.coldSince(q.model, sent)
	if err != nil {
		if connected.Load() {
			return broken(ctx, err, errClosed)
		}
		return broken(ctx, err, errConnect)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		if err != nil && ctx.Err() != nil {
			return broken(ctx, err, errCut)
		}
		return &failure{fmt.Sprintf("http %d%s", resp.StatusCode, codeOf(body)), string(body)} // what came of the body will do
	}
	if !q.stream {
		return whole(ctx, resp.Body, c)
	}
	if t := resp.Header.Get("Content-Type"); !strings.HasPrefix(t, "text/event-stream") {
		return &failure{errMalformed, "content type " + t + " where a stream was asked for"}
	}
	return events(ctx, resp.Body, planned, c)
}

// whole reads an answer that is no stream.
func whole(ctx context.Context, in io.Reader, c *Call) error {
	body, err := io.ReadAll(in)
	if err != nil {
		return broken(ctx, err, errCut)
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil || len(a.Choices) == 0 {
		return &failure{errMalformed, fmt.Sprintf("%.200s", body)}
	}
	if a.Usage != nil {
		c.PromptTokens, c.AnswerTokens = a.Usage.Prompt, a.Usage.Answer
	}
	return nil
}
