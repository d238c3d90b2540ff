package mockengine

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"
)

// chat plays the script of the request in c.body. It tells whether the connection may go on.
func (c *conn) chat() bool {
	n := &c.s.counters
	n.requests.Add(1)
	n.inFlight.Add(1)
	defer n.inFlight.Add(-1)
	script, ok := parse(c.body)
	if !ok || script.ID > maxID {
		n.malformed.Add(1)
		n.refused.Add(1)
		return c.plain(http.StatusBadRequest, []byte(`{"object":"error","message":"no script in the prompt","type":"BadRequest","param":null,"code":400}`))
	}
	// A gateway may send a request again where no byte of the answer came.
	if c.s.seen.add(script.ID) && script.Break != BreakHead {
		n.repeated.Add(1)
	}
	if !c.wait(script.Hold) {
		n.left.Add(1)
		return false
	}
	switch {
	case script.Break == BreakHead:
		n.broken.Add(1)
		return false
	case script.Status != 0 && script.Status != http.StatusOK:
		n.refused.Add(1)
		body := `{"object":"error","message":"as the script says","type":"BadRequest","param":null,"code":` + strconv.Itoa(script.Status) + `}`
		return c.plain(script.Status, []byte(body))
	case bytes.Contains(c.body, []byte(`"stream":true`)):
		return c.stream(script)
	}
	return c.whole(script)
}

func (c *conn) whole(script Script) bool {
	n := &c.s.counters
	const before, after = `{"id":"0123456789abcdef0123456789abcdef","object":"chat.completion","created":1764000000,"model":"`,
		`"},"logprobs":null,"finish_reason":"stop","matched_stop":2}],"usage":{"prompt_tokens":20,"total_tokens":40,"completion_tokens":20,"prompt_tokens_details":null,"reasoning_tokens":0},"metadata":{"weight_version":"default"}}`
	const between = `","choices":[{"index":0,"message":{"role":"assistant","reasoning_content":null,"tool_calls":null,"content":"`
	model := modelOf(c.body)
	length := len(before) + len(model) + len(between) + len(after)
	for k := range script.Frames {
		length += len(script.appendFrame(c.out[:0], k))
	}
	c.out = appendHead(c.out[:0], http.StatusOK, "application/json", length)
	c.out = append(append(append(c.out, before...), model...), between...)
	for k := range script.Frames {
		c.out = script.appendFrame(c.out, k)
	}
	c.out = append(c.out, after...)
	if script.Break == BreakFrame {
		n.broken.Add(1)
		_, _ = c.Write(c.out[:len(c.out)-len(after)]) // it breaks off here in either case
		return false
	}
	return c.finished(c.out)
}

func (c *conn) stream(script Script) bool {
	n := &c.s.counters
	model := modelOf(c.body)
	c.out = appendHead(c.out[:0], http.StatusOK, "text/event-stream; charset=utf-8", -1)
	for k := range script.Frames {
		begin := len(c.out)
		c.out = appendChunk(c.out, func(b []byte) []byte {
			b = append(b, `data: {"id":"0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1764000000,"model":"`...)
			b = append(b, model...)
			b = append(b, `","choices":[{"index":0,"delta":{"reasoning_content":null,"content":"`...)
			b = script.appendFrame(b, k)
			return append(b, "\"},\"logprobs\":null,\"finish_reason\":null,\"matched_stop\":null}]}\n\n"...)
		})
		if script.Break == BreakFrame && k == script.Frames-1 {
			n.broken.Add(1)
			_, _ = c.Write(c.out[:(begin+len(c.out))/2]) // it breaks off here in either case
			return false
		}
		if script.Gap == 0 { // all in one write, as far as it is not too long
			if len(c.out) > 32<<10 && !c.flush() {
				return false
			}
			continue
		}
		pause := script.Gap
		if script.Split {
			pause /= 2
			rest := bytes.Clone(c.out[(begin+len(c.out))/2:])
			c.out = c.out[:(begin+len(c.out))/2]
			if !c.flush() || !c.pause(pause) {
				return false
			}
			c.out = append(c.out, rest...)
		}
		if !c.flush() || !c.pause(pause) {
			return false
		}
	}
	return c.finished(append(c.out, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"...))
}

// finished writes the end of an answer.
func (c *conn) finished(b []byte) bool {
	if _, err := c.Write(b); err != nil {
		c.s.counters.left.Add(1)
		return false
	}
	c.s.counters.finished.Add(1)
	return true
}

// flush writes what is there.
func (c *conn) flush() bool {
	_, err := c.Write(c.out)
	c.out = c.out[:0]
	if err != nil {
		c.s.counters.left.Add(1)
	}
	return err == nil
}

// pause waits between two frames.
func (c *conn) pause(d time.Duration) bool {
	if c.wait(d) {
		return true
	}
	c.s.counters.left.Add(1)
	return false
}

// wait sleeps, and tells whether the client is there still.
func (c *conn) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	if err := c.SetReadDeadline(time.Now().Add(d)); err != nil {
		return false
	}
	_, err := c.br.Peek(1)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return c.SetReadDeadline(time.Time{}) == nil
	}
	if err == nil { // it speaks before its turn
		c.s.counters.malformed.Add(1)
	}
	return false
}

// appendChunk adds what fill makes as one chunk of the transfer coding.
func appendChunk(b []byte, fill func([]byte) []byte) []byte {
	const width = 6 // of the size, with leading zeros
	begin := len(b)
	b = append(b, "000000\r\n"...)
	b = fill(b)
	size := len(b) - begin - width - 2
	for i := begin + width - 1; i >= begin; i-- {
		b[i] = "0123456789abcdef"[size&15]
		size >>= 4
	}
	return append(b, "\r\n"...)
}

// modelOf is the name that was asked for. Our clients write it without escapes.
func modelOf(body []byte) []byte {
	_, rest, ok := bytes.Cut(body, []byte(`"model":"`))
	if !ok {
		return nil
	}
	name, _, _ := bytes.Cut(rest, []byte(`"`))
	return name
}
