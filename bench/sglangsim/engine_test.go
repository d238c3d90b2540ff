package sglangsim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestEachOfManyClientsGetsItsOwnAnswer(t *testing.T) {
	const clients = 1000
	f := serve(t, func(o *Options) { o.MaxRunningRequests, o.ITL = 100, time.Millisecond })
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			want := fmt.Sprintf("answer for client %d and no other", i)
			more := ""
			if i%2 == 0 {
				more = `,"stream":true`
			}
			status, body, err := f.do(context.Background(), "POST", "/v1/chat/completions", chatBody(want, more))
			if err != nil || status != 200 {
				t.Errorf("client %d: %d %v", i, status, err)
				return
			}
			got := body
			if i%2 == 0 {
				got, _, _ = streamed(t, body)
			} else {
				got, _ = at(t, parse(t, body), "choices", 0, "message", "content").(string)
			}
			if got != want {
				t.Errorf("client %d got %q", i, got)
			}
		})
	}
	wg.Wait()
	if v := f.Stats(); v.Finished != clients || v.PeakRunning > 100 || v.Running != 0 {
		t.Errorf("stats %+v", v)
	}
}

func TestHeadersComeWithTheFirstToken(t *testing.T) {
	f := serve(t, func(o *Options) { o.TTFT, o.ITL = 80*time.Millisecond, 30*time.Millisecond })
	start := time.Now()
	resp := f.open(t.Context(), chatBody("a b c", `,"stream":true`))
	if d := time.Since(start); d < 80*time.Millisecond {
		t.Errorf("headers after %v", d)
	}
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		t.Errorf("content type %q", got)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d < 140*time.Millisecond {
		t.Errorf("two more tokens of 30 ms after %v in all", d)
	}
}

func TestPrefillTakesTheTimeOfItsTokens(t *testing.T) {
	f := serve(t, func(o *Options) { o.PrefillRate = 1000 })
	start := time.Now()
	f.post("/v1/chat/completions", chatBody(strings.Repeat("abc", 100), `,"max_tokens":1`))
	if d := time.Since(start); d < 100*time.Millisecond {
		t.Errorf("about 106 tokens at 1000/s took %v", d)
	}
}

func TestQueueIsServedInOrder(t *testing.T) {
	f := serve(t, func(o *Options) { slow(o); o.TTFT, o.MaxRunningRequests = 30*time.Millisecond, 1 })
	ctx, cancel := context.WithCancel(t.Context())
	f.open(ctx, longChat)
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			if _, _, err := f.do(context.Background(), "POST", "/v1/chat/completions", chatBody("x", "")); err != nil {
				t.Error(err)
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
		})
		f.eventually("in line", func() bool { return f.Stats().Waiting == int64(i+1) })
	}
	cancel()
	wg.Wait()
	if fmt.Sprint(order) != "[0 1 2 3 4]" {
		t.Errorf("order %v", order)
	}
}

func TestFullQueue(t *testing.T) {
	f := serve(t, func(o *Options) { slow(o); o.MaxRunningRequests, o.MaxQueuedRequests = 1, 1 })
	f.open(t.Context(), longChat)
	go func() { // ends with the server
		resp, err := f.client.Post(f.url+"/v1/chat/completions", "application/json", strings.NewReader(longChat))
		if err == nil {
			resp.Body.Close()
		}
	}()
	f.eventually("one waits", func() bool { return f.Stats().Waiting == 1 })
	status, body := f.post("/v1/chat/completions", chatBody("x", ""))
	if want := `{"object":"error","message":"The request queue is full.","type":"503","param":null,"code":503}`; status != 503 || body != want {
		t.Errorf("got %d %s, want 503 %s", status, body, want)
	}
	status, body = f.post("/v1/chat/completions", chatBody("x", `,"stream":true`))
	want := `data: {"error":{"object":"error","message":"The request queue is full.","type":"SERVICE_UNAVAILABLE","param":null,"code":503}}` + "\n\ndata: [DONE]\n\n"
	if status != 200 || body != want {
		t.Errorf("got %d %s, want 200 %s", status, body, want)
	}
}

func TestDuplicateRid(t *testing.T) {
	f := serve(t, slow)
	f.open(t.Context(), `{"stream":true,"rid":"r","messages":[{"role":"user","content":"go on"}]}`)
	for _, more := range []string{"", `,"stream":true`} {
		if status, body := f.post("/v1/chat/completions", chatBody("x", `,"rid":"r"`+more)); status != 400 || !strings.Contains(body, "Duplicate request ID detected") {
			t.Errorf("got %d %s", status, body)
		}
	}
}

func TestAbortByPrefixEndsTheStream(t *testing.T) {
	f := serve(t, slow)
	var bodies []*http.Response
	for _, rid := range []string{"abc-1", "abc-2", "xyz"} {
		bodies = append(bodies, f.open(t.Context(), `{"stream":true,"rid":"`+rid+`","messages":[{"role":"user","content":"go on"}]}`))
	}
	if status, body := f.post("/abort_request", `{"rid":"nobody"}`); status != 200 || body != "" {
		t.Errorf("unknown rid: %d %q", status, body)
	}
	start := time.Now()
	f.post("/abort_request", `{"rid":"abc-"}`)
	for _, resp := range bodies[:2] {
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if _, finish, done := streamed(t, string(data)); finish != "abort" || !done {
			t.Errorf("finish %q, done %v", finish, done)
		}
	}
	if v := f.Stats(); v.Aborted != 2 || v.Running != 1 || v.LastAbort.Sub(start) > 500*time.Millisecond {
		t.Errorf("stats %+v", v)
	}
	f.post("/abort_request", `{"rid":""}`)
	if f.Stats().Running != 1 {
		t.Error("an empty rid aborted something")
	}
	f.post("/abort_request", `{"abort_all":true}`)
	f.eventually("all aborted", f.Idle)
}

func TestGenerationGoesOnAfterTheClientLeft(t *testing.T) {
	f := serve(t, func(o *Options) { slow(o); o.DisconnectDelay = 150 * time.Millisecond })
	for _, stream := range []string{"true", "false"} {
		before := f.Stats()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _, err := f.do(ctx, "POST", "/v1/chat/completions", `{"stream":`+stream+`,"messages":[{"role":"user","content":"go on"}]}`)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("request ended with %v", err)
			}
		})
		f.eventually("running", func() bool { return f.Stats().GeneratedTokens > before.GeneratedTokens })
		left := time.Now()
		cancel()
		f.eventually("noticed", func() bool { return f.Stats().Disconnected > before.Disconnected })
		seen := f.Stats().GeneratedTokens
		f.eventually("given up", func() bool { return f.Stats().Abandoned > before.Abandoned })
		if d := time.Since(left); d < 150*time.Millisecond || d > 3*time.Second {
			t.Errorf("given up after %v", d)
		}
		if f.Stats().GeneratedTokens <= seen {
			t.Error("generated nothing after the client left")
		}
		wg.Wait()
	}
}

func TestPauseKeepsNewRequestsOut(t *testing.T) {
	f := serve(t, slow)
	resp := f.open(t.Context(), longChat)
	status, body := f.post("/pause_generation", `{}`)
	if status != 200 || parse(t, body)["status"] != "ok" || !f.Idle() {
		t.Errorf("got %d %s, idle %v", status, body, f.Idle())
	}
	data, err := io.ReadAll(resp.Body)
	if _, finish, _ := streamed(t, string(data)); err != nil || finish != "abort" {
		t.Errorf("finish %q, %v", finish, err)
	}
	answered := make(chan error, 1)
	go func() {
		status, _, err := f.do(context.Background(), "POST", "/v1/chat/completions", chatBody("x", ""))
		if err == nil && status != 200 {
			err = fmt.Errorf("status %d", status)
		}
		answered <- err
	}()
	f.eventually("blocked", func() bool { return f.Stats().Waiting == 1 })
	if status, _ := f.get("/health"); status != 503 {
		t.Errorf("/health of a paused server: %d", status)
	}
	select {
	case err := <-answered:
		t.Fatalf("answered while paused: %v", err)
	default:
	}
	f.post("/continue_generation", `{}`)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestPausedServerWithBlockedRequestsNeverDrains(t *testing.T) {
	f := serve(t, nil)
	f.post("/pause_generation", `{}`)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, _, err := f.do(ctx, "POST", "/v1/chat/completions", chatBody("x", ""))
		left <- err
	}()
	f.eventually("blocked", func() bool { return f.Stats().Waiting == 1 })
	cancel() // SGLang does not look for clients that leave while blocked
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the request ended with %v", err)
	}
	f.Drain()
	time.Sleep(f.opts.DisconnectDelay + 4*f.opts.DrainPoll)
	f.alive()
	f.post("/continue_generation", `{}`)
	f.end(ErrDrained)
}

func TestPauseInPlaceFreezesWhatRuns(t *testing.T) {
	f := serve(t, slow)
	f.open(t.Context(), longChat)
	f.post("/pause_generation", `{"mode":"in_place"}`)
	time.Sleep(30 * time.Millisecond) // a token may be on its way
	frozen := f.Stats().GeneratedTokens
	time.Sleep(60 * time.Millisecond)
	if now := f.Stats().GeneratedTokens; now != frozen {
		t.Errorf("%d tokens came while frozen", now-frozen)
	}
	f.post("/continue_generation", `{}`)
	f.eventually("goes on", func() bool { return f.Stats().GeneratedTokens > frozen })
}

func TestSleepAndWake(t *testing.T) {
	for _, c := range []struct {
		name          string
		saver, backup bool
		want          string
	}{
		{"no saver", false, false, "hi"},
		{"backup", true, true, "hi"},
		{"no backup", true, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := serve(t, func(o *Options) { o.MemorySaver, o.WeightsBackup = c.saver, c.backup })
			for _, path := range []string{"/release_memory_occupation", "/resume_memory_occupation"} {
				if status, body := f.post(path, `{}`); status != 200 || body != "null" {
					t.Errorf("%s: %d %s", path, status, body)
				}
			}
			_, answer := f.post("/v1/chat/completions", chatBody("hi", ""))
			if got := at(t, parse(t, answer), "choices", 0, "message", "content"); got != c.want {
				t.Errorf("answer %q, want %q", got, c.want)
			}
		})
	}
}

func TestMisusedSleepKills(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(f *fixture)
	}{
		{"release while busy", func(f *fixture) {
			f.open(f.t.Context(), longChat)
			_, _, err := f.do(f.t.Context(), "POST", "/release_memory_occupation", `{}`)
			if err == nil {
				f.t.Error("release was answered")
			}
		}},
		{"resume awake", func(f *fixture) {
			if _, _, err := f.do(f.t.Context(), "POST", "/resume_memory_occupation", `{}`); err == nil {
				f.t.Error("resume was answered")
			}
		}},
		{"release twice", func(f *fixture) {
			f.post("/release_memory_occupation", `{"tags":["kv_cache"]}`)
			f.alive()
			if _, _, err := f.do(f.t.Context(), "POST", "/release_memory_occupation", `{}`); err == nil {
				f.t.Error("the second release was answered")
			}
		}},
		{"resume more than was released", func(f *fixture) {
			f.post("/release_memory_occupation", `{"tags":["kv_cache"]}`)
			if _, _, err := f.do(f.t.Context(), "POST", "/resume_memory_occupation", `{}`); err == nil {
				f.t.Error("resume was answered")
			}
		}},
		{"generate asleep", func(f *fixture) {
			f.post("/release_memory_occupation", `{}`)
			if _, _, err := f.do(f.t.Context(), "POST", "/v1/chat/completions", chatBody("x", "")); err == nil {
				f.t.Error("a sleeping server answered")
			}
		}},
		{"health asleep", func(f *fixture) {
			f.post("/release_memory_occupation", `{"tags":["kv_cache"]}`)
			f.alive()
			if _, _, err := f.do(f.t.Context(), "GET", "/health", ""); err == nil {
				f.t.Error("/health of a sleeping server was answered")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := serve(t, func(o *Options) { slow(o); o.MemorySaver, o.WeightsBackup = true, true })
			c.do(f)
			f.end(ErrDied)
		})
	}
}

func TestPausedServerSleepsSafely(t *testing.T) {
	f := serve(t, func(o *Options) { o.MemorySaver, o.WeightsBackup = true, true })
	f.post("/pause_generation", `{}`)
	f.post("/release_memory_occupation", `{}`)
	if status, _ := f.get("/health"); status != 503 {
		t.Errorf("/health %d", status)
	}
	time.Sleep(2 * f.opts.CrashDelay)
	f.alive()
	f.post("/resume_memory_occupation", `{}`)
	f.post("/continue_generation", `{}`)
	if status, _ := f.post("/v1/chat/completions", chatBody("x", "")); status != 200 {
		t.Errorf("status %d after waking", status)
	}
}

func TestUpdateWeightsChangesThePath(t *testing.T) {
	f := serve(t, nil)
	f.post("/update_weights_from_disk", `{"model_path":"/new","weight_version":"7"}`)
	_, info := f.get("/model_info")
	_, answer := f.post("/v1/chat/completions", chatBody("x", ""))
	if at(t, parse(t, info), "model_path") != "/new" || at(t, parse(t, answer), "metadata", "weight_version") != "7" {
		t.Errorf("info %s, answer %s", info, answer)
	}
}

func TestFlushCacheNeedsAnIdleServer(t *testing.T) {
	f := serve(t, slow)
	ctx, cancel := context.WithCancel(t.Context())
	f.open(ctx, longChat)
	if status, _ := f.post("/flush_cache", ""); status != 400 {
		t.Errorf("busy: %d", status)
	}
	cancel()
	if status, _ := f.post("/flush_cache?timeout=5", ""); status != 200 {
		t.Errorf("waited for idle: %d", status)
	}
}

func TestLoadsShowTheQueue(t *testing.T) {
	f := serve(t, func(o *Options) { slow(o); o.Metrics = true })
	f.open(t.Context(), longChat)
	_, answer := f.get("/v1/loads?include=core,queues")
	v := parse(t, answer)
	if at(t, v, "loads", 0, "num_running_reqs") != 1.0 || at(t, v, "loads", 0, "queues", "waiting") != 0.0 {
		t.Errorf("got %s", answer)
	}
	if status, _ := f.get("/v1/loads?include=nonsense"); status != 400 {
		t.Errorf("bad section: %d", status)
	}
	if _, text := f.get("/metrics"); !strings.Contains(text, "sglang:num_running_reqs{") || !strings.Contains(text, "} 1\n") {
		t.Errorf("metrics: %s", text)
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	f := serve(t, func(o *Options) { o.KeepAlive = 80 * time.Millisecond })
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	start := time.Now()
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want EOF", err)
	}
	if d := time.Since(start); d < 60*time.Millisecond || d > 2*time.Second {
		t.Errorf("closed after %v", d)
	}
}

func TestObserverSeesTheBody(t *testing.T) {
	seen := make(chan string, 1)
	f := serve(t, func(o *Options) {
		o.Observe = func(r *http.Request, body []byte) { seen <- r.URL.Path + " " + string(body) }
	})
	f.post("/tokenize", `{ "prompt" : "x" }`)
	if got, want := <-seen, `/tokenize { "prompt" : "x" }`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
