package sse

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestData(t *testing.T) {
	for _, c := range []struct {
		name, event string
		data        string
		ok          bool
		eventName   string
	}{
		{"plain", "data: {}\n\n", "{}", true, ""},
		{"one byte", "data: 1\n\n", "1", true, ""},
		{"no space", "data:{}\n\n", "{}", true, ""},
		{"two spaces", "data:  x\n\n", " x", true, ""},
		{"tab is no space", "data:\tx\n\n", "\tx", true, ""},
		{"CRLF", "data: {}\r\n\r\n", "{}", true, ""},
		{"CRLF at one end only", "data: {}\r\n\n", "{}", true, ""},
		{"named", "event: response.created\ndata: {}\n\n", "{}", true, "response.created"},
		{"named behind, CRLF", "data: {}\r\nevent:x\r\n\r\n", "{}", true, "x"},
		{"last name counts", "event: a\nevent: b\ndata: {}\n\n", "{}", true, "b"},
		{"id and retry", "id: 7\nretry: 100\ndata: {}\n\n", "{}", true, ""},
		{"comment before", ": data: x\ndata: {}\n\n", "{}", true, ""},
		{"comment behind", "data: {}\n: data: x\n\n", "{}", true, ""},
		{"data twice in the line", "data: data: x\n\n", "data: x", true, ""},
		{"two lines", "data: {\"a\":\ndata: 1}\n\n", "{\"a\":\n1}", true, ""},
		{"three lines, one empty", "data: a\ndata:\ndata:b\r\n\r\n", "a\n\nb", true, ""},
		{"two empty lines", "data:\ndata:\n\n", "", false, ""},
		{"blank", "data:   \n\n", "", false, ""},
		{"CR inside", "data: {\r}\n\n", "{\r}", true, ""},
		{"not at the line's start", " data: x\n\n", "", false, ""},
		{"longer field name", "database: x\n\n", "", false, ""},
		{"other case", "Data: x\n\n", "", false, ""},
		{"space before the colon", "data : x\n\n", "", false, ""},
		{"empty", "data:\n\n", "", false, ""},
		{"empty with space", "data: \n\n", "", false, ""},
		{"empty with space, CRLF", "data: \r\n\r\n", "", false, ""},
		{"no colon", "data\n\n", "", false, ""},
		{"no data", "event: ping\n\n", "", false, "ping"},
		{"comment only", ": beat\n\n", "", false, ""},
		{"without an end", "data: x", "x", true, ""},
		{"nothing", "", "", false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			event := []byte(c.event)
			data, ok := Data(event)
			if ok != c.ok || string(data) != c.data {
				t.Errorf("got data %q, %v, want %q, %v", data, ok, c.data, c.ok)
			}
			if name := Name(event); string(name) != c.eventName {
				t.Errorf("got name %q, want %q", name, c.eventName)
			}
		})
	}
}

func TestIsDone(t *testing.T) {
	for data, want := range map[string]bool{"[DONE]": true, "[DONE] ": false, "[done]": false, `"[DONE]"`: false, "": false} {
		if got := IsDone([]byte(data)); got != want {
			t.Errorf("%q: got %v, want %v", data, got, want)
		}
	}
	if data, ok := Data([]byte(Done)); !ok || !IsDone(data) {
		t.Errorf("our own end mark has data %q", data)
	}
}

func TestIsUsageChunk(t *testing.T) {
	for data, want := range map[string]bool{
		`{"id":"x","choices":[],"usage":{"total_tokens":3}}`:                              true,
		`{"usage":{"total_tokens":3}, "choices" : [ ] }`:                                  true,
		`{"choices":[{"index":0}],"usage":{"total_tokens":3}}`:                            false,
		`{"choices":[],"usage":null}`:                                                     false,
		`{"choices":[]}`:                                                                  false,
		`{"choices":[{"delta":{"content":"\"choices\":[],\"usage\":{}"}}],"usage":null}`:  false,
		`{"error":{"message":"x"}}`:                                                       false,
		`{"usage":{"total_tokens":3}}`:                                                    false,
		`{"a":{"choices":[],"usage":{}},"choices":[{"delta":{"usage":{}}}],"usage":null}`: false,
		`[DONE]`: false,
	} {
		if got := IsUsageChunk([]byte(data)); got != want {
			t.Errorf("%s: got %v, want %v", data, got, want)
		}
	}
}

func TestSequenceNumber(t *testing.T) {
	if n, ok := SequenceNumber([]byte(`{"type":"response.created","response":{"sequence_number":1},"sequence_number":42}`)); n != 42 || !ok {
		t.Errorf("got %d, %v, want 42", n, ok)
	}
	for _, data := range []string{`{}`, `{"sequence_number":"1"}`, `{"sequence_number":1.5}`, `{"sequence_number":null}`, ``} {
		if n, ok := SequenceNumber([]byte(data)); ok {
			t.Errorf("%s: got %d, want none", data, n)
		}
	}
}

func TestNormalize(t *testing.T) {
	for _, c := range []struct {
		name, event  string
		named, plain string // empty: nothing to pass on
	}{
		{"plain", "data: {}\n\n", "data: {}\n\n", "data: {}\n\n"},
		{"plain named", "event: a\ndata: {}\n\n", "event: a\ndata: {}\n\n", "data: {}\n\n"},
		{"CRLF", "event: a\r\ndata: {}\r\n\r\n", "event: a\ndata: {}\n\n", "data: {}\n\n"},
		{"no spaces", "event:a\ndata:{}\n\n", "event: a\ndata: {}\n\n", "data: {}\n\n"},
		{"name behind", "data: {}\nevent: a\n\n", "event: a\ndata: {}\n\n", "data: {}\n\n"},
		{"empty name", "event: \ndata: {}\n\n", "data: {}\n\n", "data: {}\n\n"},
		{"id, retry, comment", ": c\nid: 1\nretry: 2\ndata: {}\n: c\n\n", "data: {}\n\n", "data: {}\n\n"},
		{"two lines", "data: {\"a\":\ndata: 1}\n\n", "data: {\"a\": 1}\n\n", "data: {\"a\": 1}\n\n"},
		{"lone CR", "event: a\rb\ndata: {\r}\n\n", "event: a b\ndata: { }\n\n", "data: { }\n\n"},
		{"blank data", "data:  \n\n", "", ""},
		{"name twice", "event: a\nevent: b\ndata: {}\n\n", "event: b\ndata: {}\n\n", "data: {}\n\n"},
		{"no data", "event: ping\n\n", "", ""},
		{"empty data", "data: \n\n", "", ""},
		{"comment only", ": beat\n\n", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, named := range []bool{true, false} {
				want := c.plain
				if named {
					want = c.named
				}
				got, ok := Normalize([]byte("overwritten"), []byte(c.event), named)
				if string(got) != want || ok != (want != "") {
					t.Errorf("named %v: got %q, %v, want %q", named, got, ok, want)
				}
				if again, _ := Normalize(nil, got, named); ok && &again[0] != &got[0] {
					t.Errorf("named %v: a normal event was made anew as %q", named, again)
				}
			}
		})
	}
}

var oneLine = strings.NewReplacer("\n", " ", "\r", " ")

// Whatever data an event has, its normal form is one line that reads the same but for line breaks.
func FuzzNormalize(f *testing.F) {
	for _, c := range streams {
		f.Add([]byte(c.stream))
	}
	f.Add([]byte("event: a\r\nid: 1\ndata: {\r\ndata: }\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		var s Splitter
		s.Push(stream)
		for {
			event, ok, err := s.Next()
			if err != nil || !ok {
				return
			}
			data, hasData := Data(event)
			for _, named := range []bool{true, false} {
				normal, ok := Normalize(nil, event, named)
				if ok != hasData {
					t.Fatalf("%q: got %v, want %v", event, ok, hasData)
				}
				if !ok {
					continue
				}
				again, _ := Data(normal)
				if want := oneLine.Replace(string(data)); string(again) != want || bytes.IndexByte(normal, '\r') >= 0 || bytes.Count(normal, []byte("\n")) > 3 {
					t.Fatalf("%q: got %q with data %q, want data %q", event, normal, again, want)
				}
				if name := Name(normal); !named && name != nil || named && string(name) != oneLine.Replace(string(Name(event))) {
					t.Fatalf("%q: got name %q in %q", event, name, normal)
				}
			}
		}
	})
}

const chunk = `{"id":"7b1e0b7c5f6a4e0e9f5b1c2d3e4f5a6b","object":"chat.completion.chunk","created":1764000000,"model":"served","choices":[{"index":0,"delta":{"reasoning_content":null,"content":" token"},"logprobs":null,"finish_reason":null,"matched_stop":null}]}`

func TestRewriteModel(t *testing.T) {
	for _, c := range []struct{ name, event, want string }{
		{"chat", "data: " + chunk + "\n\n", "data: " + strings.Replace(chunk, `"served"`, `"pub/l\"ic:1"`, 1) + "\n\n"},
		{"same name", "data: {\"model\":\"pub/l\\\"ic:1\"}\n\n", "data: {\"model\":\"pub/l\\\"ic:1\"}\n\n"},
		{"spaces kept", "data:{ \"model\" : \"served\" , \"a\" : 1.0 }\r\n\r\n", "data:{ \"model\" : \"pub/l\\\"ic:1\" , \"a\" : 1.0 }\r\n\r\n"},
		{"Responses", "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"model\":\"served\"}}\n\n", "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"model\":\"pub/l\\\"ic:1\"}}\n\n"},
		{"Anthropic", "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"served\"}}\n\n", "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"pub/l\\\"ic:1\"}}\n\n"},
		{"top level wins", "data: {\"response\":{\"model\":\"a\"},\"model\":\"b\"}\n\n", "data: {\"response\":{\"model\":\"a\"},\"model\":\"pub/l\\\"ic:1\"}\n\n"},
		{"other lines kept", ": {\"model\":\"served\"}\nid: {\"model\":\"served\"}\ndata: {\"model\":\"served\"}\n\n", ": {\"model\":\"served\"}\nid: {\"model\":\"served\"}\ndata: {\"model\":\"pub/l\\\"ic:1\"}\n\n"},
		{"two lines", "event: a\ndata: {\"model\":\ndata: \"served\"}\n\n", "event: a\ndata: {\"model\": \"pub/l\\\"ic:1\"}\n\n"},
		{"in the text only", "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"model\\\":\\\"served\\\"\"}}]}\n\n", ""},
		{"nested elsewhere", "data: {\"choices\":[{\"model\":\"served\"}],\"tool\":{\"model\":\"served\"}}\n\n", ""},
		{"not a string", "data: {\"model\":null,\"response\":\"model\"}\n\n", ""},
		{"no model", "data: {\"a\":1}\n\n", ""},
		{"done", Done, ""},
		{"comment", ": \"model\"\n\n", ""},
		{"blank data lines", "data: \ndata: \n: \"model\"\n\n", ""},
		{"no JSON", "data: \"model\":\"served\"\n\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.want
			if want == "" {
				want = c.event
			}
			if got := string(RewriteModel([]byte("x"), []byte(c.event), `pub/l"ic:1`)); got != "x"+want {
				t.Errorf("got %q, want x%q", got, want)
			}
		})
	}
}

func TestRewriteModelJSON(t *testing.T) {
	doc := `{"id":"x","object":"chat.completion","model":"served","choices":[{"message":{"content":"model served"}}],"usage":null}`
	want := strings.Replace(doc, `"served"`, `"public"`, 1)
	if got := string(RewriteModelJSON(nil, []byte(doc), "public")); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestStripNullError(t *testing.T) {
	for _, c := range []struct{ name, event, want string }{
		{"first", "data: {\"error\":null,\"model\":\"m\"}\n\n", "data: {\"model\":\"m\"}\n\n"},
		{"middle", "data: {\"a\":1, \"error\" : null ,\"model\":\"m\"}\n\n", "data: {\"a\":1, \"model\":\"m\"}\n\n"},
		{"last", "data: {\"model\":\"m\",\"error\":null}\r\n\r\n", "data: {\"model\":\"m\"}\r\n\r\n"},
		{"only", "data: {\"error\":null}\n\n", "data: {}\n\n"},
		{"two lines", "data: {\"error\":null,\ndata: \"model\":\"m\"}\n\n", "data: { \"model\":\"m\"}\n\n"},
		{"other lines kept", ": {\"error\":null}\ndata: {\"error\":null}\n\n", ": {\"error\":null}\ndata: {}\n\n"},
		{"an error", "data: {\"error\":{\"message\":\"x\"}}\n\n", ""},
		{"nested", "event: a\ndata: {\"response\":{\"error\":null}}\n\n", ""},
		{"in the text", "data: {\"a\":\"\\\"error\\\":null\"}\n\n", ""},
		{"as a value", "data: {\"object\":\"error\"}\n\n", ""},
		{"none", "data: {\"a\":1}\n\n", ""},
		{"no data", ": \"error\"\n\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.want
			if want == "" {
				want = c.event
			}
			if got := string(StripNullError([]byte("x"), []byte(c.event))); got != "x"+want {
				t.Errorf("got %q, want x%q", got, want)
			}
		})
	}
}

// Changed documents stay JSON and differ in nothing but the member concerned.
func FuzzRewrite(f *testing.F) {
	f.Add([]byte(chunk), "public")
	f.Add([]byte(`{"error":null,"response":{"model":"a","b":[1.0]}}`), "a\"b")
	f.Add([]byte(`{"a":{"model":"x"},"message":{"model":"y"},"error":null}`), "")
	f.Fuzz(func(t *testing.T, doc []byte, model string) {
		var before map[string]json.RawMessage
		if bytes.ContainsAny(doc, "\r\n") || json.Unmarshal(doc, &before) != nil || before == nil {
			return
		}
		event := append(append([]byte("data: "), doc...), "\n\n"...)
		for name, changed := range map[string][]byte{"model": RewriteModel(nil, event, model), "error": StripNullError(nil, event)} {
			data, ok := Data(changed)
			var after map[string]json.RawMessage
			if !ok || json.Unmarshal(data, &after) != nil {
				t.Fatalf("%s became %q", doc, changed)
			}
			for key, value := range before {
				switch {
				case key == name, name == "model" && (key == "response" || key == "message"):
				case !bytes.Equal(after[key], value):
					t.Errorf("%s became %s: member %q changed", doc, data, key)
				}
			}
			if len(after) > len(before) || len(before)-len(after) > 1 || name == "model" && len(after) != len(before) {
				t.Errorf("%s became %s: got %d members, had %d", doc, data, len(after), len(before))
			}
		}
	})
}
