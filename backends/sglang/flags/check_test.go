package flags

import (
	"slices"
	"strings"
	"testing"
)

func table(t *testing.T, version string) *Table {
	t.Helper()
	table, exact, err := ForVersion(version)
	if err != nil || !exact {
		t.Fatalf("no table of %s: %v", version, err)
	}
	return table
}

// brief is a line in one text: the arguments, then errors and warnings.
func brief(l *Line) string {
	out := []string{strings.Join(l.Args, " ")}
	for _, f := range l.Errors {
		out = append(out, "error "+f.Name+" "+f.Message+"; "+f.Fix)
	}
	for _, f := range l.Warnings {
		out = append(out, "warning "+f.Name+" "+f.Message+"; "+f.Fix)
	}
	return strings.Join(out, "\n")
}

func TestCheck(t *testing.T) {
	for _, c := range []struct{ version, args, want string }{
		{"0.5.15", "--context-length 8192 --mem-fraction-static=0.8 --trust-remote-code", "--context-length 8192 --mem-fraction-static=0.8 --trust-remote-code"},
		{"0.5.15", "--tp 4", "--tp-size 4"},
		{"0.5.2", "--tp 4", "--tp-size 4"},
		{"0.5.15", "--mem-frac=.8 --tensor-parallel-s 2", "--mem-fraction-static=.8 --tensor-parallel-size 2"},
		{"0.5.15", "--pp 2", "--pp-size 2"},
		{"0.5.15", "--random-seed -1 --cuda-graph-bs 1 2 4", "--random-seed -1 --cuda-graph-bs 1 2 4\nwarning --cuda-graph-bs is deprecated in SGLang 0.5.15; write --cuda-graph-bs-decode"},
		{"0.5.12", "--context-length 32k", "--context-length 32k"},
		{"0.5.2", "--context-length 32k", "--context-length 32k\nerror --context-length is not a whole number; write a whole number"},

		{"0.5.15", "--max-model-len 8192", "--context-length 8192\nwarning --max-model-len is vLLM's name; SGLang gets --context-length 8192; write --context-length 8192"},
		{"0.5.2", "--max-model-len=32K", "--context-length 32768\nwarning --max-model-len is vLLM's name; SGLang gets --context-length 32768; write --context-length 32768"},
		{"0.5.15", "--max-model-len auto", "\nwarning --max-model-len is vLLM's and is left out: SGLang does so anyway; remove it"},
		{"0.5.15", "--max-model-len lots", "\nerror --max-model-len is vLLM's, and this value has nothing like it in SGLang; write --context-length 8192"},
		{"0.5.15", "--max-model-len", "\nerror --max-model-len has no value; write --context-length 8192"},
		{"0.5.15", "--max_model_len 1k --tensor_parallel_size=2",
			"--context-length 1000 --tensor-parallel-size=2\nwarning --max_model_len is vLLM's name; SGLang gets --context-length 1000; write --context-length 1000\nwarning --tensor_parallel_size is written with dashes in SGLang; write --tensor-parallel-size"},
		{"0.5.15", "--enforce-eager --swap-space 4 --seed 7",
			"--disable-cuda-graph --random-seed 7\nwarning --enforce-eager is vLLM's name; SGLang gets --disable-cuda-graph; write --disable-cuda-graph" +
				"\nwarning --swap-space is vLLM's and is left out: SGLang swaps no requests out; --enable-hierarchical-cache keeps prefixes in main memory; remove it" +
				"\nwarning --seed is vLLM's name; SGLang gets --random-seed 7; write --random-seed 7"},
		{"0.5.15", "--kv-cache-dtype fp8", "--kv-cache-dtype fp8_e4m3\nwarning --kv-cache-dtype has vLLM's value; SGLang gets --kv-cache-dtype fp8_e4m3; write --kv-cache-dtype fp8_e4m3"},
		{"0.5.15", "--kv-cache-dtype fp8_e5m2", "--kv-cache-dtype fp8_e5m2"},
		{"0.5.15", "--kv-cache-dtype fp9_e5m2", "--kv-cache-dtype fp9_e5m2\nerror --kv-cache-dtype is not one of its values; did you mean fp8_e5m2?"},
		{"0.5.15", "--lora-modules a=/a {\"name\":\"b\",\"path\":\"/b\"} --enable-lora", "--lora-paths a=/a b=/b --enable-lora\nwarning --lora-modules is vLLM's name; SGLang gets --lora-paths; write --lora-paths"},
		{"0.5.15", "--limit-mm-per-prompt image=4,video=1", `--limit-mm-data-per-request {"image":4,"video":1}` + "\n" +
			`warning --limit-mm-per-prompt is vLLM's name; SGLang gets --limit-mm-data-per-request; write --limit-mm-data-per-request`},
		{"0.5.2", "--limit-mm-per-prompt image=4", "\nerror --limit-mm-per-prompt is vLLM's name of --limit-mm-data-per-request, which SGLang 0.5.2 does not have; remove it, or install a newer SGLang"},
		{"0.5.15", "--no-enable-chunked-prefill", "--chunked-prefill-size=-1\nwarning --no-enable-chunked-prefill is vLLM's name; SGLang gets --chunked-prefill-size -1; write --chunked-prefill-size -1"},
		{"0.5.15", "--enable-expert-parallel", "\nerror --enable-expert-parallel is vLLM's, and SGLang has nothing like it; write --ep-size with the number of GPUs that share the experts"},
		{"0.5.15", "--enable-auto-tool-choice --tool-call-parser llama3_json", "--tool-call-parser llama3\nwarning --enable-auto-tool-choice is vLLM's and is left out: --tool-call-parser alone turns it on; remove it" +
			"\nwarning --tool-call-parser has vLLM's value; SGLang gets --tool-call-parser llama3; write --tool-call-parser llama3"},

		{"0.5.15", "--host 0.0.0.0 --mod m", "--host 0.0.0.0 --mod m\nerror --mod begins more than one option; write --model, --model-checksum, --model-config-parser, --model-impl or one of 7 more\nerror --host is set by the gateway; remove it; replicas listen on loopback"},
		{"0.5.15", "--model m", "--model m\nerror --model is set by the gateway; set model_path or model_hf_path"},
		{"0.5.15", "--served n", "--served-model-name n\nerror --served is set by the gateway; set model_id"},
		{"0.5.15", "--tokenizer-worker-num 2 --nnodes=2 --ssl-keyfile k", "--tokenizer-worker-num 2 --nnodes=2 --ssl-keyfile k" +
			"\nerror --tokenizer-worker-num above 1 does not work together with an API key, which every replica gets; remove it" +
			"\nerror --nnodes above 1 needs other machines, and a replica runs on this one; remove it" +
			"\nerror --ssl-keyfile makes the replica refuse the gateway, which reaches it in clear over loopback; remove it; the gateway's own tls encrypts what clients see"},
		{"0.5.15", "--tokenizer-worker-num 1 --nnodes 1", "--tokenizer-worker-num 1 --nnodes 1"},
		{"0.5.15", "--config=f.yaml", "--config=f.yaml\nerror --config is not seen by SGLang when its value is joined to it; write two arguments, --config and the file"},

		{"0.5.15", "--contxt-length 8192 --trust-remote-code", "--contxt-length 8192 --trust-remote-code\nerror --contxt-length is not an option of SGLang 0.5.15; did you mean --context-length?"},
		{"0.5.15", "--max-modal-len 8", "--max-modal-len 8\nerror --max-modal-len is not an option of SGLang 0.5.15; did you mean --context-length (vLLM's --max-model-len)?"},
		{"0.5.15", "--xyzzy", "--xyzzy\nerror --xyzzy is not an option of SGLang 0.5.15; "},
		{"0.5.15", "--trust-remote-code yes", "--trust-remote-code yes\nerror  belongs to no option; remove it, or give it with an option; quote a value that holds spaces"},
		{"0.5.15", "--trust-remote-code=true", "--trust-remote-code=true\nerror --trust-remote-code takes no value; write --trust-remote-code alone, or leave it out"},
	} {
		got := brief(table(t, c.version).Check(strings.Fields(c.args), false))
		if got != c.want {
			t.Errorf("%s on %s:\ngot  %q\nwant %q", c.args, c.version, got, c.want)
		}
	}
}

func TestCheckOneArgumentWithItsValue(t *testing.T) {
	got := Newest().Check([]string{"--trust-remote-code", "--context-length 8192"}, false)
	if len(got.Errors) != 1 || got.Errors[0].At != 1 || got.Errors[0].Fix != "write two list entries, or --context-length=VALUE" {
		t.Errorf("got %+v", got.Errors)
	}
}

func TestCheckExplains(t *testing.T) {
	line := table(t, "0.5.15").Check(strings.Fields("--tp 4 --trust-remote-code --max-num-seqs 16 --chat-template=x"), false)
	var got []string
	for _, e := range line.Options {
		got = append(got, strings.Join(e.Args(), " ")+" <"+e.From+">")
	}
	want := []string{"--tp-size 4 <--tp>", "--trust-remote-code <>", "--max-running-requests 16 <--max-num-seqs>", "--chat-template=x <>"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if at := line.Options[2].At; at != 3 {
		t.Errorf("--max-num-seqs is placed at %d, want 3", at)
	}
	if v, ok := line.Value("--tensor-parallel-size"); v != "4" || !ok {
		t.Errorf("got %q, %t by the alias", v, ok)
	}
	if _, ok := line.Value("--pp-size"); ok || line.Int("--pp-size") != 1 || line.Int("--tp-size") != 4 {
		t.Errorf("defaults: pp %d, tp %d", line.Int("--pp-size"), line.Int("--tp-size"))
	}
}

func TestCheckLenient(t *testing.T) {
	line := Newest().Check([]string{"--own-thing", "a", "b", "--tp", "2", "--own-other=1"}, true)
	if len(line.Errors) != 0 || len(line.Warnings) != 2 {
		t.Errorf("got %+v", line)
	}
	if want := []string{"--own-thing", "a", "b", "--tp-size", "2", "--own-other=1"}; !slices.Equal(line.Args, want) {
		t.Errorf("got %q, want %q", line.Args, want)
	}
}

func TestAccepting(t *testing.T) {
	if got := Accepting(false, []string{"--hybrid-kvcache-ratio", "0.5"}).Version(); got != "0.5.7" {
		t.Errorf("an option that is gone is read as by %s", got)
	}
	if got := Accepting(false, []string{"--tp", "2"}, nil); got != Newest() {
		t.Errorf("got %s", got.Version())
	}
	if got := Accepting(false, []string{"--xyzzy"}); got != Newest() {
		t.Errorf("got %s", got.Version())
	}
}

func TestBegins(t *testing.T) {
	for command, want := range map[string]int{
		"python3 -m sglang.launch_server": 3, "/opt/venv/bin/python -m sglang.launch_server --tp 2": 3, "sglang serve": 2,
		"numactl -N 0 /v/bin/sglang serve --x": 5, "python launch_server.py": 2, "sglang-sim --latency 1s": 0, "sglang": 0, "": 0,
		"sglang.launch_server": 0,
	} {
		n, ok := Begins(strings.Fields(command))
		if n != want || ok != (want > 0) {
			t.Errorf("%s: got %d, %t", command, n, ok)
		}
	}
}

func TestOwned(t *testing.T) {
	for name, want := range map[string]bool{"--host": true, "--model": true, "--served": true, "--po": true, "--mod": true, "--p": false, "--hosts": false, "--x": false} {
		if got := Owned(name) != ""; got != want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

// Every entry of the translation must lead somewhere, and what it leads to must be accepted as it is.
func TestEveryTranslation(t *testing.T) {
	values := map[string]string{"--max-model-len": "4096", "--kv-cache-dtype": "fp8", "--lora-modules": "a=/a", "--task": "embed",
		"--runner": "pooling", "--model-impl": "vllm", "--hf-overrides": "{}", "--rope-scaling": "{}", "--generation-config": "vllm",
		"--guided-decoding-backend": "guidance", "--tool-call-parser": "openai", "--reasoning-parser": "deepseek_r1",
		"--limit-mm-per-prompt": "image=1", "--gpu-memory-utilization": "0.9", "--scheduling-policy": "fcfs", "-q": "fp8", "--quant": "fp8",
		"--distributed-executor-backend": "mp", "--uvicorn-log-level": "info", "--override-generation-config": "{}"}
	moved := 0
	for name, c := range vllm {
		args := []string{name}
		if c.takes != None {
			value := values[name]
			if value == "" {
				value = "1"
			}
			args = append(args, value)
		}
		line := Newest().Check(args, false)
		if c.refuse != "" {
			if len(line.Errors) != 1 || !strings.HasPrefix(line.Errors[0].Message, "is vLLM's") {
				t.Errorf("%q: got %+v", args, line.Errors)
			}
			continue
		}
		if len(line.Errors) > 0 {
			t.Errorf("%q: %+v", args, line.Errors)
			continue
		}
		if c.drop != "" && (len(line.Args) > 0 || len(line.Warnings) == 0) {
			t.Errorf("%q: got %q, %+v", args, line.Args, line.Warnings)
		}
		if len(line.Args) > 0 && line.Args[0] != name {
			moved++
		}
		again := Newest().Check(line.Args, false)
		if !slices.Equal(again.Args, line.Args) || len(again.Errors) > 0 {
			t.Errorf("%q became %q, which reads as %q %+v", args, line.Args, again.Args, again.Errors)
		}
	}
	if moved < 30 {
		t.Errorf("%d options are translated; there were more", moved)
	}
}

// Free text among arguments may be a secret; findings are printed and logged.
func TestFindingsHoldNoFreeText(t *testing.T) {
	for _, args := range []string{"--speculative-model sesame", "--hf-overrides {\"a\":\"sesame\"}", "--lora-modules a=sesame", "--tokenizer-revision sesame", "--rope-theta sesame",
		"--max-model-len sesame", "--swap-space sesame", "sesame", "--api-key sesame", "--xyzzy sesame", "--xyzzy=sesame", "--admin-api-key=sesame", "--host=sesame", "--trust-remote-code=sesame", "--model-path-x=sesame"} {
		line := Newest().Check(strings.Fields(args), false)
		if len(line.Errors)+len(line.Warnings) == 0 {
			t.Errorf("%s: nothing found", args)
		}
		for _, f := range append(line.Errors, line.Warnings...) {
			if strings.Contains(f.Name+f.Value+f.Message+f.Fix, "sesame") {
				t.Errorf("%s: got %+v", args, f)
			}
		}
	}
}

func TestForVersion(t *testing.T) {
	for _, c := range []struct {
		text, want string
		exact      bool
	}{
		{"0.5.15", "0.5.15", true}, {"v0.5.15.post1", "0.5.15", true}, {"0.5.16", "0.5.15", false}, {"0.5.2rc1", "0.5.2", true},
		{"0.4.9", "0.5.2", false}, {"0.6", "0.5.23", false}, {"1.0.0+cu129", "0.5.23", false}, {"0.5.17.dev3+gabcdef", "0.5.17", true},
	} {
		table, exact, err := ForVersion(c.text)
		if err != nil || table.Version() != c.want || exact != c.exact {
			t.Errorf("%s: got %v, %t, %v; want %s, %t", c.text, table, exact, err, c.want, c.exact)
		}
	}
	for _, text := range []string{"", "latest", "0", "0.5.15 ; rm", "../0.5.2"} {
		if _, _, err := ForVersion(text); err == nil {
			t.Errorf("%q passes for a release", text)
		}
	}
}

func TestSizeValue(t *testing.T) {
	for text, want := range map[string]int64{"8192": 8192, "32k": 32000, "1.5k": 1500, "64Ki": 65536, "1M": 1e6, " 1_000 ": 1000, "-1": -1} {
		if got, ok := SizeValue(text); got != want || !ok {
			t.Errorf("%s: got %d, %t", text, got, ok)
		}
	}
	for _, text := range []string{"", "32K", "1.5Ki", "k", "1e3", "99999999999999999999", "99999999T"} {
		if got, ok := SizeValue(text); ok {
			t.Errorf("%q reads as %d", text, got)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, seed := range []string{"--tp 4", "--max-model-len 8k --x", "--a=b -- c", "--lora-modules {", "-tp=2 --limit-mm-per-prompt a=1,b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		args := strings.Split(text, " ")
		for _, table := range All() {
			line := table.Check(args, false)
			if len(line.Errors) > 0 {
				for _, e := range line.Errors {
					if e.At < 0 || e.At >= len(args) {
						t.Fatalf("%q: an error at %d", args, e.At)
					}
				}
				continue
			}
			again := table.Check(line.Args, false)
			if len(again.Errors) > 0 || !slices.Equal(again.Args, line.Args) {
				t.Fatalf("%q became %q, which reads as %q %+v", args, line.Args, again.Args, again.Errors)
			}
		}
	})
}
