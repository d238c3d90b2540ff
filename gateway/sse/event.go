package sse

import (
	"bytes"

	"pilotlight/gateway/jsonbody"
)

var dataPrefix = []byte("data: ")

// Data gives an event's payload without the field name and, when the data came in several lines, with
// line feeds between them. ok is false when there is none, or an empty one: such an event tells a client
// nothing, breaks several, and should not be passed on. The result is part of event unless there were
// several data lines.
func Data(event []byte) (data []byte, ok bool) {
	if data, ok = plain(event); ok {
		return data, true
	}
	lines := 0
	for rest := event; len(rest) > 0; {
		var name, value []byte
		name, value, rest = field(rest)
		if string(name) != "data" {
			continue
		}
		switch lines++; lines {
		case 1:
			data = value
		default:
			data = append(append(bytes.Clone(data), '\n'), value...)
		}
	}
	return data, len(data) > 0
}

// Name gives the value of an event's last event: field, nil when it has none.
func Name(event []byte) []byte {
	var found []byte
	for rest := event; len(rest) > 0; {
		var name, value []byte
		name, value, rest = field(rest)
		if string(name) == "event" {
			found = value
		}
	}
	return found
}

// IsDone tells whether data is the end mark of OpenAI's streams, which is exactly [DONE].
func IsDone(data []byte) bool { return string(data) == "[DONE]" }

// plain gives the data of an event in the form that nearly all have: one line that starts with "data: ",
// not empty, LF, LF.
func plain(event []byte) (data []byte, ok bool) {
	n := len(event)
	if n <= len("data: \n\n") || !bytes.HasPrefix(event, dataPrefix) || event[n-1] != '\n' || event[n-2] != '\n' {
		return nil, false
	}
	data = event[len(dataPrefix) : n-2]
	return data, bytes.IndexByte(data, '\n') < 0 && data[len(data)-1] != '\r'
}

// field cuts the first line from rest and gives its name and value, without one leading space of the
// value. A comment has an empty name.
func field(event []byte) (name, value, rest []byte) {
	line, rest, _ := bytes.Cut(event, []byte{'\n'})
	line = bytes.TrimSuffix(line, []byte{'\r'})
	name, value, _ = bytes.Cut(line, []byte{':'})
	return name, bytes.TrimPrefix(value, []byte{' '}), rest
}

// Normalize gives an event in the form that all clients accept: an event: line if named is set and the
// event has a name, one data line, LF, LF. Comments, id: and retry: fields are dropped, and lines of data
// are joined by spaces, which JSON allows wherever it allows a line break. ok is false when there is no
// data and so nothing to pass on. An event that has this form already is given back as it is; otherwise
// the result is made in dst[:0]'s memory.
//
// Set named for APIs whose events have names (Responses, Anthropic), and not for chat and completions.
func Normalize(dst, event []byte, named bool) (normal []byte, ok bool) {
	if _, ok := plain(event); ok {
		return event, true
	}
	data, ok := Data(event)
	if !ok {
		return nil, false
	}
	dst = dst[:0]
	if name := Name(event); named && len(name) > 0 {
		dst = append(append(append(dst, "event: "...), name...), '\n')
	}
	return appendData(dst, data), true
}

// appendData appends data as the one data line of an event and ends the event.
func appendData(dst, data []byte) []byte {
	dst = append(dst, dataPrefix...)
	start := len(dst)
	dst = append(dst, data...)
	for i := start; i < len(dst); i++ {
		n := bytes.IndexByte(dst[i:], '\n')
		if n < 0 {
			break
		}
		i += n
		dst[i] = ' '
	}
	return append(dst, '\n', '\n')
}

var modelKey = []byte(`"model"`)

// RewriteModel appends event to dst with the model's name in its data replaced by model, and every other
// byte as it was. The name is the string at the top-level member model, or at response.model (Responses)
// or message.model (Anthropic). An event without one is appended as it is. Data that comes in several
// lines is joined into one first.
func RewriteModel(dst, event []byte, model string) []byte {
	if !bytes.Contains(event, modelKey) {
		return append(dst, event...)
	}
	data, ok := plain(event)
	if !ok {
		if data, ok = Data(event); !ok {
			return append(dst, event...)
		}
		if i := bytes.Index(event, data); i >= 0 {
			dst = append(dst, event[:i]...)
			dst = RewriteModelJSON(dst, data, model)
			return append(dst, event[i+len(data):]...)
		}
		if name := Name(event); len(name) > 0 {
			dst = append(append(append(dst, "event: "...), name...), '\n')
		}
		return appendData(dst, RewriteModelJSON(nil, data, model))
	}
	dst = append(dst, dataPrefix...)
	dst = RewriteModelJSON(dst, data, model)
	return append(dst, '\n', '\n')
}

// RewriteModelJSON is RewriteModel for a bare JSON document: an answer's body, or a line of NDJSON.
func RewriteModelJSON(dst, doc []byte, model string) []byte {
	start, end, ok := findModel(doc)
	if !ok {
		return append(dst, doc...)
	}
	dst = append(dst, doc[:start]...)
	dst = jsonbody.AppendString(dst, model)
	return append(dst, doc[end:]...)
}

func findModel(doc []byte) (start, end int, ok bool) {
	// Without this token there is no such key, and looking for it is cheaper than walking the members.
	if !bytes.Contains(doc, modelKey) {
		return 0, 0, false
	}
	if start, end, ok = jsonbody.TopLevelString(doc, "model"); ok {
		return start, end, true
	}
	for _, parent := range [...]string{"response", "message"} {
		m, found := jsonbody.Locate(doc, parent)
		if !found || m.Kind != jsonbody.Object {
			continue
		}
		if start, end, ok = jsonbody.TopLevelString(doc[m.Start:m.End], "model"); ok {
			return m.Start + start, m.Start + end, true
		}
	}
	return 0, 0, false
}

// StripNullError appends event to dst without the top-level member "error":null of its data, on which
// some clients abort the stream. Other events are appended as they are.
func StripNullError(dst, event []byte) []byte {
	data, ok := Data(event)
	if !ok || !bytes.Contains(data, errorKey) {
		return append(dst, event...)
	}
	m, ok := jsonbody.Locate(data, "error")
	if !ok || m.Kind != jsonbody.Null {
		return append(dst, event...)
	}
	from, to := m.KeyStart, m.End
	switch {
	case data[m.After] == ',':
		to = m.After + 1
	case data[m.Before] == ',':
		from = m.Before
	}
	if i := bytes.Index(event, data); i >= 0 {
		dst = append(append(dst, event[:i]...), data[:from]...)
		return append(dst, event[i+to:]...)
	}
	if name := Name(event); len(name) > 0 {
		dst = append(append(append(dst, "event: "...), name...), '\n')
	}
	return appendData(dst, append(bytes.Clone(data[:from]), data[to:]...))
}
