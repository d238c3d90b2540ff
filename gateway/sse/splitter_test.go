package sse

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// split feeds stream to a splitter in fragments of the given sizes, the last of which repeats.
func split(t *testing.T, s *Splitter, stream []byte, sizes ...int) (events []string, err error) {
	t.Helper()
	for len(stream) > 0 {
		n := min(max(sizes[0], 1), len(stream))
		if len(sizes) > 1 {
			sizes = sizes[1:]
		}
		// The fragment's memory is the reader's, who will use it again.
		fragment := bytes.Clone(stream[:n])
		stream = stream[n:]
		s.Push(fragment)
		for {
			event, ok, err := s.Next()
			if err != nil {
				return events, err
			}
			if !ok {
				break
			}
			events = append(events, string(event))
		}
		for i := range fragment {
			fragment[i] = '!'
		}
	}
	return events, nil
}

// refSplit is the plain reading of a whole stream: lines up to a blank one make an event.
func refSplit(stream string) (events []string, rest string) {
	event, content, first := "", false, true
	for line := range strings.Lines(stream) {
		event += line
		if line != "\n" && line != "\r\n" {
			content = content || strings.HasSuffix(line, "\n")
			continue
		}
		if first && content {
			first = false
			if after, found := strings.CutPrefix(event, "\xEF\xBB\xBF"); found {
				for strings.HasPrefix(after, "\n") || strings.HasPrefix(after, "\r\n") {
					_, after, _ = strings.Cut(after, "\n")
				}
				event, content = after, after != ""
			}
		}
		if content {
			events = append(events, event)
		}
		event, content = "", false
	}
	return events, event
}

var streams = []struct {
	name   string
	stream string
	events []string
	rest   string
}{
	{"empty", "", nil, ""},
	{"one", "data: 1\n\n", []string{"data: 1\n\n"}, ""},
	{"two", "data: 1\n\ndata: 2\n\n", []string{"data: 1\n\n", "data: 2\n\n"}, ""},
	{"CRLF", "data: 1\r\n\r\ndata: 2\r\n\r\n", []string{"data: 1\r\n\r\n", "data: 2\r\n\r\n"}, ""},
	{"mixed ends", "data: 1\r\n\ndata: 2\n\r\n", []string{"data: 1\r\n\n", "data: 2\n\r\n"}, ""},
	{"CR alone ends no line", "data: 1\r\rdata: 2\n\n", []string{"data: 1\r\rdata: 2\n\n"}, ""},
	{"CR, then text", "\rdata: 1\n\rx\n\n", []string{"\rdata: 1\n\rx\n\n"}, ""},
	{"two CR and LF are no blank line", "data: 1\n\r\r\n\n", []string{"data: 1\n\r\r\n\n"}, ""},
	{"several lines", "event: a\nid: 1\ndata: 1\ndata: 2\n\n", []string{"event: a\nid: 1\ndata: 1\ndata: 2\n\n"}, ""},
	{"comment before data", ": beat\ndata: 1\n\n", []string{": beat\ndata: 1\n\n"}, ""},
	{"comment alone", ": beat\n\ndata: 1\n\n", []string{": beat\n\n", "data: 1\n\n"}, ""},
	{"blank lines", "\n\n\r\ndata: 1\n\n\n\r\n\ndata: 2\n\n", []string{"data: 1\n\n", "data: 2\n\n"}, ""},
	{"byte order mark", "\xEF\xBB\xBFdata: 1\n\n\xEF\xBB\xBFdata: 2\n\n", []string{"data: 1\n\n", "\xEF\xBB\xBFdata: 2\n\n"}, ""},
	{"byte order mark and blank line", "\xEF\xBB\xBF\ndata: 1\n\n", []string{"data: 1\n\n"}, ""},
	{"byte order mark, blank lines", "\xEF\xBB\xBF\r\n\n\ndata: 1\n\n", []string{"data: 1\n\n"}, ""},
	{"two byte order marks", "\xEF\xBB\xBF\n\n\xEF\xBB\xBFdata: 1\n\n", []string{"\xEF\xBB\xBFdata: 1\n\n"}, ""},
	{"cut in the data", "data: 1\n\ndata: 2", []string{"data: 1\n\n"}, "data: 2"},
	{"cut behind the line", "data: 1\n\ndata: 2\n", []string{"data: 1\n\n"}, "data: 2\n"},
	{"cut behind CR", "data: 1\n\r", nil, "data: 1\n\r"},
	{"cut behind the first CR", "\n\r", nil, "\r"},
}

func TestSplitter(t *testing.T) {
	for _, c := range streams {
		t.Run(c.name, func(t *testing.T) {
			for size := 1; size <= len(c.stream)+1; size++ {
				var s Splitter
				events, err := split(t, &s, []byte(c.stream), size)
				if err != nil || !slices.Equal(events, c.events) || string(s.Rest()) != c.rest {
					t.Errorf("by %d: got %q, rest %q, %v; want %q, rest %q", size, events, s.Rest(), err, c.events, c.rest)
				}
			}
		})
	}
}

func TestSplitterEventIsPartOfTheFragment(t *testing.T) {
	fragment := []byte("data: 1\n\ndata: 2\n\nda")
	var s Splitter
	s.Push(fragment)
	for _, at := range []int{0, 9} {
		event, ok, err := s.Next()
		if !ok || err != nil || &event[0] != &fragment[at] {
			t.Errorf("got %q, %v, %v, want the bytes at %d", event, ok, err, at)
		}
	}
}

func TestSplitterBoundsEvents(t *testing.T) {
	for _, c := range []struct {
		name, stream string
		limit        int
		events       int
		err          error
	}{
		{"exactly at the limit", "data: 123\n\ndata: 1\n\n", 11, 2, nil},
		{"one more", "data: 1\n\ndata: 1234\n\ndata: 1\n\n", 11, 1, ErrEventTooLarge},
		{"never ends", "data: 1\n\n" + strings.Repeat("x", 100), 11, 1, ErrEventTooLarge},
		{"many lines", strings.Repeat("data: 1\n", 10), 30, 0, ErrEventTooLarge},
		{"blank lines do not count", strings.Repeat("\n", 100) + "data: 1\n\n", 11, 1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			for size := 1; size <= len(c.stream); size++ {
				s := Splitter{MaxEvent: c.limit}
				events, err := split(t, &s, []byte(c.stream), size)
				if len(events) != c.events || !errors.Is(err, c.err) {
					t.Errorf("by %d: got %q, %v, want %d events, %v", size, events, err, c.events, c.err)
				}
				if c.err == nil {
					continue
				}
				s.Push([]byte("data: 1\n\n"))
				if event, ok, err := s.Next(); ok || !errors.Is(err, c.err) {
					t.Errorf("by %d: got %q, %v after the error, want it again", size, event, err)
				}
			}
		})
	}
}

func TestSplitterReset(t *testing.T) {
	s := Splitter{MaxEvent: 20}
	if _, err := split(t, &s, []byte("data: 1\n\ndata: "), 3); err != nil {
		t.Fatal(err)
	}
	s.Reset()
	events, err := split(t, &s, []byte("\xEF\xBB\xBFdata: 2\n\n"), 3)
	if err != nil || !slices.Equal(events, []string{"data: 2\n\n"}) || s.MaxEvent != 20 {
		t.Errorf("got %q, %v, limit %d", events, err, s.MaxEvent)
	}
}

func TestSplitterGivesBackLargeBuffers(t *testing.T) {
	var s Splitter
	if _, err := split(t, &s, []byte("data: "+strings.Repeat("x", 2*keepPending)+"\n\n:"), keepPending); err != nil {
		t.Fatal(err)
	}
	if cap(s.pending) > keepPending {
		t.Errorf("got a buffer of %d bytes after a large event, want at most %d", cap(s.pending), keepPending)
	}
}

func TestPushBeforeTheEndPanics(t *testing.T) {
	defer func() {
		if r, ok := recover().(string); !ok || !strings.HasPrefix(r, "BUG: ") {
			t.Errorf("got panic %v, want one that begins with BUG:", r)
		}
	}()
	var s Splitter
	s.Push([]byte("data: 1\n\n"))
	s.Push([]byte("data: 2\n\n"))
}

// Any fragmentation gives the same events, and they are those of a plain reading.
func FuzzSplitter(f *testing.F) {
	for _, c := range streams {
		f.Add([]byte(c.stream), []byte{1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		sizes := []int{len(stream) + 1}
		for _, c := range cuts {
			sizes = slices.Insert(sizes, 0, int(c))
		}
		want, rest := refSplit(string(stream))
		for _, sizes := range [][]int{{len(stream) + 1}, {1}, {2}, sizes} {
			var s Splitter
			events, err := split(t, &s, stream, sizes...)
			if err != nil || !slices.Equal(events, want) {
				t.Fatalf("fragments %v of %q: got %q, %v, want %q", sizes, stream, events, err, want)
			}
			if got := string(s.Rest()); got != rest {
				t.Fatalf("fragments %v of %q: got rest %q, want %q", sizes, stream, got, rest)
			}
		}
	})
}
