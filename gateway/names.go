package gateway

import (
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/valyala/fasthttp"

	"pilotlight/activator"
	"pilotlight/gateway/jsonbody"
	"pilotlight/router"
)

// Share is a part of a model's requests.
type Share struct {
	Model   *Model
	Percent float64 // above 0, up to 100
}

// Fallback says which models answer in place of another one.
type Fallback struct {
	Models []*Model // in this order
	// After is how long a request waits for a place until a fallback is looked for, if Cold or Full says so.
	After time.Duration
	// Cold: the model has no replica that is ready. Full: it has, and no place is free. Failed: its start, or its replica, has failed.
	Cold, Full, Failed bool
}

// Parameter is a member of request bodies that a model's requests get.
type Parameter = jsonbody.Parameter

// Why another model than the one that was asked for has answered.
const (
	viaSplit  = "split"
	viaCold   = "cold"
	viaFull   = "full"
	viaFailed = "failed"
)

// fallbackPause is how often a request that waits looks again whether a fallback is ready.
const fallbackPause = time.Second

// spread gives a share of a model's requests to other models. Requests of one session stay with one of them.
func (x *exchange) spread(m *Model) *Model {
	if len(m.Split) == 0 {
		return m
	}
	at := rand.Float64() * 100
	if session := x.session(x.told[:0]); len(session) > 0 {
		x.told = session
		h := fnv.New64a() // the same in every process
		_, _ = h.Write(session)
		at = float64(mix(h.Sum64())>>11) / (1 << 53) * 100
	}
	for _, s := range m.Split {
		if at < s.Percent {
			x.via = viaSplit
			return s.Model
		}
		at -= s.Percent
	}
	return m
}

// mix spreads what differs in the last bytes of a key over all bits: the finalizer of MurmurHash3 (Appleby, 2011, public domain).
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// fallsBackAt is when a request that waits looks for a fallback; zero: never.
func (x *exchange) fallsBackAt() time.Time {
	f := &x.origin.Fallback
	if x.fallen >= len(f.Models) || !f.Cold && !f.Full {
		return time.Time{}
	}
	if x.fallbackAt.IsZero() {
		x.fallbackAt = x.rec.start.Add(f.After)
	}
	return x.fallbackAt
}

// outwaited looks for a fallback for a request that has waited for as long as it should.
func (x *exchange) outwaited(now time.Time) {
	via := viaCold
	if x.ticket.Status().State == activator.Ready {
		via = viaFull
	}
	if !x.fallFor(via) {
		x.fallbackAt = now.Add(fallbackPause)
	}
}

// fallBack gives a request that has failed with err, and of whose answer its client has got nothing, to the next fallback. false: there is
// none for such an error.
func (x *exchange) fallBack(err error) bool {
	if len(x.origin.Fallback.Models) == 0 || x.clientGone() || !time.Now().Before(x.deadline) {
		return false
	}
	failure := asAPIError(err)
	var start *activator.StartFailedError
	switch {
	case errors.As(failure.Cause, &start), failure.engine && failure.Status >= 500 && failure.Code != "queue_full",
		failure.Code == errEngineGone.Code, failure.Code == errFirstByte.Code:
		return x.fallFor(viaFailed)
	case failure.Code == "queue_full", failure.Code == "queue_timeout":
		return x.fallFor(viaFull)
	case failure.Code == "model_cold", failure.Code == "gpus_busy":
		return x.fallFor(viaCold)
	}
	return false
}

// fallFor moves the request to the next fallback, if via is a reason to. One that is ready comes first; one that is not is no help against waiting.
func (x *exchange) fallFor(via string) bool {
	f := &x.origin.Fallback
	if via == viaCold && !f.Cold || via == viaFull && !f.Full || via == viaFailed && !f.Failed {
		return false
	}
	if x.choice != nil && x.choice.keeper != 0 { // no other model has the conversation
		return false
	}
	rest := f.Models[x.fallen:]
	i := slices.IndexFunc(rest, func(m *Model) bool { return m.Activator.Open() > 0 })
	if i < 0 && via == viaFailed && len(rest) > 0 {
		i = 0 // to be started is better than to fail
	}
	if i < 0 {
		return false
	}
	x.fallen += i + 1
	x.moveTo(rest[i], via)
	return true
}

// moveTo gives back what the request has of its model, and begins anew with another one.
func (x *exchange) moveTo(next *Model, via string) {
	if x.ticket != nil {
		x.ticket.Cancel()
		x.ticket = nil
		if x.choice != nil {
			x.choice.shared = true
		}
	}
	o := router.Failed
	if via == viaFull {
		o = router.Unknown
	}
	x.quit(o, time.Now())
	x.dropFragment()
	x.splitter.Reset()
	x.dropChoice()
	x.model.metrics.active.Add(-1)
	next.metrics.active.Add(1)
	next.metrics.budget.Earn()
	x.model, x.rec.model, x.via = next, next, via
	x.step, x.attempts, x.status, x.stays, x.replica, x.target = stepAcquire, 0, 0, false, 0, nil
	x.reason, x.matched, x.sentAt, x.usage = "", 0, time.Time{}, router.Usage{}
}

// quit gives a replica back that will not answer the request. What it may still do for it is ended.
func (x *exchange) quit(o router.Outcome, now time.Time) {
	if !x.lease.Held() {
		return
	}
	x.report(o, now)
	x.lease.Settle(0, 0, false)
	abort := x.call != nil && !x.call.Ended() && len(x.rid) > 0
	x.dropCall(now)
	if !abort {
		x.lease.Release()
		return
	}
	if x.choice != nil {
		x.choice.shared = true
	}
	x.g.abort(x.target.Transport(), string(x.rid), x.lease)
	x.lease = activator.Lease{}
}

// explainModel says which model has answered, where it is another than the one that was asked for.
func (x *exchange) explainModel(h *fasthttp.ResponseHeader) {
	if x.via != "" {
		x.told = append(append(append(x.told[:0], x.model.ID...), "; via="...), x.via...)
		h.SetCanonical(headerModel, x.told)
	}
}
