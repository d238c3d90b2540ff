package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"pilotlight/bench/sglangsim"
	"pilotlight/internal/testtools"
	"pilotlight/internal/testtools/gatewaytest"
)

// loopback keeps no connection, which would look like a leak at the end.
var loopback = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// edge is the gateway as clients see it; they ask for model.
func edge(g *gatewaytest.Gateway, model string) Target {
	return Target{BaseURL: g.BaseURL, Key: g.Key("a"), Model: model, Edge: true}
}

// address is where a model's only replica listens.
func address(t *testing.T, g *gatewaytest.Gateway, model string) string {
	t.Helper()
	var addr string
	g.Until(20*time.Second, model+" has a replica", func() bool {
		m, err := g.Model(model)
		if err == nil && m.State == "ready" && len(m.Replicas) == 1 {
			addr = m.Replicas[0].Addr
		}
		return addr != ""
	})
	return addr
}

func simStats(t *testing.T, addr string) (stats sglangsim.Stats) {
	t.Helper()
	resp, err := loopback.Get("http://" + addr + "/sim/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&stats); err != nil {
		t.Fatal(err)
	}
	return stats
}

// Names with '/' and '.' survive the path of /v1/models/{id}, and an alias is as good as the name itself. Whoever leaves frees the
// engine at once.
func TestClientsThroughGateway(t *testing.T) {
	const id, alias = "Org/smol-1.5.gguf", "gpt-4o-mini"
	g := gatewaytest.Serve(t, gatewaytest.Config(gatewaytest.SimModel(t, "sim", "model_id: "+id+"\naliases: ["+alias+"]\nscaling: {replicas: 1}",
		"--sim-start", "0s", "--sim-ttft", "100ms", "--sim-embeddings")))
	addr := address(t, g, "sim")
	CheckTogether(t, func(Client) (plays []Play) {
		for _, name := range []string{id, alias} {
			plays = append(plays, Play{Name: name, Target: edge(g, name), Cases: Cases(edge(g, name))})
		}
		return plays
	})
	var stats sglangsim.Stats
	g.Until(time.Second, "the engine is idle", func() bool {
		stats = simStats(t, addr)
		return stats.Running+stats.Waiting == 0
	})
	// One cancelled stream and at most one plain request given up, for each name. The latter may be given up before it is sent.
	if n := int64(2 * len(Clients())); stats.Aborted < n || stats.Aborted > 2*n {
		t.Errorf("%d requests aborted, want %d to %d", stats.Aborted, n, 2*n)
	}
	if stats.Abandoned != 0 || stats.BadKeys != 0 {
		t.Errorf("%d requests ran on after their client had left, %d carried a client's key", stats.Abandoned, stats.BadKeys)
	}
}

// The same in front of a real engine, which is not SGLang: no aborts by id there, a closed connection must do.
func TestClientsThroughGatewayToCPUEngine(t *testing.T) {
	const id, alias = "tiny/smollm2.135m", "gpt-4o-mini"
	engine := testtools.CPUEngineCommand(t)
	g := gatewaytest.Serve(t, gatewaytest.Config(gatewaytest.Model("cpu", fmt.Sprintf(
		"model_id: %s\naliases: [%s]\nmodel_path: %s\nscaling: {replicas: 1, metric: {concurrency: %d}}\nbackend: {process: {engine: openai, probe: /health, command: %s}}",
		id, alias, engine.ModelPath, engine.Parallel, gatewaytest.Text(t, engine.Command)))))
	address(t, g, "cpu")
	for i, client := range Clients() {
		t.Run(client.Name, func(t *testing.T) {
			target := edge(g, []string{id, alias}[i/2%2])
			CheckAll(t, client, target, Cases(target))
		})
	}
	g.Until(2*time.Second, "the engine has no connection left that is at work", func() bool {
		m, err := g.Model("cpu")
		return err == nil && len(m.Replicas) == 1 && m.Replicas[0].InFlight == 0
	})
	if log := g.Log(); strings.Contains(log, g.Key("a")) || strings.Contains(log, "Say hello") {
		t.Error("the log holds a key or a prompt")
	}
}
