package sglangsim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "sglang-sim")
	if err != nil {
		panic(err)
	}
	programFolder = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(dir); err != nil && code == 0 {
			code = 1
		}
		os.Exit(code)
	}))
}

// fixture is a server on a socket of its own.
type fixture struct {
	*Server
	t      *testing.T
	url    string
	addr   string
	client *http.Client
	served chan error
	stop   context.CancelFunc
}

// serve starts a server whose times are short; change may set more. It is stopped at the end of the test.
func serve(t *testing.T, change func(*Options)) *fixture {
	t.Helper()
	o := Defaults()
	o.TTFT, o.ITL = 0, 0
	o.HealthDelay, o.HealthTimeout = 30*time.Millisecond, 150*time.Millisecond
	o.DisconnectDelay, o.CrashDelay = 60*time.Millisecond, 60*time.Millisecond
	o.DrainPoll, o.ExitDelay = 30*time.Millisecond, 10*time.Millisecond
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	transport := &http.Transport{MaxIdleConnsPerHost: 2000}
	f := &fixture{Server: s, t: t, addr: ln.Addr().String(), url: "http://" + ln.Addr().String(), client: &http.Client{Transport: transport}, served: make(chan error, 1), stop: cancel}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.served <- s.Serve(ctx, ln)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		transport.CloseIdleConnections()
	})
	if o.Start.Warmup == 0 {
		f.eventually("ready", s.Ready)
	}
	return f
}

func (f *fixture) eventually(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not within 5 s: %s; stats %+v", what, f.Stats())
		}
	}
}

// end waits for Serve's answer.
func (f *fixture) end(want error) {
	f.t.Helper()
	select {
	case err := <-f.served:
		if !errors.Is(err, want) {
			f.t.Fatalf("Serve returned %v, want %v", err, want)
		}
		f.served <- err
	case <-time.After(5 * time.Second):
		f.t.Fatalf("Serve goes on, want it to end with %v", want)
	}
}

func (f *fixture) alive() {
	f.t.Helper()
	if status, _ := f.get("/ping"); status != http.StatusOK {
		f.t.Fatalf("/ping says %d", status)
	}
}

// do sends one request and reads the whole answer.
func (f *fixture) do(ctx context.Context, method, path, body string, header ...string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, method, f.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := f.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

func (f *fixture) get(path string, header ...string) (int, string) {
	f.t.Helper()
	status, body, err := f.do(f.t.Context(), "GET", path, "", header...)
	if err != nil {
		f.t.Fatalf("GET %s: %v", path, err)
	}
	return status, body
}

func (f *fixture) post(path, body string, header ...string) (int, string) {
	f.t.Helper()
	status, answer, err := f.do(f.t.Context(), "POST", path, body, header...)
	if err != nil {
		f.t.Fatalf("POST %s: %v", path, err)
	}
	return status, answer
}

// chatBody is a request for an echo, with more members in JSON.
func chatBody(text, more string) string {
	return `{"model":"m","messages":[{"role":"user","content":` + string(marshal("echo: "+text)) + `}]` + more + `}`
}

// slow makes answers last: about 10 ms for each of 1000 tokens.
func slow(o *Options) { o.ITL, o.OutputTokens = 10*time.Millisecond, 1000 }

// open starts a stream and returns once its headers are there.
func (f *fixture) open(ctx context.Context, body string) *http.Response {
	f.t.Helper()
	r, err := http.NewRequestWithContext(ctx, "POST", f.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := f.client.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

const longChat = `{"model":"m","stream":true,"messages":[{"role":"user","content":"go on"}]}`

var changing = regexp.MustCompile(`"(id|item_id)":"(resp_|msg_|call_|classify-)?[0-9a-f]{24,32}"|"(created|created_at)":\d+`)

// stable replaces ids and times, for golden files.
func stable(text string) string {
	return changing.ReplaceAllStringFunc(text, func(m string) string {
		name, value, _ := strings.Cut(m, ":")
		if strings.HasPrefix(value, `"`) {
			return name + `:"ID"`
		}
		return name + `:0`
	})
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, []byte(got)) {
		t.Errorf("%s differs (run with -update after a look)\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("not an object: %v: %s", err, text)
	}
	return v
}

// at walks into decoded JSON: strings are keys, ints are indices.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, ok := v.(map[string]any)
			if !ok {
				t.Fatalf("no object at %v of %v: %v", step, path, v)
			}
			v = m[step]
		case int:
			l, ok := v.([]any)
			if !ok || step >= len(l) {
				t.Fatalf("no element %d of %v: %v", step, path, v)
			}
			v = l[step]
		}
	}
	return v
}

// streamed joins the text of a chat stream and gives its last finish_reason and whether [DONE] came.
func streamed(t *testing.T, body string) (text, finish string, done bool) {
	t.Helper()
	for _, frame := range strings.Split(strings.TrimSuffix(body, "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(frame, "data: ")
		if !ok {
			t.Fatalf("frame without data: %q", frame)
		}
		if data == "[DONE]" {
			done = true
			continue
		}
		v := parse(t, data)
		choices, _ := v["choices"].([]any)
		for i := range choices {
			if s, ok := at(t, choices, i, "delta", "content").(string); ok {
				text += s
			}
			if s, ok := at(t, choices, i, "finish_reason").(string); ok {
				finish = s
			}
		}
	}
	return text, finish, done
}
