package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// stallTimeout ends a connection that sends nothing for so long; the rest is asked for again.
const stallTimeout = 30 * time.Second

var errStalled = errors.New("the connection went silent")

// web is an HTTP client that sends a secret to one origin only and follows redirects itself, because net/http keeps Authorization also for
// subdomains of the first host and from https to http.
type web struct {
	client *http.Client
	origin *url.URL
	token  string // "" is none
	stall  time.Duration
}

func newWeb(base *url.URL, token string, connections int) *web {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: stallTimeout,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   connections,
		DisableCompression:    true,     // sizes and ranges count in bytes of the file
		ReadBufferSize:        64 << 10, // a weight file is read in large pieces
		Protocols:             new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true) // HTTP/2 would put all ranges on one connection
	return &web{origin: base, token: token, stall: stallTimeout, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// close lets go of idle connections.
func (w *web) close() { w.client.CloseIdleConnections() }

// do sends a request and follows up to 10 redirects. first is the headers of the first answer, where a hub describes the file that it
// redirects to;
// resp.Request.URL is where the last came from.
func (w *web) do(ctx context.Context, method, address string, header http.Header) (resp *http.Response, first http.Header, err error) {
	target, err := url.Parse(address)
	if err != nil {
		return nil, nil, err
	}
	for range 10 {
		req, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
		if err != nil {
			return nil, nil, err
		}
		for k, v := range header {
			req.Header[k] = v
		}
		req.Header.Set("Accept-Encoding", "identity")
		req.Header.Set("User-Agent", "pilotlight")
		if w.token != "" && target.Scheme == w.origin.Scheme && target.Host == w.origin.Host {
			req.Header.Set("Authorization", "Bearer "+w.token)
		}
		resp, err := w.client.Do(req)
		if err != nil {
			return nil, nil, withoutQuery(err)
		}
		if first == nil {
			first = resp.Header
		}
		location := resp.Header.Get("Location")
		if resp.StatusCode < 300 || resp.StatusCode > 399 || location == "" {
			return resp, first, nil
		}
		// The few words of a redirect are read, so that its connection can be used again.
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
		resp.Body.Close()
		if target, err = target.Parse(location); err != nil {
			return nil, nil, fmt.Errorf("a redirect to no address: %w", withoutQuery(err))
		}
		if target.Scheme != "http" && target.Scheme != "https" {
			return nil, nil, fmt.Errorf("a redirect to the scheme %q", target.Scheme)
		}
	}
	return nil, nil, errors.New("more than 10 redirects")
}

// withoutQuery takes signatures out of an error's address: whoever has a signed address has the file.
func withoutQuery(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("%s: %w", strings.ToLower(e.Op), e.Err)
	}
	return err
}

// NewBody reads length bytes of an answer's body and turns half a minute of silence and an early end into errors that are worth another try.
// ctx is the request's, and cancel ends it; both are let go when the reader is closed.
func NewBody(ctx context.Context, cancel context.CancelCauseFunc, answer io.ReadCloser, length int64) io.ReadCloser {
	return newBody(ctx, answer, length, stallTimeout, cancel)
}

func newBody(ctx context.Context, answer io.ReadCloser, length int64, stall time.Duration, cancel context.CancelCauseFunc) io.ReadCloser {
	return &body{ctx: ctx, body: answer, left: length, cancel: cancel, stall: stall, stalled: time.AfterFunc(stall, func() { cancel(errStalled) })}
}

type body struct {
	ctx     context.Context // the request's, which cancel ends
	body    io.ReadCloser
	left    int64
	cancel  context.CancelCauseFunc
	stall   time.Duration
	stalled *time.Timer
}

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if n > 0 {
		b.stalled.Reset(b.stall)
	}
	switch {
	case b.left > 0 && err == io.EOF:
		err = io.ErrUnexpectedEOF
	case err != nil && context.Cause(b.ctx) == errStalled:
		err = errStalled
	}
	return n, err
}

func (b *body) Close() error {
	b.stalled.Stop()
	if b.left == 0 {
		// Seeing the end lets net/http use the connection again. The bytes asked for are all here, so an error changes nothing.
		_, _ = b.body.Read(make([]byte, 1))
	}
	err := b.body.Close()
	b.cancel(nil)
	return err
}

// ranged asks for part of a file and checks that the answer is that part. Statuses other than 200 and 206 are the caller's to judge: then
// it returns the answer, whose body is closed, and no reader.
func (w *web) ranged(ctx context.Context, address string, header http.Header, size, offset, length int64) (r io.ReadCloser, resp *http.Response, first http.Header, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		if r == nil {
			cancel(nil)
		}
	}()
	header = header.Clone()
	if header == nil {
		header = http.Header{}
	}
	whole := offset == 0 && length == size
	if !whole {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	}
	resp, first, err = w.do(ctx, http.MethodGet, address, header)
	if err != nil {
		return nil, nil, nil, err
	}
	switch resp.StatusCode {
	case http.StatusPartialContent:
		var from, to, total int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &total); err != nil || from != offset || to != offset+length-1 {
			resp.Body.Close()
			return nil, resp, first, fmt.Errorf("asked for bytes %d to %d, got %q", offset, offset+length-1, resp.Header.Get("Content-Range"))
		} else if total != size {
			resp.Body.Close()
			return nil, resp, first, fmt.Errorf("%w: %d bytes were listed, the file has %d", ErrChanged, size, total)
		}
	case http.StatusOK:
		if resp.ContentLength >= 0 && resp.ContentLength != size {
			resp.Body.Close()
			return nil, resp, first, fmt.Errorf("%w: %d bytes were listed, the file has %d", ErrChanged, size, resp.ContentLength)
		}
		if !whole {
			resp.Body.Close()
			return nil, resp, first, errNoRanges
		}
	case http.StatusRequestedRangeNotSatisfiable, http.StatusPreconditionFailed:
		resp.Body.Close()
		return nil, resp, first, fmt.Errorf("%w: the server answered %d", ErrChanged, resp.StatusCode)
	default:
		resp.Body.Close()
		return nil, resp, first, nil
	}
	return newBody(ctx, resp.Body, length, w.stall, cancel), resp, first, nil
}
