package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// stream is an answer that is being read.
type stream struct {
	resp   *http.Response
	body   *bufio.Reader
	cancel context.CancelFunc
	beats  int // heartbeats so far
}

// open sends a question and returns when the answer's head is there, whatever its status.
func open(ctx context.Context, g *gateway, q question) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	resp, err := post(ctx, g, q)
	if err != nil {
		cancel()
		return nil, err
	}
	return &stream{resp: resp, body: bufio.NewReader(resp.Body), cancel: cancel}, nil
}

// close leaves, whether the answer is over or not. A second call does nothing.
func (s *stream) close() {
	s.cancel()
	s.resp.Body.Close()
}

// next is the next event's data. The end of a stream that had no [DONE] is io.ErrUnexpectedEOF.
func (s *stream) next() (string, error) {
	for {
		line, err := s.body.ReadString('\n')
		if err == io.EOF {
			return "", io.ErrUnexpectedEOF
		}
		if err != nil {
			return "", err
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			return strings.TrimSpace(data), nil
		}
		if strings.HasPrefix(line, ":") {
			s.beats++
		}
	}
}

// read reads until n chunks have come.
func (s *stream) read(n int) error {
	if s.resp.StatusCode != http.StatusOK {
		code, message := errorOf(s.body)
		return fmt.Errorf("status %d: %s: %s", s.resp.StatusCode, code, message)
	}
	for range n {
		if text, err := s.next(); err != nil || text == "[DONE]" {
			return fmt.Errorf("the stream ended early: %q, %w", text, err)
		}
	}
	return nil
}

// ending is how a stream ended.
type ending struct {
	chunks  int
	done    bool // [DONE]
	code    string
	message string
	err     error // the connection's
}

func (e ending) text() string {
	return fmt.Sprintf("%d chunks, [DONE] %v, error %q %q, connection: %v", e.chunks, e.done, e.code, e.message, e.err)
}

// rest reads to the end.
func (s *stream) rest() (e ending) {
	var a answer
	for {
		text, err := s.next()
		switch {
		case err != nil:
			e.err = err
			return e
		case text == "[DONE]":
			e.done = true
			return e
		}
		e.chunks++
		if err := a.read([]byte(text)); err != nil {
			e.err = err
			return e
		}
		if a.Code != "" {
			e.code, e.message = a.Code, a.Message
		}
	}
}
