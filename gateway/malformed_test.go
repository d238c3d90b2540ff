package gateway

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"pilotlight/activator"
)

// strictEngine answers a chat with the marker that its request holds, as JSON or as a stream. It remembers every request that an
// engine should never see.
type strictEngine struct {
	mu   sync.Mutex
	bad  []string
	seen int
}

func (e *strictEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	doc, problem := strictObject(body)
	switch {
	case r.URL.Path == "/abort_request":
		return
	case err != nil:
		problem = err.Error()
	case r.Method != "POST" || r.RequestURI != "/v1/chat/completions":
		problem = r.Method + " " + r.RequestURI
	case problem == "" && doc["model"] != "test/model:1b":
		problem = fmt.Sprint("model ", doc["model"])
	}
	for name := range r.Header {
		switch name {
		case "Accept", "Authorization", "Content-Type", "Content-Length", "X-Request-Id":
		default:
			problem = "header " + name
		}
	}
	e.mu.Lock()
	e.seen++
	if problem != "" {
		e.bad = append(e.bad, fmt.Sprintf("%s: %.200q", problem, body))
	}
	e.mu.Unlock()
	marker, _ := doc["marker"].(string)
	answer := fmt.Sprintf(`{"id":"x","model":"test/model:1b","marker":%q}`, marker)
	if doc["stream"] == true {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: %s\n\ndata: [DONE]\n\n", answer)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, answer)
}

func (e *strictEngine) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen
}

func (e *strictEngine) check(t *testing.T) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range e.bad {
		t.Errorf("the engine was sent %s", b)
	}
	e.bad = nil
}

// strictObject reads a body as a parser that forgives nothing: one object, whose model is named once.
func strictObject(body []byte) (doc map[string]any, problem string) {
	if !json.Valid(body) {
		return nil, "no JSON"
	}
	numbers := json.NewDecoder(strings.NewReader(string(body)))
	numbers.UseNumber()
	if err := numbers.Decode(&doc); err != nil {
		return nil, err.Error()
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	if _, err := dec.Token(); err != nil {
		return nil, err.Error()
	}
	models := 0
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err.Error()
		}
		if key == "model" {
			models++
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err.Error()
		}
	}
	if models != 1 {
		return nil, fmt.Sprint(models, " models")
	}
	return doc, ""
}

const chatLine = "POST /v1/chat/completions HTTP/1.1\r\n"

// chatBody is a good body that asks for marker.
func chatBody(marker string) string {
	return fmt.Sprintf(`{"model":"test/model:1b","marker":%q}`, marker)
}

func sized(head, body string) string {
	return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
}

func keyed(line string) string { return line + "Host: h\r\nAuthorization: Bearer key-a\r\n" }

// goodChat is a whole request that nothing is wrong with.
func goodChat(marker string, headers ...string) string {
	return sized(keyed(chatLine)+strings.Join(headers, ""), chatBody(marker))
}

func chunkedChat(chunks string, headers ...string) string {
	return keyed(chatLine) + "Transfer-Encoding: chunked\r\n" + strings.Join(headers, "") + "\r\n" + chunks
}

// withBody posts body as it is.
func withBody(body string) string { return sized(keyed(chatLine), body) }

func oneChunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

// malformed is one row: bytes on a socket, and the statuses that come back in order. Every answer of 400 and above is an OpenAI error,
// every 200 of a chat holds the row's own marker ("m1" for the first answered chat, "m2" for the next).
type malformed struct {
	name   string
	send   string
	want   []int
	code   string // of the last error, where it matters
	engine int    // requests that reach the engine
	fin    bool   // the client ends its side after sending: nothing more will come
	closed bool   // the connection must be closed afterwards
	quiet  bool   // the connection may end without an answer: the client has left
}

func malformedRows() []malformed {
	m1, m2 := goodChat("m1"), goodChat("m2")
	get := func(target string) string { return keyed("GET "+target+" HTTP/1.1\r\n") + "\r\n" }
	post := func(target string) string { return sized(keyed("POST "+target+" HTTP/1.1\r\n"), chatBody("m1")) }
	bad := func(name, send string) malformed { // refused, and the connection is not used again
		return malformed{name: name, send: send, want: []int{400}, closed: true}
	}
	deep := strings.Repeat("[", 100000)
	rows := []malformed{
		{name: "good", send: m1, want: []int{200}, engine: 1},

		// Request lines.
		bad("empty line only, then nothing", "\r\n\r\n\r\n\r\nX\r\n\r\n"),
		bad("no version", "POST /v1/chat/completions\r\nHost: h\r\n\r\n"),
		bad("no target", "POST HTTP/1.1\r\nHost: h\r\n\r\n"),
		bad("only a word", "HELLO\r\n\r\n"),
		bad("only a space", " \r\n\r\n"),
		bad("leading space", " "+m1),
		bad("two spaces before the target", strings.Replace(m1, "POST /", "POST  /", 1)),
		bad("two spaces before the version", strings.Replace(m1, " HTTP/1.1", "  HTTP/1.1", 1)),
		bad("tab between", strings.Replace(m1, "POST /", "POST\t/", 1)),
		bad("space in the target", strings.Replace(m1, "/v1/chat", "/v1/ chat", 1)),
		bad("NUL in the method", strings.Replace(m1, "POST", "PO\x00ST", 1)),
		bad("NUL in the target", strings.Replace(m1, "/v1/chat", "/v1/\x00chat", 1)),
		bad("CR in the target", strings.Replace(m1, "/v1/chat", "/v1/\rchat", 1)),
		bad("bare CR ends the line", strings.Replace(m1, "HTTP/1.1\r\n", "HTTP/1.1\r", 1)),
		bad("method with a colon", strings.Replace(m1, "POST", "PO:ST", 1)),
		{name: "lower case method", send: strings.Replace(m1, "POST", "post", 1), want: []int{405}},
		{name: "unknown method", send: strings.Replace(m1, "POST", "BREW", 1), want: []int{405}},
		{name: "method of a kilobyte", send: strings.Replace(m1, "POST", strings.Repeat("A", 1000), 1), want: []int{405}},
		bad("binary rubbish", "\x00\x01\x02\xff\xfe\r\n\r\n"),
		bad("TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+strings.Repeat("\x5a", 500)+"\r\n\r\n"),
		bad("SSH banner", "SSH-2.0-OpenSSH_9.9\r\n\r\n"),
		bad("SOCKS", "\x05\x01\x00\r\n\r\n"),
		bad("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),

		// Versions.
		{name: "HTTP/0.9", send: strings.Replace(m1, "HTTP/1.1", "HTTP/0.9", 1), want: []int{400}, closed: true},
		{name: "HTTP/1.2", send: strings.Replace(m1, "HTTP/1.1", "HTTP/1.2", 1), want: []int{400}, closed: true},
		{name: "HTTP/2.0", send: strings.Replace(m1, "HTTP/1.1", "HTTP/2.0", 1), want: []int{400}, closed: true},
		bad("HTTP/11", strings.Replace(m1, "HTTP/1.1", "HTTP/11", 1)),
		bad("HTTP/1.10", strings.Replace(m1, "HTTP/1.1", "HTTP/1.10", 1)),
		bad("http/1.1", strings.Replace(m1, "HTTP/1.1", "http/1.1", 1)),
		bad("HTTP/1.1 and more", strings.Replace(m1, "HTTP/1.1", "HTTP/1.1x", 1)),
		bad("ICY/1.1", strings.Replace(m1, "HTTP/1.1", "ICY/1.1", 1)),
		{name: "HTTP/1.0", send: strings.Replace(m1, "HTTP/1.1", "HTTP/1.0", 1), want: []int{200}, engine: 1, closed: true},
		{name: "HTTP/1.0 with keep-alive", send: strings.Replace(goodChat("m1", "Connection: keep-alive\r\n"), "HTTP/1.1", "HTTP/1.0", 1) + m2, want: []int{200, 200}, engine: 2},
		bad("HTTP/1.0, chunked", strings.Replace(chunkedChat(oneChunk(chatBody("m1"))+"0\r\n\r\n"), "HTTP/1.1", "HTTP/1.0", 1)),

		// Header syntax.
		bad("no colon", goodChat("m1", "Nocolon\r\n")),
		bad("empty name", goodChat("m1", ": x\r\n")),
		bad("space before the colon", goodChat("m1", "X-A : x\r\n")),
		bad("tab before the colon", goodChat("m1", "X-A\t: x\r\n")),
		bad("space in a name", goodChat("m1", "X A: x\r\n")),
		bad("NUL in a name", goodChat("m1", "X\x00A: x\r\n")),
		bad("NUL in a value", goodChat("m1", "X-A: x\x00y\r\n")),
		bad("bare CR in a value", goodChat("m1", "X-A: x\ry\r\n")),
		bad("control character in a value", goodChat("m1", "X-A: x\x07y\r\n")),
		bad("slash in a name", goodChat("m1", "X/A: x\r\n")),
		bad("bytes beyond ASCII in a name", goodChat("m1", "X-\xc3\xa9: x\r\n")),
		{name: "bytes beyond ASCII in a value", send: goodChat("m1", "X-A: \xc3\xa9\xff\r\n"), want: []int{200}, engine: 1},
		{name: "empty value", send: goodChat("m1", "X-A:\r\n"), want: []int{200}, engine: 1},
		{name: "spaces around a value", send: goodChat("m1", "X-A: \t x \t \r\n"), want: []int{200}, engine: 1},
		bad("folded header", goodChat("m1", "X-A: x\r\n y\r\n")),
		bad("folded header, tab", goodChat("m1", "X-A: x\r\n\ty\r\n")),
		bad("first header is folded", keyed(chatLine+" X-A: x\r\n")+"\r\n"),
		bad("folded Content-Length", keyed(chatLine)+"Content-Length:\r\n 5\r\n\r\n{}{}{"),
		bad("folded Transfer-Encoding", keyed(chatLine)+"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
		bad("two hosts", goodChat("m1", "Host: other\r\n")),
		bad("no host", sized(chatLine+"Authorization: Bearer key-a\r\n", chatBody("m1"))),
		bad("space in the host", strings.Replace(m1, "Host: h", "Host: h x", 1)),
		{name: "bare LF ends the head", send: strings.Replace(m1, "\r\n\r\n", "\n\n", 1), want: []int{400}, closed: true, fin: true},
		{name: "bare LF ends every line", send: strings.ReplaceAll(m1, "\r\n", "\n"), want: []int{400}, closed: true, fin: true},
		bad("bare LF ends one header", goodChat("m1", "X-A: x\n")),
		{name: "headers too large", send: goodChat("m1", "X-A: "+strings.Repeat("a", 20<<10)+"\r\n"), want: []int{431}, closed: true},
		{name: "too many headers", send: goodChat("m1", strings.Repeat("X-A: b\r\n", 4000)), want: []int{431}, closed: true},
		{name: "a thousand headers", send: goodChat("m1", strings.Repeat("X-A: b\r\n", 1000)), want: []int{200}, engine: 1},
		{name: "a target too long", send: get("/v1/models/" + strings.Repeat("a", 20<<10)), want: []int{431}, closed: true},
		{name: "an endless header", send: keyed(chatLine) + "X-A: " + strings.Repeat("a", 1<<20), want: []int{431}, closed: true},

		// Length and framing.
		bad("two different lengths", keyed(chatLine)+"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
		bad("a list of lengths", keyed(chatLine)+"Content-Length: 2, 2\r\n\r\n{}"),
		bad("negative length", keyed(chatLine)+"Content-Length: -1\r\n\r\n{}"),
		bad("length with a sign", keyed(chatLine)+"Content-Length: +2\r\n\r\n{}"),
		bad("hexadecimal length", keyed(chatLine)+"Content-Length: 0x2\r\n\r\n{}"),
		bad("length with a fraction", keyed(chatLine)+"Content-Length: 2.0\r\n\r\n{}"),
		bad("length with a space inside", keyed(chatLine)+"Content-Length: 2 0\r\n\r\n{}"),
		bad("empty length", keyed(chatLine)+"Content-Length:\r\n\r\n{}"),
		bad("length that overflows", keyed(chatLine)+"Content-Length: 99999999999999999999999\r\n\r\n{}"),
		bad("length of 2^63", keyed(chatLine)+"Content-Length: 9223372036854775808\r\n\r\n{}"),
		{name: "a petabyte", send: keyed(chatLine) + "Content-Length: 1125899906842624\r\n\r\n{}", want: []int{413}, closed: true},
		bad("length and chunks", keyed(chatLine)+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		bad("chunks and length", keyed(chatLine)+"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
		bad("chunked twice", keyed(chatLine)+"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		bad("chunked, chunked", keyed(chatLine)+"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
		bad("gzip, chunked", keyed(chatLine)+"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
		bad("chunked, identity", keyed(chatLine)+"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
		bad("identity and a length", keyed(chatLine)+"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}"),
		bad("identity", keyed(chatLine)+"Transfer-Encoding: identity\r\n\r\n"),
		bad("xchunked", keyed(chatLine)+"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
		bad("chunked with a parameter", keyed(chatLine)+"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
		bad("quoted chunked", keyed(chatLine)+"Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
		bad("empty Transfer-Encoding", keyed(chatLine)+"Transfer-Encoding:\r\nContent-Length: 2\r\n\r\n{}"),
		bad("Transfer-Encoding with a vertical tab", keyed(chatLine)+"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
		{name: "Chunked in capitals", send: strings.Replace(chunkedChat(oneChunk(chatBody("m1"))+"0\r\n\r\n"), "chunked", "CHUNKED", 1), want: []int{200}, engine: 1, closed: true},
		{name: "chunks", send: chunkedChat(oneChunk(`{"model":"test/model:1b",`) + oneChunk(`"marker":"m1"}`) + "0\r\n\r\n"), want: []int{200}, engine: 1, closed: true},
		{name: "no length at all", send: keyed(chatLine) + "\r\n", want: []int{400}, code: "invalid_json"},
		{name: "length 0", send: withBody(""), want: []int{400}, code: "invalid_json"},

		// Chunks.
		bad("chunk of no size", chunkedChat("\r\n{}\r\n0\r\n\r\n")),
		bad("negative chunk", chunkedChat("-2\r\n{}\r\n0\r\n\r\n")),
		bad("chunk with a sign", chunkedChat("+2\r\n{}\r\n0\r\n\r\n")),
		bad("chunk size of 0x2", chunkedChat("0x2\r\n{}\r\n0\r\n\r\n")),
		bad("chunk size is a word", chunkedChat("two\r\n{}\r\n0\r\n\r\n")),
		bad("chunk size overflows", chunkedChat("ffffffffffffffffff\r\n{}\r\n0\r\n\r\n")),
		bad("chunk size of 2^63", chunkedChat("8000000000000000\r\n{}\r\n0\r\n\r\n")),
		{name: "chunk larger than the limit", send: chunkedChat("fffffff\r\n{}\r\n0\r\n\r\n"), want: []int{413}, closed: true},
		bad("space before a chunk size", chunkedChat(" 2\r\n{}\r\n0\r\n\r\n")),
		bad("chunk shorter than its size", chunkedChat("5\r\n{}\r\n0\r\n\r\n")),
		bad("chunk longer than its size", chunkedChat("1\r\n{}\r\n0\r\n\r\n")),
		bad("chunk ends in LF", chunkedChat("2\r\n{}\n0\r\n\r\n")),
		bad("chunk size ends in LF", chunkedChat("2\n{}\r\n0\r\n\r\n")),
		bad("chunk size ends in CR", chunkedChat("2\r{}\r\n0\r\n\r\n")),
		bad("LF in a chunk extension", chunkedChat("2;a\nb\r\n{}\r\n0\r\n\r\n")),
		bad("NUL in a chunk size", chunkedChat("2\x00\r\n{}\r\n0\r\n\r\n")),
		{name: "chunk extensions", send: chunkedChat(fmt.Sprintf("%x;a=b;c=\"d\"\r\n%s\r\n0;x\r\n\r\n", len(chatBody("m1")), chatBody("m1"))), want: []int{200}, engine: 1, closed: true},
		{name: "trailers", send: chunkedChat(oneChunk(chatBody("m1")) + "0\r\nX-Sum: 1\r\n\r\n"), want: []int{200}, engine: 1, closed: true},
		bad("a trailer that frames", chunkedChat(oneChunk(chatBody("m1"))+"0\r\nContent-Length: 5\r\n\r\n")),
		bad("a trailer that frames anew", chunkedChat(oneChunk(chatBody("m1"))+"0\r\nTransfer-Encoding: chunked\r\n\r\n")),
		bad("a trailer that is no header", chunkedChat(oneChunk(chatBody("m1"))+"0\r\nnothing\r\n\r\n")),
		bad("announced trailer that frames", chunkedChat(oneChunk(chatBody("m1"))+"0\r\n\r\n", "Trailer: Content-Length\r\n")),

		// Targets.
		{name: "absolute form", send: post("http://other.example/v1/chat/completions"), want: []int{200}, engine: 1},
		{name: "absolute form with user and port", send: post("http://a:b@other.example:1/v1/chat/completions?x=1"), want: []int{200}, engine: 1},
		{name: "absolute form without a path", send: get("http://other.example"), want: []int{200}},
		{name: "absolute form of another scheme", send: get("file:///etc/passwd"), want: []int{404}},
		bad("authority form", get("other.example:80")),
		{name: "asterisk", send: keyed("OPTIONS * HTTP/1.1\r\n") + "\r\n", want: []int{404}},
		bad("no slash", get("v1/models")),
		{name: "CONNECT", send: "CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n", want: []int{404}, closed: true},
		{name: "TRACE", send: keyed("TRACE / HTTP/1.1\r\n") + "X-Secret: s\r\n\r\n", want: []int{405}},
		{name: "percent at the end", send: get("/v1/models/a%"), want: []int{404}},
		{name: "percent and no hex", send: get("/v1/models/a%zz"), want: []int{404}},
		{name: "escaped NUL", send: get("/v1/models/a%00b"), want: []int{404}},
		{name: "escaped line end", send: get("/v1/models/a%0d%0aSet-Cookie:%20x"), want: []int{404}},
		{name: "overlong UTF-8", send: get("/v1/models/%c0%af"), want: []int{404}},
		{name: "escaped route", send: post("/v1/chat%2fcompletions"), want: []int{404}},
		{name: "doubly escaped route", send: post("/v1/chat%252fcompletions"), want: []int{404}},
		{name: "up and over", send: post("/v1/../v1/chat/completions"), want: []int{404}},
		{name: "up to the engine's controls", send: post("/v1/chat/completions/../../flush_cache"), want: []int{404}},
		{name: "escaped up", send: post("/v1/%2e%2e/flush_cache"), want: []int{404}},
		{name: "semicolon", send: post("/v1/chat/completions;/../../flush_cache"), want: []int{404}},
		bad("backslashes", post(`\v1\chat\completions`)),
		{name: "fragment", send: post("/v1/chat/completions#/../flush_cache"), want: []int{200}, engine: 1},
		{name: "engine control", send: post("/flush_cache"), want: []int{404}},
		{name: "engine control in the absolute form", send: post("http://127.0.0.1/flush_cache"), want: []int{404}},
		{name: "engine control with an underscore escaped", send: post("/flush%5fcache"), want: []int{404}},
		{name: "method override", send: sized(keyed("GET /v1/chat/completions HTTP/1.1\r\n")+"X-HTTP-Method-Override: POST\r\n", chatBody("m1")), want: []int{405}},

		// Upgrades.
		{name: "WebSocket on responses", send: keyed("GET /v1/responses HTTP/1.1\r\n") + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", want: []int{405}},
		{name: "WebSocket on realtime", send: keyed("GET /v1/realtime?model=m HTTP/1.1\r\n") + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: realtime, openai-insecure-api-key.key-a\r\n\r\n", want: []int{404}},
		{name: "upgrade to h2c", send: goodChat("m1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), want: []int{200}, engine: 1},

		// Expectations.
		{name: "expect 100", send: goodChat("m1", "Expect: 100-continue\r\n"), want: []int{100, 200}, engine: 1},
		{name: "expect 100, in capitals", send: goodChat("m1", "Expect: 100-CONTINUE\r\n"), want: []int{100, 200}, engine: 1},
		{name: "expect 100, too large", send: keyed(chatLine) + "Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", want: []int{413}, closed: true},
		{name: "expect 100 with a bad key", send: sized(chatLine+"Host: h\r\nAuthorization: Bearer nope\r\nExpect: 100-continue\r\n", chatBody("m1")), want: []int{100, 401}},
		{name: "expect something else", send: goodChat("m1", "Expect: a miracle\r\n"), want: []int{200}, engine: 1},

		// Pipelines.
		{name: "two good ones", send: m1 + m2, want: []int{200, 200}, engine: 2},
		{name: "a good one, then a bad one", send: m1 + "RUBBISH\r\n\r\n", want: []int{200, 400}, engine: 1, closed: true},
		{name: "a refused one, then a good one", send: withBody(`{"model":7}`) + m1, want: []int{400, 200}, engine: 1},
		bad("a bad one, then a good one", goodChat("m1", "X A: b\r\n")+m2),
		{name: "a request in a body", send: withBody(m2) + m1, want: []int{400, 200}, engine: 1},
		{name: "a request in the body of a GET", send: sized(keyed("GET /v1/models HTTP/1.1\r\n"), m1) + goodChat("m1"), want: []int{200, 200}, engine: 1},
		{name: "a request in the body of a HEAD", send: sized(keyed("HEAD /nothing HTTP/1.1\r\n"), m1), want: []int{404}},
		{name: "a request in the body of an unknown address", send: sized(keyed("POST /nothing HTTP/1.1\r\n"), m1) + goodChat("m1"), want: []int{404, 200}, engine: 1},
		{name: "a request in the chunks of a GET", send: keyed("GET /v1/models HTTP/1.1\r\n") + "Transfer-Encoding: chunked\r\n\r\n" + oneChunk(m1) + "0\r\n\r\n" + goodChat("m1"), want: []int{200}, closed: true},
		{name: "a body longer than its length", send: keyed(chatLine) + "Content-Length: 2\r\n\r\n{}" + "{}{}{}\r\n\r\n", want: []int{400, 400}, closed: true},
		{name: "close, then another", send: goodChat("m1", "Connection: close\r\n") + m2, want: []int{200}, engine: 1, closed: true},
		{name: "a line end between two", send: m1 + "\r\n" + m2, want: []int{200, 200}, engine: 2},

		// Clients that end too early.
		{name: "nothing, then FIN", send: "", fin: true, quiet: true},
		{name: "half a request line, then FIN", send: "POST /v1/ch", fin: true, quiet: true, closed: true},
		{name: "half a head, then FIN", send: keyed(chatLine) + "Content-Le", fin: true, quiet: true, closed: true},
		{name: "half a body, then FIN", send: keyed(chatLine) + "Content-Length: 50\r\n\r\n{\"model\"", fin: true, quiet: true, closed: true},
		{name: "half a chunk, then FIN", send: chunkedChat("50\r\n{\"model\""), fin: true, quiet: true, closed: true},
		{name: "chunks without an end, then FIN", send: chunkedChat(oneChunk(chatBody("m1"))), fin: true, quiet: true, closed: true},
		{name: "expect 100, then FIN", send: keyed(chatLine) + "Content-Length: 50\r\nExpect: 100-continue\r\n\r\n", fin: true, quiet: true, closed: true},

		// Bodies.
		{name: "no JSON", send: withBody("hello"), want: []int{400}, code: "invalid_json"},
		{name: "a form", send: sized(keyed(chatLine)+"Content-Type: application/x-www-form-urlencoded\r\n", "model=test%2Fmodel"), want: []int{400}, code: "invalid_json"},
		{name: "a multipart form", send: sized(keyed(chatLine)+"Content-Type: multipart/form-data; boundary=b\r\n", "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nx\r\n--b--\r\n"), want: []int{400}, code: "invalid_json"},
		{name: "a form that is JSON", send: sized(keyed(chatLine)+"Content-Type: multipart/form-data; boundary=b\r\n", chatBody("m1")), want: []int{200}, engine: 1},
		{name: "XML", send: withBody("<model>test/model:1b</model>"), want: []int{400}, code: "invalid_json"},
		{name: "array", send: withBody(`["model"]`), want: []int{400}, code: "invalid_json"},
		{name: "null", send: withBody("null"), want: []int{400}, code: "invalid_json"},
		{name: "two objects", send: withBody(chatBody("m1") + chatBody("m2")), want: []int{400}, code: "invalid_json"},
		{name: "two models", send: withBody(`{"model":"test/model:1b","model":"other"}`), want: []int{400}, code: "invalid_parameter"},
		{name: "two models, one escaped", send: withBody(`{"model":"test/model:1b","mod\u0065l":"other"}`), want: []int{400}, code: "invalid_parameter"},
		{name: "two streams", send: withBody(`{"model":"test/model:1b","stream":true,"stream":false}`), want: []int{400}, code: "invalid_parameter"},
		{name: "model is a number", send: withBody(`{"model":7}`), want: []int{400}, code: "invalid_parameter"},
		{name: "model is null", send: withBody(`{"model":null}`), want: []int{400}, code: "invalid_parameter"},
		{name: "model in other letters", send: withBody(`{"Model":"test/model:1b"}`), want: []int{400}, code: "missing_required_parameter"},
		{name: "stream is a word", send: withBody(`{"model":"test/model:1b","stream":"true"}`), want: []int{400}, code: "invalid_parameter"},
		{name: "trailing comma", send: withBody(`{"model":"test/model:1b",}`), want: []int{400}, code: "invalid_json"},
		{name: "comment", send: withBody(`{"model":"test/model:1b"/**/}`), want: []int{400}, code: "invalid_json"},
		{name: "single quotes", send: withBody(`{'model':'test/model:1b'}`), want: []int{400}, code: "invalid_json"},
		{name: "NaN", send: withBody(`{"model":"test/model:1b","temperature":NaN}`), want: []int{400}, code: "invalid_json"},
		{name: "leading zero", send: withBody(`{"model":"test/model:1b","n":01}`), want: []int{400}, code: "invalid_json"},
		{name: "raw control character", send: withBody("{\"model\":\"test/model:1b\",\"x\":\"a\nb\"}"), want: []int{400}, code: "invalid_json"},
		{name: "NUL in a body", send: withBody("{\"model\":\"test/model:1b\"\x00}"), want: []int{400}, code: "invalid_json"},
		{name: "NUL behind a body", send: withBody(chatBody("m1") + "\x00"), want: []int{400}, code: "invalid_json"},
		{name: "byte order mark", send: withBody("\xef\xbb\xbf" + chatBody("m1")), want: []int{400}, code: "invalid_json"},
		{name: "UTF-16", send: withBody("{\x00\"\x00m\x00"), want: []int{400}, code: "invalid_json"},
		{name: "invalid UTF-8", send: withBody("{\"model\":\"test/model:1b\",\"x\":\"\xff\"}"), want: []int{400}, code: "invalid_json"},
		{name: "half a surrogate pair", send: withBody(`{"model":"test/model:1b","x":"\ud800"}`), want: []int{400}, code: "invalid_json"},
		{name: "too deep", send: withBody(`{"model":"test/model:1b","x":` + deep), want: []int{400}, code: "invalid_json"},
		{name: "escaped model", send: withBody(`{"marker":"m1","mod\u0065l":"test\/model\u003a1b"}`), want: []int{200}, engine: 1},
		{name: "a number of ten thousand digits", send: withBody(`{"marker":"m1","n":` + strings.Repeat("9", 10000) + `,"model":"test/model:1b"}`), want: []int{200}, engine: 1},
		{name: "compressed", send: sized(keyed(chatLine)+"Content-Encoding: gzip\r\n", "\x1f\x8b\x08\x00"), want: []int{415}, code: "unsupported_content_encoding"},
		{name: "model with line ends", send: withBody(`{"model":"x\r\nSet-Cookie: a=b"}`), want: []int{404}, code: "model_not_found"},
		{name: "model of a megabyte", send: withBody(`{"model":"` + strings.Repeat("a", 1<<20) + `"}`), want: []int{404}, code: "model_not_found"},

		// Headers that we read.
		{name: "request id with quotes", send: goodChat("m1", "X-Request-Id: a\" b\r\n"), want: []int{200}, engine: 1},
		{name: "request id of a kilobyte", send: goodChat("m1", "X-Request-Id: "+strings.Repeat("a", 1024)+"\r\n"), want: []int{200}, engine: 1},
		{name: "wait that is no number", send: goodChat("m1", "X-Pilotlight-Max-Wait: soon\r\n"), want: []int{400}, code: "invalid_header"},
		{name: "wait of minus one", send: goodChat("m1", "X-Pilotlight-Max-Wait: -1\r\n"), want: []int{400}, code: "invalid_header"},
		{name: "wait of NaN", send: goodChat("m1", "X-Pilotlight-Max-Wait: NaN\r\n"), want: []int{400}, code: "invalid_header"},
		{name: "stainless time-out of infinity", send: goodChat("m1", "X-Stainless-Timeout: Inf\r\n"), want: []int{200}, engine: 1},
		{name: "key in the wrong scheme", send: sized(chatLine+"Host: h\r\nAuthorization: Basic a2V5LWE6\r\n", chatBody("m1")), want: []int{401}},
		{name: "key with a NUL", send: sized(chatLine+"Host: h\r\nAuthorization: Bearer key-a\x00\r\n", chatBody("m1")), want: []int{400}, closed: true},
		{name: "no key", send: sized(chatLine+"Host: h\r\n", chatBody("m1")), want: []int{401}},
		{name: "no key and a large body", send: chatLine + "Host: h\r\nContent-Length: 3000000\r\n\r\n{", want: []int{401}, closed: true},
		{name: "a wrong key, a large body, and an expectation", send: chatLine + "Host: h\r\nAuthorization: Bearer nope\r\nExpect: 100-continue\r\nContent-Length: 3000000\r\n\r\n", want: []int{401}, closed: true},
	}
	return rows
}

func TestMalformedInput(t *testing.T) { malformedInput(t, false) }

// The same bytes under TLS: other reads, writes and ends, and the same answers.
func TestMalformedInputEncrypted(t *testing.T) { malformedInput(t, true) }

func malformedInput(t *testing.T, secure bool) {
	engine := &strictEngine{}
	config := activator.DefaultConfig()
	e := newEdge(t, edgeOptions{model: Model{ID: "test/model:1b", RequiresAuth: true}, body: 4 << 20, config: config, limit: 8, secure: secure}, engine)
	rows := malformedRows()
	if len(rows) < 120 {
		t.Fatalf("%d rows", len(rows))
	}
	e.play(t, malformed{name: "warm up", send: goodChat("m1"), want: []int{200}, engine: 1}, engine)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			e.play(t, row, engine)
			e.play(t, malformed{send: goodChat("m1"), want: []int{200}, engine: 1}, engine)
		})
	}
	settles(t, "all leases are back", func() bool { return e.inFlight() == 0 })
	if n := e.launcher.starts(); n != 1 {
		t.Errorf("%d starts", n)
	}
	for _, secret := range []string{"key-a", "X-Secret", "passwd", "Set-Cookie"} {
		for line := range strings.Lines(e.log.String()) {
			if strings.Contains(line, secret) {
				t.Errorf("the log holds %q: %s", secret, line)
			}
		}
	}
}

func (e *edge) inFlight() (n int) {
	for _, r := range e.model.Activator.Status().Replicas {
		n += r.InFlight
	}
	return n
}

// play sends a row's bytes and checks all that comes back.
func (e *edge) play(t *testing.T, row malformed, engine *strictEngine) {
	t.Helper()
	before := engine.count()
	c := e.connect(t)
	defer c.Close()
	c.SetDeadline(time.Now().Add(8 * time.Second))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.WriteString(c, row.send) // the server may refuse to read it all
		if row.fin {
			c.CloseWrite()
		}
	}()
	br := bufio.NewReader(c)
	chats := 0
	for i, want := range row.want {
		method := "GET"
		if strings.HasPrefix(row.send, "HEAD ") {
			method = "HEAD"
		}
		resp, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if resp.StatusCode != want {
			t.Fatalf("answer %d: status %d, want %d: %s", i, resp.StatusCode, want, body)
		}
		if want == http.StatusContinue {
			continue
		}
		if id := resp.Header.Get("X-Request-Id"); string(appendRequestID(nil, []byte(id))) != id {
			t.Errorf("answer %d: x-request-id %q", i, id)
		}
		switch {
		case method == "HEAD":
		case want >= 400:
			if got := openAIError(t, string(body)); row.code != "" && got.Code != row.code {
				t.Errorf("code %q, want %q", got.Code, row.code)
			}
		case strings.Contains(string(body), `"marker"`):
			chats++
			if want := fmt.Sprintf(`"marker":"m%d"`, chats); !strings.Contains(string(body), want) {
				t.Errorf("answer %d is another's: %s, want %s", i, body, want)
			}
		}
	}
	switch rest, err := readRest(c, br, row.closed || row.quiet); {
	case row.quiet && err == nil:
		// An answer to somebody who has left is allowed, but it must be one.
		if len(rest) > 0 && !strings.Contains(string(rest), `{"error":{`) && string(rest) != "HTTP/1.1 100 Continue\r\n\r\n" {
			t.Errorf("said %q", rest)
		}
	case err != nil:
		t.Error(err)
	case len(rest) > 0:
		t.Errorf("more than was asked for: %q", rest)
	}
	if row.quiet || row.closed {
		c.Close()
	}
	<-sent
	if got := engine.count() - before; got != row.engine {
		t.Errorf("%d requests reached the engine, want %d", got, row.engine)
	}
	engine.check(t)
}

// readRest reads what comes after the answers: to the end of a connection that must be closed, or for a moment.
func readRest(c net.Conn, br *bufio.Reader, toEnd bool) ([]byte, error) {
	if !toEnd {
		c.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
	}
	rest, err := io.ReadAll(br)
	switch {
	case !toEnd && errors.Is(err, os.ErrDeadlineExceeded):
		return rest, nil
	case !toEnd && err == nil:
		return rest, errors.New("the connection was closed without need")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return rest, errors.New("the connection was not closed")
	}
	return rest, nil // an end, or a reset after the answer
}
