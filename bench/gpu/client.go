package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// question is one chat request.
type question struct {
	params map[string]any // of the body, without stream
	stream bool
	// leaveAfter so many chunks the client goes away; 0: never.
	leaveAfter int
	retries    int // as the SDK's max_retries
	id         string
}

// answer is what a client got. Times are this machine's.
type answer struct {
	Status  int       `json:"status"`
	Text    string    `json:"text"`
	Tool    string    `json:"tool"`      // the function that is called
	ToolArg string    `json:"arguments"` // its arguments
	Finish  string    `json:"finish"`
	Model   string    `json:"model"`
	Chunks  int       `json:"chunks"`
	Code    string    `json:"code"`    // of the error
	Message string    `json:"message"` // of the error
	Sent    time.Time `json:"-"`
	First   time.Time `json:"-"` // the first chunk, or the whole answer
	End     time.Time `json:"-"`
	Left    time.Time `json:"-"` // when the client went away
}

func (a *answer) text() string {
	return fmt.Sprintf("status %d, %q, tool %q %s, finish %q, %d chunks, error %q %q", a.Status, a.Text, a.Tool, a.ToolArg, a.Finish, a.Chunks, a.Code, a.Message)
}

// client asks, and waits as long as ctx allows. The error is its own: what a server answers is in the answer.
type client interface {
	ask(ctx context.Context, g *gateway, q question) (answer, error)
}

// newClient is the official client where python has it, else ours, and its name.
func newClient(ctx context.Context, python string) (client, string) {
	if python != "" {
		if version, err := output(ctx, python, "-c", "import openai; print(openai.__version__)"); err == nil {
			return official{python}, "openai-python " + version
		}
	}
	return plain{}, "a plain HTTP client"
}

// chat is a question with one message.
func chat(model, text string, more map[string]any) question {
	params := map[string]any{
		"model": model, "messages": []map[string]string{{"role": "user", "content": text}}, "temperature": 0, "max_tokens": 64,
	}
	maps.Copy(params, more)
	return question{params: params, retries: 2, id: "scene-" + rand.Text()}
}

func (q question) streamed() question {
	q.stream = true
	return q
}

// plain stands in for the official client: it waits as patiently, and asks again when it would.
type plain struct{}

func (plain) ask(ctx context.Context, g *gateway, q question) (a answer, err error) {
	sent := time.Now()
	for try := 0; ; try++ {
		var again time.Duration
		if a, again, err = askOnce(ctx, g, q); err != nil || again < 0 || try >= q.retries {
			a.Sent, a.End = sent, time.Now()
			return a, err
		}
		if !sleep(ctx, again) {
			return a, ctx.Err()
		}
	}
}

// askOnce asks once, and says after how long to ask again; negative: not.
func askOnce(ctx context.Context, g *gateway, q question) (a answer, again time.Duration, err error) {
	s, err := open(ctx, g, q)
	if err != nil {
		return a, -1, err
	}
	defer s.close()
	a.Status = s.resp.StatusCode
	if a.Status != http.StatusOK {
		a.Code, a.Message = errorOf(s.body)
		return a, retryAfter(s.resp), nil
	}
	if !q.stream {
		text, err := io.ReadAll(s.body)
		if err == nil {
			err = a.read(text)
		}
		a.First = time.Now()
		return a, -1, err
	}
	for {
		text, err := s.next()
		if err != nil || text == "[DONE]" {
			return a, -1, err
		}
		if a.First.IsZero() {
			a.First = time.Now()
		}
		if err := a.read([]byte(text)); err != nil || a.Code != "" {
			return a, -1, err
		}
		if a.Chunks == q.leaveAfter {
			a.Left = time.Now()
			s.close()
			return a, -1, nil
		}
	}
}

// read adds an answer, or a chunk of one.
func (a *answer) read(text []byte) error {
	type part struct {
		Content string `json:"content"`
		Calls   []struct {
			Function struct {
				Name      string `json:"name"`
				Arguments string `json:"arguments"`
			} `json:"function"`
		} `json:"tool_calls"`
	}
	var doc struct {
		Model   string `json:"model"`
		Choices []struct {
			Message part   `json:"message"`
			Delta   part   `json:"delta"`
			Finish  string `json:"finish_reason"`
		} `json:"choices"`
		Error *struct{ Code, Message string } `json:"error"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("reading %.300q: %w", text, err)
	}
	a.Chunks++
	a.Model = doc.Model
	if doc.Error != nil {
		a.Code, a.Message = doc.Error.Code, doc.Error.Message
	}
	for _, c := range doc.Choices {
		for _, p := range []part{c.Message, c.Delta} {
			a.Text += p.Content
			for _, call := range p.Calls {
				a.Tool += call.Function.Name
				a.ToolArg += call.Function.Arguments
			}
		}
		if c.Finish != "" {
			a.Finish = c.Finish
		}
	}
	return nil
}

func errorOf(body io.Reader) (code, message string) {
	text, err := io.ReadAll(body)
	if err != nil {
		return "", err.Error()
	}
	var doc struct {
		Error struct{ Code, Message string }
	}
	if json.Unmarshal(text, &doc) != nil {
		return "", string(text[:min(len(text), 300)])
	}
	return doc.Error.Code, doc.Error.Message
}

// retryAfter is when the official client would ask again; negative: it would not.
func retryAfter(resp *http.Response) time.Duration {
	switch say := resp.Header.Get("X-Should-Retry"); {
	case say == "false":
		return -1
	case say == "true", resp.StatusCode == 408, resp.StatusCode == 409, resp.StatusCode == 429, resp.StatusCode >= 500:
	default:
		return -1
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 && seconds <= 120 {
		return time.Duration(seconds) * time.Second
	}
	return time.Second / 2
}

// post begins a request.
func post(ctx context.Context, g *gateway, q question) (*http.Response, error) {
	params := maps.Clone(q.params)
	params["stream"] = q.stream
	body, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.base+"/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+g.key)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Request-Id", q.id)
	return patient.Do(req)
}

// patient waits for as long as its request's context lasts. It keeps no connection, so that closing an answer is leaving.
var patient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
