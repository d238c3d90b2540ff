package sse

import (
	"strconv"
	"unicode"
	"unicode/utf8"

	"pilotlight/gateway/jsonbody"
)

// Done is the event that ends OpenAI's streams.
const Done = "data: [DONE]\n\n"

// maxHeartbeat is where a heartbeat's text is cut, in bytes.
const maxHeartbeat = 256

// Heartbeat appends a comment line with text. The line ends in one newline and no blank line: a blank
// line would end an event, and clients exist that fail on an event without data. It may stand only
// between events. What would end the line, and other control characters, become spaces.
func Heartbeat(dst []byte, text string) []byte {
	dst = append(dst, ':', ' ')
	for i, r := range text {
		if i >= maxHeartbeat {
			break
		}
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			r = ' '
		}
		dst = utf8.AppendRune(dst, r)
	}
	return append(dst, '\n')
}

// Failure is an error as a client is told it. An empty Type is written as "server_error"; an empty Param
// or Code as null.
type Failure struct {
	Message string
	Type    string
	Param   string
	Code    string
}

// AppendFailure appends OpenAI's error object, {"message":…,"type":…,"param":…,"code":…}.
func AppendFailure(dst []byte, f Failure) []byte {
	dst = append(dst, `{"message":`...)
	dst = jsonbody.AppendString(dst, f.Message)
	dst = append(dst, `,"type":`...)
	dst = jsonbody.AppendString(dst, f.kind())
	dst = append(dst, `,"param":`...)
	dst = appendOrNull(dst, f.Param)
	dst = append(dst, `,"code":`...)
	dst = appendOrNull(dst, f.Code)
	return append(dst, '}')
}

func (f Failure) kind() string {
	if f.Type == "" {
		return "server_error"
	}
	return f.Type
}

func appendOrNull(dst []byte, text string) []byte {
	if text == "" {
		return append(dst, "null"...)
	}
	return jsonbody.AppendString(dst, text)
}

// AppendOpenAIError appends the event that tells of an error in the midst of a stream of chat completions
// or completions. Clients exist that recognise it only by the exact bytes `data: {"error":`.
func AppendOpenAIError(dst []byte, f Failure) []byte {
	dst = append(dst, `data: {"error":`...)
	dst = AppendFailure(dst, f)
	return append(dst, "}\n\n"...)
}

// AppendResponsesError appends the error event of the Responses API. The flat members are the documented
// form; some clients raise only on the nested one, which OpenAI's own service sends too. sequence is
// the number after that of the last event.
func AppendResponsesError(dst []byte, f Failure, sequence int) []byte {
	dst = append(dst, "event: error\n"+`data: {"type":"error","sequence_number":`...)
	dst = strconv.AppendInt(dst, int64(sequence), 10)
	dst = append(dst, `,"code":`...)
	dst = appendOrNull(dst, f.Code)
	dst = append(dst, `,"message":`...)
	dst = jsonbody.AppendString(dst, f.Message)
	dst = append(dst, `,"param":`...)
	dst = appendOrNull(dst, f.Param)
	dst = append(dst, `,"error":`...)
	dst = AppendFailure(dst, f)
	return append(dst, "}\n\n"...)
}

// AppendAnthropicError appends the error event of the Messages API. An empty Type is written as
// "api_error"; "overloaded_error" asks for a later retry.
func AppendAnthropicError(dst []byte, f Failure) []byte {
	if f.Type == "" {
		f.Type = "api_error"
	}
	dst = append(dst, "event: error\n"+`data: {"type":"error","error":{"type":`...)
	dst = jsonbody.AppendString(dst, f.Type)
	dst = append(dst, `,"message":`...)
	dst = jsonbody.AppendString(dst, f.Message)
	return append(dst, "}}\n\n"...)
}

// AppendOllamaError appends the NDJSON line that tells of an error in Ollama's API.
func AppendOllamaError(dst []byte, f Failure) []byte {
	dst = append(dst, `{"error":`...)
	dst = jsonbody.AppendString(dst, f.Message)
	return append(dst, "}\n"...)
}
