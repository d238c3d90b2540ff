//go:build !race

package sse

import (
	"strings"
	"testing"
)

func TestEventsDoNotAllocate(t *testing.T) {
	ev := []byte(event)
	stream := []byte(strings.Repeat(event, 8))
	dst := make([]byte, 0, 4<<10)
	var s Splitter
	pass := func() {
		if n := countEvents(t, &s, stream, 100); n != 8 {
			t.Fatalf("got %d events, want 8", n)
		}
		normal, ok := Normalize(dst, ev, false)
		data, _ := Data(normal)
		if _, failed := ErrorOf(data); !ok || failed || IsDone(data) || IsUsageChunk(data) {
			t.Fatalf("a plain chunk was taken for something else")
		}
		dst = RewriteModel(dst[:0], normal, "public")
		dst = StripNullError(dst[:0], ev)
		dst = Heartbeat(dst[:0], "loading")
		dst = AppendOpenAIError(dst[:0], failures[2])
		dst = AppendResponsesError(dst[:0], failures[2], 3)
		dst = AppendAnthropicError(dst[:0], failures[2])
		dst = AppendOllamaError(dst[:0], failures[2])
	}
	pass() // grows the splitter's buffer
	if n := testing.AllocsPerRun(100, pass); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}
