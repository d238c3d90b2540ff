package mockengine

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// Break says where an engine breaks off, closing the connection.
type Break string

const (
	BreakNone  Break = ""
	BreakHead  Break = "head"  // in place of the answer
	BreakFrame Break = "frame" // in the middle of the answer: of its body, or of its last frame
)

// Script is how one request is to be answered. It travels in the prompt, so it survives whatever stands between client and engine.
// The zero value is an answer of no frames at once.
type Script struct {
	// ID is the request's own: the engine notes which it has seen. It should be small, since the note is a bit for each number below it.
	ID uint64
	// Frames are the pieces of the answer, with a pause of Gap between two of them; an answer that is no stream has them in one.
	Frames int
	Gap    time.Duration
	// Pad makes each frame longer by so many bytes.
	Pad int
	// Hold is the time before the head, which comes with the first frame.
	Hold time.Duration
	// Split cuts each frame of a stream in two, with half of Gap between the halves.
	Split bool
	// Status other than 0 and 200 is an error with the engine's own body.
	Status int
	// Break breaks the answer off.
	Break Break
}

// mark begins a script in a prompt; the last mark of a body counts.
const mark = "play/"

// String is the prompt. It needs no escaping in JSON.
func (s Script) String() string {
	b := append(make([]byte, 0, 80), mark...)
	for _, n := range [...]uint64{s.ID, uint64(s.Frames), uint64(s.Gap.Microseconds()), uint64(s.Pad), uint64(s.Hold.Microseconds())} {
		b = append(strconv.AppendUint(b, n, 10), '/')
	}
	if s.Split {
		b = append(b, "split/"...)
	}
	if s.Status != 0 {
		b = append(strconv.AppendInt(append(b, "status="...), int64(s.Status), 10), '/')
	}
	if s.Break != BreakNone {
		b = append(append(append(b, "break="...), s.Break...), '/')
	}
	return string(b)
}

// Text is the whole answer to a script: what its frames hold, one after the other.
func (s Script) Text() string { return string(s.AppendText(nil)) }

// AppendText adds Text to b.
func (s Script) AppendText(b []byte) []byte {
	for k := range s.Frames {
		b = s.appendFrame(b, k)
	}
	return b
}

// appendFrame adds frame k, which no other frame of any request equals.
func (s Script) appendFrame(b []byte, k int) []byte {
	b = strconv.AppendUint(b, s.ID, 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(k), 10)
	b = append(b, ' ')
	for n := s.Pad; n > 0; n -= len(padding) {
		b = append(b, padding[:min(n, len(padding))]...)
	}
	return b
}

var padding = strings.Repeat("x", 1024)

// parse finds the script in a request's body.
func parse(body []byte) (s Script, ok bool) {
	i := bytes.LastIndex(body, []byte(mark))
	if i < 0 {
		return s, false
	}
	rest := body[i+len(mark):]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return s, false
	}
	rest = rest[:end]
	var numbers [5]uint64
	for i := range numbers {
		field, after, found := bytes.Cut(rest, []byte("/"))
		n, err := strconv.ParseUint(string(field), 10, 63)
		if !found || err != nil {
			return s, false
		}
		numbers[i], rest = n, after
	}
	s.ID, s.Frames, s.Gap = numbers[0], int(numbers[1]), time.Duration(numbers[2])*time.Microsecond
	s.Pad, s.Hold = int(numbers[3]), time.Duration(numbers[4])*time.Microsecond
	for len(rest) > 0 {
		field, after, _ := bytes.Cut(rest, []byte("/"))
		rest = after
		switch name, value, _ := strings.Cut(string(field), "="); name {
		case "split":
			s.Split = true
		case "status":
			n, err := strconv.Atoi(value)
			if err != nil {
				return s, false
			}
			s.Status = n
		case "break":
			s.Break = Break(value)
		default:
			return s, false
		}
	}
	return s, true
}
