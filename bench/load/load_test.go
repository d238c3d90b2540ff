package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func plan(n int, gap time.Duration) (p []Arrival) {
	for i := range n {
		p = append(p, Arrival{time.Duration(i) * gap, 5, 3})
	}
	return p
}

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
			fmt.Fprint(w, `{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`)
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
		"aborted at once": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 1, "connect"},
		"too slow":        {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 1, "timeout"},
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
			r, err := Run(t.Context(), Options{URL: url, Models: []Share{{"m", 1}}, Stream: tt.stream, Plan: plan(2, time.Millisecond), Timeout: 500 * time.Millisecond})
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
			if r.OK != 0 || r.Errors[tt.want] != 2 || r.EndToEnd.Count != 0 {
				t.Errorf("errors %v, want 2 of %q", r.Errors, tt.want)
			}
		})
	}
}

// A server that answers one request at a time, and stalls once, makes all wait that were planned meanwhile; a closed loop would see one.
func TestStallsAreChargedToAllWhoWaited(t *testing.T) {
	var mu sync.Mutex
	var n atomic.Int64
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPost && n.Add(1) == 20 {
			time.Sleep(500 * time.Millisecond)
		}
		fmt.Fprint(w, `{"choices":[{"message":{"content":"x"}}]}`)
	})
	r, err := Run(t.Context(), Options{URL: url, Models: []Share{{"m", 1}}, Plan: plan(100, 10*time.Millisecond)})
	if err != nil || r.OK != 100 {
		t.Fatal(r, err)
	}
	// 50 of the 100 were planned during the stall.
	if r.EndToEnd.P90 < 0.3 || r.EndToEnd.P50 > 0.35 || r.EndToEnd.Max < 0.45 {
		t.Errorf("%+v", r.EndToEnd)
	}
}

func TestDropsAreCounted(t *testing.T) {
	hold := make(chan struct{})
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			<-hold
		}
		fmt.Fprint(w, `{"choices":[{"message":{"content":"x"}}]}`)
	})
	time.AfterFunc(300*time.Millisecond, func() { close(hold) })
	r, err := Run(t.Context(), Options{URL: url, Models: []Share{{"m", 1}}, Plan: plan(10, time.Millisecond), MaxInFlight: 3})
	if err != nil || r.OK != 3 || r.Dropped != 7 || r.Sent != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestInterruptEndsTheRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.Copy(io.Discard, r.Body) // its end is the client's business here
			cancel()
			<-r.Context().Done()
		}
	})
	r, err := Run(ctx, Options{URL: url, Models: []Share{{"m", 1}}, Plan: plan(1000, 100*time.Millisecond)})
	if err != nil || !r.Interrupted || r.Errors["cancelled"] != r.Sent || r.Sent == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestColdRequestsAreKeptApart(t *testing.T) {
	var ready atomic.Bool
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			replicas := 0
			if ready.Load() {
				replicas = 1
			}
			fmt.Fprintf(w, `{"id":"m","pilotlight":{"state":"x","replicas":%d}}`, replicas)
			return
		}
		if !ready.Swap(true) {
			time.Sleep(50 * time.Millisecond)
		}
		stream(w, streamed)
	})
	r, err := Run(t.Context(), Options{URL: url, Models: []Share{{"m", 1}}, Stream: 1, Plan: plan(2, 700*time.Millisecond)})
	if err != nil || r.ColdEnd.Count != 1 || r.EndToEnd.Count != 1 || r.ColdTTFT.P50 < 0.045 {
		t.Errorf("%+v, %v", r, err)
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

func TestArrivals(t *testing.T) {
	for _, poisson := range []bool{false, true} {
		p, err := Arrivals{Rate: 100, Poisson: poisson, For: 100 * time.Second, Seed: 7, Prompt: Lengths{Median: 200, Sigma: 1}, Answer: Lengths{Median: 9}}.Plan()
		if err != nil {
			t.Fatal(err)
		}
		var sum, squares float64
		longer := 0
		for i := 1; i < len(p); i++ {
			gap := (p[i].At - p[i-1].At).Seconds()
			sum, squares = sum+gap, squares+gap*gap
			if p[i].PromptTokens > 200 {
				longer++
			}
			if p[i].MaxTokens != 9 {
				t.Fatal(p[i])
			}
		}
		n := float64(len(p) - 1)
		mean := sum / n
		variation := math.Sqrt(squares/n-mean*mean) / mean // 1 for exponential gaps, 0 for equal ones
		want := 0.0
		if poisson {
			want = 1
		}
		if math.Abs(n-10_000) > 400 || math.Abs(variation-want) > 0.05 || math.Abs(float64(longer)/n-0.5) > 0.03 {
			t.Errorf("poisson %v: %v arrivals, variation %v, %d longer than the median", poisson, n, variation, longer)
		}
	}
	for _, bad := range []Arrivals{{}, {Rate: -1, For: 1}, {Rate: math.NaN(), For: 1}, {Rate: 1}, {Rate: 1, For: time.Nanosecond, Poisson: true}} {
		if _, err := bad.Plan(); err == nil {
			t.Errorf("%+v makes a plan", bad)
		}
	}
}

func TestTrace(t *testing.T) {
	p, err := Trace(strings.NewReader("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.9799600,3180,0\n"), 2, 0)
	if err != nil || len(p) != 2 || p[1] != (Arrival{500 * time.Millisecond, 3180, 1}) {
		t.Errorf("%v, %v", p, err)
	}
	if p, err := Trace(strings.NewReader("\ufeffarrival,input_tokens,output_tokens\r\n0.5,1,2\r\n1.5,3,4\r\n"), 0, 1); err != nil || len(p) != 1 || p[0].At != 0 {
		t.Errorf("%v, %v", p, err)
	}
	for _, bad := range []string{"", "a,b,c\n", "TIMESTAMP,ContextTokens\n", "TIMESTAMP,ContextTokens,GeneratedTokens\n", "TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,1\n",
		"TIMESTAMP,ContextTokens,GeneratedTokens\n1,-1,1\n", "TIMESTAMP,ContextTokens,GeneratedTokens\n2,1,1\n1,1,1\n", "TIMESTAMP,ContextTokens,GeneratedTokens\n1,1\n",
		"TIMESTAMP,ContextTokens,GeneratedTokens\n1,1,99999999999999999999\n"} {
		if _, err := Trace(strings.NewReader(bad), 1, 0); err == nil {
			t.Errorf("%q makes a plan", bad)
		}
	}
	if _, err := Trace(strings.NewReader("time,prompt,output\n1,1,1\n"), math.Inf(1), 0); err == nil {
		t.Error("infinite speed")
	}
}

func TestJain(t *testing.T) {
	for _, tt := range []struct {
		got  []float64
		want float64
	}{{nil, 1}, {[]float64{5, 5, 5, 5}, 1}, {[]float64{4, 0, 0, 0}, 0.25}, {[]float64{1, 3}, 0.8}} {
		if j := Jain(tt.got); math.Abs(j-tt.want) > 1e-12 {
			t.Errorf("%v: %v, want %v", tt.got, j, tt.want)
		}
	}
}

func TestQuantilesAreExactToThreeDigits(t *testing.T) {
	h := newHistogram()
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Millisecond)
	}
	q := h.quantiles()
	for _, x := range [][2]float64{{q.P50, .5}, {q.P90, .9}, {q.P99, .99}, {q.P999, .999}, {q.Max, 1}, {q.Mean, .5005}} {
		if math.Abs(x[0]-x[1])/x[1] > 0.002 {
			t.Errorf("%+v", q)
		}
	}
}

func TestReports(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Authorization"), "bad") {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"error":{"code":"</script><b>"}}`)
			return
		}
		stream(w, streamed)
	})
	r, err := Run(t.Context(), Options{URL: url, Callers: []Caller{{"good", "k"}, {"<evil>", "bad"}}, Models: []Share{{"m", 1}}, Stream: 1, Plan: plan(10, time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	var text, object, html bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteJSON(&object); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteHTML(&html); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10 sent, 5 ok", "first token", "between tokens", "end to end", "http 401"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
	var back Result
	if err := json.Unmarshal(object.Bytes(), &back); err != nil || back.OK != 5 || back.TTFT.Count != 5 || back.TTFT.P99 <= 0 {
		t.Errorf("%v: %s", err, &object)
	}
	// The page needs nothing from elsewhere, and what servers said stays text in it.
	page := strings.ReplaceAll(html.String(), uplotScript, "")
	if ref := regexp.MustCompile(`(?i)(src|href)\s*=|@import|url\(|fetch\(|</script><b>`).FindString(page); ref != "" {
		t.Errorf("the page holds %q", ref)
	}
	if !strings.Contains(page, `"total":`) || !strings.Contains(html.String(), "uPlot=function") {
		t.Error("the page lacks its points or its charts")
	}
	if _, err := os.Stat("page/uPlot.LICENSE"); err != nil {
		t.Error(err)
	}
}
