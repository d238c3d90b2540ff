package gateway

import (
	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/gateway/jsonbody"
)

// place is what the queue is to know of the request: whose it is, how it counts, and the work that it may be. It is asked for by those that
// have to wait, and allocates nothing.
func (x *exchange) place() activator.Request {
	a := &x.admission
	body := x.fields.Body()
	x.weighed = true
	x.claimed.Prompt = a.work.prompt
	if a.caller == nil {
		x.claimed.Prompt = promptTokens(body)
	}
	x.claimed.MaxOutput = x.mostOutput()
	r := activator.Request{Tenant: x.rec.identity.Tenant, Key: x.rec.identity.KeyID, Bytes: int64(len(body)), Work: x.claimed, Hint: x.hint()}
	if a.caller != nil {
		r.Priority, r.Weight = a.caller.Priority(), a.caller.Weight()
	}
	return r
}

// mostOutput is how many tokens the engine may answer with, all choices together; 0: the request does not say, −1: none. Numbers that are
// none are the engine's to refuse.
func (x *exchange) mostOutput() int64 {
	if !x.route.stream {
		return -1
	}
	most := x.admission.most // that the tenant's rules put into the request
	for _, k := range [...]jsonbody.Key{jsonbody.MaxTokens, jsonbody.MaxCompletionTokens, jsonbody.MaxOutputTokens} {
		if n, ok, err := x.fields.Int(k); ok && err == nil && n > 0 {
			most = max(most, n)
		}
	}
	if most == 0 && x.route.metric == "completions" {
		most = completionsDefault
	}
	if n, ok, err := x.fields.Int(jsonbody.N); ok && err == nil && n > 1 {
		most = min(most, 1<<32) * min(n, 1<<16)
	}
	return most
}

// metered tells whether what the request takes is counted: it has a tenant with rules, or it waited for its place, so that others did.
func (x *exchange) metered() bool { return x.admission.caller != nil || x.weighed }

// askUsage has the engine tell what a request took that waited for its place; for tenants with rules admission.hide says so already.
func (x *exchange) askUsage(e backends.Endpoint) {
	if a := &x.admission; a.caller == nil && x.weighed && e.Engine == backends.EngineSGLang {
		a.hide = x.stream && x.route.api == apiOpenAI && !x.fields.IncludeUsage()
	}
}

// settleWork tells the queue what the request has been, as the engine says, or else as far as it was seen. Where nothing was seen, because the
// client left before, it stays at what was expected: nobody is to get work done for nothing by leaving in time.
func (x *exchange) settleWork(answered bool) {
	a := &x.admission
	switch {
	case !x.lease.Queued():
	case a.told:
		x.lease.Settle(a.used.Prompt, a.used.Completion, answered)
	case x.status >= 300 || x.call == nil: // refused, or never sent
		x.lease.Settle(0, 0, false)
	case answered || a.events > 0:
		x.lease.Settle(x.claimed.Prompt, max(a.events, a.answer/bytesPerToken), answered && x.route.stream)
	}
}
