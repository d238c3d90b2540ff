package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Answer is what came back.
type Answer struct {
	Status int
	// Text is the answer, put together from a stream's events. It is valid until the connection's next Receive.
	Text []byte
	// Model and Code are what the body names so: of an answer, and of an error, also one that is an event of a stream.
	Model, Code string
	// Done: the stream said [DONE].
	Done bool
	// Cut: a stream's bytes ended without the final chunk, after an event that was an error. It is how a gateway says that
	// an answer is not whole.
	Cut   bool
	Beats int // comments
	// Close: the connection is of no more use.
	Close bool
}

func (a Answer) String() string {
	return fmt.Sprintf("{status %d, text %.60q, code %q, done %v, cut %v, beats %d, close %v}", a.Status, a.Text, a.Code, a.Done, a.Cut, a.Beats, a.Close)
}

// ErrMalformed is an answer that is not HTTP or not what OpenAI's clients understand.
var ErrMalformed = errors.New("malformed answer")

func malformed(what string, got []byte) error {
	return fmt.Errorf("%w: %s: %.80q", ErrMalformed, what, got)
}

// Receive reads one answer. Its error is the connection's or ErrMalformed, and ends the connection's use.
func (c *Conn) Receive() (a Answer, err error) {
	c.text = c.text[:0]
	length, chunked, events := -1, false, false
	for n := 0; ; n++ {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			if n > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return a, err
		}
		if line, ok := bytes.CutSuffix(line, []byte("\r\n")); !ok {
			return a, malformed("line end", line)
		} else if n == 0 {
			rest, ok := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
			if !ok || len(rest) < 3 {
				return a, malformed("status line", line)
			}
			if a.Status, err = strconv.Atoi(string(rest[:3])); err != nil {
				return a, malformed("status line", line)
			}
		} else if len(line) == 0 {
			break
		} else {
			name, value, ok := bytes.Cut(line, []byte(": "))
			switch {
			case !ok:
				return a, malformed("header", line)
			case bytes.EqualFold(name, []byte("content-length")):
				if length, err = strconv.Atoi(string(value)); err != nil || length < 0 {
					return a, malformed("length", line)
				}
			case bytes.EqualFold(name, []byte("transfer-encoding")):
				chunked = string(value) == "chunked"
			case bytes.EqualFold(name, []byte("connection")):
				a.Close = string(value) == "close"
			case bytes.EqualFold(name, []byte("content-type")):
				events = bytes.HasPrefix(value, []byte("text/event-stream"))
			}
		}
	}
	switch {
	case chunked && length < 0:
		err = c.chunks(&a, events)
	case length >= 0 && !chunked:
		if cap(c.body) < length {
			c.body = make([]byte, length)
		}
		c.body = c.body[:length]
		if _, err = io.ReadFull(c.br, c.body); err == nil {
			err = c.whole(&a)
		}
	default:
		err = malformed("framing", nil)
	}
	return a, err
}

// whole takes c.body as a whole answer.
func (c *Conn) whole(a *Answer) error {
	if len(c.body) < 2 || c.body[0] != '{' || c.body[len(c.body)-1] != '}' {
		return malformed("body", c.body)
	}
	return c.object(a, c.body)
}

// object looks into a JSON object of an answer for what we know engine and gateway to write there. It is no parser: the texts
// that the mock engine gives need no escapes.
func (c *Conn) object(a *Answer, b []byte) error {
	if bytes.HasPrefix(b, []byte(`{"error":`)) {
		a.Code = field(b, `"code":"`)
		if a.Code == "" {
			return malformed("error without a code", b)
		}
		return nil
	}
	if text, ok := cut(b, `"content":"`); ok {
		c.text = append(c.text, text...)
		a.Text = c.text
	}
	if model, ok := cut(b, `"model":"`); ok && string(model) != a.Model {
		a.Model = string(model)
	}
	return nil
}

func cut(b []byte, before string) ([]byte, bool) {
	i := bytes.Index(b, []byte(before))
	if i < 0 {
		return nil, false
	}
	b = b[i+len(before):]
	end := bytes.IndexByte(b, '"')
	if end < 0 {
		return nil, false
	}
	return b[:end], true
}

func field(b []byte, before string) string {
	v, _ := cut(b, before)
	return string(v)
}

// chunks reads a chunked body; with events, each as it comes.
func (c *Conn) chunks(a *Answer, events bool) error {
	c.body = c.body[:0]
	for {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			// The gateway ends a stream that has failed with a FIN and without the final chunk.
			if errors.Is(err, io.EOF) && len(line) == 0 && a.Code != "" && len(c.body) == 0 {
				a.Cut, a.Close = true, true
				return nil
			}
			return unexpected(err)
		}
		line, ok := bytes.CutSuffix(line, []byte("\r\n"))
		size, err := strconv.ParseUint(string(line), 16, 31)
		if !ok || err != nil {
			return malformed("chunk size", line)
		}
		if size == 0 {
			if err := c.lineEnd(); err != nil {
				return err
			}
			if !events {
				return c.whole(a)
			}
			if len(c.body) > 0 {
				return malformed("an event's beginning at the end", c.body)
			}
			return nil
		}
		begin := len(c.body)
		c.body = append(c.body, make([]byte, size)...)
		if _, err := io.ReadFull(c.br, c.body[begin:]); err != nil {
			return unexpected(err)
		}
		if err := c.lineEnd(); err != nil {
			return err
		}
		if events {
			if err := c.events(a); err != nil {
				return err
			}
		}
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *Conn) lineEnd() error {
	b, err := c.br.Peek(2)
	if err != nil {
		return unexpected(err)
	}
	if string(b) != "\r\n" {
		return malformed("chunk end", b)
	}
	_, err = c.br.Discard(2)
	return err
}

// events takes whole lines out of c.body; what is left is the beginning of one.
func (c *Conn) events(a *Answer) error {
	rest := c.body
	for {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			break
		}
		rest = after
		data, isData := bytes.CutPrefix(line, []byte("data: "))
		switch {
		case len(line) == 0:
		case line[0] == ':':
			a.Beats++
		case !isData:
			return malformed("line", line)
		case a.Done:
			return malformed("an event after [DONE]", line)
		case string(data) == "[DONE]":
			a.Done = true
		case len(data) < 2 || data[0] != '{' || data[len(data)-1] != '}':
			return malformed("event", line)
		default:
			if err := c.object(a, data); err != nil {
				return err
			}
		}
	}
	c.body = c.body[:copy(c.body, rest)]
	return nil
}
