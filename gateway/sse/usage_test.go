package sse

import (
	"fmt"
	"strings"
	"testing"
)

func TestUsageOf(t *testing.T) {
	filler := strings.Repeat(`{"index":0,"delta":{"content":"ha"}},`, 20)
	for _, tt := range []struct {
		name, doc string
		want      Usage
		ok        bool
	}{
		{"an answer", `{"id":"x","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":12,"total_tokens":19,"completion_tokens":7}}`, Usage{12, 7}, true},
		{"a chunk with null first", `{"choices":[` + filler + `1],"usage":null}`, Usage{}, false},
		{"the usage chunk", `{"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":0,"total_tokens":3,"prompt_tokens_details":null}}`, Usage{3, 0}, true},
		{"a response", `{"type":"response.completed","response":{"id":"r","usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":1},"output_tokens":6,"total_tokens":11}}}`, Usage{5, 6}, true},
		{"embeddings", `{"object":"list","data":[],"usage":{"prompt_tokens":9,"total_tokens":9}}`, Usage{9, 0}, true},
		{"a total alone", `{"usage":{"total_tokens":9}}`, Usage{9, 0}, true},
		{"spaces", "{\"usage\" : \n {\"prompt_tokens\": 1 , \"completion_tokens\": 2}}", Usage{1, 2}, true},
		{"text that looks like it", `{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":99}"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`, Usage{1, 1}, true},
		{"text alone", `{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":99}"}}],"more":"and more of it, so that it is searched by vectors"}`, Usage{}, false},
		{"a schema in a response, alone", `{"text":{"format":{"schema":{"usage":{"prompt_tokens":0,"completion_tokens":0}}}}}`, Usage{}, false},
		{"a schema that the client has made up", `{"text":{"format":{"schema":{"usage":{"prompt_tokens":0,"completion_tokens":0}}}},"usage":{"input_tokens":4,"output_tokens":2},"tools":[{"usage":{"input_tokens":0}}]}`, Usage{4, 2}, true},
		{"the same alone in a response", `{"response":{"tools":[{"usage":{"input_tokens":1}}]},"choices":[{"usage":{"prompt_tokens":0,"completion_tokens":0}}]}`, Usage{}, false},
		{"a value called usage behind it", `{"usage":{"prompt_tokens":1,"completion_tokens":1},"kind":"usage"}`, Usage{1, 1}, true},
		{"no number", `{"usage":{"prompt_tokens":"1","completion_tokens":-1}}`, Usage{}, false},
		{"an absurd number", `{"usage":{"prompt_tokens":1111111111111111111111}}`, Usage{}, false},
		{"cut", `{"usage":{"prompt_tokens":1`, Usage{}, false},
		{"nothing", ``, Usage{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := ResponseUsageOf([]byte(tt.doc)); got != tt.want || ok != tt.ok {
				t.Errorf("ResponseUsageOf(%.200s) = %+v, %v; want %+v, %v", tt.doc, got, ok, tt.want, tt.ok)
			}
			if got, ok := UsageOf([]byte(tt.doc)); !strings.Contains(tt.name, "response") && (got != tt.want || ok != tt.ok) {
				t.Errorf("UsageOf(%.200s) = %+v, %v; want %+v, %v", tt.doc, got, ok, tt.want, tt.ok)
			}
		})
	}
}

func BenchmarkUsageOf(b *testing.B) {
	for _, bb := range []struct{ name, doc string }{
		{"event without", `{"id":"0123456789abcdef","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"reasoning_content":null,"content":"hello"},"logprobs":null,"finish_reason":null,"matched_stop":null}]}`},
		{"answer of 2 KiB", fmt.Sprintf(`{"choices":[{"message":{"content":%q}}],"usage":{"prompt_tokens":12,"total_tokens":19,"completion_tokens":7,"prompt_tokens_details":null,"reasoning_tokens":0},"metadata":{"weight_version":"default"}}`, strings.Repeat("x", 2000))},
	} {
		b.Run(bb.name, func(b *testing.B) {
			doc := []byte(bb.doc)
			b.ReportAllocs()
			for b.Loop() {
				UsageOf(doc)
			}
		})
	}
}
