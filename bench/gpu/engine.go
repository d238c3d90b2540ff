package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// engine is a replica as its record in the gateway's state folder tells of it. The scenes ask it directly, past the gateway, to know
// what is true of it.
type engine struct {
	Model  string `json:"model"`
	ID     uint64 `json:"id"`
	PID    int    `json:"pid"`
	Host   string `json:"host"`
	Port   int    `json:"port"`
	APIKey string `json:"api_key"`
}

func (e *engine) url(path string) string {
	return "http://" + net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) + path
}

// engines are those of a model that the gateway has on record.
func (g *gateway) engines(model string) (out []engine, err error) {
	for _, name := range g.records() {
		text, err := os.ReadFile(filepath.Join(g.stateDir(), "replicas", name+".json"))
		if os.IsNotExist(err) {
			continue // it ended just now
		}
		var e engine
		if err == nil {
			err = json.Unmarshal(text, &e)
		}
		if err != nil {
			return nil, fmt.Errorf("the record %s: %w", name, err)
		}
		if e.Model == model {
			out = append(out, e)
		}
	}
	return out, nil
}

// engine is the only one of a model.
func (g *gateway) engine(model string) (engine, error) {
	all, err := g.engines(model)
	if err != nil {
		return engine{}, err
	}
	if len(all) != 1 {
		return engine{}, fmt.Errorf("%s has %d engines on record, want one", model, len(all))
	}
	return all[0], nil
}

// pace is how often an engine is asked where milliseconds count.
const pace = 5 * time.Millisecond

// watchReady asks a model's engine for its health, as soon as there is one, and sends when it was first good. It ends with ctx.
func (g *gateway) watchReady(ctx context.Context, model string) <-chan time.Time {
	ready := make(chan time.Time, 1)
	go func() {
		defer close(ready)
		c := &http.Client{Timeout: time.Second}
		defer c.CloseIdleConnections()
		for ; ctx.Err() == nil; sleep(ctx, pace) {
			e, err := g.engine(model)
			if err != nil || e.Port == 0 {
				continue // not yet
			}
			if get(ctx, c, e.url("/health"), "") == http.StatusOK {
				ready <- time.Now()
				return
			}
		}
	}()
	return ready
}

// get is the status of an answer, 0 if there is none.
func get(ctx context.Context, c *http.Client, url, key string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// busy is how many requests the engine works on or has waiting, by its own account.
func (e *engine) busy(ctx context.Context) (int, error) {
	var answer struct {
		Loads []struct {
			Running int `json:"num_running_reqs"`
			Waiting int `json:"num_waiting_reqs"`
		} `json:"loads"`
	}
	if err := fetch(ctx, e.url("/v1/loads"), e.APIKey, &answer); err != nil {
		return 0, err
	}
	if len(answer.Loads) == 0 {
		return 0, fmt.Errorf("%s: the engine tells of no load", e.Model)
	}
	n := 0
	for _, l := range answer.Loads {
		n += l.Running + l.Waiting
	}
	return n, nil
}

// idleLimit is how long an engine is watched for its work's end after its client left: SGLang ends by itself long before.
const idleLimit = time.Minute

// watchIdle sends when the engine, after it was seen to work, first had nothing to do again for good: until left is closed it may yet begin
// more. Zero: it was never seen to work, or did not stop.
func (e *engine) watchIdle(ctx context.Context, left <-chan struct{}) <-chan time.Time {
	out := make(chan time.Time, 1)
	go func() {
		var idle, end time.Time
		worked := false
		for ctx.Err() == nil {
			n, err := e.busy(ctx)
			switch {
			case err != nil: // asked again
			case n > 0:
				worked, idle = true, time.Time{}
			case worked && idle.IsZero():
				idle = time.Now()
			}
			select {
			case <-left:
				if end.IsZero() {
					end = time.Now().Add(idleLimit)
				}
				if err == nil && n == 0 || time.Now().After(end) {
					out <- idle
					return
				}
			default:
			}
			sleep(ctx, pace)
		}
		out <- time.Time{}
	}()
	return out
}

// status is what the engine answers without being asked for work; 0: nothing.
func (e *engine) status(ctx context.Context) int { return get(ctx, quick, e.url("/ping"), e.APIKey) }

// settings are what the engine says that it runs with.
func (e *engine) settings(ctx context.Context) (map[string]any, error) {
	var out map[string]any
	err := fetch(ctx, e.url("/server_info"), e.APIKey, &out)
	return out, err
}
