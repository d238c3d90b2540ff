package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"pilotlight/backends"
	"pilotlight/backends/sglang"
)

const (
	// settlePause is the time between two questions to an engine whose requests in flight are not known, doubled up to settlePauseMost: each is
	// one connection, answered from a snapshot.
	settlePause     = 100 * time.Millisecond
	settlePauseMost = time.Second
	// settleBlind is for engines that do not tell. The connections of the gateway that died were closed by the kernel, nobody waits for
	// what is left on them, and SGLang, for one, notices within 2 to 4 s (docs/facts/sglang.md, sections 12 and 13).
	settleBlind = 10 * time.Second
	// settleAnswer is how long one question may take.
	settleAnswer = 5 * time.Second
)

// errNoLoads means that an engine does not tell how much it has to do.
var errNoLoads = errors.New("the engine does not report its load")

// Settle returns once no request is in flight on an adopted replica, by its engine's own account: two times in a row, because a request
// is counted a moment after it has come. What this gateway has sent it counts as well. Of an engine that keeps no such account
// it is taken to be so after 10 s. A replica that was not adopted is settled. The error is ctx's, or says that the replica is gone.
func (r *Replica) Settle(ctx context.Context) error {
	if !r.adopted {
		return nil
	}
	p := &probe{host: r.record.Host, port: r.record.Port, apiKey: r.endpoint.APIKey, kin: r.child.kin, bound: func() {}}
	client := p.client()
	client.Timeout = settleAnswer
	began, zeros := time.Now(), 0
	for pause := settlePause; ; pause = min(2*pause, settlePauseMost) {
		n, err := r.load(ctx, p, client)
		switch {
		case errors.Is(err, errNoLoads):
			if time.Since(began) >= settleBlind {
				return nil
			}
		case err != nil || n > 0: // one that does not answer may have anything in flight
			zeros = 0
		default:
			if zeros++; zeros == 2 {
				return nil
			}
			pause = settlePause
		}
		select {
		case <-time.After(pause):
		case <-r.exited:
			return errors.New("the replica is gone")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// load is the number of requests in the engine.
func (r *Replica) load(ctx context.Context, p *probe, client *http.Client) (int, error) {
	if r.record.Engine != backends.EngineSGLang {
		return 0, errNoLoads
	}
	for _, path := range sglang.LoadPaths {
		p.path = path
		body, status, err := get(ctx, client, p)
		switch {
		case err != nil:
			return 0, err
		case status == http.StatusNotFound:
			continue
		case status != http.StatusOK:
			return 0, fmt.Errorf("%s is answered with %d", path, status)
		}
		return sglang.InFlight(body)
	}
	return 0, errNoLoads
}

func get(ctx context.Context, client *http.Client, p *probe) (body []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url(), nil)
	if err != nil {
		return nil, 0, err
	}
	if p.apiKey != "" {
		req.Header.Set("Authorization", "Bearer "+p.apiKey)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return body, resp.StatusCode, errors.Join(err, resp.Body.Close())
}
