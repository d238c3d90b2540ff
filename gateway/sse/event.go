package sse

import (
	"bytes"
	"strconv"

	"pilotlight/gateway/jsonbody"
)

var (
	dataPrefix  = []byte("data: ")
	eventPrefix = []byte("event: ")
	usageKey    = []byte(`"usage"`)
)

// Data gives an event's payload without the field name and, when the data came in several lines, with
// line feeds between them. ok is false when there is none, or nothing but white space: such an event tells
// a client nothing, breaks several, and should not be passed on. The result is part of event unless there
// were several data lines.
func Data(event []byte) (data []byte, ok bool) {
	start, end, lines := dataSpan(event)
	if lines <= 1 {
		return payload(event[start:end])
	}
	data = make([]byte, 0, len(event))
	lines = 0
	for rest := event; len(rest) > 0; {
		var name, value []byte
		if name, value, rest = field(rest); string(name) != "data" {
			continue
		}
		if lines++; lines > 1 {
			data = append(data, '\n')
		}
		data = append(data, value...)
	}
	return payload(data)
}

func payload(data []byte) ([]byte, bool) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, false
	}
	return data, true
}

// Name gives the value of an event's last event: field, nil when it has none.
func Name(event []byte) []byte {
	var found []byte
	for rest := event; len(rest) > 0; {
		var name, value []byte
		if name, value, rest = field(rest); string(name) == "event" {
			found = value
		}
	}
	return found
}

// IsDone tells whether data is the end mark of OpenAI's streams, which is exactly [DONE].
func IsDone(data []byte) bool { return string(data) == "[DONE]" }

// IsUsageChunk tells whether data is the chunk without choices that include_usage adds at a stream's
// end. A client that did not ask for usage does not expect it.
func IsUsageChunk(data []byte) bool {
	if !hasToken(data, usageKey) {
		return false
	}
	choices, ok := jsonbody.Locate(data, "choices")
	if !ok || choices.Kind != jsonbody.Array || len(bytes.TrimSpace(data[choices.Start+1:choices.End-1])) > 0 {
		return false
	}
	usage, ok := jsonbody.Locate(data, "usage")
	return ok && usage.Kind == jsonbody.Object
}

// SequenceNumber gives the number that the Responses API puts into each event's data.
func SequenceNumber(data []byte) (n int, ok bool) {
	m, ok := jsonbody.Locate(data, "sequence_number")
	if !ok || m.Kind != jsonbody.Number {
		return 0, false
	}
	n, err := strconv.Atoi(string(data[m.Start:m.End]))
	return n, err == nil
}

// dataSpan finds where an event's data is and in how many lines it comes; start and end are those of the
// first.
func dataSpan(event []byte) (start, end, lines int) {
	if isPlain(event) {
		return len(dataPrefix), len(event) - 2, 1
	}
	for rest := event; len(rest) > 0; {
		var name, value []byte
		line := len(event) - len(rest)
		if name, value, rest = field(rest); string(name) != "data" {
			continue
		}
		if lines++; lines > 1 {
			continue
		}
		start = line + len(name)
		for _, c := range [...]byte{':', ' '} { // what field cut off
			if start < len(event) && event[start] == c {
				start++
			}
		}
		end = start + len(value)
	}
	return start, end, lines
}

// isPlain tells whether an event has the form that nearly all have: one line that starts with "data: ",
// not blank, LF, LF, and no CR, which would end the line for some clients.
func isPlain(event []byte) bool {
	n := len(event)
	return n > len("data: \n\n") && bytes.HasPrefix(event, dataPrefix) && event[len(dataPrefix)] > ' ' &&
		bytes.IndexByte(event, '\n') == n-2 && event[n-1] == '\n' && bytes.IndexByte(event, '\r') < 0
}

// field cuts the first line from event and gives its name and value, without one leading space of the
// value. A comment has an empty name.
func field(event []byte) (name, value, rest []byte) {
	line, rest, _ := bytes.Cut(event, []byte{'\n'})
	line = bytes.TrimSuffix(line, []byte{'\r'})
	name, value, _ = bytes.Cut(line, []byte{':'})
	return name, bytes.TrimPrefix(value, []byte{' '}), rest
}

// Normalize gives an event in the form that all clients accept: an event: line if named is set and the
// event has a name, one data line, LF, LF. Comments, id: and retry: fields are dropped, and lines of data
// are joined by spaces, which JSON allows wherever it allows a line break; so is what a lone CR parts. ok is false when there is no
// data and so nothing to pass on. An event that has this form already is given back as it is; otherwise
// the result is made in the memory of dst, which may be nil and must not be the event's.
//
// Set named for APIs whose events have names (Responses, Anthropic), and not for chat and completions.
func Normalize(dst, event []byte, named bool) (normal []byte, ok bool) {
	if isPlain(event) || named && isPlainNamed(event) {
		return event, true
	}
	data, ok := Data(event)
	if !ok {
		return nil, false
	}
	dst = dst[:0]
	if name := Name(event); named && len(name) > 0 {
		dst = append(appendLine(append(dst, eventPrefix...), name), '\n')
	}
	dst = appendLine(append(dst, dataPrefix...), data)
	return append(dst, '\n', '\n'), true
}

// appendLine appends text with spaces for what ends a line.
func appendLine(dst, text []byte) []byte {
	start := len(dst)
	dst = append(dst, text...)
	for i, c := range dst[start:] {
		if c == '\n' || c == '\r' {
			dst[start+i] = ' '
		}
	}
	return dst
}

func isPlainNamed(event []byte) bool {
	if !bytes.HasPrefix(event, eventPrefix) {
		return false
	}
	n := bytes.IndexByte(event, '\n')
	return n > len(eventPrefix) && bytes.IndexByte(event[:n], '\r') < 0 && isPlain(event[n+1:])
}
