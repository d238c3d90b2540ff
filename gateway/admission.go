package gateway

import (
	"fmt"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"pilotlight/activator"
	"pilotlight/auth"
	"pilotlight/auth/limits"
	"pilotlight/auth/tenants"
	"pilotlight/backends"
	"pilotlight/gateway/jsonbody"
	"pilotlight/gateway/sse"
)

// admission is what one request holds of its tenant's limits, and what is known of its use. The zero value holds nothing: nobody is limited,
// and nothing is counted.
type admission struct {
	caller      *tenants.Caller // nil: nothing is limited
	reservation limits.Reservation
	held        bool
	work        work
	choices     int64        // answers, if any
	setMost     jsonbody.Key // the member that says so, if most > 0
	most        int64        // tokens of an answer, to be written into a request that names no number; 0: it stays as it is
	hide        bool         // the client has not asked for usage: we have

	used   sse.Usage
	told   bool  // used is the engine's word
	events int64 // of a stream, that brought something
	answer int64 // bytes of an answer in one piece
	text   [20]byte
}

// work is what a request may take, as far as it is known beforehand, in tokens.
type work struct{ prompt, answer int64 }

// admit asks whether the caller may do this now, and reserves what it may take. It is given back by settle.
func (x *exchange) admit(ctx *fasthttp.RequestCtx, identity auth.Identity) *apiError {
	caller := x.g.tenants.Caller(identity, &x.rec.conn.caller)
	if caller == nil {
		return nil
	}
	a := &x.admission
	a.caller = caller // from here on something is to be forgotten by release
	if !caller.MayCall(x.route.metric) {
		return errRouteForbidden
	}
	if !caller.MayUse(x.asked, x.model.ID) {
		return errModelForbidden(x.asked)
	}
	if err := x.measure(caller); err != nil {
		return err
	}
	from := x.rec.conn.from
	if caller.PerAddress() {
		from = x.g.clientAddress(x.rec.conn, &ctx.Request.Header)
	}
	refusal, ok := caller.Admit(&a.reservation, x.model.account, from, a.work.prompt+a.work.answer, x.rec.start)
	if !ok {
		x.standing(&ctx.Response.Header, refusal.Standing)
		return limitError(refusal)
	}
	a.held = true
	x.standing(&ctx.Response.Header, a.reservation.Standing())
	return nil
}

// completionsDefault is how many tokens /v1/completions answers with at most if nothing is said (facts/sglang.md §6.2).
const completionsDefault = 16

// measure finds out what a request may take, and what of it has to be written into the request.
func (x *exchange) measure(caller *tenants.Caller) *apiError {
	a := &x.admission
	a.work.prompt = promptTokens(x.fields.Body())
	if x.route.stream { // the others generate nothing
		keys := [...]jsonbody.Key{jsonbody.MaxTokens, jsonbody.MaxCompletionTokens}
		given := keys[:]
		switch {
		case x.route.api == apiResponses:
			keys[0], given = jsonbody.MaxOutputTokens, keys[:1]
		case x.route.metric == "completions":
			given = keys[:1]
		}
		said, most := false, caller.MaxTokens()
		for _, k := range given {
			n, ok, err := x.fields.Int(k)
			if err != nil { // an engine may read it all the same
				return bodyError(err)
			}
			if ok && most > 0 && n > most {
				return errTooManyTokens(k, most)
			}
			if ok {
				said, a.work.answer = true, max(a.work.answer, n)
			}
		}
		switch {
		case said:
		case most > 0:
			a.work.answer, a.most, a.setMost = most, most, given[0]
		case x.route.metric == "completions":
			a.work.answer = completionsDefault
		default:
			a.work.answer = caller.Answer()
		}
		n, ok, err := x.fields.Int(jsonbody.N)
		if err != nil {
			return bodyError(err)
		}
		a.choices = 1
		if ok && n > 1 {
			a.choices = min(n, 1<<16)
		}
		if x.route.metric == "completions" { // each prompt has answers of its own
			a.choices *= int64(x.fields.Several(jsonbody.Prompt, 1<<12))
		}
		a.work.answer *= a.choices
		a.hide = x.stream && x.route.api == apiOpenAI && !x.fields.IncludeUsage()
	}
	if most := caller.MaxContext(); most > 0 && a.work.prompt+a.work.answer > most {
		return errContextForbidden(a.work.prompt, a.work.answer, most)
	}
	return nil
}

// amend writes into the request what the tenant's rules ask for.
func (x *exchange) amend(e backends.Endpoint) {
	a := &x.admission
	x.askUsage(e)
	if a.hide {
		x.patch.IncludeUsage()
	}
	if a.caller == nil {
		return
	}
	if a.most > 0 {
		x.patch.Set(a.setMost, strconv.AppendInt(a.text[:0], a.most, 10))
	}
	if salt := a.caller.CacheSalt(); salt != "" && x.route.stream && e.Engine == backends.EngineSGLang {
		x.patch.SetString(jsonbody.CacheSalt, salt)
	}
}

// mayWait asks whether the request may wait for a model that is not ready, and counts it among those that do.
func (x *exchange) mayWait() *apiError {
	a := &x.admission
	if a.caller == nil {
		return nil
	}
	state := x.model.Activator.Status().State
	if state == activator.Ready {
		return nil
	}
	if state != activator.Starting && !a.caller.MayWake() {
		return errMayNotWake
	}
	if refusal, ok := a.reservation.Wake(x.model.ID); !ok {
		a.caller.Refused(refusal.Kind)
		return limitError(refusal)
	}
	return nil
}

// meter reads what an event tells of the request's use, and whether the client is to be spared the event.
func (x *exchange) meter(data []byte) (hidden bool) {
	a := &x.admission
	used, ok := x.usageOf(data)
	if !ok {
		a.events++
		return false
	}
	a.used, a.told = used, true
	return a.hide && sse.IsUsageChunk(data)
}

// meterAnswer does the same with an answer in one piece.
func (x *exchange) meterAnswer(body []byte) {
	if a := &x.admission; x.metered() {
		a.used, a.told = x.usageOf(body)
		a.answer = int64(len(body))
	}
}

func (x *exchange) usageOf(doc []byte) (sse.Usage, bool) {
	if x.route.api == apiResponses {
		return sse.ResponseUsageOf(doc)
	}
	return sse.UsageOf(doc)
}

// settle gives back what the request has not used. Where the engine did not say what it has used, because the stream broke or the client
// left, every event counts as a token; where nothing was seen of an answer that may be complete, the whole reservation does. A
// request that no engine has worked on does not count at all.
func (x *exchange) settle(answered bool, now time.Time) {
	a := &x.admission
	if !a.held {
		return
	}
	a.held = false
	failure := x.rec.failure
	switch {
	case a.told:
	case x.attempts == 0, failure != nil && failure.Status >= 500 && failure.Status != fasthttp.StatusGatewayTimeout && a.events == 0:
		a.reservation.GiveBack(now)
		return
	case x.status >= 300: // the engine has refused it
	case x.stream:
		a.used = sse.Usage{Prompt: a.work.prompt, Completion: a.events}
	case answered && x.route.stream:
		a.used = sse.Usage{Prompt: a.work.prompt, Completion: min(a.answer/bytesPerToken, a.work.answer)}
	case answered:
		a.used.Prompt = a.work.prompt
	default:
		a.used = sse.Usage{Prompt: a.work.prompt, Completion: a.work.answer}
	}
	if a.told && answered && x.route.stream {
		a.caller.Learn(a.used.Completion / max(a.choices, 1))
	}
	a.reservation.Settle(a.used.Prompt+a.used.Completion, now)
	a.caller.Used(a.used.Prompt, a.used.Completion)
}

// OpenAI's names, as fasthttp keeps them.
var rateHeaders = [2][3][]byte{
	{[]byte("X-Ratelimit-Limit-Requests"), []byte("X-Ratelimit-Remaining-Requests"), []byte("X-Ratelimit-Reset-Requests")},
	{[]byte("X-Ratelimit-Limit-Tokens"), []byte("X-Ratelimit-Remaining-Tokens"), []byte("X-Ratelimit-Reset-Tokens")},
}

// standing tells the client how its limits per minute stand.
func (x *exchange) standing(h *fasthttp.ResponseHeader, s limits.Standing) {
	text := &x.admission.text
	for i, rate := range [...]limits.Rate{s.Requests, s.Tokens} {
		if rate.Limit == 0 {
			continue
		}
		h.SetCanonical(rateHeaders[i][0], strconv.AppendInt(text[:0], rate.Limit, 10))
		h.SetCanonical(rateHeaders[i][1], strconv.AppendInt(text[:0], rate.Remaining, 10))
		h.SetCanonical(rateHeaders[i][2], limits.AppendReset(text[:0], rate.Reset))
	}
}

// limitError tells that a limit is in the way. Types are OpenAI's.
func limitError(r limits.Refusal) *apiError {
	e := &apiError{Status: 429, Type: "requests", Code: "rate_limit_exceeded", Retry: 1, Cause: r}
	if r.Kind == limits.TokensPerMinute || r.Kind.Quota() {
		e.Type = "tokens"
	}
	whose := fmt.Sprintf("The limit of %d %s", r.Limit, r.Kind)
	switch r.Scope {
	case limits.Total:
		whose += " of this endpoint"
	default:
		whose += " of this " + r.Scope.String()
	}
	switch {
	case r.Kind.Quota():
		e.Type, e.Code, e.Retry = "insufficient_quota", "insufficient_quota", -1
		e.Message = whose + " is used up, or would be by this request. It begins anew when the next day or month does, in UTC."
	case r.TooLarge:
		e.Retry = -1
		e.Message = whose + " is less than this one request may take. Shorten the prompt, or ask for fewer tokens."
	default:
		e.RetryAfter = clampRetry(r.RetryAfter)
		e.Message = fmt.Sprintf("%s is reached. Try again in %d s.", whose, int(e.RetryAfter/time.Second))
	}
	return e
}
