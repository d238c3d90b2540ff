package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// swapScene lets two models that each want the whole GPU take turns under load. Each keeps it for as long as its start took, so the
// starts are made short.
var swapScene = scene{
	name: "swap", about: "two models that each want the whole GPU take turns under load, without a failed request", limit: 8 * time.Minute,
	models: func(context.Context, *options) ([]model, error) {
		var models []model
		for _, name := range swapping {
			models = append(models, model{
				Name: name, Args: []string{"--cuda-graph-backend-decode=disabled", "--cuda-graph-backend-prefill=disabled", "--skip-server-warmup"},
				Fields: map[string]any{"resources": map[string]any{"gpu": "1"}},
			})
		}
		return models, nil
	},
	steps: []step{{name: "clients of both models, until the GPU has changed hands twice", do: swap}},
}

var swapping = []string{"first", "second"}

const (
	swapClients = 3 // of each model
	// swapPause is between an answer and its client's next question, so that there are moments in which a model is idle.
	swapPause = 500 * time.Millisecond
	// swapTime is for how long questions are asked at most: what waits then is answered after one more start.
	swapTime = 6 * time.Minute
)

// swap asks both models until the GPU has changed hands twice, and waits for every answer that is still on its way.
func swap(ctx context.Context, p *play) error {
	var over atomic.Bool
	var wg sync.WaitGroup
	var mu sync.Mutex // guards the fields below
	var failed []error
	answered, slowest := map[string]int{}, map[string]time.Duration{}
	for _, name := range swapping {
		for c := range swapClients {
			wg.Go(func() {
				for n := 0; !over.Load() && ctx.Err() == nil; n++ {
					q := chat(name, "Say hello.", nil)
					q.stream = (c+n)%2 == 0
					began := time.Now()
					a, err := plain{}.ask(ctx, p.gateway, q)
					if err == nil && (a.Status != 200 || a.Code != "" || a.Text == "" || a.Finish == "") {
						err = errors.New(a.text())
					}
					mu.Lock()
					slowest[name] = max(slowest[name], time.Since(began))
					if err != nil {
						failed = append(failed, fmt.Errorf("%s: %w", name, err))
					} else {
						answered[name]++
					}
					mu.Unlock()
					sleep(ctx, swapPause)
				}
			})
		}
	}
	seen, err := p.watchSwaps(ctx)
	over.Store(true)
	wg.Wait()
	for _, took := range seen {
		p.figure("handed over in", took)
	}
	for _, name := range swapping {
		p.number(name+" answered", float64(answered[name]), "")
		p.figure("the slowest in", slowest[name])
		m, e := p.gateway.model(ctx, name)
		if e == nil && (m.StartFailures > 0 || m.Crashes > 0) {
			e = fmt.Errorf("%s: %d starts failed, %d crashes", name, m.StartFailures, m.Crashes)
		}
		if e == nil && answered[name] == 0 {
			e = fmt.Errorf("%s was never answered", name)
		}
		err = errors.Join(err, e)
	}
	p.number("failed requests", float64(len(failed)), "")
	return errors.Join(err, errors.Join(failed[:min(len(failed), 3)]...))
}

// watchSwaps waits until the GPU has changed hands twice, and says how long each time took, from when the one model took no more
// requests to when the other was ready. There may be one engine at a time, by the gateway's own records, which outlive engines.
func (p *play) watchSwaps(ctx context.Context) (took []time.Duration, err error) {
	holder, left := "", time.Time{}
	for end := time.Now().Add(swapTime); len(took) < 2; {
		if records := p.gateway.records(); len(records) > 1 {
			return took, fmt.Errorf("two engines at once: %v", records)
		}
		for _, name := range swapping {
			m, err := p.gateway.model(ctx, name)
			if err != nil {
				return took, err
			}
			ready := len(m.Replicas) > 0 && m.Replicas[0].State == "ready"
			switch {
			case ready && holder == "":
				holder = name
			case !ready && holder == name && left.IsZero():
				left = time.Now()
			case ready && holder != name:
				took = append(took, time.Since(left))
				holder, left = name, time.Time{}
			case ready:
				left = time.Time{} // it went and came back
			}
		}
		if !sleep(ctx, 20*time.Millisecond) || time.Now().After(end) {
			return took, fmt.Errorf("the GPU has changed hands %d times", len(took))
		}
	}
	return took, nil
}
