package smuggling

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// seen is a request as the engine got it.
type seen struct {
	line   string
	marker string // in its body; empty: none
	body   int    // bytes
	whole  string // the body
}

// recorder is an engine that reads strictly, answers every request with its marker, and keeps account.
type recorder struct {
	net.Listener
	wg sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	conns   map[net.Conn]bool
	got     []seen
	rubbish []string // what no strict reader takes for a request
	over    bool
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{Listener: ln, conns: map[net.Conn]bool{}}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		ln.Close()
		r.mu.Lock()
		r.over = true
		for c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *recorder) accept() {
	for {
		c, err := r.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		if r.over {
			c.Close()
		}
		r.conns[c] = true
		r.mu.Unlock()
		r.wg.Go(func() {
			r.serve(c)
			c.Close()
			r.mu.Lock()
			delete(r.conns, c)
			r.mu.Unlock()
		})
	}
}

// take gives what was seen since the last take.
func (r *recorder) take() (got []seen, rubbish []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	got, rubbish = r.got, r.rubbish
	r.got, r.rubbish = nil, nil
	return got, rubbish
}

var (
	requestLine = regexp.MustCompile(`^[!#$%&'*+.^_|~0-9A-Za-z-]+ [\x21-\x7e]+ HTTP/1\.[01]$`)
	headerLine  = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*([^\x00-\x08\x0a-\x1f\x7f]*?)[\t ]*$")
	markerIn    = regexp.MustCompile(`"marker":"([a-z]+)"`)
)

func (r *recorder) serve(c net.Conn) {
	in := bufio.NewReaderSize(c, 64<<10)
	for {
		if _, err := in.Peek(1); err != nil {
			return
		}
		got, err := readStrictly(in)
		if err != nil {
			rest, _ := in.Peek(in.Buffered())
			r.mu.Lock()
			r.rubbish = append(r.rubbish, fmt.Sprintf("%v, before %.60q", err, rest))
			r.mu.Unlock()
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		}
		if !strings.HasPrefix(got.line, "GET /health ") {
			r.mu.Lock()
			r.got = append(r.got, got)
			r.mu.Unlock()
		}
		answer := fmt.Sprintf(`{"id":"x","marker":%q,"model":%q}`, got.marker, modelName)
		if strings.HasPrefix(got.line, "HEAD ") {
			answer = ""
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer); err != nil {
			return
		}
	}
}

// readStrictly reads one request by the letter of RFC 9112, without any of its leave to be lenient.
func readStrictly(in *bufio.Reader) (got seen, err error) {
	text, err := crlf(in)
	if err != nil {
		return got, err
	}
	if !requestLine.MatchString(text) {
		return got, fmt.Errorf("request line %.60q", text)
	}
	got.line = text
	length, chunked := -1, false
	for {
		text, err := crlf(in)
		if err != nil {
			return got, err
		}
		if text == "" {
			break
		}
		m := headerLine.FindStringSubmatch(text)
		if m == nil {
			return got, fmt.Errorf("header %.60q", text)
		}
		switch strings.ToLower(m[1]) {
		case "content-length":
			n, err := strconv.ParseUint(m[2], 10, 31)
			if err != nil || length >= 0 {
				return got, fmt.Errorf("length %.60q", text)
			}
			length = int(n)
		case "transfer-encoding":
			if !strings.EqualFold(m[2], "chunked") || chunked {
				return got, fmt.Errorf("coding %.60q", text)
			}
			chunked = true
		}
	}
	var b bytes.Buffer
	switch {
	case chunked && length >= 0:
		return got, fmt.Errorf("both framings")
	case chunked:
		err = readChunks(in, &b)
	case length > 0:
		_, err = io.CopyN(&b, in, int64(length))
	}
	if err != nil {
		return got, fmt.Errorf("body: %w", err)
	}
	got.whole, got.body = b.String(), b.Len()
	// Only the outermost marker counts: what stands in a body is no request.
	if m := markerIn.FindStringSubmatch(got.whole); m != nil && strings.HasPrefix(got.whole, "{") {
		got.marker = m[1]
	}
	return got, nil
}

func readChunks(in *bufio.Reader, b *bytes.Buffer) error {
	for {
		text, err := crlf(in)
		if err != nil {
			return err
		}
		size, err := strconv.ParseUint(text, 16, 31)
		if err != nil {
			return fmt.Errorf("chunk size %.60q", text)
		}
		if size == 0 {
			break
		}
		if _, err := io.CopyN(b, in, int64(size)); err != nil {
			return err
		}
		if text, err := crlf(in); err != nil || text != "" {
			return fmt.Errorf("chunk ends in %.60q", text)
		}
	}
	for {
		text, err := crlf(in)
		if err != nil || text == "" {
			return err
		}
		if !headerLine.MatchString(text) {
			return fmt.Errorf("trailer %.60q", text)
		}
	}
}

// crlf reads a line that ends so, and holds no other line end.
func crlf(in *bufio.Reader) (string, error) {
	text, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	text, ok := strings.CutSuffix(text, "\r\n")
	if !ok || strings.ContainsRune(text, '\r') {
		return "", fmt.Errorf("line end of %.60q", text)
	}
	return text, nil
}
