package conformance

import (
	"testing"

	"pilotlight/internal/testtools"
	"pilotlight/internal/testtools/gatewaytest"
)

// TestClientsAgainstCPUEngine holds the drivers and the cases to a real engine, without a gateway in between. All clients meet the engine
// behind the gateway, which takes most of a minute on two cores, so one is enough here unless the full figures are asked for.
func TestClientsAgainstCPUEngine(t *testing.T) {
	server := testtools.CPUEngine(t, "org/smol", "sk-engine")
	target := Target{BaseURL: server.URL + "/v1", Key: "sk-engine", Model: "org/smol"}
	for i, client := range Clients() {
		if i > 0 && !gatewaytest.Full() {
			continue
		}
		t.Run(client.Name, func(t *testing.T) { CheckAll(t, client, target, Cases(target)) })
	}
}

// TestClientsAgainstSimulator does the same with the simulated SGLang server. Its 401 is {"error": "text"}, as SGLang's is,
// which openai-go 3.96 answers with an error of its own JSON decoder: the gateway has to rewrite it.
func TestClientsAgainstSimulator(t *testing.T) {
	server := testtools.Simulator(t, "--sim-start", "0s", "--sim-ttft", "100ms", "--sim-embeddings",
		"--model-path", "org/smol", "--served-model-name", "org/smol", "--api-key", "sk-engine")
	target := Target{BaseURL: server.URL + "/v1", Key: "sk-engine", Model: "org/smol", Serves: []string{"embeddings", "tools", "json", "responses"}}
	CheckTogether(t, func(Client) []Play { return []Play{{Target: target, Cases: Cases(target)}} })
}
