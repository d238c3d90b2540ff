package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// longChat is a good body of exactly n bytes.
func longChat(marker string, n int) string {
	b := fmt.Sprintf(`{"model":"test/model:1b","marker":%q,"x":"`, marker)
	return b + strings.Repeat("y", n-len(b)-2) + `"}`
}

// Bodies around every length where their way changes come whole, with a next request behind them, in clear text and encrypted.
func TestBodiesOfEveryLength(t *testing.T) {
	for _, secure := range []bool{false, true} {
		engine := &strictEngine{}
		e := newEdge(t, edgeOptions{model: Model{ID: "test/model:1b", RequiresAuth: true}, body: 8 << 20, secure: secure}, engine)
		for _, n := range []int{100, readBufferSize, readAhead - 1, readAhead, readAhead + 1, readAhead + readBufferSize, 2*readAhead + 77, 1 << 20, 6<<20 + 1} {
			for _, expect := range []string{"", "Expect: 100-continue\r\n"} {
				for _, piece := range []int{1 << 30, 10_007} {
					name := fmt.Sprintf("secure %v, %d bytes, %q, in pieces of %d", secure, n, expect, piece)
					c := e.connect(t)
					c.SetDeadline(time.Now().Add(10 * time.Second))
					raw := sized(keyed(chatLine)+expect, longChat("m1", n)) + goodChat("m2")
					go func() {
						for rest := raw; rest != ""; {
							m := min(piece, len(rest))
							if _, err := io.WriteString(c, rest[:m]); err != nil {
								return
							}
							rest = rest[m:]
						}
					}()
					br := bufio.NewReader(c)
					for _, marker := range []string{"", "m1", "m2"} {
						if marker == "" && expect == "" {
							continue
						}
						resp, err := http.ReadResponse(br, nil)
						if err != nil {
							t.Fatalf("%s: %q: %v", name, marker, err)
						}
						if marker == "" {
							if resp.StatusCode != http.StatusContinue {
								t.Fatalf("%s: %d, want 100", name, resp.StatusCode)
							}
							continue
						}
						if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || !strings.Contains(string(b), `"`+marker+`"`) {
							t.Fatalf("%s: %d %s %v", name, resp.StatusCode, b, err)
						}
					}
					c.Close()
				}
			}
		}
		engine.check(t)
	}
}

// What is only announced takes no memory, and ends in time.
func TestAnnouncedBodiesTakeNoMemory(t *testing.T) {
	const clients, announced = 50, 32 << 20
	e := newEdge(t, edgeOptions{body: 64 << 20}, &strictEngine{})
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range clients {
		c := e.connect(t)
		defer c.Close()
		expect := ""
		if i%2 == 0 {
			expect = "Expect: 100-continue\r\n"
		}
		fmt.Fprintf(c, "%sContent-Length: %d\r\n%s\r\n{", keyed(chatLine), announced, expect)
	}
	for range clients {
		c := e.connect(t)
		defer c.Close()
		fmt.Fprintf(c, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n{", keyed(chatLine), smallChunked/2)
	}
	settles(t, "all are connected", func() bool { return e.gateway.Connections() == 2*clients })
	time.Sleep(100 * time.Millisecond) // they are read
	runtime.ReadMemStats(&during)
	if grown := int64(during.Sys) - int64(before.Sys); grown > clients*(1<<20) {
		t.Errorf("%d MiB for %d bodies of which a byte has come", grown>>20, 2*clients)
	}
}

func TestLateHeads(t *testing.T) {
	e := newEdge(t, edgeOptions{headTimeout: 200 * time.Millisecond}, &strictEngine{})
	start := time.Now()
	// The limit is for the whole head, however its bytes are spread.
	c := e.connect(t)
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	go func() {
		for _, b := range []byte(keyed(chatLine)) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	got, _ := io.ReadAll(c) // a reset after the answer is still an answer
	if d := time.Since(start); !strings.HasPrefix(string(got), "HTTP/1.1 408 ") || d > time.Second {
		t.Errorf("after %v: %q", d, got)
	}
	// After an answer the next head has as long again.
	if got := e.raw(goodChat("m1") + "POST /v1/ch"); !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, "HTTP/1.1 408 ") {
		t.Errorf("half a second request: %q", got)
	}
}

func TestLateBodies(t *testing.T) {
	e := newEdge(t, edgeOptions{bodyTimeout: 200 * time.Millisecond}, &strictEngine{})
	for _, n := range []int{1000, 1 << 20} {
		start := time.Now()
		got := e.raw(fmt.Sprintf("%sContent-Length: %d\r\n\r\n{", keyed(chatLine), n))
		if !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.Contains(got, "request_read_timeout") || time.Since(start) > 3*time.Second {
			t.Errorf("%d bytes: after %v: %q", n, time.Since(start), got)
		}
	}
	if n := e.launcher.starts(); n != 0 {
		t.Errorf("%d starts", n)
	}
}

// Large bodies in chunks are few at a time, and give their places back however they end.
func TestLargeChunkedBodies(t *testing.T) {
	engine := &strictEngine{}
	e := newEdge(t, edgeOptions{body: 8 << 20}, engine)
	large := chunkedChat(oneChunk(longChat("m1", 2*smallChunked)) + "0\r\n\r\n")
	if got := e.raw(large); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Fatalf("the only one: %.200q", got)
	}
	var holders []halfCloser
	for range largeChunked {
		c := e.connect(t)
		defer c.Close()
		io.WriteString(c, chunkedChat("7fff\r\n{"))
		holders = append(holders, c)
	}
	settles(t, "all places are taken", func() bool { return e.gateway.chunked.Load() == largeChunked })
	if got := e.raw(large); !strings.HasPrefix(got, "HTTP/1.1 413 ") || !strings.Contains(got, "Content-Length") {
		t.Errorf("one too many: %.400q", got)
	}
	if got := e.raw(chunkedChat(oneChunk(chatBody("m1")) + "0\r\n\r\n")); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("a small one beside them: %.200q", got)
	}
	for _, c := range holders {
		c.Close()
	}
	settles(t, "all places are free", func() bool { return e.gateway.chunked.Load() == 0 })
	if got := e.raw(large); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("afterwards: %.200q", got)
	}
	engine.check(t)
}
