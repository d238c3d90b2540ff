package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// chatOf is a chat whose prompt has so many words, and whose answer has so many tokens.
func chatOf(model string, words, tokens int) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}],"max_tokens":%d,"ignore_eos":true}`, model, strings.Repeat("word ", words), tokens)
}

// known makes keys for tenants, and waits until the running gateway knows them.
func (s *server) known(tenants ...string) {
	s.t.Helper()
	for _, tenant := range tenants {
		key := s.Key(tenant)
		s.Until(10*time.Second, "the gateway's knowing a key", func() bool {
			time.Sleep(200 * time.Millisecond) // wrong keys are limited
			req, err := http.NewRequest("GET", s.BaseURL+"/models", nil)
			if err != nil {
				s.t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+key)
			resp, err := s.http.Do(req)
			if err != nil {
				s.t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
}

// TestTenantsShareAFullReplicaByWork: each of four tenants always has requests waiting, and they ask for very different things; what each is
// served in tokens is alike.
func TestTenantsShareAFullReplicaByWork(t *testing.T) {
	shares(t, map[string]int{"short": 1, "long": 1, "wordy": 1, "both": 1}, "")
}

// TestTenantsShareByTheirWeights is the same with weights. Small requests have a small one: else their clients, on a busy machine, would
// have to ask more often than they can.
func TestTenantsShareByTheirWeights(t *testing.T) {
	shares(t, map[string]int{"short": 1, "long": 4, "wordy": 2, "both": 3},
		"tenants: [{name: long, weight: 4}, {name: wordy, weight: 2}, {name: both, weight: 3}]\n")
}

func shares(t *testing.T, weights map[string]int, rules string) {
	s := serve(t, rules+config(simModel(t, "shared", "scaling: {metric: {concurrency: 2}}", "--sim-ttft", "1ms", "--sim-itl", "100us")))
	ways := map[string]string{
		"short": chatOf("shared", 2, 4), "long": chatOf("shared", 2, 60), "wordy": chatOf("shared", 60, 2), "both": chatOf("shared", 40, 40),
	}
	s.known("short", "long", "wordy", "both")
	var clients sync.WaitGroup
	var total atomic.Int64
	served := map[string]*atomic.Int64{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	limit := int64(scaled(6_000, 200_000))
	for tenant, body := range ways {
		key, count := s.Key(tenant), &atomic.Int64{}
		served[tenant] = count
		for range 30 { // enough that some of them always wait, however slow the machine
			clients.Go(func() {
				for ctx.Err() == nil {
					a := s.send(ctx, key, body, false)
					if a.status != 200 && ctx.Err() == nil {
						t.Errorf("%s: %v", tenant, a)
						return
					}
					count.Add(a.tokens)
					if total.Add(a.tokens) > limit {
						cancel()
					}
				}
			})
		}
	}
	clients.Wait()
	sum, squares := 0.0, 0.0
	for tenant, n := range served {
		t.Logf("%s: %d tokens, weight %d", tenant, n.Load(), weights[tenant])
		each := float64(n.Load()) / float64(weights[tenant])
		sum += each
		squares += each * each
	}
	if jain := sum * sum / squares / float64(len(served)); jain < 0.98 {
		t.Errorf("Jain's index is %.4f", jain)
	} else {
		t.Logf("Jain's index is %.4f", jain)
	}
}

// TestOneRequestPassesThousands of another tenant, and is told its true place.
func TestOneRequestPassesThousands(t *testing.T) {
	const places = 2
	n := scaled(300, 5000)
	s := serve(t, strings.Replace(config(simModel(t, "crowded", fmt.Sprintf("scaling: {metric: {concurrency: %d}}\nqueue: {max_requests: 6000}\ncold: {grace: 1ms, heartbeat: 20ms}", places), "--sim-itl", "20ms")),
		"models:", "queue: {max_requests: 10000}\nmodels:", 1))
	s.known("many", "one")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	var done atomic.Int64
	body := chatOf("crowded", 2, 20)
	for range n {
		clients.Go(func() {
			if a := s.send(ctx, s.Key("many"), body, false); a.status == 200 {
				done.Add(1)
			}
		})
	}
	s.Until(time.Minute, "the many in the queue", func() bool {
		return s.model("crowded").QueuedRequests >= n-places-int(done.Load())-1 && done.Load() > 0
	})
	before := done.Load()
	a := s.send(ctx, s.Key("one"), strings.Replace(body, "{", `{"stream":true,`, 1), true)
	passed := done.Load() - before
	if a.status != 200 || !a.done {
		t.Errorf("the one: %v", a)
	}
	var position, of int
	if _, told, ok := strings.Cut(a.beat, "position "); ok {
		if _, err := fmt.Sscanf(told, "%d of %d", &position, &of); err != nil || position > 5 || of < n/2 {
			t.Errorf("the one was told %q", a.beat)
		}
	}
	t.Logf("the one was told %q", a.beat)
	// Those in flight before it, those beside it, and what came meanwhile on a slow machine.
	if t.Logf("%d of the many were served until the one was", passed); passed > 20 {
		t.Errorf("%d of the many were served until the one was", passed)
	}
	cancel()
	clients.Wait()
}
