package smuggling

import (
	"fmt"
	"strings"
)

func corpusOfLines(all *[]testCase) {
	group := "lines of the head"
	clean := func(name, raw string) { *all = append(*all, testCase{group, name, raw, false}) }
	unclear := func(name, raw string) { *all = append(*all, testCase{group, name, raw, true}) }
	hidden, good := chat("hidden"), chat("own")

	unclear("folded", chat("own", "X-A: a\r\n b\r\n")+hidden)
	unclear("folded with a tab", chat("own", "X-A: a\r\n\tb\r\n")+hidden)
	unclear("folded over an empty line", chat("own", "X-A: a\r\n \r\n")+hidden)
	unclear("first line is folded", line+" X-A: a\r\n"+strings.TrimPrefix(good, line)+hidden)
	unclear("a request in folds", chat("own", "X-A: a\r\n "+strings.ReplaceAll(strings.TrimSpace(hidden), "\r\n", "\r\n ")+"\r\n"))
	unclear("bare LF ends one line", chat("own", "X-A: a\n")+hidden)
	// RFC 9112 §2.2 allows these, and no reading makes another request of them: one that wants CRLF sees a line that is no request line.
	clean("bare LF ends the request line", strings.Replace(good, "HTTP/1.1\r\n", "HTTP/1.1\n", 1)+chat("next"))
	clean("bare LF before", "\n"+good+chat("next"))
	clean("several empty lines before", "\r\n\r\n\r\n\r\n\r\n\r\n"+good+chat("next"))
	unclear("bare LF ends all", strings.ReplaceAll(good, "\r\n", "\n")+hidden)
	unclear("bare LFs end the head", strings.Replace(good, "\r\n\r\n", "\n\n", 1)+hidden)
	unclear("LF CRLF ends the head", strings.Replace(good, "\r\n\r\n", "\n\r\n", 1)+hidden)
	unclear("CRLF LF ends the head", strings.Replace(good, "\r\n\r\n", "\r\n\n", 1)+hidden)
	unclear("bare CR ends one line", chat("own", "X-A: a\r")+hidden)
	unclear("bare CR in a value", chat("own", "X-A: a\rb\r\n")+hidden)
	unclear("CR CR LF", chat("own", "X-A: a\r\r\n")+hidden)
	unclear("NUL in a value", chat("own", "X-A: a\x00b\r\n")+hidden)
	unclear("NUL in a name", chat("own", "X\x00A: b\r\n")+hidden)
	unclear("NUL as a line", chat("own", "\x00\r\n")+hidden)
	unclear("space before a colon", chat("own", "X-A : a\r\n")+hidden)
	unclear("tab before a colon", chat("own", "X-A\t: a\r\n")+hidden)
	unclear("space in a name", chat("own", "X A: a\r\n")+hidden)
	unclear("no colon", chat("own", "Nothing\r\n")+hidden)
	unclear("no name", chat("own", ": a\r\n")+hidden)
	unclear("request line as a header", chat("own", line)+hidden)
	for _, c := range []string{"\x01", "\x7f", "\x80", "\xff", "(", ")", "<", ">", "@", ",", ";", "\\", "\"", "/", "[", "]", "?", "=", "{", "}"} {
		unclear(fmt.Sprintf("%q in a name", c), chat("own", "X"+c+"A: a\r\n")+hidden)
	}
	for _, c := range []string{"!", "#", "$", "%", "&", "'", "*", "+", ".", "^", "_", "`", "|", "~"} {
		clean(fmt.Sprintf("%q in a name", c), chat("own", "X"+c+"A: a\r\n"))
	}
	unclear("control character in a value", chat("own", "X-A: a\x08\r\n")+hidden)
	clean("a tab in a value", chat("own", "X-A: a\tb\r\n"))
	clean("bytes beyond ASCII in a value", chat("own", "X-A: \xc3\xa9\r\n"))
	clean("empty line before", "\r\n"+good)
	clean("head of 20 KiB", chat("own", "X-A: "+strings.Repeat("a", 20<<10)+"\r\n")+hidden)
	clean("a thousand headers", chat("own", strings.Repeat("X-A: b\r\n", 1000))+chat("next"))

	group = "request line"
	swap := func(old, fresh string) string { return strings.Replace(good, old, fresh, 1) + hidden }
	unclear("two spaces before the target", swap("POST ", "POST  "))
	unclear("two spaces before the version", swap(" HTTP/1.1", "  HTTP/1.1"))
	unclear("tab before the target", swap("POST ", "POST\t"))
	unclear("space before the method", " "+good+hidden)
	unclear("space after the version", swap("HTTP/1.1", "HTTP/1.1 "))
	unclear("a version in the target", swap("/v1/chat/completions ", "/v1/chat/completions HTTP/1.1 "))
	unclear("CR in the target", swap("/v1/chat", "/v1/\rchat"))
	unclear("NUL in the target", swap("/v1/chat", "/v1/\x00chat"))
	unclear("NUL in the method", swap("POST", "PO\x00ST"))
	unclear("colon in the method", swap("POST", "POST:"))
	unclear("no target", swap("/v1/chat/completions ", ""))
	unclear("no version (HTTP/0.9)", "POST /v1/chat/completions\r\n\r\n"+hidden)
	unclear("HTTP/0.9 in words", swap("HTTP/1.1", "HTTP/0.9"))
	unclear("HTTP/1.2", swap("HTTP/1.1", "HTTP/1.2"))
	unclear("HTTP/2.0", swap("HTTP/1.1", "HTTP/2.0"))
	unclear("HTTP/1.10", swap("HTTP/1.1", "HTTP/1.10"))
	unclear("HTTP/01.1", swap("HTTP/1.1", "HTTP/01.1"))
	unclear("HTTP/11", swap("HTTP/1.1", "HTTP/11"))
	unclear("HTTP/1.1 and a letter", swap("HTTP/1.1", "HTTP/1.1x"))
	unclear("http/1.1", swap("HTTP/1.1", "http/1.1"))
	unclear("HTTP /1.1", swap("HTTP/1.1", "HTTP /1.1"))
	unclear("the first half of the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\n"+hidden)
	unclear("rubbish", "\x00\xff\x16\x03\r\n\r\n"+hidden)
}

func corpusOfTargets(all *[]testCase) {
	group := "target and Host"
	clean := func(name, raw string) { *all = append(*all, testCase{group, name, raw, false}) }
	unclear := func(name, raw string) { *all = append(*all, testCase{group, name, raw, true}) }
	hidden, good := chat("hidden"), chat("own")
	swap := func(old, fresh string) string { return strings.Replace(good, old, fresh, 1) }

	clean("absolute form, same host", swap("/v1/chat", "http://gateway.example/v1/chat"))
	clean("absolute form, other host", swap("/v1/chat", "http://other.example/v1/chat"))
	clean("absolute form with a user", swap("/v1/chat", "http://a:b@other.example/v1/chat"))
	clean("absolute form, https", swap("/v1/chat", "https://gateway.example/v1/chat"))
	clean("absolute form, no path", swap("/v1/chat/completions", "http://gateway.example"))
	clean("fragment", swap("completions ", "completions#x "))
	clean("other path", swap("/v1/chat/completions", "/flush_cache"))
	clean("dots in the path", swap("/v1/chat/completions", "/v1/chat/completions/../../../flush_cache"))
	clean("escaped slash", swap("/chat/completions", "/chat%2fcompletions"))
	clean("escaped line ends", swap("completions ", "completions%0d%0aX: "))
	clean("CONNECT", "CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n")
	unclear("two Hosts", chat("own", "Host: other.example\r\n")+hidden)
	unclear("two equal Hosts", chat("own", host)+hidden)
	unclear("no Host", strings.Replace(good, host, "", 1)+hidden)
	unclear("list of Hosts", swap("Host: gateway.example", "Host: gateway.example, other.example")+hidden)
	unclear("space in Host", swap("Host: gateway.example", "Host: gateway.example other.example")+hidden)
	unclear("space before Host's colon", swap("Host: gateway", "Host : gateway")+hidden)
	unclear("slash in Host", swap("Host: gateway.example", "Host: gateway.example/other")+hidden)
	clean("user in Host", swap("Host: gateway.example", "Host: a@gateway.example")+chat("next"))
	clean("empty Host", swap("Host: gateway.example", "Host:"))

	group = "methods with bodies"
	get := func(method, target string) string { return method + " " + target + " HTTP/1.1\r\n" + host }
	clean("GET with a length", get("GET", "/v1/models")+length(hidden)+"\r\n"+hidden+chat("next"))
	clean("GET with chunks", get("GET", "/v1/models")+chunked+"\r\n"+chunk(hidden)+lastChunk+chat("next"))
	clean("HEAD with a length", get("HEAD", "/v1/models")+length(hidden)+"\r\n"+hidden)
	clean("OPTIONS with a length", get("OPTIONS", "/v1/models")+length(hidden)+"\r\n"+hidden+chat("next"))
	clean("DELETE with a length", get("DELETE", "/v1/models")+length(hidden)+"\r\n"+hidden+chat("next"))
	clean("TRACE with a length", get("TRACE", "/v1/models")+length(hidden)+"\r\n"+hidden)
	clean("unknown method with a length", get("BREW", "/v1/models")+length(hidden)+"\r\n"+hidden+chat("next"))
	clean("other path with a length", get("POST", "/nowhere")+length(hidden)+"\r\n"+hidden+chat("next"))
	unclear("GET with both", get("GET", "/v1/models")+length(lastChunk+hidden)+chunked+"\r\n"+lastChunk+hidden)
	unclear("GET with two lengths", get("GET", "/v1/models")+"Content-Length: 0\r\n"+length(hidden)+"\r\n"+hidden)
	unclear("CONNECT with a body", "CONNECT gateway.example:80 HTTP/1.1\r\n"+host+chunked+"\r\n"+chunk("x")+lastChunk+hidden)
}

func corpusOfConnections(all *[]testCase) {
	group := "pipelines"
	clean := func(name, raw string) { *all = append(*all, testCase{group, name, raw, false}) }
	unclear := func(name, raw string) { *all = append(*all, testCase{group, name, raw, true}) }
	hidden, good := chat("hidden"), chat("own")

	clean("a line end between two", good+"\r\n"+chat("next"))
	clean("refused body, then a good one", head+length("{")+"\r\n{"+chat("next"))
	clean("Connection: close, then another", chat("own", "Connection: close\r\n")+hidden)
	clean("HTTP/1.0, then another", strings.Replace(good, "HTTP/1.1", "HTTP/1.0", 1)+hidden)
	unclear("rubbish, then a good one", "RUBBISH\r\n\r\n"+hidden)
	unclear("a good one, rubbish, another", good+"RUBBISH\r\n\r\n"+hidden)
	unclear("a bad header, then a good one", chat("own", "X A: b\r\n")+hidden)
	unclear("a bad length, then a good one", head+"Content-Length: x\r\n\r\n"+hidden)
	unclear("broken chunks, then a good one", chunks("zz\r\n"+hidden))
	unclear("more than the length", head+"Content-Length: 2\r\n\r\n{}{}{}\r\n\r\n"+hidden)
	clean("less than the length", head+"Content-Length: 400\r\n\r\n"+body("own"))
	clean("longer than the limit", head+"Content-Length: 99999999999\r\n\r\n"+hidden)
	clean("a request as a body", head+length(hidden)+"\r\n"+hidden)

	group = "hop-by-hop, upgrades, expectations"
	clean("Connection names Content-Length", chat("own", "Connection: Content-Length\r\n"))
	clean("Connection names Host", chat("own", "Connection: Host\r\n"))
	clean("Proxy-Connection", chat("own", "Proxy-Connection: keep-alive\r\n"))
	clean("Upgrade: h2c", chat("own", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"))
	clean("Upgrade: h2c without Connection", chat("own", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"))
	clean("Upgrade: websocket", "GET /v1/realtime HTTP/1.1\r\n"+host+"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	clean("Expect: 100-continue", chat("own", "Expect: 100-continue\r\n"))
	clean("Expect: 100-CONTINUE", chat("own", "Expect: 100-CONTINUE\r\n"))
	clean("Expect with chunks", chunks(chunk(body("own"))+lastChunk, "Expect: 100-continue\r\n"))
	clean("Expect something else", chat("own", "Expect: a miracle\r\n"))
	clean("Expect and a list", chat("own", "Expect: 100-continue, a miracle\r\n"))
	clean("Expect twice", chat("own", "Expect: 100-continue\r\nExpect: 100-continue\r\n"))
	clean("Expect on HTTP/1.0", strings.Replace(chat("own", "Expect: 100-continue\r\n"), "HTTP/1.1", "HTTP/1.0", 1))
	clean("Expect, too large", head+"Content-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"+hidden)
	clean("GET with Expect", "GET /v1/models HTTP/1.1\r\n"+host+length(hidden)+"Expect: 100-continue\r\n\r\n"+hidden+chat("next"))
	unclear("Expect with both framings", head+length(lastChunk+hidden)+chunked+"Expect: 100-continue\r\n\r\n"+lastChunk+hidden)
}
