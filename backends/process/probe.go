package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// probePause is the time between two probes; with a probe's own duration it stays well under the
	// 100 ms within which a ready server must be noticed.
	probePause = 20 * time.Millisecond
	// patientPause follows once a start has taken patientAfter: a server that took so long is noticed
	// 50 ms after its bind, and fewer connections are refused meanwhile.
	patientPause = 50 * time.Millisecond
	patientAfter = 10 * time.Second
	// probeTimeout exceeds the 20 s after which SGLang's /health gives up by itself where it generates.
	probeTimeout = 25 * time.Second
)

// errForeign means that somebody else listens on the replica's port.
var errForeign = errors.New("another program listens on the engine's port")

// probe asks a starting replica whether it is ready, one question at a time.
type probe struct {
	host   string
	port   int
	path   string
	apiKey string
	kin    family
	// bound is called once, when the server has given its first answer, whatever it is.
	bound func()

	identified atomic.Bool
	strange    atomic.Int32 // sightings of a foreign listener in a row
}

// run returns nil once the server has answered with a status of 2xx, errForeign, or ctx's error. Refused
// connections and other answers are part of a start.
func (p *probe) run(ctx context.Context) error {
	client, url := p.client(), p.url()
	began := time.Now()
	for answered := false; ; {
		status, err := p.ask(ctx, client, url)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errForeign):
			return errForeign
		case err == nil && !answered:
			answered = true
			p.bound()
		}
		if err == nil && status >= 200 && status < 300 {
			return nil
		}
		pause := probePause
		if time.Since(began) > patientAfter && !answered {
			pause = patientPause
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (p *probe) client() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:             nil, // never one from the environment: this is loopback
			DialContext:       p.dial,
			DisableKeepAlives: true, // no connection may be left over when the gateway's own traffic begins
		},
		Timeout:       probeTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (p *probe) url() string {
	path := p.path
	if path == "" {
		path = "/health"
	}
	return "http://" + net.JoinHostPort(p.host, strconv.Itoa(p.port)) + path
}

func (p *probe) ask(ctx context.Context, client *http.Client, url string) (status int, err error) {
	if !p.identified.Load() {
		// Most of a start is refused connections. A bare one costs a third of what an HTTP client makes of it.
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(p.host, strconv.Itoa(p.port)))
		if err != nil {
			return 0, err
		}
		if err := conn.Close(); err != nil {
			return 0, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	if p.apiKey != "" {
		req.Header.Set("Authorization", "Bearer "+p.apiKey)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

// dial connects, and before the first byte is sent makes sure that the one who listens is the replica:
// SGLang binds its port minutes after it was chosen, and then anybody may have it, in the worst case
// another model server that answers every probe well. Once identified a listener stays the replica's for
// as long as the replica lives.
func (p *probe) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil || p.identified.Load() {
		return conn, err
	}
	who, err := p.kin.listener(p.host, p.port)
	switch {
	case err != nil:
	case who == ours:
		p.identified.Store(true)
		return conn, nil
	case who == nobody: // it was closed meanwhile
		err = fmt.Errorf("nobody listens on port %d any more", p.port)
	case p.strange.Add(1) == 1:
		// A worker of the engine that is just dying has lost its descriptors before its sockets are closed.
		err = fmt.Errorf("the listener on port %d is not known", p.port)
	default:
		err = errForeign
	}
	if who != foreign {
		p.strange.Store(0)
	}
	return nil, errors.Join(err, conn.Close())
}
