package gateway

import (
	"bytes"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"pilotlight/activator"
	"pilotlight/gateway/jsonbody"
	"pilotlight/router"
)

// Routing says how requests are placed where a model has several replicas.
type Routing struct {
	Policy router.Policy // empty: router.PolicyPrefix
	// SessionHeader is a header whose value keeps requests together; empty: DefaultSessionHeader.
	SessionHeader string
}

// DefaultSessionHeader keeps requests together that have the same value.
const DefaultSessionHeader = "X-Pilotlight-Session"

// choice places one request among several replicas. It is the activator's Hint. Requests for a model with one replica have none.
type choice struct {
	balancer   *router.Balancer
	asked      router.Asked
	keeper     uint64 // the replica that has the previous response; 0: there is none
	candidates []router.Candidate
	scratch    []byte
	shared     bool // the queue, or an abort in the background, may know it after the request has ended
}

var choices = sync.Pool{New: func() any { return new(choice) }}

// Pick is activator.Hint's.
func (c *choice) Pick(open activator.Choices) int {
	c.candidates = c.candidates[:0]
	for i := range open.Len() {
		at := open.At(i)
		c.candidates = append(c.candidates, router.Candidate{ID: at.ReplicaID, InFlight: at.InFlight, Limit: at.Limit, Closed: at.Closed})
	}
	switch i := c.balancer.Choose(&c.asked, open.Version(), c.candidates, time.Now()); i {
	case router.ChooseAny:
		return activator.PickAny
	case router.ChooseNone:
		return activator.PickNone
	default:
		return i
	}
}

// Placed is activator.Hint's.
func (c *choice) Placed(replica uint64) { c.balancer.Place(&c.asked, replica) }

// Left is activator.Hint's.
func (c *choice) Left() { c.balancer.Leave(&c.asked) }

// chooses tells whether the request is to be placed by choice: where there is one, and where the answer may have to be found again.
func (x *exchange) chooses() bool {
	return x.choice == nil && x.model.Balancer != nil && (x.model.Activator.Open() > 1 || x.route.api == apiResponses)
}

// hint is what the activator is given; nil where there is no choice.
func (x *exchange) hint() activator.Hint {
	if x.choice == nil {
		return nil
	}
	return x.choice
}

// describe reads what choosing goes by: the prompt, who it belongs to, how long the answer may be.
func (x *exchange) describe() error {
	c, _ := choices.Get().(*choice)
	b := x.model.Balancer
	c.balancer, c.keeper, c.shared = b, 0, false
	x.choice = c
	f := &x.fields
	limit := 0
	for _, k := range [...]jsonbody.Key{jsonbody.MaxTokens, jsonbody.MaxCompletionTokens, jsonbody.MaxOutputTokens} {
		if n, ok, err := f.Int(k); err == nil && ok && n > 0 && n < 1<<30 {
			limit = int(n)
		}
	}
	// What the engine keeps apart in its cache shares nothing here either. The salt is not kept, so the conversion costs no allocation
	// where it is empty, which is nearly always.
	salt := ""
	for _, k := range [...]jsonbody.Key{jsonbody.LoraPath, jsonbody.CacheSalt} {
		if raw := f.Raw(k); raw != nil {
			salt += string(raw)
		}
	}
	session := x.session(c.scratch[:0])
	if session != nil {
		c.scratch = session
	}
	switch {
	case x.route.metric == "chat": // templates put the tools before the conversation
		b.Describe(&c.asked, limit, session, salt, f.Raw(jsonbody.Tools), f.Raw(jsonbody.Messages))
	case x.route.metric == "completions":
		b.Describe(&c.asked, limit, session, salt, f.Raw(jsonbody.Prompt))
	case x.route.api == apiResponses:
		b.Describe(&c.asked, limit, session, salt, f.Raw(jsonbody.Instructions), f.Raw(jsonbody.Tools), f.Raw(jsonbody.Input))
	default:
		b.Describe(&c.asked, 1, session, salt, f.Body())
	}
	if x.route.api != apiResponses {
		return nil
	}
	previous, ok, err := f.Text(jsonbody.PreviousResponseID)
	if err != nil {
		return bodyError(err)
	}
	if ok && len(previous) > 0 {
		if c.keeper = b.Keeper(x.rec.identity.Tenant, previous); c.keeper == 0 {
			return errPreviousResponse
		}
		c.asked.To(router.ReasonResponse)
	}
	return nil
}

// session is what the request belongs to, appended to scratch; nil: it tells of nothing.
func (x *exchange) session(scratch []byte) []byte {
	kind, value := byte('h'), []byte(nil)
	if x.sessionID != nil {
		value = x.sessionID
	} else {
		for _, by := range [...]struct {
			key  jsonbody.Key
			kind byte
		}{{jsonbody.PromptCacheKey, 'c'}, {jsonbody.User, 'u'}} {
			// What is no text is the engine's to refuse.
			if text, ok, err := x.fields.Text(by.key); err == nil && ok && len(text) > 0 {
				kind, value = by.kind, text
				break
			}
		}
	}
	if len(value) == 0 {
		return nil
	}
	scratch = append(append(scratch, kind), x.rec.identity.Tenant...)
	return append(append(scratch, 0), value...)
}

// readSession keeps the header by which requests are kept together, while the request's head is at hand.
func (x *exchange) readSession(h *fasthttp.RequestHeader) {
	if x.model.Balancer == nil && len(x.model.Split) == 0 {
		return
	}
	name := x.model.Routing.SessionHeader
	if name == "" {
		name = DefaultSessionHeader
	}
	if v := h.Peek(name); len(v) > 0 {
		x.sessionID = v
	}
}

// dropChoice forgets the choice, which has left its replica.
func (x *exchange) dropChoice() {
	if c := x.choice; c != nil {
		if !c.shared {
			c.balancer = nil
			choices.Put(c)
		}
		x.choice = nil
	}
}

// report tells how the replica has fared with the request that it has.
func (x *exchange) report(o router.Outcome, now time.Time) {
	if x.choice != nil && x.lease.Held() {
		x.choice.balancer.Report(&x.choice.asked, o, now)
	}
}

// outcome is what the end of the request says about its replica. failure may be nil.
func outcome(failure *apiError) router.Outcome {
	switch {
	case failure == nil:
		return router.Answered
	case failure.Code == errClientLeft.Code, failure.Code == errRequestTimeout.Code:
		return router.Unknown
	case failure.engine && failure.Code == "queue_full": // too much to do is no fault
		return router.Unknown
	case failure.engine && failure.Status >= 500, failure.Code == errEngineGone.Code, failure.Code == errFirstByte.Code, failure.Code == errStalled.Code:
		return router.Failed
	case failure.Status < 500:
		return router.Answered
	}
	return router.Unknown
}

var (
	usageKey   = []byte(`"usage"`)
	createdKey = []byte(`"response.created"`)
)

// learn reads what an answer, or one event of a stream, tells of the prompt's cached part and of where the answer is kept.
func (x *exchange) learn(doc []byte, event bool) {
	c := x.choice
	if c == nil {
		return
	}
	if x.route.api == apiResponses && (!event || bytes.Contains(doc, createdKey)) {
		inner := doc
		if event {
			if m, ok := jsonbody.Locate(doc, "response"); ok && m.Kind == jsonbody.Object {
				inner = doc[m.Start:m.End]
			}
		}
		if start, end, ok := jsonbody.TopLevelString(inner, "id"); ok {
			c.balancer.Keep(x.rec.identity.Tenant, jsonbody.StringValue(inner[start:end]), x.replica)
		}
	}
	if !bytes.Contains(doc, usageKey) {
		return
	}
	if event && x.route.api == apiResponses {
		if m, ok := jsonbody.Locate(doc, "response"); ok && m.Kind == jsonbody.Object {
			doc = doc[m.Start:m.End]
		}
	}
	if m, ok := jsonbody.Locate(doc, "usage"); ok && m.Kind == jsonbody.Object {
		x.usage = readUsage(doc[m.Start:m.End])
	}
}

// readUsage reads OpenAI's usage object, in the words of either API.
func readUsage(usage []byte) router.Usage {
	u := router.Usage{
		Prompt: max(number(usage, "prompt_tokens"), number(usage, "input_tokens")),
		Output: max(number(usage, "completion_tokens"), number(usage, "output_tokens")),
	}
	for _, name := range [...]string{"prompt_tokens_details", "input_tokens_details"} {
		if m, ok := jsonbody.Locate(usage, name); ok && m.Kind == jsonbody.Object {
			if _, ok := jsonbody.Locate(usage[m.Start:m.End], "cached_tokens"); ok {
				u.Cached, u.Told = number(usage[m.Start:m.End], "cached_tokens"), true
			}
		}
	}
	return u
}

// number is an integer member of an object; 0 if it has none.
func number(object []byte, key string) int {
	m, ok := jsonbody.Locate(object, key)
	if !ok || m.Kind != jsonbody.Number {
		return 0
	}
	n := 0
	for _, c := range object[m.Start:m.End] {
		if c < '0' || c > '9' || n > 1<<40 {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}
