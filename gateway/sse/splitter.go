package sse

import (
	"bytes"
	"errors"
)

// DefaultMaxEvent is the size limit of one event for a Splitter that names none. Clients read lines of
// 32 MiB at most (openai-go), so a larger event could not be delivered anyway.
const DefaultMaxEvent = 32 << 20

// ErrEventTooLarge is what Next gives when an event is larger than the Splitter's limit.
var ErrEventTooLarge = errors.New("event of the stream is too large")

// Splitter cuts a stream of server-sent events into whole events. Give it fragments with Push and take
// the events out with Next until there are none; which events come out does not depend on where the
// fragments were cut. Lines may end in LF or CRLF. Blank lines between events and a byte order mark at the
// beginning are dropped, since both break some clients.
//
// The zero value is ready to use.
type Splitter struct {
	// MaxEvent is the largest event in bytes, its blank line included. 0 means DefaultMaxEvent.
	MaxEvent int

	pending []byte // the begun event, from earlier fragments
	frag    []byte // what is left of the latest fragment
	line    lineState
	content bool // the begun event has a line that is not blank
	begun   bool // an event was given out
	whole   bool // pending is an event that was given out
	err     error
}

// lineState is where in a line the next byte stands.
type lineState uint8

const (
	lineStart lineState = iota
	lineCR              // after a CR that was the line's first byte: the line is blank if LF follows
	lineInside
)

// keepPending is the largest buffer in bytes that outlives the event it was grown for.
const keepPending = 64 << 10

// Push adds a fragment. All events of the earlier one must have been taken. The splitter refers to the
// fragment, which must not change, until Next has told that there are no more events.
func (s *Splitter) Push(fragment []byte) {
	if len(s.frag) > 0 && s.err == nil {
		panic("BUG: a fragment was pushed before the events of the last one were taken")
	}
	s.frag = fragment
}

// Next gives the next whole event with the blank line that ends it; ok is false when more fragments are
// needed. The event is part of the fragment, or of the splitter's buffer when it came in several; it is
// valid until the next call of Next or Push. The only error is ErrEventTooLarge, and it is final.
func (s *Splitter) Next() (event []byte, ok bool, err error) {
	for {
		event, ok, err = s.next()
		if !ok || s.begun {
			return event, ok, err
		}
		s.begun = true
		if event = trimFirst(event); len(event) > 0 {
			return event, true, nil
		}
	}
}

func (s *Splitter) next() (event []byte, ok bool, err error) {
	if s.err != nil {
		return nil, false, s.err
	}
	if s.whole {
		s.release()
	}
	begin, i := 0, 0 // where the event, and the next byte to look at, are in the fragment
	for i < len(s.frag) {
		switch c := s.frag[i]; {
		case s.line == lineInside:
			n := bytes.IndexByte(s.frag[i:], '\n')
			if n < 0 {
				i = len(s.frag)
				continue
			}
			i += n + 1
			s.line, s.content = lineStart, true
		case c == '\n' && s.content:
			i++
			s.line, s.content = lineStart, false
			return s.take(begin, i)
		case c == '\n': // a blank line before the event
			i++
			begin, s.line, s.pending = i, lineStart, s.pending[:0]
		case c == '\r' && s.line == lineStart:
			i++
			s.line = lineCR
		default:
			s.line = lineInside // and look at c again
		}
	}
	if begin < len(s.frag) {
		s.pending = append(s.pending, s.frag[begin:]...)
	}
	s.frag = nil
	return nil, false, s.check(len(s.pending))
}

// take gives the event that ends at i of the fragment.
func (s *Splitter) take(begin, i int) ([]byte, bool, error) {
	event := s.frag[begin:i]
	if len(s.pending) > 0 {
		s.pending = append(s.pending, event...)
		event, s.whole = s.pending, true
	}
	s.frag = s.frag[i:]
	if err := s.check(len(event)); err != nil {
		return nil, false, err
	}
	return event, true, nil
}

func (s *Splitter) check(size int) error {
	limit := s.MaxEvent
	if limit == 0 {
		limit = DefaultMaxEvent
	}
	if size > limit {
		s.err = ErrEventTooLarge
		s.pending, s.frag = nil, nil
	}
	return s.err
}

func (s *Splitter) release() {
	s.whole = false
	if s.pending = s.pending[:0]; cap(s.pending) > keepPending {
		s.pending = nil
	}
}

// Rest gives the bytes of an event that was begun and has not ended. At the stream's end, anything left
// is an event that clients will not see, and so a sign that the stream was cut.
func (s *Splitter) Rest() []byte {
	if s.whole {
		return nil
	}
	return s.pending
}

// Reset makes the splitter ready for another stream with the same limit.
func (s *Splitter) Reset() {
	s.release()
	*s = Splitter{MaxEvent: s.MaxEvent, pending: s.pending}
}

// trimFirst takes a byte order mark, and blank lines that stood behind it, from a stream's first event.
func trimFirst(event []byte) []byte {
	rest, found := bytes.CutPrefix(event, []byte("\xEF\xBB\xBF"))
	for found {
		line, after, ok := bytes.Cut(rest, []byte{'\n'})
		if !ok || len(line) > 1 || len(line) == 1 && line[0] != '\r' {
			break
		}
		rest = after
	}
	return rest
}
