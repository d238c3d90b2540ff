package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pilotlight/activator"
	"pilotlight/auth/tenants"
	"pilotlight/backends"
	"pilotlight/gateway"
	"pilotlight/router"
)

// valid is the base of the tables here: each row replaces one piece of it.
const valid = `listen: 127.0.0.1:8000
models:
  - name: a
    model_id: a
    model_hf_path: org/a
    extra_args: []
admin: {listen: "127.0.0.1:9000"}
`

func parse(t *testing.T, text string) (*Config, error) {
	t.Helper()
	return Parse("/etc/pilotlight/p.yaml", []byte(text), testEnv)
}

func must(t *testing.T, text string) *Config {
	t.Helper()
	c, err := parse(t, text)
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	return c
}

// replace puts fresh in the place of one piece of valid.
func replace(t *testing.T, old, fresh string) string {
	t.Helper()
	if strings.Count(valid, old) != 1 {
		t.Fatalf("%q is not once in the valid file", old)
	}
	return strings.Replace(valid, old, fresh, 1)
}

// withField adds fields to the valid model.
func withField(lines ...string) string {
	return strings.Replace(valid, "    extra_args: []\n", "    "+strings.Join(lines, "\n    ")+"\n", 1)
}

func TestDefaults(t *testing.T) {
	c := must(t, "models: [{name: a, model_id: 'a:b@c+d', model_hf_path: org/a}]")
	defaults := activator.DefaultConfig()
	defaults.SleepTimeout = activator.DefaultSleepTimeout
	want := &Config{
		Source:   "/etc/pilotlight/p.yaml",
		Digest:   c.Digest,
		Gateway:  gateway.Config{Listen: "127.0.0.1:8000", MaxBodyBytes: gateway.DefaultMaxBodyBytes, AccessLog: true},
		Admin:    Admin{Listen: "127.0.0.1:9000"},
		StateDir: "/home/op/.local/state/pilotlight",
		Store:    Store{Path: "/home/op/.cache/huggingface/hub"},
		Devices:  Devices{Auto: true},
		KeysFile: "/etc/pilotlight/keys.yaml", Tenants: tenants.Rules{WrongKeys: tenants.DefaultWrongKeys},
		Queue:  Queue{MaxRequests: 10_000, MaxBytes: 1 << 30},
		Traces: Traces{Sample: 0.01, TrustClient: true},
		Models: []Model{{
			Name: "a", ModelID: "a:b@c+d", RequiresAuth: true, Line: 1,
			Spec: backends.Spec{
				Model: "a", ModelID: "a:b@c+d", ServedName: "a-b-c-d", Engine: backends.EngineSGLang, Driver: backends.DriverProcess,
				Command: []string{"python3", "-m", "sglang.launch_server"}, ModelPath: "org/a", Probe: "/health",
				Weights:      backends.Weights{Origin: "org/a", IfPresent: true},
				StartTimeout: 20 * time.Minute,
			},
			Activator: defaults, Cold: gateway.DefaultCold(), Timeouts: gateway.DefaultTimeouts(),
			Routing: gateway.Routing{Policy: router.PolicyPrefix, SessionHeader: gateway.DefaultSessionHeader},
		}},
	}
	want.Models[0].Activator.Kin = "sglang org/a"
	c.Models[0].options = nil // what Describe says about arguments
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// A parsed configuration never shares memory with the defaults: changing one model must not change the next.
func TestModelsShareNothing(t *testing.T) {
	text := "models: [{name: a, model_id: a, model_hf_path: o/a}, {name: b, model_id: b, model_hf_path: o/b}]"
	c := must(t, text)
	c.Models[0].Spec.Command[0] = "changed"
	if got := must(t, text).Models[1].Spec.Command[0]; got != "python3" || c.Models[1].Spec.Command[0] != "python3" {
		t.Errorf("got %q", got)
	}
}

func TestAccepted(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		check      func(*Config, *Model) (got, want any)
	}{
		{"port zero twice", strings.NewReplacer("8000", "0", "9000", "0").Replace(valid),
			func(c *Config, m *Model) (any, any) { return c.Admin.Listen, "127.0.0.1:0" }},
		{"every address", replace(t, "listen: 127.0.0.1:8000", `listen: ":8000"`),
			func(c *Config, m *Model) (any, any) { return c.Gateway.Listen, ":8000" }},
		{"IPv6 loopback without a token", replace(t, `"127.0.0.1:9000"`, `"[::1]:9000"`),
			func(c *Config, m *Model) (any, any) { return c.Admin.Listen, "[::1]:9000" }},
		{"localhost without a token", replace(t, `"127.0.0.1:9000"`, `localhost:9000`),
			func(c *Config, m *Model) (any, any) { return c.Admin.Listen, "localhost:9000" }},
		{"body limit", valid + "max_body_bytes: 1048576\n",
			func(c *Config, m *Model) (any, any) { return c.Gateway.MaxBodyBytes, 1 << 20 }},
		{"relative state folder", valid + "state_dir: state\n",
			func(c *Config, m *Model) (any, any) { return c.StateDir, "/etc/pilotlight/state" }},
		{"home as state folder", valid + "state_dir: ~/x\n",
			func(c *Config, m *Model) (any, any) { return c.StateDir, "/home/op/x" }},
		{"keys in the home folder", valid + "auth: {keys_file: ~/k.yaml}\n",
			func(c *Config, m *Model) (any, any) { return c.KeysFile, "/home/op/k.yaml" }},
		{"one replica", withField("scaling: {replicas: 1}"),
			func(c *Config, m *Model) (any, any) { return [2]int{m.Activator.Min, m.Activator.Max}, [2]int{1, 1} }},
		{"three replicas", withField("scaling: {replicas: [3, 3]}"),
			func(c *Config, m *Model) (any, any) { return [2]int{m.Activator.Min, m.Activator.Max}, [2]int{3, 3} }},
		{"stopped at once", withField("scaling: {scaledown_after: 0}"),
			func(c *Config, m *Model) (any, any) { return m.Activator.ScaledownAfter, time.Duration(0) }},
		{"fraction of a second", withField("scaling: {scaledown_after: 0.05}"),
			func(c *Config, m *Model) (any, any) { return m.Activator.ScaledownAfter, 50 * time.Millisecond }},
		{"Go duration", withField("scaling: {scaledown_after: 1h30m}"),
			func(c *Config, m *Model) (any, any) { return m.Activator.ScaledownAfter, 90 * time.Minute }},
		{"half a core", withField(`resources: {cpu: "500m"}`),
			func(c *Config, m *Model) (any, any) { return m.Resources.MilliCPU, int64(500) }},
		{"one and a half cores", withField(`resources: {cpu: 1.5}`),
			func(c *Config, m *Model) (any, any) { return m.Resources.MilliCPU, int64(1500) }},
		{"Kubernetes memory", withField(`resources: {memory: 16Gi}`),
			func(c *Config, m *Model) (any, any) { return m.Resources.MemoryBytes, int64(16 << 30) }},
		{"decimal memory", withField(`resources: {memory: 500M}`),
			func(c *Config, m *Model) (any, any) { return m.Resources.MemoryBytes, int64(500e6) }},
		{"a fixed shm", withField(`resources: {shm: 1GiB}`),
			func(c *Config, m *Model) (any, any) { return m.Resources.ShmBytes, int64(1 << 30) }},
		{"GPUs of any kind", withField(`resources: {gpu: 2}`),
			func(c *Config, m *Model) (any, any) { return m.Resources.GPU, GPU{Count: 2} }},
		{"GPUs of any kind in quotes", withField(`resources: {gpu: "2"}`),
			func(c *Config, m *Model) (any, any) { return m.Resources.GPU, GPU{Count: 2} }},
		{"GPU kind in capitals", withField(`resources: {gpu: "L40S:8"}`),
			func(c *Config, m *Model) (any, any) { return m.Resources.GPU, GPU{Kind: "L40s", Count: 8} }},
		{"GPU kind with spaces", withField(`resources: {gpu: "rtx pro 6000:1"}`),
			func(c *Config, m *Model) (any, any) { return m.Resources.GPU, GPU{Kind: "RTX PRO 6000", Count: 1} }},
		{"tensor parallel that fits", withField(`resources: {gpu: "A100 80G:4"}`, `extra_args: --tensor-parallel-size=4`),
			func(c *Config, m *Model) (any, any) { return m.Spec.ExtraArgs, []string{"--tensor-parallel-size=4"} }},
		{"tensor parallel without a GPU count", withField(`extra_args: [--tp, 4]`),
			func(c *Config, m *Model) (any, any) { return m.Spec.ExtraArgs, []string{"--tp-size", "4"} }},
		{"arguments as a shell has them", withField(`extra_args: "--json-model-override-args '{\"a\": 1}' --chat-template \"b c\" --warmups '#5' --revision d#e"`),
			func(c *Config, m *Model) (any, any) {
				return m.Spec.ExtraArgs, []string{"--json-model-override-args", `{"a": 1}`, "--chat-template", "b c", "--warmups", "#5", "--revision", "d#e"}
			}},
		{"numbers and booleans as they are written", withField(`extra_args: [1.50, 0x1F, true, 1e3, 007]`, "backend: {process: {engine: openai, command: 'serve {port}'}}"),
			func(c *Config, m *Model) (any, any) {
				return m.Spec.ExtraArgs, []string{"1.50", "0x1F", "true", "1e3", "007"}
			}},
		{"Flyte's default that means nothing here", withField("stream_model: true"),
			func(c *Config, m *Model) (any, any) { return m.Spec.ModelPath, "org/a" }},
		{"one tokenizer worker", withField(`extra_args: --tokenizer-worker-num=1 --model-impl sglang`),
			func(c *Config, m *Model) (any, any) { return len(m.Spec.ExtraArgs), 3 }},
		{"a variable inside text", withField(`env_vars: {A: "x${HF_TOKEN}y${EMPTY}"}`),
			func(c *Config, m *Model) (any, any) { return m.Spec.Env["A"], "xhf_sesamey" }},
		{"a secret's home path", withField(`secrets: [{name: x, env: X, file: ~/x}]`),
			func(c *Config, m *Model) (any, any) {
				return m.Spec.Secrets, []backends.Secret{{Name: "x", Env: "X", File: "/home/op/x"}}
			}},
		{"a model in the home folder", replace(t, "model_hf_path: org/a", "model_path: ~/m"),
			func(c *Config, m *Model) (any, any) { return m.Spec.ModelPath, "/home/op/m" }},
		{"a model beside the file", replace(t, "model_hf_path: org/a", "model_path: ../m"),
			func(c *Config, m *Model) (any, any) { return m.Spec.ModelPath, "/etc/m" }},
		{"a model that the engine resolves", replace(t, "model_hf_path: org/a", "model_path: org/name"),
			func(c *Config, m *Model) (any, any) { return m.Spec.ModelPath, "org/name" }},
		{"a command that names its model", replace(t, "    model_hf_path: org/a\n",
			"    backend: {process: {engine: openai, command: 'serve -p {port}', dir: run}}\n"),
			func(c *Config, m *Model) (any, any) {
				return []any{m.Spec.Command, m.Spec.Dir, m.Spec.ModelPath}, []any{[]string{"serve", "-p", "{port}"}, "/etc/pilotlight/run", ""}
			}},
		{"port in extra_args", withField("extra_args: [--port, '{port}']", "backend: {process: {engine: openai, command: serve}}"),
			func(c *Config, m *Model) (any, any) { return m.Spec.ExtraArgs, []string{"--port", "{port}"} }},
		{"static with defaults", replace(t, "    model_hf_path: org/a\n", "    backend: {static: {urls: ['http://x:1', 'http://y/z/']}}\n"),
			func(c *Config, m *Model) (any, any) {
				return []any{m.Spec.URLs, m.Spec.Engine, m.Spec.Driver, m.Activator.Min, m.Activator.Max, m.Spec.Command, m.Spec.StartTimeout, m.Activator.BackoffMax},
					[]any{[]string{"http://x:1", "http://y/z"}, backends.EngineSGLang, backends.DriverStatic, 2, 2, []string(nil), 30 * time.Second, 2 * time.Second}
			}},
		{"a queue that nothing may wait in for long", withField("cold: {max_wait: 0, grace: 0}"),
			func(c *Config, m *Model) (any, any) { return m.Cold, gateway.Cold{Heartbeat: 10 * time.Second} }},
		{"fields without values", valid + "state_dir:\nauth: {keys_file: }\nqueue:\ntls:\nredis: null\nstore: ~\n",
			func(c *Config, m *Model) (any, any) { return c.Queue, DefaultQueue() }},
		{"a document marker", "---\n" + valid + "...\n",
			func(c *Config, m *Model) (any, any) { return m.Name, "a" }},
		{"a byte order mark", "\ufeff" + valid,
			func(c *Config, m *Model) (any, any) { return m.Name, "a" }},
		{"Windows line ends", strings.ReplaceAll(valid, "\n", "\r\n"),
			func(c *Config, m *Model) (any, any) { return m.Name, "a" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := must(t, tt.text)
			if got, want := tt.check(c, &c.Models[0]); !reflect.DeepEqual(got, want) {
				t.Errorf("got %#v, want %#v", got, want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p.yaml")
	if _, err := Load(path, testEnv); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: got %v", err)
	}
	if _, err := Load(dir, testEnv); err == nil || errors.As(err, new(*Problems)) {
		t.Errorf("a folder: got %v, want an error of reading", err)
	}
	if err := os.WriteFile(path, []byte(valid), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, testEnv)
	if err != nil || c.Source != path || c.KeysFile != filepath.Join(dir, "keys.yaml") {
		t.Errorf("got %+v, %v", c, err)
	}
	t.Chdir(dir)
	if c, err = Load("p.yaml", testEnv); err != nil || c.KeysFile != filepath.Join(dir, "keys.yaml") || c.Source != "p.yaml" {
		t.Errorf("by a relative path: got %+v, %v", c, err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", maxFileBytes+10)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, testEnv); err == nil || !strings.Contains(err.Error(), "p.yaml: the file is larger than 1 MiB") {
		t.Errorf("a large file: got %v", err)
	}
}
