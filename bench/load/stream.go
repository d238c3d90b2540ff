package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Most of one line of a stream, in bytes: several times the longest that official clients are known to take.
const maxLine = 16 << 20

var errLineTooLong = errors.New("a line of more than 16 MiB")

// lines reads a stream line by line. What precedes an error is not given out: it is part of a line. At an orderly end the rest counts as one.
type lines struct {
	r    *bufio.Reader
	long []byte // of a line that exceeds the reader's buffer
}

// next is the next line, without its end, until the next call. io.EOF is the orderly end.
func (l *lines) next() ([]byte, error) {
	l.long = l.long[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if l.long = append(l.long, part...); len(l.long) > maxLine {
				return nil, errLineTooLong
			}
			continue
		}
		if len(l.long) > 0 {
			l.long = append(l.long, part...)
			part = l.long
		}
		if err == nil || errors.Is(err, io.EOF) && len(part) > 0 {
			return bytes.TrimRight(part, "\r\n"), nil
		}
		return nil, err
	}
}

// coldComment is what Pilotlight says in a stream whose model is being started.
var coldComment = []byte("the model is starting")

// events reads a stream to its end.
func events(ctx context.Context, body io.Reader, planned time.Time, c *Call) error {
	in := lines{r: bufio.NewReaderSize(body, 8<<10)}
	var last time.Time
	count, done := 0, false
	for {
		line, err := in.next()
		if err != nil {
			switch {
			case errors.Is(err, errLineTooLong):
				return &failure{errMalformed, err.Error()}
			case !errors.Is(err, io.EOF):
				return broken(ctx, err, errCut)
			case !done:
				return &failure{errCut, "the stream ended without [DONE]"}
			}
			if c.AnswerTokens == 0 {
				c.AnswerTokens = count
			}
			return nil
		}
		if len(line) > 0 && line[0] == ':' {
			c.Cold = c.Cold || bytes.Contains(line, coldComment)
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
		spoke, err := c.event(data)
		if err != nil {
			return err
		}
		if !spoke {
			continue
		}
		now := time.Now()
		if count++; count == 1 {
			c.First = now.Sub(planned)
		} else {
			c.gaps = append(c.gaps, now.Sub(last))
		}
		last = now
	}
}

// event reads one event's data, and tells whether it brings anything of the answer.
func (c *Call) event(data []byte) (spoke bool, err error) {
	var a answer
	if err := json.Unmarshal(data, &a); err != nil {
		return false, &failure{errMalformed, fmt.Sprintf("%.200s", data)}
	}
	// SGLang's flat errors count, too, although official clients take them for chunks.
	if a.Object == "error" || len(a.Error) > 0 && string(a.Error) != "null" {
		return false, &failure{errInStream + codeOf(data), fmt.Sprintf("%.500s", data)}
	}
	if a.Usage != nil {
		c.PromptTokens, c.AnswerTokens = a.Usage.Prompt, a.Usage.Answer
	}
	return a.speaks(), nil
}

// answer holds the members of completions, chunks and errors that matter here.
type answer struct {
	Object  string `json:"object"`
	Choices []struct {
		Delta struct {
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
