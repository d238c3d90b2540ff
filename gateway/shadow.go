package gateway

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/valyala/fasthttp"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/backends/transport"
	"pilotlight/gateway/jsonbody"
)

// shadow sends a copy of the request to the model's shadow, if it is one of those that are copied and the shadow has a place free. The copy starts
// nothing, waits for nothing, and delays nothing but by the time to copy the body; its answer is read and dropped, and counts for no limit.
func (x *exchange) shadow() {
	to := x.origin.Shadow
	if to.Model == nil || rand.Float64()*100 >= to.Percent {
		return
	}
	lease, ok := to.Model.Activator.TryAcquire()
	if !ok {
		return
	}
	target, ok := lease.Instance().(Target)
	if !ok {
		lease.Release()
		return
	}
	pool := target.Transport()
	e := pool.Endpoint()
	var p jsonbody.Patch
	p.Reset(&x.fields)
	if e.Engine == backends.EngineSGLang {
		p.DeleteReserved()
		if x.route.rid {
			p.SetBytes(jsonbody.RID, appendHexID(nil))
		}
	}
	if e.ServedName != "" && e.ServedName != x.asked {
		p.SetString(jsonbody.Model, e.ServedName)
	}
	if x.route.stream && len(to.Model.Parameters) > 0 {
		p.Parameters(to.Model.Parameters)
	}
	req := transport.Request{Method: fasthttp.MethodPost, Path: x.route.upstream, ContentType: "application/json", Accept: "*/*", Body: [][]byte{p.AppendTo(nil)}}
	g, id, model := x.g, string(x.rec.id), to.Model // x is another request's before this one's copy is over
	g.background.Go(func() { g.copyTo(model, pool, lease, &req, id) })
}

// copyTo does the exchange of a copy. It knows nothing of the request that it is a copy of, which may be over.
func (g *Gateway) copyTo(m *Model, pool *transport.Pool, lease activator.Lease, req *transport.Request, id string) {
	defer lease.Release()
	ctx, cancel := g.backgroundContext(m.Timeouts.Request)
	defer cancel()
	call := pool.NewCall()
	defer call.Close()
	stop := context.AfterFunc(ctx, call.Cancel)
	defer stop()
	start := time.Now()
	deadline, _ := ctx.Deadline() // it has one
	status, size, err := 0, 0, call.Send(req, start)
	if err == nil {
		err = call.AwaitHead(deadline)
	}
	if err == nil {
		status = call.Header.StatusCode()
		scrap, _ := fragments.Get().(*[]byte)
		defer fragments.Put(scrap)
		for err == nil {
			var n int
			n, err = call.Read(*scrap, deadline)
			size += n
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	g.logger.Debug("a request was copied", "copy_of", id, "model", m.ID, "status", status, "bytes", size, "duration", time.Since(start).Seconds(), "error", err)
}
