package jsonbody

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// chatBody is a chat request of about size bytes as openai-python writes it: the messages, with one long
// string, before the model.
func chatBody(size int, text string) []byte {
	var b bytes.Buffer
	b.WriteString(`{"messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":[{"type":"text","text":"What is in this image?"},{"type":"image_url","image_url":{"url":"`)
	b.WriteString(strings.Repeat(text, max(size-b.Len()-100, 0)/len(text)))
	b.WriteString(`"}}]}],"model":"qwen3-0.6b","max_tokens":128,"stream":true,"temperature":0.7}`)
	return b.Bytes()
}

var textKinds = []struct{ name, text string }{
	{"base64", "iVBORw0KGgoAAAANSUhEUgAAB9AAAAfQCAYAAACaOd6/"},
	{"prose", `The quick brown fox jumps over the lazy dog,\nand says \"hello\" to everyone it meets on the way home. `},
	{"french", "L’été dernier, à la fin de l’après-midi, nous étions déjà près de la forêt. "},
	{"chinese", "人工智能网关把请求转发给模型副本。"},
	{"escaped", `\u4eba\u5de5\u667a\u80fd\u7f51\u5173`}, // as Python's json writes it unless told not to
}

func BenchmarkScan(b *testing.B) {
	for _, kind := range textKinds {
		for _, size := range []int{1 << 10, 100 << 10, 22 << 20} {
			body := chatBody(size, kind.text)
			b.Run(fmt.Sprintf("%s/%dKiB", kind.name, size>>10), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				var f Fields
				for b.Loop() {
					if err := Scan(body, &f); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	// What reading the memory costs, to see the rest against: the text holds none of the byte looked for.
	b.Run("memory/22528KiB", func(b *testing.B) {
		body := bytes.Repeat([]byte("iVBORw0KGgoAAAAN"), 22<<20/16)
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if bytes.IndexByte(body, 0) >= 0 {
				b.Fatal("found")
			}
		}
	})
	b.Run("modelfirst/22528KiB", func(b *testing.B) {
		body := []byte(`{"model":"qwen3-0.6b","prompt":"` + strings.Repeat("A large prompt, in one line. ", 22<<20/29) + `","stream":true}`)
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		var f Fields
		for b.Loop() {
			if err := Scan(body, &f); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("numbers/100KiB", func(b *testing.B) {
		body := []byte(`{"input":[` + strings.Repeat("12345,", 100<<10/6) + `0],"model":"m"}`)
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		var f Fields
		for b.Loop() {
			if err := Scan(body, &f); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("messages/22528KiB", func(b *testing.B) {
		const turns = 100_000
		content := strings.Repeat("Once more, with feeling. ", (22<<20/turns-34)/25)
		body := []byte(`{"messages":[` + strings.Repeat(`{"role":"user","content":"`+content+`"},`, turns) + `{}],"model":"m"}`)
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		var f Fields
		for b.Loop() {
			if err := Scan(body, &f); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("turns/100KiB", func(b *testing.B) {
		body := []byte(`{"messages":[` + strings.Repeat(`{"role": "user", "content": "a short turn of a chat"}, `, 100<<10/55) + `{}],"model":"m"}`)
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		var f Fields
		for b.Loop() {
			if err := Scan(body, &f); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEncodingJSON finds the same two members with the standard library, for comparison. It accepts bodies that Scan refuses.
func BenchmarkEncodingJSON(b *testing.B) {
	for _, kind := range textKinds {
		body := chatBody(22<<20, kind.text)
		b.Run(kind.name+"/22528KiB", func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				var f struct {
					Model  string
					Stream bool
				}
				if err := json.Unmarshal(body, &f); err != nil || f.Model != "qwen3-0.6b" || !f.Stream {
					b.Fatal(f, err)
				}
			}
		})
	}
}

func BenchmarkPatch(b *testing.B) {
	body := []byte(`{"messages":[{"role":"user","content":"hi"}],"priority":3,"rid":"x","model":"public:name","stream":true}`)
	var f Fields
	if err := Scan(body, &f); err != nil {
		b.Fatal(err)
	}
	var p Patch
	name, rid := []byte(`"served"`), []byte(`"0123456789abcdef"`)
	dst := make([]byte, 0, 1<<10)
	b.ReportAllocs()
	for b.Loop() {
		p.Reset(&f)
		p.DeleteReserved()
		p.Set(Model, name)
		p.Set(RID, rid)
		p.IncludeUsage()
		dst = p.AppendTo(dst[:0])
	}
}

func BenchmarkLocate(b *testing.B) {
	chunk := []byte(`{"id":"7b1e0b7c5f6a4e0e9f5b1c2d3e4f5a6b","object":"chat.completion.chunk","created":1764000000,"model":"served","choices":[{"index":0,"delta":{"reasoning_content":null,"content":" token"},"logprobs":null,"finish_reason":null,"matched_stop":null}]}`)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := TopLevelString(chunk, "model"); !ok {
			b.Fatal("not found")
		}
	}
}

// What every chat request costs before it is routed and when it is sent: 1 KiB of a few turns, as
// openai-python writes it.
func BenchmarkChat(b *testing.B) {
	turn := `{"role":"user","content":"How far is it from here to the next larger town, and is there a train that goes there on Sundays?"},` +
		`{"role":"assistant","content":"About 40 km.\nA train leaves at 8:10 and one at 14:10; the way takes \"half an hour\"."},`
	body := []byte(`{"messages":[{"role":"system","content":"You are a helpful assistant."},` + strings.Repeat(turn, 3) +
		`{"role":"user","content":"And back?"}],"model":"qwen3-0.6b","max_tokens":128,"stream":true,"stream_options":{"include_usage":true},"temperature":0.7,"top_p":1,"stop":["\n\n"]}`)
	var f Fields
	scan := func() {
		if err := Scan(body, &f); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("Scan", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			scan()
		}
	})
	b.Run("ScanModelStream", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			scan()
			if _, err := f.Model(); err != nil {
				b.Fatal(err)
			}
			if _, _, err := f.Bool(Stream); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("PatchPieces", func(b *testing.B) {
		scan()
		var p Patch
		rid := []byte("0123456789abcdef0123456789abcdef")
		pieces := make([][]byte, 0, 8)
		b.ReportAllocs()
		for b.Loop() {
			p.Reset(&f)
			p.DeleteReserved()
			p.SetBytes(RID, rid)
			p.SetString(Model, "served")
			pieces = Pieces(pieces[:0], body, p.Edits())
		}
	})
}
