package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"pilotlight/internal/app"
	"pilotlight/internal/testtools/gatewaytest"
)

// scaled gives the full figure with PILOTLIGHT_SCALE=full, else a small one.
func scaled(small, full int) int { return gatewaytest.Scaled(small, full) }

// server is a running gateway with a client.
type server struct {
	*gatewaytest.Gateway
	t    *testing.T
	http *http.Client
}

// simModel is one entry of models.
func simModel(t *testing.T, name, extra string, flags ...string) string {
	t.Helper()
	return gatewaytest.SimModel(t, name, extra, flags...)
}

func config(models ...string) string { return gatewaytest.Config(models...) }

// serve starts the gateway with a configuration and waits until it serves. It is stopped, and must have stopped well, at the end.
func serve(t *testing.T, yaml string) *server {
	t.Helper()
	s := &server{t: t, Gateway: gatewaytest.Serve(t, yaml)}
	s.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 20000, MaxIdleConns: 20000, DisableCompression: true}}
	t.Cleanup(s.http.CloseIdleConnections) // before the gateway's end, which waits for connections
	return s
}

func (s *server) state() app.State {
	s.t.Helper()
	state, err := s.State()
	if err != nil {
		s.t.Fatal(err)
	}
	return state
}

func (s *server) model(name string) app.ModelState {
	s.t.Helper()
	m, err := s.Model(name)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// answer is what a client got.
type answer struct {
	status    int
	header    http.Header
	text      string // of the answer, put together from a stream's pieces
	code      string // of the error
	message   string
	done      bool // [DONE] came
	beats     int
	heard     []string // the heartbeats
	beat      string   // the last one
	tokens    int64    // used, of an answer in one piece
	firstByte time.Duration
	took      time.Duration
	err       error // of the transport
}

func (a answer) String() string {
	return fmt.Sprintf("{status %d, text %q, code %q, message %q, done %v, beats %d, took %v, err %v}", a.status, a.text, a.code, a.message, a.done, a.beats, a.took.Round(time.Millisecond), a.err)
}

// ask sends one chat whose answer must be marker.
func (s *server) ask(ctx context.Context, tenant, model, marker string, stream bool, headers ...string) answer {
	body := fmt.Sprintf(`{"messages":[{"role":"user","content":"echo: %s"}],"model":%q,"stream":%v}`, marker, model, stream)
	return s.send(ctx, s.Key(tenant), body, stream, headers...)
}

func (s *server) send(ctx context.Context, key, body string, stream bool, headers ...string) (a answer) {
	start := time.Now()
	defer func() { a.took = time.Since(start) }()
	req, err := http.NewRequestWithContext(ctx, "POST", s.BaseURL+"/chat/completions", strings.NewReader(body))
	if err != nil {
		a.err = err
		return a
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.http.Do(req)
	if err != nil {
		a.err = err
		return a
	}
	defer resp.Body.Close()
	a.status, a.header, a.firstByte = resp.StatusCode, resp.Header, time.Since(start)
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		a.readStream(resp.Body)
		return a
	}
	var doc struct {
		Error   *struct{ Code, Message string }
		Choices []struct{ Message struct{ Content string } }
		Usage   struct {
			Total int64 `json:"total_tokens"`
		}
	}
	b, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil {
		a.err = fmt.Errorf("%w: %.200s", err, b)
		return a
	}
	a.tokens = doc.Usage.Total
	if doc.Error != nil {
		a.code, a.message = doc.Error.Code, doc.Error.Message
	} else if len(doc.Choices) > 0 {
		a.text = doc.Choices[0].Message.Content
	}
	return a
}

func (a *answer) readStream(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) || !a.done && a.code == "" {
				a.err = err
			}
			return
		}
		line = strings.TrimSuffix(line, "\n")
		data, ok := strings.CutPrefix(line, "data: ")
		switch {
		case strings.HasPrefix(line, ":"):
			a.beats++
			a.heard = append(a.heard, line)
			a.beat = line
		case !ok:
		case data == "[DONE]":
			a.done = true
		default:
			var chunk struct {
				Error   *struct{ Code, Message string }
				Choices []struct{ Delta struct{ Content string } }
			}
			if err := json.Unmarshal([]byte(data), &chunk); err != nil {
				a.err = err
				return
			}
			if chunk.Error != nil {
				a.code, a.message = chunk.Error.Code, chunk.Error.Message
			}
			if len(chunk.Choices) > 0 {
				a.text += chunk.Choices[0].Delta.Content
			}
		}
	}
}

// wants checks for a right answer.
func (a answer) wants(t *testing.T, marker string, stream bool) bool {
	t.Helper()
	if a.err != nil || a.status != 200 || a.text != marker || a.done != stream {
		t.Errorf("want %q, got %v", marker, a)
		return false
	}
	return true
}

// rss is a process's resident memory in bytes.
func rss(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
