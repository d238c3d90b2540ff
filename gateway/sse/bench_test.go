package sse

import (
	"strings"
	"testing"
)

const event = "data: " + chunk + "\n\n"

func BenchmarkEvent(b *testing.B) {
	ev := []byte(event)
	named := []byte("event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":7,\"item_id\":\"m\",\"delta\":\" token\"}\n\n")
	dst, scratch := make([]byte, 0, 4<<10), make([]byte, 0, 4<<10)
	var s Splitter
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"Data", func() { Data(ev) }},
		{"DataNamed", func() { Data(named) }},
		{"ErrorOf", func() {
			data, _ := Data(ev)
			ErrorOf(data)
		}},
		{"NormalizePlain", func() { Normalize(dst, ev, false) }},
		{"NormalizeNamed", func() { Normalize(dst, named, true) }},
		{"RewriteModel", func() { dst = RewriteModel(dst[:0], ev, "public") }},
		{"RewriteModelNone", func() { dst = RewriteModel(dst[:0], named, "public") }},
		{"StripNullError", func() { dst = StripNullError(dst[:0], ev) }},
		{"IsUsageChunk", func() { IsUsageChunk(ev) }},
		{"FrameKept", func() { // all that is asked of a frame that needs no change, as the gateway asks it
			s.Push(ev)
			frame, _, _ := s.Next()
			data, _ := Data(frame)
			ErrorOf(data)
			normal, _ := Normalize(nil, frame, false)
			scratch = StripNullError(scratch[:0], normal)
			dst = append(dst[:0], scratch...)
			s.Next()
		}},
		{"FrameRewritten", func() {
			s.Push(ev)
			frame, _, _ := s.Next()
			data, _ := Data(frame)
			ErrorOf(data)
			normal, _ := Normalize(nil, frame, false)
			scratch = StripNullError(scratch[:0], normal)
			dst = RewriteModel(dst[:0], scratch, "public")
			s.Next()
		}},
		{"Heartbeat", func() { dst = Heartbeat(dst[:0], "loading weights 40%, about 12 s left") }},
		{"OpenAIError", func() { dst = AppendOpenAIError(dst[:0], failures[1]) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.do()
			}
		})
	}
}

func BenchmarkSplitter(b *testing.B) {
	stream := []byte(strings.Repeat(event, 64))
	for name, size := range map[string]int{"whole": len(stream), "4KiB": 4 << 10, "100B": 100} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			var s Splitter
			for b.Loop() {
				if n := countEvents(b, &s, stream, size); n != 64 {
					b.Fatalf("got %d events, want 64", n)
				}
			}
		})
	}
}

func countEvents(t testing.TB, s *Splitter, stream []byte, size int) (n int) {
	for len(stream) > 0 {
		cut := min(size, len(stream))
		s.Push(stream[:cut])
		stream = stream[cut:]
		for {
			_, ok, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			n++
		}
	}
	return n
}
