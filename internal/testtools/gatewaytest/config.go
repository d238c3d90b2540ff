package gatewaytest

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"pilotlight/internal/testtools"
)

// ScaleEnv set to "full" makes tests run the figures that the README states, in place of small ones that keep a suite short.
const ScaleEnv = "PILOTLIGHT_SCALE"

// Full tells whether the full figures are asked for.
func Full() bool { return os.Getenv(ScaleEnv) == "full" }

// Scaled gives the full figure if it is asked for, else the small one.
func Scaled(small, full int) int {
	if Full() {
		return full
	}
	return small
}

// Config is a whole configuration: free loopback ports, a state folder beside the file, and these entries of models.
func Config(models ...string) string {
	return "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nstate_dir: state\nmodels:\n" + strings.Join(models, "")
}

// SimCommand is the simulator's command with these flags, as YAML. It ends sooner after SIGTERM than the real engine does.
func SimCommand(t testing.TB, flags ...string) string {
	t.Helper()
	return Text(t, append([]string{testtools.Binary(t, "./cmd/sglang-sim"), "--sim-drain-poll", "100ms", "--sim-exit-delay", "50ms"}, flags...))
}

// Text is a value as YAML in one line.
func Text(t testing.TB, value any) string {
	t.Helper()
	b, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// SimModel is an entry of models that the simulator serves. extra are further lines of it; with its own model_id among them, it
// has that one, else its name.
func SimModel(t testing.TB, name, extra string, flags ...string) string {
	t.Helper()
	return Model(name, fmt.Sprintf("model_path: simulated\nbackend: {process: {command: %s}}\n%s", SimCommand(t, flags...), extra))
}

// Model is an entry of models with these lines.
func Model(name, lines string) string {
	if !strings.HasPrefix(lines, "model_id:") && !strings.Contains(lines, "\nmodel_id:") {
		lines = "model_id: " + name + "\n" + lines
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  - name: %s\n", name)
	for line := range strings.SplitSeq(strings.TrimSpace(lines), "\n") {
		if line != "" {
			b.WriteString("    " + line + "\n")
		}
	}
	return b.String()
}
