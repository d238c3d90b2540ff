package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"pilotlight/activator"
	"pilotlight/auth/tenants"
	"pilotlight/gateway/jsonbody"
)

func TestWorkThatTheQueueIsTold(t *testing.T) {
	image := `{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("A", 400_000) + `"}}`
	for _, tt := range []struct {
		name, path, body string
		prompt, output   int64
	}{
		{"text", "/chat/completions", `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("word ", 800) + `"}]}`, 1013, 0},
		{"image", "/chat/completions", `{"model":"m","messages":[{"role":"user","content":[` + image + `]}]}`, imageTokens + 30, 0},
		{"max_tokens", "/chat/completions", `{"model":"m","max_tokens":70}`, 7, 70},
		{"max_completion_tokens", "/chat/completions", `{"model":"m","max_tokens":50,"max_completion_tokens":90}`, 14, 90},
		{"max_output_tokens", "/responses", `{"model":"m","max_output_tokens":90}`, 9, 90},
		{"choices", "/chat/completions", `{"model":"m","max_tokens":70,"n":4}`, 8, 280},
		{"nonsense", "/chat/completions", `{"model":"m","max_tokens":"many","n":-4}`, 10, 0},
		{"huge", "/chat/completions", `{"model":"m","max_tokens":9000000000000000000,"n":1000000}`, 14, 1 << 48},
		{"completions", "/completions", `{"model":"m","prompt":"x"}`, 6, completionsDefault},
		{"embeddings", "/embeddings", `{"model":"m","input":"some text"}`, 8, -1},
	} {
		x := &exchange{route: routes[tt.path]}
		if err := jsonbody.Scan([]byte(tt.body), &x.fields); err != nil {
			t.Fatal(err)
		}
		got := x.place()
		if want := (activator.Work{Prompt: tt.prompt, MaxOutput: tt.output}); got.Work != want || got.Bytes != int64(len(tt.body)) {
			t.Errorf("%s: %+v of %d bytes, want %+v of %d", tt.name, got.Work, got.Bytes, want, len(tt.body))
		}
		if !x.metered() {
			t.Errorf("%s: what it takes is not counted", tt.name)
		}
	}
}

// turns is an engine that answers one request at a time, when it is told to, and remembers whose they were and what they asked.
type turns struct {
	mu     sync.Mutex
	order  []string // the prompts
	bodies []string
	next   chan string // the answer's body
}

func (e *turns) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/abort_request" {
		return
	}
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	e.bodies = append(e.bodies, string(body))
	for _, word := range strings.FieldsFunc(string(body), func(r rune) bool { return r == '"' }) {
		if strings.HasPrefix(word, "prompt-") {
			e.order = append(e.order, strings.TrimPrefix(word, "prompt-"))
		}
	}
	e.mu.Unlock()
	answer := <-e.next
	if strings.Contains(answer, `"object":"error"`) {
		w.WriteHeader(http.StatusBadRequest)
	}
	if strings.HasPrefix(answer, "data:") {
		w.Header().Set("Content-Type", "text/event-stream")
	} else {
		w.Header().Set("Content-Type", "application/json")
	}
	fmt.Fprint(w, answer)
}

func (e *turns) seen() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.order)
}

// turnsOf queues requests, named tenant and number, behind one that is in flight, answers each with what answer says, and gives the order in
// which the engine got them.
func turnsOf(t *testing.T, rules tenants.Rules, requests []string, body func(name string) string, answer func(name string) string) (order, bodies []string, answers map[string]string) {
	engine := &turns{next: make(chan string)}
	e := newEdge(t, edgeOptions{limit: 1, rules: rules}, engine)
	answers = map[string]string{}
	var mu sync.Mutex
	var clients sync.WaitGroup
	ask := func(name string) {
		clients.Go(func() {
			_, text := e.chat(body(name), "Authorization", "Bearer key-"+name[:1])
			mu.Lock()
			defer mu.Unlock()
			answers[name] = text
		})
	}
	ask("z0")
	settles(t, "the first request at the engine", func() bool { return len(engine.seen()) == 1 })
	for i, name := range requests {
		ask(name)
		settles(t, "a request in the queue", func() bool { return e.model.Activator.Status().QueuedRequests == i+1 })
	}
	engine.next <- answer("z0")
	for i := range requests {
		settles(t, "the next request at the engine", func() bool { return len(engine.seen()) == i+2 })
		engine.next <- answer(engine.seen()[i+1])
	}
	clients.Wait()
	return engine.seen()[1:], engine.bodies[1:], answers
}

func promptBody(name string) string {
	return fmt.Sprintf(`{"model":"test/model:1b","messages":["prompt-%s"]}`, name)
}

func usageAnswer(prompt, completion int) string {
	return fmt.Sprintf(`{"model":"test/model:1b","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}`, prompt, completion)
}

func TestWhatAnAnswerTookIsCharged(t *testing.T) {
	requests := []string{"a1", "a2", "a3", "b1", "b2", "b3"}
	for _, tt := range []struct {
		name   string
		answer func(name string) string
		want   string
	}{
		{"as expected", func(string) string { return usageAnswer(20, 100) }, "[a1 b1 a2 b2 a3 b3]"},
		{"of one tenant more", func(name string) string {
			if name == "a1" {
				return usageAnswer(9000, 100)
			}
			return usageAnswer(20, 100)
		}, "[a1 b1 b2 b3 a2 a3]"},
		{"refused by the engine", func(name string) string {
			if name == "a1" {
				return `{"object":"error","message":"too long","code":400}`
			}
			return usageAnswer(20, 100)
		}, "[a1 b1 a2 b2 a3 b3]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			order, _, _ := turnsOf(t, tenants.Rules{}, requests, func(name string) string {
				if tt.name == "refused by the engine" && name == "a1" { // which it was expected to be long for
					return strings.Replace(promptBody(name), "{", `{"metadata":"`+strings.Repeat("long ", 10_000)+`",`, 1)
				}
				return promptBody(name)
			}, tt.answer)
			if got := fmt.Sprint(order); got != tt.want {
				t.Errorf("the order was %s, want %s", got, tt.want)
			}
		})
	}
}

func TestTenantsHavePrioritiesAndWeights(t *testing.T) {
	rules := tenants.Rules{Tenants: []tenants.Policy{
		{Name: "b", Rights: tenants.Rights{Weight: 3}}, {Name: "c", Rights: tenants.Rights{Priority: 1}},
	}}
	order, _, _ := turnsOf(t, rules, []string{"a1", "a2", "a3", "b1", "b2", "b3", "b4", "c1", "c2"}, promptBody,
		func(name string) string { return usageAnswer(20, 100+map[byte]int{'b': 10}[name[0]]) })
	if got, want := fmt.Sprint(order), "[c1 c2 a1 b1 b2 b3 a2 b4 a3]"; got != want {
		t.Errorf("the order was %s, want %s", got, want)
	}
}

func TestUsageOfThoseWhoWaitedIsAskedAndHidden(t *testing.T) {
	chunk := `data: {"id":"1","object":"chat.completion.chunk","model":"test/model:1b","choices":[{"index":0,"delta":{"content":"x"}}]}` + "\n\n"
	usage := `data: {"id":"1","object":"chat.completion.chunk","model":"test/model:1b","choices":[],"usage":{"prompt_tokens":9000,"completion_tokens":1}}` + "\n\n"
	body := func(name string) string { return strings.Replace(promptBody(name), "{", `{"stream":true,`, 1) }
	order, bodies, answers := turnsOf(t, tenants.Rules{}, []string{"a1", "a2", "b1", "b2"}, body, func(name string) string {
		if name == "a1" {
			return chunk + usage + "data: [DONE]\n\n"
		}
		return chunk + "data: [DONE]\n\n"
	})
	if got := fmt.Sprint(order); got != "[a1 b1 b2 a2]" {
		t.Errorf("the order was %s", got)
	}
	for i, b := range bodies {
		if !strings.Contains(b, `"include_usage":true`) {
			t.Errorf("request %d asks for no usage: %s", i, b)
		}
	}
	for name, text := range answers {
		if strings.Contains(text, "usage") || !strings.Contains(text, "[DONE]") {
			t.Errorf("%s was answered %s", name, text)
		}
	}
}

func TestWhoLeavesIsChargedWhatWasExpected(t *testing.T) {
	engine := &turns{next: make(chan string)}
	e := newEdge(t, edgeOptions{limit: 1}, engine)
	var clients sync.WaitGroup
	ask := func(ctx context.Context, name, body string) {
		clients.Go(func() {
			req, err := http.NewRequestWithContext(ctx, "POST", e.url+"/v1/chat/completions", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Authorization", "Bearer key-"+name[:1])
			resp, err := e.client.Do(req)
			if err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				return
			}
			resp.Body.Close()
		})
	}
	ask(t.Context(), "z0", promptBody("z0"))
	settles(t, "the first request at the engine", func() bool { return len(engine.seen()) == 1 })
	leaves, leave := context.WithCancel(t.Context())
	for i, name := range []string{"a1", "a2", "b1", "b2"} {
		if name == "a1" {
			ask(leaves, name, strings.Replace(promptBody(name), "{", `{"metadata":"`+strings.Repeat("long ", 10_000)+`",`, 1))
		} else {
			ask(t.Context(), name, promptBody(name))
		}
		settles(t, "a request in the queue", func() bool { return e.model.Activator.Status().QueuedRequests == i+1 })
	}
	engine.next <- usageAnswer(20, 100)
	settles(t, "a1 at the engine", func() bool { return len(engine.seen()) == 2 })
	leave()
	for i := range 3 {
		settles(t, "the next request at the engine", func() bool { return len(engine.seen()) == i+3 })
		if i == 0 {
			engine.next <- "" // a1's
		}
		engine.next <- usageAnswer(20, 100)
	}
	clients.Wait()
	if got := fmt.Sprint(engine.seen()); got != "[z0 a1 b1 b2 a2]" {
		t.Errorf("the order was %s", got)
	}
}
