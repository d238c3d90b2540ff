package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

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
		{"tensor parallel by prefix", withField("resources: {gpu: 1}", "extra_args: [--tensor-parallel=2]"), "--tp-size 2 uses 2 GPUs"},
		{"a model path that is an option", replace(t, "model_hf_path: org/a", "model_path: --trust"), "write ./--trust"},
		{"a hub id of three parts", replace(t, "org/a", "a/b/c"), "owner/name"},
		{"the state folder without a home", "models: [{name: a, model_id: a, model_hf_path: o/a}]", "state_dir: is needed, because HOME is not set"},
		{"~ without a home", valid + "state_dir: ~/x\n", "~ cannot be written out"},
		{"a backend of null and one more", withField("backend: {process: , docker: {}}"), "more than one backend"},
		{"a prefetch of the wrong kind", withField("prefetch: [a]"), "expected a mapping, got a list"},
		{"no device in a list", valid + "devices: []\n", "lists no device"},
		{"a mapping for devices", valid + "devices: {kind: L4}\n", "expected a list, got a mapping"},
		{"a text for devices", valid + "devices: all\n", "expected auto, none or a list"},
		{"an argument that is a list", withField("extra_args: [[a]]"), "extra_args[0]: expected text or a number, got a list"},
		{"an argument that is a date", withField("extra_args: [2026-01-01]"), "expected text or a number, got a date"},
		{"a share that is text", withField("gpu_share: half"), "expected a number, got text"},
		{"a duration that is a truth", withField("scaling: {scaledown_after: true}"), "expected seconds or a duration, got true or false"},
		{"a duration of centuries", withField("scaling: {scaledown_after: 2000000h}"), "out of range"},
		{"cores that are a truth", withField("resources: {cpu: true}"), "expected a number of cores"},
		{"cores without end", withField("resources: {cpu: .inf}"), "is not a number of cores"},
		{"GPUs below zero", withField("resources: {gpu: '-1'}"), "out of range"},
		{"a host with a space", replace(t, "127.0.0.1:8000", "'my host:8000'"), "is not host:port"},
		{"an address of tags", replace(t, "127.0.0.1:8000", "!!binary aGk="), "got the tag !!binary"},
		{"a broken second document", valid + "---\n[", "not valid YAML"},
		{"a secret in a folder's URL", replace(t, "model_hf_path: org/a", "model_path: 's3://me:sesame@bucket'"), "holds credentials"},
		{"variables as text", withField("env_vars: HF_TOKEN=sesame"), "env_vars: expected a mapping, got text"},
		{"variables as a list", withField("env_vars: [HF_TOKEN=sesame]"), "expected a mapping, got a list"},
		{"a variable and its text as a name", withField("env_vars: {'HF_TOKEN=sesame': }"), "write NAME: value"},
		{"secrets as text", withField("secrets: sesame"), "secrets: expected a list"},
		{"a token in the admin's place", valid[:strings.Index(valid, "admin")] + "admin: sesame", "admin: expected a mapping, got text"},
		{"a token that is a number", replace(t, `"127.0.0.1:9000"`, `"127.0.0.1:9000", token: 5353`), "admin.token: expected text, got a number"},
		{"a variable among arguments that hold a key", withField(`extra_args: "--admin-api-key sesame --x ${HF_TOKEN}"`), "variables are read only"},
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
			if err != nil && strings.Contains(err.Error(), "sesame") {
				t.Errorf("a secret is shown: %v", err)
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
		{"a token among the arguments", withField("extra_args: [--revision, hf_sesame]"), "an argument that looks like a secret"},
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
