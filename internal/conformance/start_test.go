package conformance

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/internal/testtools/gatewaytest"
)

// failedStart is one way in which a model does not start. The classes that are missing here need a second process at
// the right moment (port_taken), a broken machine (launch_error), or are never told to a waiter (stopped).
type failedStart struct {
	class string // the code that clients see
	// flags are the simulator's; model replaces its whole entry.
	flags []string
	extra string
	model func(t *testing.T, name string) string
	// permanent failures are told once, with the advice not to come again; of the others each client is told by starts of its own.
	permanent bool
	says      string
}

var failedStarts = []failedStart{
	{class: "out_of_memory", flags: []string{"--sim-fail", "oom"}, permanent: true, says: "memory"},
	{class: "model_not_found_upstream", flags: []string{"--sim-fail", "no-repo"}, permanent: true, says: "did not start"},
	{class: "model_gated", flags: []string{"--sim-fail", "gated"}, permanent: true, says: "HF_TOKEN"},
	{class: "unsupported_model", flags: []string{"--sim-fail", "unsupported"}, permanent: true, says: "did not start"},
	{class: "invalid_launch_argument", flags: []string{"--no-such-flag", "1"}, permanent: true, says: "did not start"},
	{class: "device_error", flags: []string{"--sim-fail", "driver"}, permanent: true, says: "did not start"},
	{class: "command_not_found", permanent: true, says: "not installed", model: func(_ *testing.T, name string) string {
		return gatewaytest.Model(name, "model_path: simulated\nbackend: {process: {command: [no-such-engine]}}")
	}},
	{class: "disk_full", flags: []string{"--sim-fail", "disk-full"}, says: "disk"},
	{class: "killed", flags: []string{"--sim-fail", "killed"}, says: "did not start"},
	{class: "engine_exited", flags: []string{"--sim-fail", "exit"}, says: "did not start"},
	{class: "start_hang", flags: []string{"--sim-fail", "hang"}, extra: "timeouts: {start: 1s}", says: "did not start"},
	{class: "secret_unavailable", says: "secret", model: func(t *testing.T, name string) string {
		lines := fmt.Sprintf("secrets: [{name: token, env: TOKEN, file: %s}]", filepath.Join(t.TempDir(), "none"))
		return gatewaytest.SimModel(t, name, lines, "--sim-start", "0s")
	}},
	{class: "unreachable", says: "did not start", model: func(_ *testing.T, name string) string {
		// Port 9 is not listened on.
		return gatewaytest.Model(name, "timeouts: {start: 1s}\nbackend: {static: {urls: [\"http://127.0.0.1:9\"]}}")
	}},
}

// twice is one retry: enough to see that there is one, and shorter than the two of an SDK's own.
var twice = func() *int { n := 1; return &n }()

// A model that does not start is the client's own typed error, with the class, what to do, the request id, and as many
// attempts as make sense: one where nothing can change, the SDK's own number where the next start may be better.
func TestClientsThroughGatewayToModelsThatDoNotStart(t *testing.T) {
	t.Parallel()
	var models []string
	plays := map[string]*Play{}
	want := map[string]int{}
	entry := func(f failedStart, name string) string {
		if f.model != nil {
			return f.model(t, name)
		}
		return gatewaytest.SimModel(t, name, f.extra, append([]string{"--sim-start", "200ms"}, f.flags...)...)
	}
	for i, client := range Clients() {
		play := &Play{}
		plays[client.Name] = play
		for j, f := range failedStarts {
			name := strings.ReplaceAll(f.class, "_", "-")
			if !f.permanent {
				name += fmt.Sprint("-", i)
			}
			if !f.permanent || i == 0 {
				models = append(models, entry(f, name))
			}
			s := Scenario{Name: f.class, Op: "chat", Model: name, Stream: (i+j)%2 == 0}
			attempts := 1
			if !f.permanent {
				attempts = 3
				if f.class != "engine_exited" {
					s.MaxRetries, attempts = twice, 2
				}
			}
			id := client.Name + "." + f.class
			s.Headers = map[string]string{"x-request-id": id}
			want[id] = attempts
			play.Cases = append(play.Cases, Case{Scenario: s, Check: notStarted(f, id)})
		}
		// Later than the grace: the status is spent, and the stream itself must tell.
		for _, op := range []string{"chat", "responses"} {
			name := fmt.Sprintf("late-%s-%d", op, i)
			models = append(models, gatewaytest.SimModel(t, name, "cold: {grace: 200ms, heartbeat: 200ms}", "--sim-fail", "exit", "--sim-fail-after", "1s"))
			id := client.Name + ".late." + op
			want[id] = 1
			play.Cases = append(play.Cases, Case{
				Scenario: Scenario{Name: "late " + op, Op: op, Model: name, Stream: true, Headers: map[string]string{"x-request-id": id}},
				Check:    raises("did not start", ""),
			})
		}
		// A replica that dies in the midst of an answer, every time.
		for _, op := range []string{"chat", "responses"} {
			name := fmt.Sprintf("dies-%s-%d", op, i)
			models = append(models, gatewaytest.SimModel(t, name, "", "--sim-start", "0s", "--sim-itl", "20ms", "--sim-crash-tokens", "5"))
			id := client.Name + ".dies." + op
			want[id] = 1
			play.Cases = append(play.Cases, Case{
				Scenario: Scenario{Name: "dies in " + op, Op: op, Model: name, Stream: true, MaxTokens: 200, Headers: map[string]string{"x-request-id": id}},
				Check:    raises(away, "some"),
			})
		}
	}
	g := gatewaytest.Serve(t, gatewaytest.Config(models...))
	CheckTogether(t, func(client Client) []Play {
		play := *plays[client.Name]
		play.Target = edge(g, "none")
		return []Play{play}
	})
	wantAttempts(t, g, want)
}

func notStarted(f failedStart, id string) func(Target, Outcome) error {
	return func(target Target, o Outcome) error {
		if err := refused("server", 503, f.class)(target, o); err != nil {
			return err
		}
		if !strings.Contains(o.Error.BodyMessage, f.says) || o.Error.RequestID != id {
			return fmt.Errorf("got message %q, request id %q; want it to say %q, and %s", o.Error.BodyMessage, o.Error.RequestID, f.says, id)
		}
		return nil
	}
}

// raises wants an error inside a stream, after some text or none.
func raises(says, text string) func(Target, Outcome) error {
	return func(_ Target, o Outcome) error {
		if o.Kind() != "stream" || !strings.Contains(o.Error.Message, says) || (o.Text == "") != (text == "") {
			return fmt.Errorf("got kind %q, text %q; want an error in the stream that says %q, and text: %t", o.Kind(), o.Text, says, text != "")
		}
		return nil
	}
}
