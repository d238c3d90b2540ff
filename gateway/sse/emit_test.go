package sse

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

var failures = []Failure{
	{},
	{Message: "the model failed to start", Type: "server_error", Code: "model_start_failed"},
	{Message: "line\r\n\r\ndata: x\n\n\x00\xFF <b>&\u2028", Type: "a\nb", Param: "p\"\n", Code: "c\\\n"},
	{Message: "\uFEFF", Param: "model", Code: "503"},
}

// checkWire asserts what clients need of every event that we write, and gives its data.
func checkWire(t *testing.T, event []byte, name string) []byte {
	t.Helper()
	text := string(event)
	if name != "" {
		rest, found := strings.CutPrefix(text, "event: "+name+"\n")
		if !found {
			t.Fatalf("%q has not the name %q", event, name)
		}
		text = rest
	}
	data, found := strings.CutPrefix(text, "data: ")
	if data, found2 := strings.CutSuffix(data, "\n\n"); !found || !found2 || data == "" || strings.ContainsAny(data, "\r\n") {
		t.Fatalf("%q is not one data line and a blank line", event)
	}
	if !utf8.Valid(event) || bytes.HasPrefix(event, []byte("\xEF\xBB\xBF")) {
		t.Fatalf("%q is not plain UTF-8", event)
	}
	events, err := split(t, new(Splitter), event, 1)
	if err != nil || len(events) != 1 || events[0] != string(event) {
		t.Fatalf("%q reads as %q, %v", event, events, err)
	}
	got, _ := Data(event)
	if !json.Valid(got) || bytes.Contains(got, []byte(`"error":null`)) {
		t.Fatalf("%q holds no good JSON", event)
	}
	return got
}

// fixed is what a client reads where text was written.
func fixed(text string) string { return string([]rune(text)) }

func wantFailure(t *testing.T, data []byte, f Failure) {
	t.Helper()
	var got struct {
		Error *struct {
			Message, Type *string
			Param, Code   *string
		}
	}
	if err := json.Unmarshal(data, &got); err != nil || got.Error == nil {
		t.Fatalf("%s holds no error: %v", data, err)
	}
	e := got.Error
	if f.Type == "" {
		f.Type = "server_error"
	}
	if e.Message == nil || *e.Message != fixed(f.Message) || e.Type == nil || *e.Type != fixed(f.Type) {
		t.Errorf("%s does not tell %+v", data, f)
	}
	for _, field := range []struct {
		got  *string
		want string
	}{{e.Param, f.Param}, {e.Code, f.Code}} {
		if (field.got == nil) != (field.want == "") || field.got != nil && *field.got != fixed(field.want) {
			t.Errorf("%s does not tell %+v", data, f)
		}
	}
}

func TestAppendOpenAIError(t *testing.T) {
	for _, f := range failures {
		event := AppendOpenAIError(nil, f)
		data := checkWire(t, event, "")
		if !bytes.HasPrefix(event, []byte(`data: {"error":{`)) {
			t.Errorf("%q does not start as some clients need it", event)
		}
		wantFailure(t, data, f)
	}
	got := string(AppendOpenAIError([]byte("x"), failures[1]))
	want := "xdata: {\"error\":{\"message\":\"the model failed to start\",\"type\":\"server_error\",\"param\":null,\"code\":\"model_start_failed\"}}\n\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAppendResponsesError(t *testing.T) {
	for i, f := range failures {
		data := checkWire(t, AppendResponsesError(nil, f, i), "error")
		wantFailure(t, data, f)
		var flat struct {
			Type           string
			SequenceNumber *int `json:"sequence_number"`
			Message        string
			Code, Param    *string
		}
		if err := json.Unmarshal(data, &flat); err != nil {
			t.Fatal(err)
		}
		if flat.Type != "error" || flat.SequenceNumber == nil || *flat.SequenceNumber != i || flat.Message != fixed(f.Message) ||
			(flat.Code == nil) != (f.Code == "") || (flat.Param == nil) != (f.Param == "") {
			t.Errorf("%s does not tell %+v flatly", data, f)
		}
	}
}

func TestAppendAnthropicError(t *testing.T) {
	for _, f := range failures {
		data := checkWire(t, AppendAnthropicError(nil, f), "error")
		var got struct {
			Type  string
			Error struct{ Type, Message string }
		}
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		want := fixed(f.Type)
		if want == "" {
			want = "api_error"
		}
		if got.Type != "error" || got.Error.Type != want || got.Error.Message != fixed(f.Message) {
			t.Errorf("%s does not tell %+v", data, f)
		}
	}
}

func TestAppendOllamaError(t *testing.T) {
	for _, f := range failures {
		line := AppendOllamaError(nil, f)
		var got map[string]string
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got["error"] != fixed(f.Message) || bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Errorf("%q is not one line that tells %q", line, f.Message)
		}
	}
}

// What we write is what we recognise.
func TestErrorsComeBack(t *testing.T) {
	f := failures[1]
	for name, event := range map[string][]byte{
		"OpenAI": AppendOpenAIError(nil, f), "Responses": AppendResponsesError(nil, f, 1), "Anthropic": AppendAnthropicError(nil, f),
	} {
		data, _ := Data(event)
		if e, ok := ErrorOf(data); !ok || e.Message != f.Message || e.Type != f.Type {
			t.Errorf("%s: got %+v, %v from %q", name, e, ok, event)
		}
	}
}

func TestHeartbeat(t *testing.T) {
	for text, want := range map[string]string{
		"":                       ": \n",
		"loading weights 40%":    ": loading weights 40%\n",
		"a\r\n\ndata: x":         ": a   data: x\n",
		"a\x00\x7F\u0085\u2028é": ": a    é\n",
		"a\xFF":                  ": a\uFFFD\n",
	} {
		if got := string(Heartbeat(nil, text)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	long := Heartbeat([]byte("x"), strings.Repeat("é\n", 10000))
	if len(long) > maxHeartbeat+len("x: é\n") || bytes.IndexByte(long, '\n') != len(long)-1 || !utf8.Valid(long) {
		t.Errorf("got a heartbeat of %d bytes: %q", len(long), long)
	}
}

// Beats between events leave the events as they are, and are never events themselves.
func TestHeartbeatsBetweenEvents(t *testing.T) {
	stream := Heartbeat(nil, "a")
	stream = Heartbeat(stream, "b")
	stream = append(stream, "data: 1\n\n"...)
	stream = Heartbeat(stream, "c")
	stream = append(stream, Done...)
	events, err := split(t, new(Splitter), stream, 3)
	if err != nil || len(events) != 2 {
		t.Fatalf("got %q, %v, want two events", events, err)
	}
	for i, want := range []string{"1", "[DONE]"} {
		if data, ok := Data([]byte(events[i])); !ok || string(data) != want {
			t.Errorf("got %q, want %q", data, want)
		}
	}
}
