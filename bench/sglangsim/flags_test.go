package sglangsim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestArgumentsThatArgparseRefuses(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--model-path M --max-model-len 8192", "unrecognized arguments: --max-model-len 8192"},
		{"--model-path M --enforce-eager --seed=1", "unrecognized arguments: --enforce-eager --seed=1"},
		{"--model-path M extra", "unrecognized arguments: extra"},
		{"--model-path M --sim-nonsense", "unrecognized arguments: --sim-nonsense"},
		{"--model-path M --pp 2", "ambiguous option: --pp could match --pp-size, --pp-max-micro-batch-size, --pp-async-batch-depth"},
		{"--model-path M --load dummy", "ambiguous option: --load could match --load-format, --load-balance-method"},
		{"--port 1", "the following arguments are required: --model-path/--model"},
		{"--model-path M --port", "argument --port: expected one argument"},
		{"--model-path M --port --host h", "argument --port: expected one argument"},
		{"--model-path M --port x", "argument --port: invalid int value: 'x'"},
		{"--model-path M --mem-fraction-static big", "argument --mem-fraction-static: invalid float value: 'big'"},
		{"--model-path M --enable-memory-saver=1", "argument --enable-memory-saver: ignored explicit argument '1'"},
		{"--model-path M --dtype int3", "argument --dtype: invalid choice: 'int3' (choose from 'auto', 'half', 'float16', 'bfloat16', 'float', 'float32')"},
		{"--model-path M --lora-paths", "argument --lora-paths: expected at least one argument"},
		{"--model-path M --context-length lots", "argument --context-length: invalid human_readable_int value: 'lots'"},
		{"--model-path M --sim-start soon", `argument --sim-start: time: invalid duration "soon"`},
		{"--model-path M --sim-fail never", "argument --sim-fail: invalid choice: 'never'"},
		{"--model-path M --sim-fail-starts 2", "argument --sim-fail-starts: needs --sim-fail-file"},
	} {
		_, err := ParseArgs(strings.Fields(c.args), nil)
		var bad usageError
		if !errors.As(err, &bad) || !strings.HasPrefix(bad.Error(), c.want) {
			t.Errorf("%s: got %v, want a usage error that begins with %q", c.args, err, c.want)
		}
	}
}

func TestArgumentsThatAreUnderstood(t *testing.T) {
	for _, c := range []struct {
		args string
		got  func(Options) any
		want any
	}{
		{"--model-path M", func(o Options) any { return o.Host }, "127.0.0.1"},
		{"--model-path M", func(o Options) any { return o.Port }, 30000},
		{"--model=M", func(o Options) any { return o.ModelPath }, "M"},
		{"serve M --port=1", func(o Options) any { return o.ModelPath }, "M"},
		{"-m sglang.launch_server --model-path M", func(o Options) any { return o.ModelPath }, "M"},
		{"--model-path M --tp 4", func(o Options) any { return o.TPSize }, 4},
		{"--model-path M --tensor-parallel-size=2", func(o Options) any { return o.TPSize }, 2},
		{"--model-path M --context-len 32k", func(o Options) any { return o.ContextLength }, 32000},
		{"--model-path M --context-length 64Ki", func(o Options) any { return o.ContextLength }, 65536},
		{"--model-path M --served N", func(o Options) any { return o.ServedModelName }, "N"},
		{"--model-path M --chunked-prefill-size -1 --port 7", func(o Options) any { return o.Port }, 7},
		{"--model-path M --lora-paths a b=c --port 7", func(o Options) any { return o.Port }, 7},
		{"--model-path M --port 1 --port 2", func(o Options) any { return o.Port }, 2},
		{"--model-path M --enable-memory-saver", func(o Options) any { return o.MemorySaver }, true},
		{"--model-path M --sim-start 64040ms", func(o Options) any { return o.Start }, realProfile()},
		{"--model-path M --sim-weights 3s --sim-start 0s", func(o Options) any { return o.Start }, Profile{Weights: 3 * time.Second}},
		{"--model-path M --sim-hang-after 0s", func(o Options) any { return o.Faults.HangAfter }, time.Duration(0)},
		{"--model-path M", func(o Options) any { return o.Faults.HangAfter < 0 }, true},
	} {
		o, err := ParseArgs(strings.Fields(c.args), nil)
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		if got := c.got(o); got != c.want {
			t.Errorf("%s: got %v, want %v", c.args, got, c.want)
		}
	}
}

func TestEnvironmentMakesHealthInstant(t *testing.T) {
	for value, want := range map[string]bool{"0": true, "false": true, "False": true, "1": false, "true": false, "": false} {
		o, err := ParseArgs([]string{"--model-path", "M"}, func(name string) string {
			if name == "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION" {
				return value
			}
			return ""
		})
		if err != nil || o.InstantHealth != want {
			t.Errorf("%q: got %v, %v, want %v", value, o.InstantHealth, err, want)
		}
	}
}

func TestEnvironmentSetsTimes(t *testing.T) {
	env := map[string]string{"SGLANG_TIMEOUT_KEEP_ALIVE": "75", "SGLANG_HEALTH_CHECK_TIMEOUT": "3"}
	o, err := ParseArgs([]string{"--model-path", "M"}, func(name string) string { return env[name] })
	if err != nil || o.KeepAlive != 75*time.Second || o.HealthTimeout != 3*time.Second {
		t.Errorf("got %v, %v, %v", o.KeepAlive, o.HealthTimeout, err)
	}
	env["SGLANG_TIMEOUT_KEEP_ALIVE"] = "long"
	if _, err := ParseArgs([]string{"--model-path", "M"}, func(name string) string { return env[name] }); err == nil {
		t.Error("a bad number was taken")
	}
}

func TestConfigFileComesBeforeTheCommandLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("model-path: M\nport: 7\ntp-size: 2\nenable_memory_saver: true\nis-embedding: false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := ParseArgs([]string{"--port", "8", "--config", file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.ModelPath != "M" || o.Port != 8 || o.TPSize != 2 || !o.MemorySaver || o.IsEmbedding {
		t.Errorf("got %+v", o)
	}
}

func TestEverySwitchIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	words := strings.FieldsFunc(strings.ReplaceAll(string(doc), "\n//", " "), func(r rune) bool {
		return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	has := map[string]bool{}
	for _, w := range words {
		has[w] = true
	}
	var help strings.Builder
	writeHelp(&help)
	for _, f := range simFlags() {
		if !has[f.name] {
			t.Errorf("doc.go does not name %s", f.name)
		}
		if f.help == "" || !strings.Contains(help.String(), f.name) {
			t.Errorf("--help does not explain %s", f.name)
		}
	}
	for _, mode := range failModes() {
		if !has[mode] {
			t.Errorf("doc.go does not name failure %s", mode)
		}
	}
}

func TestFlagTableIsSound(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range knownFlags() {
		for _, name := range f.names {
			if seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
		if !strings.ContainsRune("sifhbnlc", rune(f.kind)) || (f.kind == kindChoice) != (len(f.choices) > 0) {
			t.Errorf("%s: kind %c, choices %v", f.display(), f.kind, f.choices)
		}
	}
	if len(seen) < 200 {
		t.Errorf("only %d options", len(seen))
	}
}

func TestColonInTheServedNameIsRefused(t *testing.T) {
	o := Defaults()
	o.ServedModelName = "llama3:8b"
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "colon") {
		t.Errorf("got %v", err)
	}
}
