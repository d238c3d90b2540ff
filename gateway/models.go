package gateway

import (
	"encoding/json"
	"math"
	"time"

	"github.com/valyala/fasthttp"
)

// modelObject is OpenAI's model, with ours beside it.
type modelObject struct {
	ID         string      `json:"id"`
	Object     string      `json:"object"`
	Created    int64       `json:"created"`
	OwnedBy    string      `json:"owned_by"`
	Pilotlight *modelState `json:"pilotlight,omitempty"`
}

// modelState is what a client may know of a model's life.
type modelState struct {
	State    string `json:"state"`
	Replicas int    `json:"replicas"` // ready
	Queue    int    `json:"queue"`    // requests waiting
	// ETASeconds until a replica is ready; null when unknown or ready.
	ETASeconds *int    `json:"eta_seconds"`
	Phase      string  `json:"phase,omitempty"`
	Percent    float64 `json:"percent,omitempty"`
	Reason     string  `json:"reason,omitempty"` // why the start waits for GPUs
}

// models answers from the configuration and never wakes anything.
func (g *Gateway) models(ctx *fasthttp.RequestCtx, rec *record, id string) {
	identity, identifyErr := g.identify(&ctx.Request.Header, rec.start, rec.conn)
	rec.identity = identity
	visible := func(m *Model) bool { return identifyErr == nil || !m.RequiresAuth }
	caller := g.tenants.Caller(identity, &rec.conn.caller)
	mayUse := func(name string, m *Model) bool { return caller == nil || caller.MayUse(name, m.ID) }
	if rec.route == routeModel {
		m, err := g.table.Load().Resolve(id)
		switch {
		case err == nil && visible(m) && !mayUse(id, m):
			g.refuse(ctx, rec, errModelForbidden(id))
		case err == nil && visible(m):
			o := m.object(id)
			o.Pilotlight = m.state()
			writeJSON(ctx, o)
			g.logOK(ctx, rec)
		case err == nil:
			g.refuse(ctx, rec, identifyErr)
		default:
			g.refuse(ctx, rec, g.firstOf(identifyErr, errModelNotFound(id)))
		}
		return
	}
	list := struct {
		Object string        `json:"object"`
		Data   []modelObject `json:"data"`
	}{Object: "list", Data: []modelObject{}}
	for _, m := range g.table.Load().Models() {
		if visible(m) {
			for _, name := range m.names() {
				if mayUse(name, m) {
					list.Data = append(list.Data, m.object(name))
				}
			}
		}
	}
	if len(list.Data) == 0 && identifyErr != nil && g.requiresAuth.Load() {
		g.refuse(ctx, rec, identifyErr)
		return
	}
	writeJSON(ctx, list)
	g.logOK(ctx, rec)
}

func (m *Model) object(name string) modelObject {
	return modelObject{ID: name, Object: "model", Created: m.Created, OwnedBy: "pilotlight"}
}

func (m *Model) state() *modelState {
	status := m.Activator.Status()
	s := &modelState{State: status.State.String(), Queue: status.QueuedRequests}
	for _, r := range status.Replicas {
		if r.Limit > 0 {
			s.Replicas++
		} else if r.Phase != "" {
			s.Phase, s.Percent, s.Reason = r.Phase, math.Round(r.Percent), r.Reason
		}
	}
	if status.ETA > 0 {
		eta := int(math.Ceil(status.ETA.Seconds()))
		s.ETASeconds = &eta
	}
	return s
}

func (g *Gateway) logOK(ctx *fasthttp.RequestCtx, rec *record) {
	rec.status, rec.bytesOut = ctx.Response.StatusCode(), len(ctx.Response.Body())
	rec.duration = time.Since(rec.start)
	g.log(rec)
}

func writeJSON(ctx *fasthttp.RequestCtx, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("BUG: plain values are JSON: " + err.Error())
	}
	ctx.SetContentType("application/json")
	ctx.SetBody(body)
}
