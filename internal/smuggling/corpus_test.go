package smuggling

import (
	"fmt"
	"strings"
)

// testCase is bytes on a socket. A request marked "hidden" stands where one reading sees the body of another, or rubbish; a server that
// lets it through as a request of its own was tricked. Requests marked "own" and "next" are plainly sent.
type testCase struct {
	group, name string
	raw         string
	// ambiguous: readers in use disagree about where this ends, so that nothing behind it on the connection can be trusted.
	ambiguous bool
}

// modelName stands in all bodies; a player puts another of the same length in its place.
const modelName = "smuggle-0"

func body(marker string) string {
	return fmt.Sprintf(`{"model":%q,"marker":%q}`, modelName, marker)
}

const (
	line = "POST /v1/chat/completions HTTP/1.1\r\n"
	host = "Host: gateway.example\r\n"
	head = line + host + "Content-Type: application/json\r\n"
)

func length(s string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(s)) }

// chat is a request that nothing is wrong with, but for more.
func chat(marker string, more ...string) string {
	b := body(marker)
	return head + strings.Join(more, "") + length(b) + "\r\n" + b
}

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

const (
	lastChunk = "0\r\n\r\n"
	chunked   = "Transfer-Encoding: chunked\r\n"
)

// chunks is a chunked request with these bytes behind its head.
func chunks(b string, more ...string) string {
	return head + chunked + strings.Join(more, "") + "\r\n" + b
}

// lengthWins hides a request behind an empty chunked body that the length covers: a reader that obeys the length sees one request,
// one that obeys the chunks two (CL.TE).
func lengthWins(te string) string {
	b := lastChunk + chat("hidden")
	return head + length(b) + te + "\r\n" + b
}

// chunksWin hides a request in a chunk that the length does not cover (TE.CL).
func chunksWin(te string) string {
	size := fmt.Sprintf("%x\r\n", len(chat("hidden")))
	return head + te + length(size) + "\r\n" + size + chat("hidden") + "\r\n" + lastChunk
}

func corpus() []testCase {
	var all []testCase
	group := ""
	clean := func(name, raw string) { all = append(all, testCase{group, name, raw, false}) }
	unclear := func(name, raw string) { all = append(all, testCase{group, name, raw, true}) }
	hidden := chat("hidden")

	group = "plain"
	clean("one request", chat("own"))
	clean("chunked", chunks(chunk(body("own"))+lastChunk))
	clean("two in a row", chat("own")+chat("next"))

	group = "CL.TE and TE.CL"
	for _, te := range []struct{ name, header string }{
		{"chunked", chunked},
		{"capitals", "TRANSFER-ENCODING: CHUNKED\r\n"},
		{"no space", "Transfer-Encoding:chunked\r\n"},
		{"tab before the value", "Transfer-Encoding:\tchunked\r\n"},
		{"blanks after the value", "Transfer-Encoding: chunked \t\r\n"},
		{"xchunked", "Transfer-Encoding: xchunked\r\n"},
		{"chunkedx", "Transfer-Encoding: chunkedx\r\n"},
		{"empty", "Transfer-Encoding:\r\n"},
		{"identity", "Transfer-Encoding: identity\r\n"},
		{"chunked, identity", "Transfer-Encoding: chunked, identity\r\n"},
		{"identity, chunked", "Transfer-Encoding: identity, chunked\r\n"},
		{"gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"},
		{"chunked twice in a list", "Transfer-Encoding: chunked, chunked\r\n"},
		{"twice", chunked + chunked},
		{"chunked, then identity", chunked + "Transfer-Encoding: identity\r\n"},
		{"identity, then chunked", "Transfer-Encoding: identity\r\n" + chunked},
		{"list ends in a comma", "Transfer-Encoding: chunked,\r\n"},
		{"list begins with a comma", "Transfer-Encoding: ,chunked\r\n"},
		{"parameter", "Transfer-Encoding: chunked;q=1\r\n"},
		{"quoted", "Transfer-Encoding: \"chunked\"\r\n"},
		{"vertical tab", "Transfer-Encoding: \x0bchunked\r\n"},
		{"form feed", "Transfer-Encoding: \x0cchunked\r\n"},
		{"no-break space", "Transfer-Encoding: \xa0chunked\r\n"},
		{"NUL behind", "Transfer-Encoding: chunked\x00\r\n"},
		{"CR behind", "Transfer-Encoding: chunked\r\r\n"},
		{"space before the colon", "Transfer-Encoding : chunked\r\n"},
		{"tab before the colon", "Transfer-Encoding\t: chunked\r\n"},
		{"two colons", "Transfer-Encoding:: chunked\r\n"},
		{"NUL in the name", "Transfer-Encoding\x00: chunked\r\n"},
		{"folded value", "Transfer-Encoding:\r\n chunked\r\n"},
		{"folded to another header", "X-A: a\r\n Transfer-Encoding: chunked\r\n"},
		{"behind a bare LF", "X-A: a\nTransfer-Encoding: chunked\r\n"},
		{"behind a bare CR", "X-A: a\rTransfer-Encoding: chunked\r\n"},
		{"behind LF CR", "X-A: a\n\rTransfer-Encoding: chunked\r\n"},
		{"behind a NUL", "X-A: a\x00Transfer-Encoding: chunked\r\n"},
		{"ends in a bare LF", "Transfer-Encoding: chunked\n"},
	} {
		unclear("CL.TE, "+te.name, lengthWins(te.header))
		unclear("TE.CL, "+te.name, chunksWin(te.header))
	}
	// These are other headers, whatever an engine's framework makes of them: the length alone counts, and nothing of them is forwarded.
	clean("CL.TE, underscore", lengthWins("Transfer_Encoding: chunked\r\n"))
	clean("CL.TE, Content-Encoding", lengthWins("Content-Encoding: chunked\r\n"))
	clean("CL.TE, TE", lengthWins("TE: chunked\r\n"))
	clean("CL.TE, prefixed name", lengthWins("X-Transfer-Encoding: chunked\r\n"))

	group = "Transfer-Encoding alone"
	for _, te := range []string{"xchunked", "identity", "chunked, identity", "gzip, chunked", "chunked, chunked", "", "deflate", "chunked;q=1"} {
		unclear("\""+te+"\"", head+"Transfer-Encoding: "+te+"\r\n\r\n"+lastChunk+hidden)
	}
	unclear("HTTP/1.0", strings.Replace(chunks(chunk(body("own"))+lastChunk+hidden), "HTTP/1.1", "HTTP/1.0", 1))
	unclear("HTTP/1.0 with keep-alive", strings.Replace(chunks(chunk(body("own"))+lastChunk+hidden, "Connection: keep-alive\r\n"), "HTTP/1.1", "HTTP/1.0", 1))
	unclear("named by Connection", head+length(lastChunk+hidden)+chunked+"Connection: Transfer-Encoding\r\n\r\n"+lastChunk+hidden)

	group = "Content-Length"
	two := body("own") + hidden // the length says whether hidden is body
	long, short := length(two), length(body("own"))
	unclear("two, first short", head+short+long+"\r\n"+two)
	unclear("two, first long", head+long+short+"\r\n"+two)
	unclear("two equal", head+short+short+"\r\n"+two)
	unclear("list of two different", fmt.Sprintf("%sContent-Length: %d, %d\r\n\r\n%s", head, len(body("own")), len(two), two))
	unclear("list of two equal", fmt.Sprintf("%sContent-Length: %d, %d\r\n\r\n%s", head, len(body("own")), len(body("own")), two))
	for _, v := range []struct{ name, form string }{
		{"plus", "+%d"}, {"minus", "-%d"}, {"minus zero", "-0"}, {"hexadecimal", "0x%x"}, {"fraction", "%d.0"}, {"exponent", "%de0"},
		{"space inside", "%d 0"}, {"comma behind", "%d,"}, {"semicolon behind", "%d;"}, {"letters behind", "%dabc"}, {"NUL behind", "%d\x00"},
		{"vertical tab", "\x0b%d"}, {"empty", ""}, {"quoted", "\"%d\""}, {"underscore", "1_0"}, {"Arabic digits", "\xd9\xa3\xd9\xa6"},
		{"2^63", "9223372036854775808"}, {"2^64", "18446744073709551616"}, {"2^64 and more", "18446744073709551652"}, {"a hundred digits", strings.Repeat("9", 100)},
	} {
		value := v.form
		if strings.Contains(value, "%") {
			value = fmt.Sprintf(value, len(body("own")))
		}
		unclear(v.name, head+"Content-Length: "+value+"\r\n\r\n"+two)
	}
	clean("leading zeros", fmt.Sprintf("%sContent-Length: 000%d\r\n\r\n%s", head, len(body("own")), body("own")))
	clean("blanks around", fmt.Sprintf("%sContent-Length: \t%d \r\n\r\n%s", head, len(body("own")), body("own")))
	unclear("space before the colon", strings.Replace(head+short+"\r\n"+two, "Content-Length:", "Content-Length :", 1))
	unclear("folded", strings.Replace(head+short+"\r\n"+two, "Content-Length:", "Content-Length:\r\n", 1))
	unclear("NUL in the name", strings.Replace(head+short+"\r\n"+two, "Content-Length:", "Content-Length\x00:", 1))
	unclear("hidden behind a bare LF", head+"X-A: a\nContent-Length: 0\r\n"+long+"\r\n"+two)
	unclear("hidden behind a bare CR", head+"X-A: a\rContent-Length: 0\r\n"+long+"\r\n"+two)
	clean("underscore", head+"Content_Length: 0\r\n"+long+"\r\n"+two)
	clean("none, and a body", head+"\r\n"+chat("next"))

	corpusOfChunks(&all)
	corpusOfLines(&all)
	corpusOfTargets(&all)
	corpusOfConnections(&all)
	return all
}

func corpusOfChunks(all *[]testCase) {
	group := "chunks"
	clean := func(name, raw string) { *all = append(*all, testCase{group, name, raw, false}) }
	unclear := func(name, raw string) { *all = append(*all, testCase{group, name, raw, true}) }
	own, hidden := body("own"), chat("hidden")
	n := len(own)

	clean("several", chunks(chunk(own[:5])+chunk(own[5:])+lastChunk))
	clean("zeros before the size", chunks(fmt.Sprintf("000%x\r\n%s\r\n", n, own)+lastChunk))
	clean("capital digits", chunks(fmt.Sprintf("%X\r\n%s\r\n", n, own)+lastChunk))
	clean("several zeros at the end", chunks(chunk(own)+"000\r\n\r\n"))
	clean("extension", chunks(fmt.Sprintf("%x;a=b\r\n%s\r\n", n, own)+lastChunk))
	clean("quoted extension", chunks(fmt.Sprintf("%x;a=\"b;c\"\r\n%s\r\n", n, own)+lastChunk))
	clean("extension of the last chunk", chunks(chunk(own)+"0;a=b\r\n\r\n"))
	clean("request in an extension", chunks(fmt.Sprintf("%x;%s\r\n%s\r\n", n, strings.ReplaceAll(strings.TrimSpace(hidden), "\r\n", " "), own)+lastChunk))
	clean("request in a chunk", chunks(chunk(hidden)+lastChunk))
	unclear("extension with a bare LF", chunks(fmt.Sprintf("%x;a\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("LF in an extension", chunks(fmt.Sprintf("%x;a\nb\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("CR in an extension", chunks(fmt.Sprintf("%x;a\rb\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("NUL in an extension", chunks(fmt.Sprintf("%x;a\x00b\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("extension of 100 KiB", chunks(fmt.Sprintf("%x;%s\r\n%s\r\n", n, strings.Repeat("a", 100<<10), own)+lastChunk+hidden))
	unclear("space after the size", chunks(fmt.Sprintf("%x \r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("tab after the size", chunks(fmt.Sprintf("%x\t\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("space before the size", chunks(fmt.Sprintf(" %x\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("size ends in LF", chunks(fmt.Sprintf("%x\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("size ends in CR", chunks(fmt.Sprintf("%x\r%s\r\n", n, own)+lastChunk+hidden))
	unclear("chunk ends in LF", chunks(fmt.Sprintf("%x\r\n%s\n", n, own)+lastChunk+hidden))
	unclear("chunk has no end", chunks(fmt.Sprintf("%x\r\n%s", n, own)+lastChunk+hidden))
	unclear("chunk ends in other bytes", chunks(fmt.Sprintf("%x\r\n%sXX", n, own)+lastChunk+hidden))
	unclear("end in LF", chunks(chunk(own)+"0\n\n"+hidden))
	unclear("end in LF after CRLF", chunks(chunk(own)+"0\r\n\n"+hidden))
	unclear("no size", chunks("\r\n"+own+"\r\n"+lastChunk+hidden))
	unclear("minus", chunks(fmt.Sprintf("-%x\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("plus", chunks(fmt.Sprintf("+%x\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("0x", chunks(fmt.Sprintf("0x%x\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("letters behind the size", chunks(fmt.Sprintf("%xg\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("underscore in the size", chunks(fmt.Sprintf("0_%x\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("NUL in the size", chunks(fmt.Sprintf("%x\x00\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("2^63", chunks("8000000000000000\r\n"+own+"\r\n"+lastChunk+hidden))
	unclear("2^64, as nothing", chunks("10000000000000000\r\n\r\n"+hidden))
	unclear("2^64 and the true size", chunks(fmt.Sprintf("1%016x\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("2^32 and the true size", chunks(fmt.Sprintf("1%08x\r\n%s\r\n", n, own)+lastChunk+hidden))
	unclear("a hundred digits", chunks(strings.Repeat("f", 100)+"\r\n"+own+"\r\n"+lastChunk+hidden))
	unclear("larger than what comes", chunks(fmt.Sprintf("%x\r\n%s\r\n", n+5, own)+lastChunk+hidden))
	unclear("smaller than what comes", chunks(fmt.Sprintf("%x\r\n%s\r\n", n-5, own)+lastChunk+hidden))

	group = "trailers"
	end := func(trailer string) string { return chunks(chunk(own) + "0\r\n" + trailer + "\r\n") }
	clean("one", end("X-Sum: 1\r\n"))
	clean("request in a trailer", end("X-Sum: "+strings.ReplaceAll(strings.TrimSpace(hidden), "\r\n", " ")+"\r\n"))
	unclear("Content-Length", end("Content-Length: 5\r\n")+hidden)
	unclear("Transfer-Encoding", end(chunked)+hidden)
	unclear("Host", end("Host: other.example\r\n")+hidden)
	unclear("announced Content-Length", chunks(chunk(own)+"0\r\nContent-Length: 5\r\n\r\n", "Trailer: Content-Length\r\n")+hidden)
	unclear("without a colon", end("nothing\r\n")+hidden)
	unclear("a request line", end(line)+hidden)
	unclear("bare LF", end("X-Sum: 1\n")+hidden)
	unclear("bare LF ends all", chunks(chunk(own)+"0\r\nX-Sum: 1\n\n")+hidden)
	unclear("folded", end("X-Sum: 1\r\n 2\r\n")+hidden)
	unclear("space before the colon", end("X-Sum : 1\r\n")+hidden)
	unclear("NUL", end("X-Sum: 1\x00\r\n")+hidden)
	unclear("100 KiB", end("X-Sum: "+strings.Repeat("a", 100<<10)+"\r\n")+hidden)
	unclear("ten thousand", end(strings.Repeat("X-Sum: 1\r\n", 10000))+hidden)
}
