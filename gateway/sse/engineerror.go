package sse

import (
	"bytes"
	"encoding/json"
	"html"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"pilotlight/gateway/jsonbody"
)

// MaxErrorMessage is the size in bytes beyond which an engine's message is cut.
const MaxErrorMessage = 4 << 10

// EngineError is what an engine said went wrong, whichever of its shapes it used. Empty strings and 0
// mean that it did not say.
type EngineError struct {
	// Message is valid UTF-8 of at most MaxErrorMessage bytes, and never empty.
	Message string
	Type    string
	Param   string
	// Code is the engine's code as text; integers are written in decimal.
	Code string
	// Status is the HTTP error status (400 to 599) that Code names, or that the answer had.
	Status int
}

// Error gives the message, so that an EngineError can travel as an error.
func (e *EngineError) Error() string { return "engine: " + e.Message }

var (
	errorKey  = []byte(`"error"`)
	detailKey = []byte(`"detail"`)
)

// ErrorOf recognises an error in the data of an event, or in a line of NDJSON:
//
//	{"error":{"message":…,"type":…,"param":…,"code":…}}   code a string or an integer
//	{"error":"text"}
//	{"object":"error","message":…,…}, {"type":"error","message":…,…}
//	{"detail":…}   text, or FastAPI's list of problems
//
// "error":null is none, nor is a Responses object that tells of a failed generation: that is an answer.
// For data that holds no error it allocates nothing.
func ErrorOf(data []byte) (*EngineError, bool) {
	if !hasToken(data, errorKey) && !hasToken(data, detailKey) {
		return nil, false
	}
	return errorIn(data)
}

func errorIn(doc []byte) (*EngineError, bool) {
	if isText(doc, "object", `"response"`) {
		return nil, false
	}
	if m, ok := jsonbody.Locate(doc, "error"); ok && m.Kind != jsonbody.Null && m.Kind != jsonbody.False {
		return fromValue(doc[m.Start:m.End], m.Kind)
	}
	if isText(doc, "object", `"error"`) || isText(doc, "type", `"error"`) {
		return fromObject(doc)
	}
	m, ok := jsonbody.Locate(doc, "detail")
	if !ok || m.Kind == jsonbody.Null {
		return nil, false
	}
	for _, key := range [...]string{"choices", "object", "type", "id"} {
		if _, answer := jsonbody.Locate(doc, key); answer {
			return nil, false
		}
	}
	return fromDetail(doc[m.Start:m.End])
}

func isText(doc []byte, key, literal string) bool {
	start, end, ok := jsonbody.TopLevelString(doc, key)
	return ok && string(doc[start:end]) == literal
}

func fromValue(raw []byte, kind jsonbody.Kind) (*EngineError, bool) {
	switch kind {
	case jsonbody.Object:
		return fromObject(raw)
	case jsonbody.String:
		var text string
		if json.Unmarshal(raw, &text) != nil || text == "" {
			return nil, false
		}
		return newEngineError(text), true
	default:
		return newEngineError(string(raw)), true
	}
}

func fromObject(raw []byte) (*EngineError, bool) {
	var fields struct {
		Message json.RawMessage `json:"message"`
		Type    json.RawMessage `json:"type"`
		Param   json.RawMessage `json:"param"`
		Code    json.RawMessage `json:"code"`
	}
	if json.Unmarshal(raw, &fields) != nil {
		return nil, false
	}
	e := newEngineError(scalar(fields.Message))
	e.Type, e.Param, e.Code = clean(scalar(fields.Type)), clean(scalar(fields.Param)), clean(scalar(fields.Code))
	if n, err := strconv.Atoi(e.Code); err == nil && isErrorStatus(n) {
		e.Status = n
	}
	return e, true
}

// fromDetail reads FastAPI's detail: text, or a list of {"loc":[…],"msg":…}.
func fromDetail(raw []byte) (*EngineError, bool) {
	var problems []struct {
		Loc []json.RawMessage `json:"loc"`
		Msg string            `json:"msg"`
	}
	if json.Unmarshal(raw, &problems) != nil {
		text := scalar(raw)
		return newEngineError(text), text != ""
	}
	var texts []string
	for _, p := range problems {
		var path []string
		for _, step := range p.Loc {
			path = append(path, scalar(step))
		}
		texts = append(texts, strings.Join(path, ".")+": "+p.Msg)
	}
	return newEngineError(strings.Join(texts, "; ")), len(texts) > 0
}

// scalar gives a JSON value as text: a string's content, nothing for null, else the value as written.
func scalar(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil || len(raw) == 0 {
		return text
	}
	return string(raw)
}

func newEngineError(message string) *EngineError {
	message = clean(message)
	if message == "" {
		message = "the model server gave an error without a message"
	}
	return &EngineError{Message: message}
}

func isErrorStatus(n int) bool { return n >= 400 && n <= 599 }

var htmlTitle = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)

// ParseError reads the body of an answer whose HTTP status is an error: any shape that ErrorOf knows,
// other JSON objects with a message, HTML (its title counts) or plain text. Status is that of the answer.
func ParseError(status int, body []byte) EngineError {
	e := parseError(status, body)
	e.Status = status
	return *e
}

func parseError(status int, body []byte) *EngineError {
	text := bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xEF\xBB\xBF")))
	switch {
	case len(text) == 0:
		return newEngineError(strings.TrimSpace("the model server answered " + strconv.Itoa(status) + " " + http.StatusText(status)))
	case text[0] == '{' && json.Valid(text):
		if e, ok := errorIn(text); ok {
			return e
		}
		if _, _, ok := jsonbody.TopLevelString(text, "message"); ok {
			if e, ok := fromObject(text); ok {
				return e
			}
		}
	case text[0] == '"':
		var s string
		if json.Unmarshal(text, &s) == nil {
			return newEngineError(s)
		}
	case text[0] == '<':
		if m := htmlTitle.FindSubmatch(text[:min(len(text), 64<<10)]); m != nil {
			return newEngineError(strings.Join(strings.Fields(html.UnescapeString(string(m[1]))), " "))
		}
	}
	return newEngineError(string(text))
}

// clean makes text from an engine valid UTF-8 of at most MaxErrorMessage bytes, cut at a character.
func clean(text string) string {
	const ellipsis = "…"
	head := text[:min(len(text), 4*MaxErrorMessage)] // enough, and bounds the work on a huge body
	fixed := strings.ToValidUTF8(head, "\uFFFD")
	if len(fixed) <= MaxErrorMessage && len(head) == len(text) {
		return fixed
	}
	cut := min(len(fixed), MaxErrorMessage-len(ellipsis))
	for cut > 0 && cut < len(fixed) && !utf8.RuneStart(fixed[cut]) {
		cut--
	}
	return fixed[:cut] + ellipsis
}
