package conformance

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"pilotlight/internal/testtools/gatewaytest"
)

// Clients whose model has to be started first notice nothing but the wait, with their own time-outs and retries. Each
// client has models of its own here, so that each sees whole starts; one more is for all of them together.
func TestClientsThroughGatewayCold(t *testing.T) {
	t.Parallel()
	const shared = 5 * time.Second
	// Heartbeats from the first second on, so that starts this short have some.
	const early = "cold: {grace: 1s, heartbeat: 1s}"
	models := []string{
		gatewaytest.SimModel(t, "shared", "model_id: org/shared.model\n"+early, "--sim-start", shared.String()),
		// Not ready before the test's end. The heartbeats of a stream would keep clients from giving up, so they come late.
		gatewaytest.SimModel(t, "never", "", "--sim-start", "10m"),
	}
	cases := map[string][]Case{}
	for i, client := range Clients() {
		list := []Case{SharedColdCase("shared", "org/shared.model", true, shared)}
		for _, start := range []time.Duration{0, 5 * time.Second} {
			for _, stream := range []bool{false, true} {
				name := fmt.Sprintf("m%d-%v-%v", i, start, stream)
				id := fmt.Sprintf("org/cold.%s", name)
				models = append(models, gatewaytest.SimModel(t, name, "model_id: "+id+"\n"+early, "--sim-start", start.String()))
				list = append(list, ColdCase(fmt.Sprintf("%v stream=%t", start, stream), id, stream, start))
			}
		}
		cases[client.Name] = append(list, ImpatientCase("impatient stream", "never", true), hinted("never"))
	}
	g := gatewaytest.Serve(t, gatewaytest.Config(models...))
	CheckTogether(t, func(client Client) []Play {
		return []Play{{Target: edge(g, "none"), Cases: cases[client.Name]}}
	})
	state, err := g.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range state.Models {
		if m.Starts != 1 || m.StartFailures+m.Crashes != 0 || m.QueuedRequests != 0 {
			t.Errorf("%s: %d starts, %d failed, %d crashes, %d requests wait; want one start and nobody waiting", m.Name, m.Starts, m.StartFailures, m.Crashes, m.QueuedRequests)
		}
	}
	if beats := heartbeats(t, g); beats < float64(4*len(Clients())) {
		t.Errorf("%v heartbeats went out, want some to each client", beats)
	}
}

// hinted asks for an answer in one piece and says, as SDKs do by themselves when they are given a time-out, how long it will be
// waited for: the gateway answers before that, with the time to come again, rather than let the client hang up.
func hinted(model string) Case {
	return Case{
		Scenario: Scenario{Name: "hinted", Op: "chat", Model: model, Timeout: 7, MaxRetries: noRetry, Headers: map[string]string{"x-stainless-read-timeout": "7"}},
		Check: func(target Target, o Outcome) error {
			if err := refused("server", 503, "model_cold")(target, o); err != nil {
				return err
			}
			if o.Elapsed < 1.9 || o.Elapsed > 6.5 {
				return fmt.Errorf("refused after %.2f s, want it about 5 before the client's 7", o.Elapsed)
			}
			return nil
		},
	}
}

// One start serves everybody, however long it takes: with PILOTLIGHT_SCALE=full longer than a proxy's minute.
func TestOneStartServesAllClients(t *testing.T) {
	t.Parallel()
	starts := []time.Duration{5 * time.Second}
	if gatewaytest.Full() {
		starts = []time.Duration{25 * time.Second, 95 * time.Second}
	}
	var models []string
	for _, start := range starts {
		// The default grace and heartbeat: what clients meet in earnest.
		models = append(models, gatewaytest.SimModel(t, "m"+start.String(), "model_id: org/m."+start.String(), "--sim-start", start.String()))
	}
	g := gatewaytest.Serve(t, gatewaytest.Config(models...))
	outcomes := CheckTogether(t, func(Client) (plays []Play) {
		for _, start := range starts {
			for _, stream := range []bool{false, true} {
				plays = append(plays, Play{
					Name: fmt.Sprintf("%v stream=%t", start, stream), Target: edge(g, "none"),
					Cases: []Case{SharedColdCase("shared", "org/m."+start.String(), stream, start)},
				})
			}
		}
		return plays
	})
	for _, start := range starts {
		m, err := g.Model("m" + start.String())
		if err != nil || m.Starts != 1 {
			t.Errorf("%v: %d starts (%v), want one", start, m.Starts, err)
		}
		all := append(outcomes[fmt.Sprintf("%v stream=false", start)], outcomes[fmt.Sprintf("%v stream=true", start)]...)
		first, last := time.Duration(0), time.Hour
		for _, o := range all {
			took := time.Duration(o.Elapsed * float64(time.Second))
			first, last = max(first, took), min(last, took)
		}
		if first < start {
			t.Errorf("%v: the first to come waited only %v", start, first)
		}
		t.Logf("start of %v: %d clients waited between %v and %v", start, len(all), last, first)
	}
}

func heartbeats(t *testing.T, g *gatewaytest.Gateway) (sum float64) {
	t.Helper()
	for _, line := range strings.Split(metrics(t, g), "\n") {
		if rest, ok := strings.CutPrefix(line, "pilotlight_heartbeats_total{"); ok {
			var n float64
			if _, err := fmt.Sscan(rest[strings.LastIndex(rest, "}")+1:], &n); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			sum += n
		}
	}
	return sum
}

func metrics(t *testing.T, g *gatewaytest.Gateway) string {
	t.Helper()
	resp, err := loopback.Get(g.AdminURL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
