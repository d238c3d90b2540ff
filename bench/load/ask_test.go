package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

const streamed = `data: {"choices":[{"delta":{"role":"assistant","content":""}}]}

data: {"choices":[{"delta":{"content":"a"}}]}

: pilotlight: a comment

data: {"choices":[{"delta":{"content":"b"}}]}

data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9}}

data: [DONE]

`

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/v1"
}

func stream(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, text) // the client's end of it is what is tested
}

func TestEachKindOfEndHasItsClass(t *testing.T) {
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		stream  float64
		want    string // "" is ok
	}{
		"whole": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, wholeAnswer)
		}, 0, ""},
		"stream": {func(w http.ResponseWriter, _ *http.Request) { stream(w, streamed) }, 1, ""},
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(429)
			fmt.Fprint(w, `{"error":{"code":"rate_limit_exceeded"}}`)
		}, 0, "http 429 rate_limit_exceeded"},
		"refused, bare": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, 1, "http 502"},
		"no [DONE]": {func(w http.ResponseWriter, _ *http.Request) {
			stream(w, strings.Replace(streamed, "data: [DONE]", "", 1))
		}, 1, "cut"},
		"no [DONE], in the middle of a line": {func(w http.ResponseWriter, _ *http.Request) { stream(w, streamed[:80]) }, 1, "malformed"},
		"no line end after [DONE]":           {func(w http.ResponseWriter, _ *http.Request) { stream(w, strings.TrimSpace(streamed)) }, 1, ""},
		"lines end as in Windows": {func(w http.ResponseWriter, _ *http.Request) {
			stream(w, strings.ReplaceAll(streamed, "\n", "\r\n"))
		}, 1, ""},
		"a long line": {func(w http.ResponseWriter, _ *http.Request) {
			stream(w, strings.Replace(streamed, `"b"`, `"`+strings.Repeat("b", 100_000)+`"`, 1))
		}, 1, ""},
		"an endless line": {func(w http.ResponseWriter, _ *http.Request) { stream(w, "data: "+strings.Repeat("b", maxLine+1)) }, 1, "malformed"},
		"flat error event": {func(w http.ResponseWriter, _ *http.Request) {
			stream(w, `data: {"object":"error","message":"no","type":"BadRequestError","code":400}`+"\n\n"+streamed)
		}, 1, "in-stream BadRequestError"},
		"flat refusal": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			fmt.Fprint(w, `{"object":"error","message":"no","type":"BadRequestError","code":400}`)
		}, 1, "http 400 BadRequestError"},
		"redirected": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(307)
		}, 1, "http 307"},
		"error event": {func(w http.ResponseWriter, _ *http.Request) {
			stream(w, "data: {\"error\":{\"code\":\"stream_stalled\"}}\n\n")
		}, 1, "in-stream stream_stalled"},
		"no stream": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"choices":[{}]}`) }, 1, "malformed"},
		"no JSON":   {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `<html>`) }, 0, "malformed"},
		"bad event": {func(w http.ResponseWriter, _ *http.Request) { stream(w, "data: {\n\n") }, 1, "malformed"},
		"aborted": {func(w http.ResponseWriter, _ *http.Request) {
			stream(w, streamed[:80])
			w.(http.Flusher).Flush() //nolint:forcetypeassert // the server's own
			panic(http.ErrAbortHandler)
		}, 1, "cut"},
		"aborted, no stream": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "200")
			fmt.Fprint(w, wholeAnswer)
		}, 0, "cut"},
		"aborted at once": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 1, "closed"},
		"too slow":        {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 1, "timeout"},
		"too slow within a stream": {func(w http.ResponseWriter, r *http.Request) {
			stream(w, streamed[:80])
			w.(http.Flusher).Flush() //nolint:forcetypeassert // the server's own
			<-r.Context().Done()
		}, 1, "timeout"},
		"too slow within an answer": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, wholeAnswer[:10])
			w.(http.Flusher).Flush() //nolint:forcetypeassert // the server's own
			<-r.Context().Done()
		}, 0, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					http.NotFound(w, r)
					return
				}
				if _, err := io.Copy(io.Discard, r.Body); err != nil { // only then does the server see a client leave
					t.Error(err)
				}
				tt.handler(w, r)
			})
			limit := 30 * time.Second
			if tt.want == "timeout" {
				limit = 300 * time.Millisecond
			}
			r, err := Run(t.Context(), Options{URL: url, Models: []Share{{"m", 1}}, Stream: tt.stream, Plan: plan(2, time.Millisecond), Timeout: limit})
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" {
				if r.OK != 2 || len(r.Errors) != 0 || r.EndToEnd.Count != 2 {
					t.Errorf("%+v", r)
				}
				if tt.stream == 1 && (r.TTFT.Count != 2 || r.InterToken.Count != 2 || r.Models[0].Tokens != 18) {
					t.Errorf("%+v", r)
				}
				return
			}
			if r.OK != 0 || r.Failed != 2 || r.Errors[tt.want] != 2 || r.EndToEnd.Count != 0 {
				t.Errorf("errors %v (%v), want 2 of %q", r.Errors, r.Examples, tt.want)
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String() + "/v1"
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), Options{URL: url, Models: []Share{{"m", 1}}, Plan: plan(2, time.Millisecond)})
	if err != nil || r.Errors["connect"] != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Servers repeat keys in what they refuse, and may send what a terminal obeys.
func TestReportsHoldNoKeysAndNoControlCharacters(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(401)
		fmt.Fprintf(w, "\x1b[2J%s\nis wrong", r.Header.Get("Authorization"))
	})
	r, err := Run(t.Context(), Options{URL: url, Callers: []Caller{{"a", "sk-secret"}}, Models: []Share{{"m", 1}}, Plan: plan(1, 0)})
	if err != nil || r.Examples["http 401"] != " [2JBearer [key] is wrong" {
		t.Errorf("%q, %v", r.Examples, err)
	}
}

func TestCallersModelsAndTextsFollowTheOptions(t *testing.T) {
	var mu sync.Mutex
	keys, models, streams := map[string]int{}, map[string]int{}, 0
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.NotFound(w, r)
			return
		}
		var c chat
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		keys[r.Header.Get("Authorization")]++
		models[c.Model]++
		if n := len(strings.Fields(c.Messages[0].Content)); n != 5 || c.MaxTokens != 3 {
			t.Errorf("%d words, max_tokens %d", n, c.MaxTokens)
		}
		if c.Stream {
			streams++
			stream(w, streamed)
			return
		}
		fmt.Fprint(w, `{"choices":[{"message":{"content":"x"}}]}`)
	})
	r, err := Run(t.Context(), Options{URL: url, Callers: []Caller{{"a", "k1"}, {"b", "k2"}}, Models: []Share{{"m1", 3}, {"m2", 1}}, Stream: 0.5, SharedPrefix: 2, Plan: plan(400, 0)})
	if err != nil || r.OK != 400 || len(r.Tenants) != 2 || len(r.Models) != 2 {
		t.Fatal(r, err)
	}
	if keys["Bearer k1"] != 200 || keys["Bearer k2"] != 200 || models["m1"] < 260 || models["m1"] > 340 || streams < 160 || streams > 240 {
		t.Errorf("%v %v %d", keys, models, streams)
	}
}

// A stream is whole if and only if it says [DONE] on a line of its own and nothing before is an error.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(streamed), 7)
	f.Add([]byte("data: [DONE]"), 1)
	f.Add([]byte("data:{\"choices\":[{\"delta\":{\"tool_calls\":null,\"content\":[]}}]}\r\ndata:[DONE]\r\n"), 3)
	f.Fuzz(func(t *testing.T, text []byte, piece int) {
		var all, split Call
		err := events(t.Context(), bytes.NewReader(text), time.Now(), &all)
		if err == nil && !bytes.Contains(text, []byte("[DONE]")) {
			t.Fatal("whole without [DONE]")
		}
		// How the bytes come makes no difference.
		var again error
		if piece%2 == 0 {
			again = events(t.Context(), iotest.OneByteReader(bytes.NewReader(text)), time.Now(), &split)
		} else {
			again = events(t.Context(), iotest.HalfReader(bytes.NewReader(text)), time.Now(), &split)
		}
		if fmt.Sprint(err) != fmt.Sprint(again) || len(all.gaps) != len(split.gaps) || all.AnswerTokens != split.AnswerTokens || all.Cold != split.Cold {
			t.Fatalf("%v %+v, in pieces %v %+v", err, all, again, split)
		}
	})
}
