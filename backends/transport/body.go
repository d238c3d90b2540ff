package transport

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/valyala/fasthttp"
)

var errBadChunk = errors.New("the engine's chunked framing is broken")

type framing uint8

const (
	framedByLength framing = iota
	framedByChunks
	framedByClose
)

// body removes the transfer coding. Unlike a plain io.Reader it can be interrupted by a time-out at any
// byte and go on afterwards, which heartbeats between events need.
type body struct {
	framing framing
	left    int64 // of the body, or of the current chunk
	state   chunkState
	line    []byte // a size or trailer line that a time-out cut in two
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkData
	chunkEnd // the CRLF after a chunk
	chunkTrailer
)

func newBody(method string, h *fasthttp.ResponseHeader) body {
	status := h.StatusCode()
	if method == fasthttp.MethodHead || status == fasthttp.StatusNoContent || status == fasthttp.StatusNotModified {
		return body{framing: framedByLength}
	}
	switch n := h.ContentLength(); {
	case n >= 0:
		return body{framing: framedByLength, left: int64(n)}
	case n == -1:
		return body{framing: framedByChunks}
	default:
		return body{framing: framedByClose}
	}
}

// reusable says whether the end of the body is also a place where another response may begin.
func (b *body) reusable() bool { return b.framing != framedByClose }

func (b *body) read(br *bufio.Reader, p []byte) (int, error) {
	switch b.framing {
	case framedByClose:
		return br.Read(p)
	case framedByLength:
		if b.left == 0 {
			return 0, io.EOF
		}
		if int64(len(p)) > b.left {
			p = p[:b.left]
		}
		n, err := br.Read(p)
		b.left -= int64(n)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	n, err := b.readChunks(br, p)
	if err == io.EOF && b.state != chunkTrailer {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// readChunks fills p with what has arrived, over as many chunks as are buffered, and blocks only for the first byte.
func (b *body) readChunks(br *bufio.Reader, p []byte) (int, error) {
	total := 0
	for {
		if total > 0 && (br.Buffered() == 0 || total == len(p)) {
			return total, nil
		}
		switch b.state {
		case chunkData:
			want := p[total:]
			if int64(len(want)) > b.left {
				want = want[:b.left]
			}
			n, err := br.Read(want)
			total += n
			b.left -= int64(n)
			if err != nil {
				return total, noEOF(err)
			}
			if b.left == 0 {
				b.state = chunkEnd
			}
		case chunkEnd, chunkSize, chunkTrailer:
			if total > 0 && !hasLine(br) {
				return total, nil // what has arrived must not wait for what has not
			}
			line, err := b.nextLine(br)
			if err != nil {
				if total > 0 && isTimeout(err) {
					return total, nil
				}
				return total, noEOF(err)
			}
			switch {
			case b.state == chunkEnd:
				if len(line) != 0 {
					return total, errBadChunk
				}
				b.state = chunkSize
			case b.state == chunkTrailer:
				if len(line) == 0 {
					return total, io.EOF
				}
			default:
				if i := bytes.IndexByte(line, ';'); i >= 0 {
					line = line[:i]
				}
				size, ok := parseHex(bytes.Trim(line, " \t"))
				if !ok {
					return total, errBadChunk
				}
				b.left = size
				b.state = chunkData
				if size == 0 {
					b.state = chunkTrailer
				}
			}
		}
	}
}

// hasLine tells whether a whole line can be read without waiting.
func hasLine(br *bufio.Reader) bool {
	have, _ := br.Peek(br.Buffered()) // no error: it is buffered
	return bytes.IndexByte(have, '\n') >= 0
}

// ended tells that the body is over without another byte.
func (b *body) ended() bool { return b.framing == framedByLength && b.left == 0 }

// nextLine is readLine that survives a time-out in the middle of a line.
func (b *body) nextLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		if isTimeout(err) {
			b.line = append(b.line, line...)
		}
		return nil, err
	}
	if len(b.line) > 0 {
		b.line = append(b.line, line...)
		line = b.line
		b.line = b.line[:0]
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parseHex reads a chunk size. strconv would copy each one to the heap.
func parseHex(digits []byte) (n int64, ok bool) {
	if len(digits) == 0 || len(digits) > 15 {
		return 0, false
	}
	for _, d := range digits {
		switch {
		case d >= '0' && d <= '9':
			d -= '0'
		case d|0x20 >= 'a' && d|0x20 <= 'f':
			d = d | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		n = n<<4 | int64(d)
	}
	return n, true
}
