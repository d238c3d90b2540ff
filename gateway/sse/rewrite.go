package sse

import "pilotlight/gateway/jsonbody"

var modelKey = []byte(`"model"`)

// RewriteModel appends event to dst with the model's name in its data replaced by model, and every other
// byte as it was. The name is the string at the top-level member model, or at response.model (Responses)
// or message.model (Anthropic). An event without one is appended as it is. Data in several lines that may
// hold a name is normalized first. A caller whose engine uses the client's name need not call it.
func RewriteModel(dst, event []byte, model string) []byte {
	if !hasToken(event, modelKey) {
		return append(dst, event...)
	}
	event, start, end := oneDataLine(event)
	dst = append(dst, event[:start]...)
	dst = RewriteModelJSON(dst, event[start:end], model)
	return append(dst, event[end:]...)
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
	// Without this token there is no such key (engines do not escape letters), and looking for it is
	// cheaper than walking over the members.
	if !hasToken(doc, modelKey) {
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
// some clients abort the stream. Other events are appended as they are; data in several lines that may
// hold the member is normalized first.
func StripNullError(dst, event []byte) []byte {
	if !hasToken(event, errorKey) {
		return append(dst, event...)
	}
	event, start, end := oneDataLine(event)
	data := event[start:end]
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
	dst = append(dst, event[:start+from]...)
	return append(dst, event[start+to:]...)
}

// oneDataLine gives an event whose data, if any, is in event[start:end].
func oneDataLine(event []byte) (one []byte, start, end int) {
	start, end, lines := dataSpan(event)
	if lines > 1 {
		if normal, ok := Normalize(nil, event, true); ok {
			event = normal
		}
		start, end, _ = dataSpan(event) // of blank lines, the first will do
	}
	return event, start, end
}
