package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Case is a scenario with what must come of it.
type Case struct {
	Scenario
	// Edge cases hold for the gateway only.
	Edge bool
	// Needs names what the engine must be able to do: a word of Target.Serves, or "".
	Needs string
	// Check returns what is wrong with the outcome.
	Check func(Target, Outcome) error
}

// noRetry keeps a case's time its own.
var noRetry = new(int)

// Cases returns the cases that apply to target, in an order that is safe to play.
func Cases(target Target) []Case {
	cases := []Case{
		{Scenario: Scenario{Name: "chat", Op: "chat"}, Check: all(answered, counted, named, traced)},
		{Scenario: Scenario{Name: "stream", Op: "chat", Stream: true}, Check: all(answered, streamed, uncounted, named, traced)},
		{Scenario: Scenario{Name: "stream-usage", Op: "chat", Stream: true, Usage: true}, Check: all(answered, streamed, counted, named)},
		{Scenario: Scenario{Name: "tools", Op: "tools", Prompt: "What is the weather in Oslo?", MaxTokens: 64}, Needs: "tools", Check: all(called, named)},
		{Scenario: Scenario{Name: "tools-stream", Op: "tools", Prompt: "What is the weather in Oslo?", MaxTokens: 64, Stream: true}, Needs: "tools", Check: all(called, named)},
		{Scenario: Scenario{Name: "json-object", Op: "json_object", Prompt: `Answer with {"greeting": "hello"}.`, MaxTokens: 64}, Needs: "json", Check: jsonText()},
		{Scenario: Scenario{Name: "json-object-stream", Op: "json_object", Prompt: `Answer with {"greeting": "hello"}.`, MaxTokens: 64, Stream: true}, Needs: "json", Check: jsonText()},
		{Scenario: Scenario{Name: "json-schema", Op: "json_schema", Prompt: "Describe a person.", MaxTokens: 200}, Needs: "json", Check: jsonText("name", "age")},
		{Scenario: Scenario{Name: "responses", Op: "responses"}, Needs: "responses", Check: all(answered, counted, named, traced)},
		{Scenario: Scenario{Name: "responses-stream", Op: "responses", Stream: true}, Needs: "responses", Check: all(answered, streamed, counted, named, traced)},
		{Scenario: Scenario{Name: "embeddings", Op: "embeddings"}, Needs: "embeddings", Check: all(embedded, named, traced)},
		{Scenario: Scenario{Name: "models", Op: "models"}, Check: listed},
		{Scenario: Scenario{Name: "model", Op: "model"}, Edge: true, Check: all(ok, named)},
		{Scenario: Scenario{Name: "wrong-key", Op: "chat", Key: "sk-wrong", MaxRetries: noRetry}, Needs: "errors", Check: refused("authentication", 401, "invalid_api_key")},
		{Scenario: Scenario{Name: "wrong-key-stream", Op: "chat", Stream: true, Key: "sk-wrong", MaxRetries: noRetry}, Needs: "errors", Check: refused("authentication", 401, "invalid_api_key")},
		{Scenario: Scenario{Name: "unknown-model", Op: "chat", Model: "no/such:model", MaxRetries: noRetry}, Edge: true, Check: refused("not_found", 404, "model_not_found")},
		{Scenario: Scenario{Name: "unknown-model-stream", Op: "chat", Stream: true, Model: "no/such:model", MaxRetries: noRetry}, Edge: true, Check: refused("not_found", 404, "model_not_found")},
		{Scenario: Scenario{Name: "unknown-model-get", Op: "model", Model: "no/such:model", MaxRetries: noRetry}, Edge: true, Check: refused("not_found", 404, "model_not_found")},
		{Scenario: Scenario{Name: "cancelled-stream", Op: "chat", Stream: true, CancelAfter: 2, MaxTokens: 512}, Check: cancelled(2)},
		{Scenario: Scenario{Name: "client-timeout", Op: "chat", Prompt: "Tell a long story.", MaxTokens: 512, Timeout: 0.05, MaxRetries: noRetry}, Check: timedOut},
		// Last, because it shows that the two before left the server in order.
		{Scenario: Scenario{Name: "chat-again", Op: "chat"}, Check: all(answered, counted)},
	}
	return slices.DeleteFunc(cases, func(c Case) bool {
		return c.Edge && !target.Edge || c.Needs != "" && target.Serves != nil && !slices.Contains(target.Serves, c.Needs)
	})
}

// CheckAll plays cases with client and fails the test for each that went wrong. It returns the outcomes.
func CheckAll(t testing.TB, client Client, target Target, cases []Case) []Outcome {
	t.Helper()
	outcomes := Run(t, client, target, scenariosOf(cases)...)
	judge(t, client, target, cases, outcomes)
	return outcomes
}

func scenariosOf(cases []Case) []Scenario {
	scenarios := make([]Scenario, len(cases))
	for i, c := range cases {
		scenarios[i] = c.Scenario
	}
	return scenarios
}

func judge(t testing.TB, client Client, target Target, cases []Case, outcomes []Outcome) {
	t.Helper()
	for i, c := range cases {
		t.Logf("%s: %s: %.2f s, first text after %.2f s", client.Name, c.Name, outcomes[i].Elapsed, outcomes[i].First)
		if err := c.Check(target, outcomes[i]); err != nil {
			t.Errorf("%s: %s: %v\nin %s", client.Name, c.Name, err, outcomes[i])
		}
	}
}

func all(checks ...func(Target, Outcome) error) func(Target, Outcome) error {
	return func(target Target, o Outcome) error {
		var errs []error
		for _, check := range checks {
			errs = append(errs, check(target, o))
		}
		return errors.Join(errs...)
	}
}

func ok(_ Target, o Outcome) error {
	if !o.OK {
		return fmt.Errorf("got an error of kind %s, want an answer", o.Kind())
	}
	return nil
}

func answered(target Target, o Outcome) error {
	if err := ok(target, o); err != nil {
		return err
	}
	if o.Text == "" || o.FinishReason != "stop" && o.FinishReason != "length" {
		return fmt.Errorf("got text %q and finish_reason %q, want some text and stop or length", o.Text, o.FinishReason)
	}
	return nil
}

func streamed(_ Target, o Outcome) error {
	if o.Chunks < 2 {
		return fmt.Errorf("got %d chunks, want several", o.Chunks)
	}
	return nil
}

func counted(_ Target, o Outcome) error {
	if o.Usage == nil || o.Usage.Prompt <= 0 || o.Usage.Completion <= 0 || o.Usage.Total != o.Usage.Prompt+o.Usage.Completion {
		return fmt.Errorf("got usage %+v, want positive counts that add up", o.Usage)
	}
	return nil
}

func uncounted(_ Target, o Outcome) error {
	if o.Usage != nil {
		return fmt.Errorf("got usage %+v in a stream that did not ask for it", o.Usage)
	}
	return nil
}

// named wants answers under the name that the client used.
func named(target Target, o Outcome) error {
	if o.Model != target.Model {
		return fmt.Errorf("got model %q, want %q", o.Model, target.Model)
	}
	return nil
}

func traced(target Target, o Outcome) error {
	if target.Edge && o.RequestID == "" {
		return errors.New("no x-request-id")
	}
	return nil
}

func called(target Target, o Outcome) error {
	if err := ok(target, o); err != nil {
		return err
	}
	if len(o.ToolCalls) == 0 || o.FinishReason != "tool_calls" {
		return fmt.Errorf("got %d tool calls and finish_reason %q", len(o.ToolCalls), o.FinishReason)
	}
	for _, call := range o.ToolCalls {
		var arguments struct{ City *string }
		if err := json.Unmarshal([]byte(call.Arguments), &arguments); err != nil {
			return fmt.Errorf("arguments %q: %w", call.Arguments, err)
		}
		if call.ID == "" || call.Name != "get_weather" || arguments.City == nil {
			return fmt.Errorf("got call %+v, want an id, get_weather and a city", call)
		}
	}
	return nil
}

// jsonText wants one JSON object with these keys. A text cut by max_tokens must at least begin as one, unless keys are asked
// for: those come from a schema that bounds its text.
func jsonText(keys ...string) func(Target, Outcome) error {
	return func(target Target, o Outcome) error {
		if err := answered(target, o); err != nil {
			return err
		}
		if len(keys) == 0 && o.FinishReason == "length" && strings.HasPrefix(strings.TrimSpace(o.Text), "{") {
			return nil
		}
		var object map[string]any
		if err := json.Unmarshal([]byte(o.Text), &object); err != nil {
			return fmt.Errorf("text %q: %w", o.Text, err)
		}
		for _, key := range keys {
			if _, ok := object[key]; !ok {
				return fmt.Errorf("got %q, want the key %s", o.Text, key)
			}
		}
		return nil
	}
}

func embedded(target Target, o Outcome) error {
	if err := ok(target, o); err != nil {
		return err
	}
	if len(o.Dims) != 2 || o.Dims[0] == 0 || o.Dims[0] != o.Dims[1] {
		return fmt.Errorf("got vectors of lengths %v, want two of one length", o.Dims)
	}
	return nil
}

func listed(target Target, o Outcome) error {
	if err := ok(target, o); err != nil {
		return err
	}
	if !slices.Contains(o.Models, target.Model) {
		return fmt.Errorf("got models %v, want %s among them", o.Models, target.Model)
	}
	return nil
}

// refused wants an error of this kind and status; from the gateway also its code, a message and a request id.
func refused(kind string, status int, code string) func(Target, Outcome) error {
	return func(target Target, o Outcome) error {
		if o.OK || o.Kind() != kind || o.Error.Status != status {
			return fmt.Errorf("got kind %q, want %s with status %d", o.Kind(), kind, status)
		}
		if !target.Edge {
			return nil
		}
		if o.Error.Code != code || o.Error.BodyMessage == "" || o.Error.RequestID == "" {
			return fmt.Errorf("got code %q, message %q, request id %q; want code %s and the others set", o.Error.Code, o.Error.BodyMessage, o.Error.RequestID, code)
		}
		return nil
	}
}

func cancelled(chunks int) func(Target, Outcome) error {
	return func(_ Target, o Outcome) error {
		if !o.OK || !o.Cancelled || o.Chunks != chunks {
			return fmt.Errorf("got cancelled %t after %d chunks, want it after %d", o.Cancelled, o.Chunks, chunks)
		}
		return nil
	}
}

func timedOut(_ Target, o Outcome) error {
	if o.Kind() != "timeout" {
		return fmt.Errorf("got kind %q, want timeout", o.Kind())
	}
	return nil
}
