package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const twoModels = `listen: 127.0.0.1:8000
models:
  - name: a
    model_id: a
    model_hf_path: org/a
    env_vars: {SECRET: "${HF_TOKEN}"}
  - name: b
    model_id: b
    model_hf_path: org/b
`

// names shows changes as one line a kind, for comparing.
func (c *Changes) names() map[string][]string {
	out := map[string][]string{}
	for kind, models := range map[string][]*Model{"added": c.Added, "removed": c.Removed, "replaced": c.Replaced, "adjusted": c.Adjusted} {
		for _, m := range models {
			out[kind] = append(out[kind], m.Name)
		}
	}
	for kind, paths := range map[string][]string{"settings": c.Settings, "restart": c.NeedRestart} {
		if len(paths) > 0 {
			out[kind] = paths
		}
	}
	return out
}

func TestDiff(t *testing.T) {
	edit := func(old, fresh string) string {
		if strings.Count(twoModels, old) != 1 {
			t.Fatalf("%q is not once in the file", old)
		}
		return strings.Replace(twoModels, old, fresh, 1)
	}
	b := "  - name: b\n    model_id: b\n    model_hf_path: org/b\n"
	type changes = map[string][]string
	for _, tt := range []struct {
		name, fresh string
		want        changes
	}{
		{"nothing", twoModels, changes{}},
		{"comments and empty lines", "# x\n\n\n" + twoModels, changes{}},
		{"defaults written out", twoModels + "queue: {max_requests: 10000}\nadmin: {listen: 127.0.0.1:9000}\n", changes{}},
		{"another order", strings.Replace(edit(b, ""), "models:\n", "models:\n"+b, 1), changes{}},
		{"a secret named in another way", edit(`"${HF_TOKEN}"`, "hf_sesame"), changes{}},
		{"other devices", twoModels + "devices: none\n", changes{"restart": {"devices"}}},
		{"a pinned model", edit("    model_id: b\n", "    model_id: b\n    pinned: true\n    resources: {gpu: 1}\n"), changes{"replaced": {"b"}}},
		{"a priority", edit("    model_id: b\n", "    model_id: b\n    priority: 1\n"), changes{"adjusted": {"b"}}},
		{"a model more", twoModels + "  - {name: c, model_id: c, model_hf_path: o/c}\n", changes{"added": {"c"}}},
		{"a model less", edit(b, ""), changes{"removed": {"b"}}},
		{"another name", edit("name: b", "name: c"), changes{"added": {"c"}, "removed": {"b"}}},
		{"other weights", edit("org/b", "org/b2"), changes{"replaced": {"b"}}},
		{"another argument", edit("    model_id: b\n", "    model_id: b\n    extra_args: --trust-remote-code\n"), changes{"replaced": {"b"}}},
		{"another variable", edit(`"${HF_TOKEN}"`, "other"), changes{"replaced": {"a"}}},
		{"an argument and a setting", edit("    model_id: b\n", "    model_id: b\n    extra_args: --trust-remote-code\n    requires_auth: false\n"), changes{"replaced": {"b"}}},
		{"an alias", edit("    model_id: b\n", "    model_id: b\n    aliases: [c]\n"), changes{"adjusted": {"b"}}},
		{"idle time", edit("    model_id: b\n", "    model_id: b\n    scaling: {scaledown_after: 5}\n"), changes{"adjusted": {"b"}}},
		{"a timeout", edit("    model_id: a\n", "    model_id: a\n    timeouts: {request: 5}\n"), changes{"adjusted": {"a"}}},
		{"access", edit("    model_id: a\n", "    model_id: a\n    requires_auth: false\n"), changes{"adjusted": {"a"}}},
		{"what waits", edit("    model_id: a\n", "    model_id: a\n    cold: {grace: 0}\n"), changes{"adjusted": {"a"}}},
		{"listen", edit("8000", "8001"), changes{"restart": {"listen"}}},
		{"admin", twoModels + "admin: {listen: 127.0.0.1:9009, token: 0123456789abcdef-}\n", changes{"restart": {"admin.listen"}, "settings": {"admin.token"}}},
		{"state folder", twoModels + "state_dir: /x\n", changes{"restart": {"state_dir"}}},
		{"encrypted", twoModels + "tls: {cert: c, key: k}\n", changes{"restart": {"tls"}}},
		{"everything else on top", twoModels + "queue: {max_bytes: 1MiB}\nauth: {keys_file: k}\nmax_body_bytes: 1MiB\ntelemetry: {access_log: false}\n",
			changes{"settings": {"max_body_bytes", "telemetry.access_log", "auth.keys_file", "queue"}}},
		{"traces", twoModels + "telemetry: {otlp_endpoint: http://a, traces: {sample: 1}}\n",
			changes{"settings": {"telemetry.otlp_endpoint", "telemetry.traces"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old, fresh := must(t, twoModels), must(t, tt.fresh)
			got := Diff(old, fresh)
			if !reflect.DeepEqual(got.names(), tt.want) {
				t.Errorf("got %v, want %v", got.names(), tt.want)
			}
			if got.Empty() != (len(tt.want) == 0) {
				t.Errorf("Empty: got %v beside %v", got.Empty(), tt.want)
			}
			// The way back adds what went, removes what came, and changes the same.
			back := Diff(fresh, old)
			if len(back.names()) != len(tt.want) || fmt.Sprint(back.names()["added"], back.names()["removed"]) != fmt.Sprint(tt.want["removed"], tt.want["added"]) {
				t.Errorf("back: got %v", back.names())
			}
		})
	}
}

func TestDiffPointsIntoTheRightConfiguration(t *testing.T) {
	old := must(t, twoModels)
	fresh := must(t, strings.NewReplacer("org/b", "org/c", "name: a", "name: c").Replace(twoModels))
	c := Diff(old, fresh)
	if c.Added[0] != &fresh.Models[0] || c.Removed[0] != &old.Models[0] || c.Replaced[0] != &fresh.Models[1] {
		t.Errorf("got %v", c.names())
	}
}
