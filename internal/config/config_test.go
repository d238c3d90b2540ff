package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/gateway"
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
	want := &Config{
		Source:   "/etc/pilotlight/p.yaml",
		Digest:   c.Digest,
		Gateway:  gateway.Config{Listen: "127.0.0.1:8000", MaxBodyBytes: gateway.DefaultMaxBodyBytes, AccessLog: true},
		Admin:    Admin{Listen: "127.0.0.1:9000"},
		StateDir: "/home/op/.local/state/pilotlight",
		KeysFile: "/etc/pilotlight/keys.yaml",
		Queue:    Queue{MaxRequests: 10_000, MaxBytes: 1 << 30},
		Models: []Model{{
			Name: "a", ModelID: "a:b@c+d", RequiresAuth: true, Line: 1,
			Spec: backends.Spec{
				Model: "a", ModelID: "a:b@c+d", ServedName: "a-b-c-d", Engine: backends.EngineSGLang, Driver: backends.DriverProcess,
				Command: []string{"python3", "-m", "sglang.launch_server"}, ModelPath: "org/a", Probe: "/health",
				StartTimeout: 20 * time.Minute,
			},
			Activator: activator.DefaultConfig(), Cold: gateway.DefaultCold(), Timeouts: gateway.DefaultTimeouts(),
		}},
	}
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
			func(c *Config, m *Model) (any, any) { return m.Spec.ExtraArgs, []string{"--tp", "4"} }},
		{"arguments as a shell has them", withField(`extra_args: "--json '{\"a\": 1}' --x \"b c\" '#5' d#e"`),
			func(c *Config, m *Model) (any, any) {
				return m.Spec.ExtraArgs, []string{"--json", `{"a": 1}`, "--x", "b c", "#5", "d#e"}
			}},
		{"numbers and booleans as they are written", withField(`extra_args: [1.50, 0x1F, true, 1e3, 007]`),
			func(c *Config, m *Model) (any, any) {
				return m.Spec.ExtraArgs, []string{"1.50", "0x1F", "true", "1e3", "007"}
			}},
		{"one tokenizer worker", withField(`extra_args: --tokenizer-worker-num=1 --model-impl sglang --portable-x`),
			func(c *Config, m *Model) (any, any) { return len(m.Spec.ExtraArgs), 4 }},
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
				return []any{m.Spec.URLs, m.Spec.Engine, m.Spec.Driver, m.Activator.Min, m.Activator.Max, m.Spec.Command},
					[]any{[]string{"http://x:1", "http://y/z"}, backends.EngineSGLang, backends.DriverStatic, 2, 2, []string(nil)}
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

// The fixtures in testdata show whole messages; here are the rows that would need a file each.
func TestRefused(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"port too large", replace(t, "127.0.0.1:8000", "127.0.0.1:65536"), "p.yaml:1: listen: 127.0.0.1:65536: the port must be"},
		{"port with a plus", replace(t, "127.0.0.1:8000", "127.0.0.1:+80"), "the port must be"},
		{"same port on another address", replace(t, "127.0.0.1:8000", "10.0.0.1:9000"), "p.yaml:7: admin.listen: 127.0.0.1:9000: listen and admin.listen use the same port 9000"},
		{"same port as the admin default", "listen: :9000\nmodels: [{name: a, model_id: a, model_hf_path: o/a}]", "p.yaml:1: listen: :9000: listen and admin.listen use the same port"},
		{"empty text", replace(t, "model_id: a", `model_id: ""`), "must not be empty"},
		{"zero byte", replace(t, "org/a", `"org/a\0"`), "zero byte"},
		{"zero byte in an argument", withField(`extra_args: ["a\0b"]`), "zero byte"},
		{"body limit of five GiB", valid + "max_body_bytes: 5GiB\n", "the most is 4GiB"},
		{"body limit of ten bytes", valid + "max_body_bytes: 10\n", "less than the least sensible"},
		{"size beyond 64 bits", withField("resources: {memory: 99999999999999GiB}"), "is not a size"},
		{"size beyond 63 bits", withField("resources: {memory: 9EiB}"), "is not a size"},
		{"integer beyond 64 bits", withField("queue: {max_requests: 99999999999999999999}"), "is above"},
		{"octal", withField("scaling: {replicas: 0o1}"), "expected a whole number"},
		{"more replicas than anyone has", withField("scaling: {replicas: 100000}"), "is above 10000"},
		{"an empty replica bound", withField("scaling: {replicas: [1, ]}"), "expected [min, max], got 1 number"},
		{"a null replica bound", withField("scaling: {replicas: [1, null]}"), "empty entry"},
		{"text as a replica bound", withField("scaling: {replicas: [0, one]}"), "replicas[1]: one: expected a whole number"},
		{"a field name that is a list", valid + "[a]: b\n", "a field name must be text"},
		{"a field name that is a number", valid + "1: b\n", "a field name must be text"},
		{"a name of 64 characters", replace(t, "name: a", "name: "+strings.Repeat("a", 64)), "at most 63"},
		{"a client name of 201 characters", replace(t, "model_id: a", "model_id: "+strings.Repeat("a", 201)), "at most 200"},
		{"a client name with a query", replace(t, "model_id: a", "model_id: a?b"), "write a-b"},
		{"a client name that climbs", replace(t, "model_id: a", "model_id: a/../b"), "write a/b"},
		{"a GPU of no vendor", withField("resources: {gpu: 'Banana:1'}"), "known: A10, A100, A100 80G"},
		{"GPUs that are no number", withField("resources: {gpu: 'L4:two'}"), "not a whole number"},
		{"three Trn1", withField("resources: {gpu: 'trn1:3'}"), "allowed numbers: 1, 4, 8, 16"},
		{"tensor parallel without a value", withField("resources: {gpu: 1}", "extra_args: [--tp]"), "--tp has no value"},
		{"tensor parallel by prefix", withField("resources: {gpu: 1}", "extra_args: [--tensor-parallel=2]"), "needs 2 GPUs"},
		{"a model path that is an option", replace(t, "model_hf_path: org/a", "model_path: --trust"), "write ./--trust"},
		{"a hub id of three parts", replace(t, "org/a", "a/b/c"), "owner/name"},
		{"the state folder without a home", "models: [{name: a, model_id: a, model_hf_path: o/a}]", "state_dir: is needed, because HOME is not set"},
		{"~ without a home", valid + "state_dir: ~/x\n", "~ cannot be written out"},
		{"a backend of null and one more", withField("backend: {process: , docker: {}}"), "more than one backend"},
		{"a prefetch of the wrong kind", withField("prefetch: [a]"), "expected a mapping, got a list"},
		{"a text for devices", valid + "devices: all\n", "expected auto or a list"},
		{"a binary body", "\x00\x01\x02", "not valid YAML"},
		{"no UTF-8", "models: \xff\xfe", "not valid YAML"},
		{"an unknown anchor", "models: *nobody", "not valid YAML: unknown anchor"},
		{"a large file", valid + "#" + strings.Repeat("x", maxFileBytes), "larger than 1 MiB"},
		{"text alone", "hello", "expected a mapping, got text"},
		{"tab indent", "models:\n\t- a", "not valid YAML"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := testEnv
			if strings.Contains(tt.name, "without a home") {
				env = nil
			}
			c, err := Parse("/etc/pilotlight/p.yaml", []byte(tt.text), env)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
			if c != nil {
				t.Error("got a configuration beside an error")
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"a token in the file", replace(t, `"127.0.0.1:9000"`, `"127.0.0.1:9000", token: sesame-0123456789`), "admin.token: a secret in plain text"},
		{"a short token", replace(t, `"127.0.0.1:9000"`, `"127.0.0.1:9000", token: sesame`), "shorter than 16"},
		{"a token by name", withField("env_vars: {MY_TOKEN: sesame}"), "MY_TOKEN: a secret in plain text"},
		{"a password by name", withField("env_vars: {PGPASSWORD: sesame}"), "a secret in plain text"},
		{"a token by text", withField("env_vars: {X: hf_sesame}"), "a secret in plain text"},
		{"a key by text", withField("env_vars: {X: sk-sesame}"), "a secret in plain text"},
		{"a token among the arguments", withField("extra_args: [--x, hf_sesame]"), "an argument that looks like a secret"},
		{"an upstream key in the file", replace(t, "    model_hf_path: org/a\n", "    backend: {static: {urls: ['http://x'], api_key: sesame}}\n"), "api_key: a secret in plain text"},
		{"memory", withField("resources: {memory: 1Gi}"), "not enforced"},
		{"a share above the total", withField("queue: {max_requests: 20000}"), "more than the total"},
		{"bytes above the total", withField("queue: {max_bytes: 2GiB}"), "more than the total"},
		{"bytes below a body", withField("queue: {max_bytes: 1MiB}"), "can never wait"},
		{"arguments of a static backend", withField("extra_args: [--sesame]", "backend: {static: {urls: ['http://x']}}"), "extra_args: has no effect"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := must(t, tt.text)
			var all []string
			for _, w := range c.Warnings {
				all = append(all, w.String())
			}
			text := strings.Join(all, "\n")
			if !strings.Contains(text, tt.want) || strings.Contains(text, "sesame") {
				t.Errorf("got %q, want %q in it and no secret", text, tt.want)
			}
			if strings.Contains(describe(c), "sesame") {
				t.Errorf("Describe shows a secret:\n%s", describe(c))
			}
		})
	}
	for _, quiet := range []string{valid, withField("env_vars: {TOKENIZERS_PARALLELISM: 'false', MONKEY: x, MY_TOKEN: '${HF_TOKEN}', A_KEY: ''}")} {
		if c := must(t, quiet); len(c.Warnings) != 0 {
			t.Errorf("got %v, want no warning for\n%s", c.Warnings, quiet)
		}
	}
}

func TestProblemsAreSortedAndBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("queue: {max_requests: 0}\nmodels:\n")
	for range 200 {
		text.WriteString("  - {name: A}\n")
	}
	_, err := parse(t, text.String())
	var problems *Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	if len(problems.List) != maxProblems+1 || !strings.Contains(problems.List[maxProblems].Message, "more problems") {
		t.Errorf("got %d problems, the last %v", len(problems.List), problems.List[len(problems.List)-1])
	}
	if !slices.IsSortedFunc(problems.List, func(a, b Problem) int { return a.Line - b.Line }) {
		t.Error("not sorted by line")
	}
}

// Aliases of aliases describe billions of values in a few lines. What a known field holds is never walked
// twice, and merged mappings are counted.
func TestBillionLaughs(t *testing.T) {
	lists := "models:\n  - name: a\n    model_id: a\n    model_hf_path: o/a\n    aliases: &a0 [x]\n"
	merges := "models:\n  - &m0 {name: a}\n"
	doubled := "models:\n"
	for i := range 30 {
		a, b := string(rune('0'+i/10))+string(rune('0'+i%10)), string(rune('0'+(i+1)/10))+string(rune('0'+(i+1)%10))
		if i == 0 {
			a = "0"
		}
		lists += "  - {aliases: &a" + b + " [*a" + a + ", *a" + a + ", *a" + a + "]}\n"
		merges += "  - &m" + b + " {<<: [*m" + a + ", *m" + a + ", *m" + a + ", *m" + a + ", *m" + a + "]}\n"
	}
	doubled += "  - &m {" + strings.Repeat("aliases: [], ", 1) + "env_vars: &e {"
	for i := range 2000 {
		doubled += "V" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + ": v, "
	}
	doubled += "}}\n" + strings.Repeat("  - *m\n", 2000)
	for name, text := range map[string]string{"lists": lists, "merges": merges, "repeated": doubled} {
		began := time.Now()
		if _, err := parse(t, text); err == nil || strings.Count(err.Error(), "\n") > maxProblems {
			t.Errorf("%s: got %v", name, err)
		}
		if took := time.Since(began); took > 20*time.Second { // a fraction of a second; the bound is for a busy machine under the race detector
			t.Errorf("%s: took %v", name, took)
		}
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
