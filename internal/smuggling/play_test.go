package smuggling

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// stage is one server under test with an engine of its own behind it; it plays one case at a time.
type stage struct {
	addr   string
	model  string // in place of modelName; empty: as it is
	engine *recorder
}

// verdict is what a server made of a case.
type verdict struct {
	statuses []int    // of final answers, without the probe's
	engine   []seen   // without the probe
	rubbish  []string // that reached the engine
	end      string   // one of the constants
}

const (
	endClosed = "closed"      // by the server
	endKept   = "kept"        // and a further request was answered as it should be
	endWaits  = "waits"       // for more bytes, with no answer to what came
	endAstray = "out of step" // a further request was answered with something else
)

const (
	// quietTime is how long a server must have been silent before the probe is sent. A slower one costs nothing: what
	// it answers later is told from the probe's answer by its marker.
	quietTime = 120 * time.Millisecond
	// probeTime is how long an answer to the probe may take.
	probeTime = 1500 * time.Millisecond
)

// play sends a case and then, if the connection is still there, a good request, the probe.
func (s *stage) play(c testCase) (v verdict, err error) {
	s.engine.take()
	rename := func(raw string) string {
		if s.model == "" {
			return raw
		}
		return strings.ReplaceAll(raw, modelName, s.model)
	}
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		return v, err
	}
	conn := nc.(*net.TCPConn)
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(conn, rename(c.raw)) // may be cut: the server need not read what it refuses
		sent <- err
	}()
	defer func() {
		conn.Close()
		<-sent
	}()
	in := bufio.NewReader(conn)
	method := strings.Fields(c.raw + " x")[0]
	probed, open := false, true
	for open {
		limit := quietTime
		if probed {
			limit = probeTime
		}
		if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
			return v, err
		}
		if _, err := in.Peek(1); err != nil {
			switch {
			case !errors.Is(err, os.ErrDeadlineExceeded):
				v.end, open = endClosed, false
			case probed:
				v.end, open = endWaits, false
			default:
				probed = true
				_, _ = io.WriteString(conn, rename(chat("probe"))) // a failure is seen by the next read
			}
			continue
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return v, err
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return v, fmt.Errorf("%s: an answer that is none: %w", c.name, err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return v, fmt.Errorf("%s: an answer's body: %w", c.name, err)
		}
		switch {
		case resp.StatusCode < 200:
		case strings.Contains(string(b), `"marker":"probe"`):
			v.end, open = endKept, false
		default:
			v.statuses = append(v.statuses, resp.StatusCode)
			method = "POST" // only the first may be a HEAD
		}
	}
	if probed && v.end == endWaits && len(v.statuses) > 0 {
		v.end = endAstray
	}
	got, rubbish := s.engine.take()
	v.rubbish = rubbish
	for _, g := range got {
		if g.marker != "probe" {
			v.engine = append(v.engine, g)
		}
	}
	return v, nil
}

// refused: nothing of the case reached the engine, and nothing was answered with success.
func (v verdict) refused() bool {
	for _, s := range v.statuses {
		if s < 400 {
			return false
		}
	}
	return len(v.engine) == 0 && len(v.rubbish) == 0
}

func (v verdict) String() string {
	var b strings.Builder
	for i, s := range v.statuses {
		if i > 0 {
			b.WriteString(" ")
		}
		fmt.Fprint(&b, s)
	}
	if len(v.statuses) == 0 {
		b.WriteString("no answer")
	}
	b.WriteString(", " + v.end)
	for i, e := range v.engine {
		b.WriteString(map[bool]string{true: "; engine: ", false: ", "}[i == 0])
		if e.marker == "" {
			e.marker = "unmarked"
		}
		fmt.Fprintf(&b, "%s %d B", e.marker, e.body)
	}
	if len(v.rubbish) > 0 {
		b.WriteString("; engine: rubbish")
	}
	return b.String()
}
