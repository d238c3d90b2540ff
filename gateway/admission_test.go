package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pilotlight/activator"
	"pilotlight/auth"
	"pilotlight/auth/limits"
	"pilotlight/auth/tenants"
)

const (
	usedAnswer = `{"id":"x","object":"chat.completion","model":"test/model:1b","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}`
	usageChunk = `data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"test/model:1b","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}` + "\n\n"
)

// limited is an edge whose tenant a has one policy.
func limited(t *testing.T, p tenants.Policy, engine http.Handler) *edge {
	p.Name = "a"
	return newEdge(t, edgeOptions{model: Model{RequiresAuth: true, Aliases: []string{"alias"}}, rules: tenants.Rules{Tenants: []tenants.Policy{p}}}, engine)
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// holdStart makes starts wait for hold.
func holdStart(hold <-chan struct{}) func(context.Context, int, func(activator.Progress)) error {
	return func(ctx context.Context, _ int, _ func(activator.Progress)) error {
		select {
		case <-hold:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// spent is what tenant a has used of the day, reservations included.
func (e *edge) spent() int64 {
	return e.gateway.tenants.Spent(limits.Tenant, "a", time.Now()).DayTokens
}

func (e *edge) running() int64 {
	for _, c := range e.gateway.tenants.Counts() {
		if c.Tenant == "a" {
			return c.Running
		}
	}
	return 0
}

func TestRequestsPerMinute(t *testing.T) {
	e := limited(t, tenants.Policy{Limits: limits.Limits{RequestsPerMinute: 2, TokensPerMinute: 100_000}}, says(200, "application/json", usedAnswer))
	for i := range 2 {
		resp, body := e.chat(`{"model":"alias","messages":[]}`)
		if resp.StatusCode != 200 {
			t.Fatalf("%d: %s", resp.StatusCode, body)
		}
		for name, want := range map[string]string{"X-Ratelimit-Limit-Requests": "2", "X-Ratelimit-Remaining-Requests": fmt.Sprint(1 - i),
			"X-Ratelimit-Limit-Tokens": "100000"} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("request %d: %s: %q, want %q", i, name, got, want)
			}
		}
		if got := resp.Header.Get("X-Ratelimit-Reset-Requests"); !strings.HasSuffix(got, "s") {
			t.Errorf("x-ratelimit-reset-requests: %q", got)
		}
	}
	resp, body := e.chat(`{"model":"alias","messages":[]}`)
	failure := openAIError(t, body)
	if resp.StatusCode != 429 || failure.Code != "rate_limit_exceeded" || failure.Type != "requests" {
		t.Errorf("%d %+v, want 429 rate_limit_exceeded", resp.StatusCode, failure)
	}
	if after := resp.Header.Get("Retry-After"); after != "59" && after != "58" {
		t.Errorf("Retry-After: %q", after)
	}
	if resp.Header.Get("X-Should-Retry") != "true" || resp.Header.Get("X-Ratelimit-Remaining-Requests") != "0" {
		t.Errorf("headers %v", resp.Header)
	}
	if resp, body := e.chat(`{"model":"alias","messages":[]}`, "Authorization", "Bearer key-b"); resp.StatusCode != 200 || resp.Header.Get("X-Ratelimit-Limit-Requests") != "" {
		t.Errorf("another tenant: %d %s, %v", resp.StatusCode, body, resp.Header)
	}
}

func TestTokensAreSettled(t *testing.T) {
	for _, tt := range []struct {
		name   string
		engine http.Handler
		body   string
		want   int64
	}{
		{"an answer", says(200, "application/json", usedAnswer), `"max_tokens":1000}`, 10},
		{"an engine's refusal", says(400, "application/json", `{"object":"error","message":"no","code":400}`), `"max_tokens":1000}`, 0},
		{"an engine's failure", says(503, "application/json", `{"object":"error","message":"no","code":503}`), `"max_tokens":1000}`, 0},
		{"a stream", streaming(roleChunk, textChunk, usageChunk, doneEvent), `"stream":true}`, 10},
		// Of the prompt 15 tokens are estimated; each event counts one.
		{"a stream without usage", streaming(roleChunk, textChunk, textChunk, doneEvent), `"stream":true}`, 15 + 3},
		{"a stream that breaks", streaming(roleChunk, textChunk, "cut"), `"stream":true}`, 15 + 2},
		{"a stream whose engine is full", streaming(`data: {"error":{"message":"The request queue is full.","code":503}}`+"\n\n", doneEvent), `"stream":true}`, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := limited(t, tenants.Policy{Limits: limits.Limits{TokensPerDay: 10_000}}, tt.engine)
			body := `{"model":"test/model:1b","messages":[],`
			e.chat(body + tt.body + strings.Repeat(" ", 60-len(body+tt.body)))
			settles(t, "nothing runs", func() bool { return e.running() == 0 })
			if got := e.spent(); got != tt.want {
				t.Errorf("spent %d tokens, want %d", got, tt.want)
			}
		})
	}
}

func TestUsageIsAskedForAndHidden(t *testing.T) {
	for _, tt := range []struct {
		name, body, sent string
		seen             bool
	}{
		{"not asked", `,"stream":true}`, `"stream_options":{"include_usage":true}`, false},
		{"asked", `,"stream":true,"stream_options":{"include_usage":true}}`, `"stream_options":{"include_usage":true}`, true},
		{"asked for none", `,"stream":true,"stream_options":{"include_usage":false,"x":1}}`, `"stream_options":{"include_usage":true,"x":1}`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			engine := &engineSays{status: 200, ctype: "text/event-stream", body: roleChunk + textChunk + usageChunk + doneEvent, got: make(chan *sent, 9)}
			e := limited(t, tenants.Policy{}, engine)
			resp, got := e.chat(`{"model":"test/model:1b","messages":[]` + tt.body)
			want := roleChunk + textChunk + doneEvent
			if tt.seen {
				want = roleChunk + textChunk + usageChunk + doneEvent
			}
			if resp.StatusCode != 200 || got != want {
				t.Errorf("%d\n%s\nwant\n%s", resp.StatusCode, got, want)
			}
			if s := <-engine.got; !strings.Contains(s.body, tt.sent) || !json.Valid([]byte(s.body)) {
				t.Errorf("the engine was sent %s, want %s in it", s.body, tt.sent)
			}
			settles(t, "it is settled", func() bool { return e.spent() == 10 })
			if log := e.log.String(); !strings.Contains(log, `"prompt_tokens":7,"completion_tokens":3`) {
				t.Errorf("the log has no tokens: %s", log)
			}
		})
	}
}

// Nobody knows how much an engine had generated when the client of an answer in one piece left: what was reserved counts.
func TestClientThatLeavesPays(t *testing.T) {
	began := make(chan struct{})
	e := limited(t, tenants.Policy{Limits: limits.Limits{TokensPerDay: 10_000}}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort_request" {
			return
		}
		io.Copy(io.Discard, r.Body)
		close(began)
		<-r.Context().Done()
	}))
	c := e.dial()
	e.post(c, "/v1/chat/completions", `{"model":"test/model:1b","messages":[],"max_tokens":700}`)
	<-began
	if got := e.spent(); got != 700+14 {
		t.Errorf("%d tokens are reserved, want 714", got)
	}
	c.Close()
	settles(t, "nothing runs", func() bool { return e.running() == 0 })
	if got := e.spent(); got != 700+14 {
		t.Errorf("spent %d tokens, want 714", got)
	}
}

func TestQuotaIsNotWorthATry(t *testing.T) {
	e := limited(t, tenants.Policy{Limits: limits.Limits{TokensPerMonth: 50}}, says(200, "application/json", usedAnswer))
	body := `{"model":"test/model:1b","messages":[],"max_tokens":20}`
	if resp, body := e.chat(body); resp.StatusCode != 200 {
		t.Fatalf("%d: %s", resp.StatusCode, body)
	}
	resp, got := e.chat(strings.Replace(body, "20", "40", 1))
	failure := openAIError(t, got)
	if resp.StatusCode != 429 || failure.Code != "insufficient_quota" || failure.Type != "insufficient_quota" ||
		resp.Header.Get("X-Should-Retry") != "false" || resp.Header.Get("Retry-After") != "" {
		t.Errorf("%d %+v %v", resp.StatusCode, failure, resp.Header)
	}
	if resp, answer := e.chat(body); resp.StatusCode != 200 {
		t.Errorf("what fits beside the %d spent is refused: %d: %s", e.gateway.tenants.Spent(limits.Tenant, "a", time.Now()).MonthTokens, resp.StatusCode, answer)
	}
}

func TestTooLargeIsNotWorthATry(t *testing.T) {
	e := limited(t, tenants.Policy{Limits: limits.Limits{TokensPerMinute: 500}}, says(200, "application/json", usedAnswer))
	resp, got := e.chat(`{"model":"test/model:1b","messages":[],"max_tokens":600}`)
	failure := openAIError(t, got)
	if resp.StatusCode != 429 || failure.Code != "rate_limit_exceeded" || failure.Type != "tokens" || resp.Header.Get("X-Should-Retry") != "false" ||
		resp.Header.Get("Retry-After") != "" {
		t.Errorf("%d %+v %v", resp.StatusCode, failure, resp.Header)
	}
}

// A burst of parallel requests takes exactly what there is.
func TestBurstHoldsConcurrency(t *testing.T) {
	const allowed, asked = 3, 20
	open := make(chan struct{})
	var busy, most atomic.Int64
	e := limited(t, tenants.Policy{KeyLimits: limits.Limits{Concurrent: allowed}}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		for n := busy.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		<-open
		busy.Add(-1)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, usedAnswer)
	}))
	var refused, served atomic.Int64
	var wg sync.WaitGroup
	var once sync.Once
	for range asked {
		wg.Go(func() {
			resp, _ := e.chat(`{"model":"test/model:1b","messages":[]}`)
			switch resp.StatusCode {
			case 200:
				served.Add(1)
			case 429:
				if resp.Header.Get("Retry-After") == "1" {
					refused.Add(1)
				}
			}
			if served.Load()+refused.Load() >= asked-allowed {
				once.Do(func() {
					for end := time.Now().Add(10 * time.Second); busy.Load() < allowed && time.Now().Before(end); {
						time.Sleep(time.Millisecond) // what was let in is on its way to the engine
					}
					close(open)
				})
			}
		})
	}
	wg.Wait()
	if served.Load() != allowed || refused.Load() != asked-allowed || most.Load() != allowed {
		t.Errorf("%d served, %d refused with Retry-After: 1, %d at once; want %d, %d, %d", served.Load(), refused.Load(), most.Load(), allowed, asked-allowed, allowed)
	}
	if resp, body := e.chat(`{"model":"test/model:1b","messages":[]}`); resp.StatusCode != 200 {
		t.Errorf("a place is not given back: %d %s", resp.StatusCode, body)
	}
}

// A request that waited in vain for a cold model has cost nothing.
func TestColdRefusalGivesTheRequestBack(t *testing.T) {
	hold := make(chan struct{})
	e := newEdge(t, edgeOptions{model: Model{RequiresAuth: true}, start: holdStart(hold), rules: tenants.Rules{Tenants: []tenants.Policy{
		{Name: "a", Limits: limits.Limits{RequestsPerMinute: 1, TokensPerDay: 5000}}}}}, says(200, "application/json", usedAnswer))
	for range 3 {
		resp, body := e.chat(`{"model":"test/model:1b","messages":[]}`, "X-Pilotlight-Max-Wait", "0s")
		if resp.StatusCode != 503 || openAIError(t, body).Code != "model_cold" {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	if got := e.spent(); got != 0 {
		t.Errorf("spent %d tokens", got)
	}
	close(hold)
	if resp, body := e.chat(`{"model":"test/model:1b","messages":[]}`); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestColdStartsOfATenant(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	e := newEdge(t, edgeOptions{model: Model{RequiresAuth: true, ID: "one"}, start: holdStart(hold), rules: tenants.Rules{Tenants: []tenants.Policy{
		{Name: "a", Limits: limits.Limits{ColdStarts: 1}}, {Name: "b", Rights: tenants.Rights{NoWake: true}}}}}, says(200, "application/json", usedAnswer))
	two := newEdge(t, edgeOptions{model: Model{RequiresAuth: true, ID: "two"}, start: holdStart(hold)}, says(200, "application/json", usedAnswer))
	if err := e.gateway.SetModels([]*Model{e.model, two.model}); err != nil {
		t.Fatal(err)
	}
	chat := func(model, key string) (int, string) {
		resp, body := e.chat(`{"model":"`+model+`","messages":[]}`, "Authorization", "Bearer key-"+key, "X-Pilotlight-Max-Wait", "0s")
		return resp.StatusCode, openAIError(t, body).Code
	}
	if status, code := chat("one", "b"); status != 503 || code != "model_cold" || e.launcher.starts() != 0 {
		t.Errorf("who may not wake models: %d %s, %d starts", status, code, e.launcher.starts())
	}
	c := e.dial()
	defer c.Close()
	e.post(c, "/v1/chat/completions", `{"model":"one","messages":[],"stream":true}`)
	settles(t, "the start", func() bool { return e.launcher.starts() == 1 })
	if status, code := chat("two", "a"); status != 429 || code != "rate_limit_exceeded" || two.launcher.starts() != 0 {
		t.Errorf("a second cold model: %d %s, %d starts", status, code, two.launcher.starts())
	}
	if status, code := chat("one", "a"); status != 503 || code != "model_cold" {
		t.Errorf("the same model again: %d %s", status, code)
	}
	if status, code := chat("one", "b"); status != 503 || code != "model_cold" {
		t.Errorf("joining a start: %d %s", status, code)
	}
}

func TestRightToModels(t *testing.T) {
	other := newEdge(t, edgeOptions{model: Model{RequiresAuth: true, ID: "secret"}}, says(200, "application/json", usedAnswer))
	e := newEdge(t, edgeOptions{model: Model{RequiresAuth: true, Aliases: []string{"alias"}}, rules: tenants.Rules{Tenants: []tenants.Policy{
		{Name: "a", Rights: tenants.Rights{Models: []string{"test/*"}, Routes: []string{"chat", "models", "model"}}},
		{Name: "b", Rights: tenants.Rights{Models: []string{"alias"}}},
		{Name: tenants.Everybody, Rights: tenants.Rights{Models: []string{}}}}}}, says(200, "application/json", usedAnswer))
	if err := e.gateway.SetModels([]*Model{e.model, other.model}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		key, path, model string
		status           int
		code             string
	}{
		{"a", "/v1/chat/completions", "test/model:1b", 200, ""},
		{"a", "/v1/chat/completions", "alias", 200, ""},
		{"a", "/v1/chat/completions", "secret", 403, "model_not_found"},
		{"a", "/v1/chat/completions", "none", 404, "model_not_found"},
		{"a", "/v1/embeddings", "test/model:1b", 403, "route_not_allowed"},
		{"b", "/v1/chat/completions", "alias", 200, ""},
		{"b", "/v1/chat/completions", "test/model:1b", 403, "model_not_found"},
		{"c", "/v1/chat/completions", "alias", 403, "model_not_found"},
	} {
		resp, body := e.request("POST", tt.path, `{"model":"`+tt.model+`","messages":[]}`, "Authorization", "Bearer key-"+tt.key)
		if resp.StatusCode != tt.status || tt.code != "" && openAIError(t, body).Code != tt.code {
			t.Errorf("%s asks %s for %s: %d %s, want %d %s", tt.key, tt.path, tt.model, resp.StatusCode, body, tt.status, tt.code)
		}
	}
	for key, want := range map[string]string{"a": "test/model:1b alias", "b": "alias", "c": ""} {
		_, body := e.request("GET", "/v1/models", "", "Authorization", "Bearer key-"+key)
		var list struct{ Data []struct{ ID string } }
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, m := range list.Data {
			ids = append(ids, m.ID)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%s sees %q, want %q", key, got, want)
		}
	}
	if resp, body := e.request("GET", "/v1/models/secret", "", "Authorization", "Bearer key-a"); resp.StatusCode != 403 || openAIError(t, body).Code != "model_not_found" {
		t.Errorf("GET of a forbidden model: %d %s", resp.StatusCode, body)
	}
}

func TestRightToTokens(t *testing.T) {
	for _, tt := range []struct {
		name, path, body string
		status           int
		want             string // in what the engine gets, or the code
	}{
		{"nothing said", "/v1/chat/completions", `}`, 200, `"max_tokens":50`},
		{"null", "/v1/chat/completions", `,"max_tokens":null}`, 200, `"max_tokens":50`},
		{"less", "/v1/chat/completions", `,"max_completion_tokens":7}`, 200, `"max_completion_tokens":7}`},
		{"more", "/v1/chat/completions", `,"max_completion_tokens":51}`, 400, "invalid_parameter"},
		{"more by the other name", "/v1/chat/completions", `,"max_completion_tokens":5,"max_tokens":51}`, 400, "invalid_parameter"},
		{"not a whole number", "/v1/chat/completions", `,"max_tokens":1e9}`, 400, "invalid_parameter"},
		{"responses", "/v1/responses", `}`, 200, `"max_output_tokens":50`},
		{"too many prompts", "/v1/completions", `,"prompt":["a","b"],"n":15}`, 400, "context_length_exceeded"},
		{"too many in all", "/v1/chat/completions", `,"n":100}`, 400, "context_length_exceeded"},
		{"embeddings", "/v1/embeddings", `,"max_tokens":99}`, 200, `"max_tokens":99`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			engine := says(200, "application/json", usedAnswer)
			e := limited(t, tenants.Policy{Rights: tenants.Rights{MaxTokens: 50, MaxContext: 1000, CacheSalt: true}}, engine)
			resp, body := e.request("POST", tt.path, `{"model":"test/model:1b","cache_salt":"mine"`+tt.body)
			if resp.StatusCode != tt.status {
				t.Fatalf("%d %s, want %d", resp.StatusCode, body, tt.status)
			}
			if tt.status != 200 {
				if code := openAIError(t, body).Code; code != tt.want {
					t.Errorf("code %s, want %s", code, tt.want)
				}
				return
			}
			s := <-engine.got
			if !strings.Contains(s.body, tt.want) || !json.Valid([]byte(s.body)) {
				t.Errorf("the engine was sent %s, want %s in it", s.body, tt.want)
			}
			if salted := !strings.Contains(s.body, `"cache_salt":"mine"`); salted != (tt.path != "/v1/embeddings") {
				t.Errorf("the engine was sent %s", s.body)
			}
		})
	}
}

func TestKeyHasItsOwnGrant(t *testing.T) {
	e := newEdge(t, edgeOptions{model: Model{RequiresAuth: true, Aliases: []string{"alias"}},
		keys:  grantingKeys{&auth.Grant{Models: []string{"alias"}, Limits: limits.Limits{RequestsPerMinute: 1}}},
		rules: tenants.Rules{Tenants: []tenants.Policy{{Name: "a", Limits: limits.Limits{RequestsPerMinute: 9}}}},
	}, says(200, "application/json", usedAnswer))
	for _, tt := range []struct {
		model  string
		status int
	}{{"test/model:1b", 403}, {"alias", 200}, {"alias", 429}} {
		if resp, body := e.chat(`{"model":"` + tt.model + `","messages":[]}`); resp.StatusCode != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.model, resp.StatusCode, body, tt.status)
		}
	}
}

// grantingKeys knows one key, which says something of what it may do.
type grantingKeys struct{ grant *auth.Grant }

func (k grantingKeys) Identify([]byte, time.Time) (auth.Identity, error) {
	return auth.Identity{Tenant: "a", KeyID: "id", Grant: k.grant}, nil
}

func TestWrongKeysAreLimited(t *testing.T) {
	e := newEdge(t, edgeOptions{model: Model{RequiresAuth: true}, rules: tenants.Rules{WrongKeys: 2}}, says(200, "application/json", usedAnswer))
	e.gateway.Adjust(Config{TrustedProxies: loopback})
	wrong := func(from string) int {
		resp, _ := e.chat(`{"model":"test/model:1b"}`, "Authorization", "Bearer wrong", "X-Forwarded-For", from)
		return resp.StatusCode
	}
	for i, tt := range []struct {
		from string
		want int
	}{{"1.2.3.4", 401}, {"9.9.9.9, 1.2.3.4", 401}, {"1.2.3.4", 429}, {"1.2.3.4:555", 429}, {"1.2.3.5", 401},
		{"2001:db8::1", 401}, {"2001:db8::2", 401}, {"2001:db8::3", 429}, {"2001:db8:0:1::1", 401}, {"nonsense", 401}, {"", 401}, {"127.0.0.1", 429}} {
		if got := wrong(tt.from); got != tt.want {
			t.Errorf("%d: from %q: %d, want %d", i, tt.from, got, tt.want)
		}
	}
	if resp, body := e.chat(`{"model":"test/model:1b"}`, "X-Forwarded-For", "1.2.3.4"); resp.StatusCode != 200 {
		t.Errorf("a right key from there: %d %s", resp.StatusCode, body)
	}
}

func TestAnonymousCallersAreLimitedByAddress(t *testing.T) {
	e := newEdge(t, edgeOptions{rules: tenants.Rules{Anonymous: limits.Limits{RequestsPerMinute: 1}}}, says(200, "application/json", usedAnswer))
	e.gateway.Adjust(Config{TrustedProxies: loopback})
	for i, tt := range []struct {
		from, key string
		want      int
	}{{"1.2.3.4", "", 200}, {"1.2.3.4", "", 429}, {"1.2.3.5", "", 200}, {"1.2.3.5", "", 429}, {"1.2.3.4", "Bearer key-a", 200}, {"1.2.3.4", "Bearer key-a", 200}} {
		if resp, body := e.chat(`{"model":"test/model:1b"}`, "Authorization", tt.key, "X-Forwarded-For", tt.from); resp.StatusCode != tt.want {
			t.Errorf("%d: %d %s, want %d", i, resp.StatusCode, body, tt.want)
		}
	}
	e.gateway.Adjust(Config{}) // nobody is believed any more
	for i, want := range []int{200, 429} {
		if resp, _ := e.chat(`{"model":"test/model:1b"}`, "Authorization", "", "X-Forwarded-For", fmt.Sprintf("7.7.7.%d", i)); resp.StatusCode != want {
			t.Errorf("unbelieved %d: %d, want %d", i, resp.StatusCode, want)
		}
	}
}

func TestPromptTokens(t *testing.T) {
	picture := `"data:image/png;base64,` + strings.Repeat("A", 400_000) + `"`
	for _, tt := range []struct {
		name, body string
		want       int64
	}{
		{"nothing", "", 0},
		{"text", strings.Repeat("x", 4000), 1000},
		{"two pictures", picture + "," + picture, 12 + 2*imageTokens},
		{"what never ends", picture[:5000], 1250},
	} {
		if got := promptTokens([]byte(tt.body)); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// Headers of limits that an engine sends are about our use of it.
func TestEnginesLimitsStayBehind(t *testing.T) {
	engine := says(200, "application/json", usedAnswer)
	engine.headers = map[string]string{"X-Ratelimit-Limit-Requests": "5", "X-Ratelimit-Remaining-Tokens": "5"}
	e := newEdge(t, edgeOptions{}, engine)
	resp, _ := e.chat(`{"model":"test/model:1b"}`)
	for name := range resp.Header {
		if strings.HasPrefix(name, "X-Ratelimit") {
			t.Errorf("%s came through", name)
		}
	}
}

func TestStreamTellsStanding(t *testing.T) {
	e := limited(t, tenants.Policy{Limits: limits.Limits{RequestsPerMinute: 5}}, streaming(roleChunk, usageChunk, doneEvent))
	c := e.dial()
	defer c.Close()
	e.post(c, "/v1/chat/completions", streamBodyText)
	head := ""
	for r := bufio.NewReader(c); !strings.HasSuffix(head, "\r\n\r\n"); {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		head += line
	}
	if !strings.Contains(head, "X-Ratelimit-Remaining-Requests: 4\r\n") {
		t.Errorf("head %s", head)
	}
}
