package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Call is what became of one request. Durations count from the planned time, and are 0 where they do not apply.
type Call struct {
	At     time.Duration `json:"at_ns"` // planned, since the beginning
	Tenant string        `json:"tenant"`
	Model  string        `json:"model"`
	Stream bool          `json:"stream"`
	// Cold: the model was not ready when the request went out, or the server said that it waits for a start.
	Cold bool `json:"cold"`
	// Late is by how much the generator missed the planned time.
	Late time.Duration `json:"late_ns"`
	// First is the time to the first token (a stream's first event with content), Total to the end.
	First time.Duration `json:"first_ns"`
	Total time.Duration `json:"total_ns"`
	// Gaps are the times between a stream's later events.
	Gaps []time.Duration `json:"-"`
	// PromptTokens and AnswerTokens are what the server's usage says; where it says none, a stream's events count.
	PromptTokens int `json:"prompt_tokens"`
	AnswerTokens int `json:"answer_tokens"`
	// Error is the class of a failure; empty: the answer is whole.
	Error string `json:"error,omitempty"`
	// Detail is an example of it.
	Detail string `json:"detail,omitempty"`
}

// Classes of failures. Those of HTTP are "http STATUS CODE", with the code of OpenAI's error object.
const (
	errConnect   = "connect"
	errTimeout   = "timeout"
	errCancelled = "cancelled"
	errCut       = "cut"       // the answer ended early
	errMalformed = "malformed" // not what OpenAI's clients understand
	errEvent     = "in-stream" // prefix: an error within a stream
)

type failure struct{ class, detail string }

func (f *failure) Error() string { return f.class + ": " + f.detail }

// answer holds the members of completions, chunks and errors that matter here.
type answer struct {
	Choices []struct {
		Message struct{ Content any } `json:"message"`
		Delta   struct {
			Content   any             `json:"content"`
			Reasoning any             `json:"reasoning_content"`
			Tools     json.RawMessage `json:"tool_calls"`
		} `json:"delta"`
	} `json:"choices"`
	Usage *struct {
		Prompt int `json:"prompt_tokens"`
		Answer int `json:"completion_tokens"`
	} `json:"usage"`
	Error json.RawMessage `json:"error"`
}

func (r *run) ask(ctx context.Context, q question, planned time.Time) (c Call) {
	now := time.Now()
	c = Call{Tenant: q.caller.Tenant, Model: q.model, Stream: q.stream, Late: max(0, now.Sub(planned)), Cold: r.states.cold(q.model)}
	ctx, cancel := context.WithDeadline(ctx, planned.Add(r.o.Timeout))
	defer cancel()
	err := r.exchange(ctx, q, planned, &c)
	c.Total = time.Since(planned)
	if err != nil {
		var f *failure
		if !errors.As(err, &f) {
			f = &failure{classOf(ctx, err), err.Error()}
		}
		c.Error, c.Detail = f.class, f.detail
	}
	return c
}

func (r *run) exchange(ctx context.Context, q question, planned time.Time, c *Call) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(r.o.URL, "/")+"/chat/completions", bytes.NewReader(q.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if q.caller.Key != "" {
		req.Header.Set("Authorization", "Bearer "+q.caller.Key)
	}
	resp, err := r.o.Client.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			return &failure{errConnect, err.Error()}
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // what came of it will do
		return &failure{fmt.Sprintf("http %d%s", resp.StatusCode, codeOf(body)), string(body)}
	}
	if !q.stream {
		return whole(resp, planned, c)
	}
	if t := resp.Header.Get("Content-Type"); !strings.HasPrefix(t, "text/event-stream") {
		return &failure{errMalformed, "content type " + t + " where a stream was asked for"}
	}
	return events(resp.Body, planned, c)
}

func whole(resp *http.Response, planned time.Time, c *Call) error {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return &failure{errCut, err.Error()}
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

const maxLine = 16 << 20

// events reads a stream to its end.
func events(body io.Reader, planned time.Time, c *Call) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 8<<10), maxLine)
	var last time.Time
	count, done := 0, false
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) > 0 && line[0] == ':' {
			c.Cold = c.Cold || bytes.Contains(line, []byte("the model is starting"))
			continue
		}
		data, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue
		}
		if data = bytes.TrimSpace(data); string(data) == "[DONE]" {
			done = true
			continue
		}
		var a answer
		if err := json.Unmarshal(data, &a); err != nil {
			what := fmt.Sprintf("%.200s", data)
			if !lines.Scan() && lines.Err() != nil { // half a line is what a cut leaves
				return &failure{errCut, lines.Err().Error()}
			}
			return &failure{errMalformed, what}
		}
		if len(a.Error) > 0 && string(a.Error) != "null" {
			return &failure{errEvent + codeOf(data), fmt.Sprintf("%.500s", data)}
		}
		if a.Usage != nil {
			c.PromptTokens, c.AnswerTokens = a.Usage.Prompt, a.Usage.Answer
		}
		if len(a.Choices) == 0 || !a.speaks() {
			continue
		}
		now := time.Now()
		if count++; count == 1 {
			c.First = now.Sub(planned)
		} else {
			c.Gaps = append(c.Gaps, now.Sub(last))
		}
		last = now
	}
	if err := lines.Err(); err != nil {
		return &failure{errCut, err.Error()}
	}
	if !done {
		return &failure{errCut, "the stream ended without [DONE]"}
	}
	if c.AnswerTokens == 0 {
		c.AnswerTokens = count
	}
	return nil
}

// speaks tells whether a chunk brings anything of the answer: the first one often holds the role alone.
func (a *answer) speaks() bool {
	for _, choice := range a.Choices {
		d := choice.Delta
		if d.Content != nil && d.Content != "" || d.Reasoning != nil && d.Reasoning != "" || len(d.Tools) > 0 && string(d.Tools) != "null" {
			return true
		}
	}
	return false
}

// codeOf is the code of an error object, with a space before it.
func codeOf(body []byte) string {
	var e struct {
		Error struct {
			Code any    `json:"code"`
			Type string `json:"type"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &e) != nil {
		return ""
	}
	if code, ok := e.Error.Code.(string); ok && code != "" {
		return " " + code
	}
	if e.Error.Type != "" {
		return " " + e.Error.Type
	}
	return ""
}

func classOf(ctx context.Context, err error) string {
	var ne net.Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return errTimeout
	case ctx.Err() != nil:
		return errCancelled
	default:
		return errConnect
	}
}
