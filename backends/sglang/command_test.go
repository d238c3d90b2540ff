package sglang

import (
	"slices"
	"strings"
	"testing"

	"pilotlight/backends"
)

func TestCommandLine(t *testing.T) {
	spec := &backends.Spec{
		Command: []string{"python3", "-m", "sglang.launch_server"}, ModelPath: "Qwen/Qwen3-0.6B", ServedName: "qwen3",
		ExtraArgs: []string{"--context-length", "8192"},
	}
	got := CommandLine(spec, "127.0.0.1", 61001, "k")
	want := "python3 -m sglang.launch_server --model-path Qwen/Qwen3-0.6B --served-model-name qwen3 --host 127.0.0.1 --port 61001 --api-key k --context-length 8192"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if len(spec.Command) != 3 || cap(spec.Command) > 3 && spec.Command[:4][3] != "" {
		t.Error("the spec's own command was written to")
	}
	several := &backends.Spec{Command: []string{"x"}, CacheReport: true}
	if got := CommandLine(several, "h", 1, ""); !slices.Equal(got, []string{"x", "--host", "h", "--port", "1", "--enable-cache-report"}) {
		t.Errorf("one of several: got %q", got)
	}
	several.ExtraArgs = []string{"--enable-cache-report"}
	if got := CommandLine(several, "h", 1, ""); !slices.Equal(got, []string{"x", "--host", "h", "--port", "1", "--enable-cache-report"}) {
		t.Errorf("with the option given: got %q", got)
	}
	if got := CommandLine(&backends.Spec{Command: []string{"x"}}, "h", 1, ""); !slices.Equal(got, []string{"x", "--host", "h", "--port", "1"}) {
		t.Errorf("got %q for an empty spec", got)
	}
}

func TestEnv(t *testing.T) {
	got := Env(
		[]string{"PATH=/bin", "HF_TOKEN=inherited", "PROMETHEUS_MULTIPROC_DIR=/shared", "SGLANG_RUST_SERVER=1", "NO_PROXY=example.org, localhost", "broken", "PYTHONUNBUFFERED="},
		map[string]string{"HF_TOKEN": "own", "SGLANG_PYSPY_DUMP_BEFORE_CRASH": "1"},
		Folders{Temp: "/tmp/pl-1", Cache: "/var/cache/x"},
	)
	want := []string{
		"HF_TOKEN=own",
		"NO_PROXY=example.org,localhost,127.0.0.1,::1",
		"PATH=/bin",
		"PYTHONUNBUFFERED=1",
		"SGLANG_CUDA_COREDUMP_BEFORE_CRASH=0",
		"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION=0",
		"SGLANG_PYSPY_DUMP_BEFORE_CRASH=1",
		"TMPDIR=/tmp/pl-1",
		"TORCHINDUCTOR_CACHE_DIR=/var/cache/x",
		"no_proxy=example.org,localhost,127.0.0.1,::1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestRedact(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"server_args=ServerArgs(host='h', api_key='abc', admin_api_key='d e', x=1)", "server_args=ServerArgs(host='h', api_key=***, admin_api_key=***, x=1)"},
		{`{"api_key": "abc", "admin_api_key":"def"}`, `{"api_key": ***, "admin_api_key":***}`},
		{"api_key=None, port=1", "api_key=None, port=1"},
		{"argv: --api-key abc --admin-api-key=def --port 1", "argv: --api-key *** --admin-api-key=*** --port 1"},
		{"argv: ['--api-key', 'abc']", "argv: ['--api-key', '***']"},
		{"authorization: Bearer eyJ.a-b_c=", "authorization: Bearer ***"},
		{"token hf_abcDEF123456 used", "token hf_*** used"},
		{"hf_hub is a name", "hf_hub is a name"},
		{"key sk-proj-abcdefghijklmnop", "key sk-***"},
		{"redis://user:pw@host/0", "redis://***host/0"},
		{"The server is fired up and ready to roll!", "The server is fired up and ready to roll!"},
	} {
		if got := Redact(c.in); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

func TestMaxRunningRequestsFlag(t *testing.T) {
	for _, c := range []struct {
		args string
		want int
	}{
		{"--max-running-requests 16", 16},
		{"--max-running-requests=16 --x", 16},
		{"--max-running-requests 16 --max-running-requests 8", 8},
		{"--max-running-requests", 0},
		{"--max-running-requests many", 0},
		{"--context-length 8192", 0},
	} {
		got, found := MaxRunningRequestsFlag(strings.Fields(c.args))
		if got != c.want || found != (c.want > 0) {
			t.Errorf("%s: got %d, %t; want %d", c.args, got, found, c.want)
		}
	}
	if n, ok := MaxRunningRequests("server_args=ServerArgs(max_running_requests=7, max_total_tokens=None)"); ok {
		t.Errorf("the dump of the arguments gave a limit of %d", n)
	}
}

func TestStreamedWeightsAreLoadedByTheirOwnLoader(t *testing.T) {
	spec := &backends.Spec{Command: []string{"sglang", "serve"}, ModelPath: "s3://weights/llama", Stream: true}
	if got := strings.Join(CommandLine(spec, "h", 1, ""), " "); !strings.Contains(got, "--model-path s3://weights/llama") || !strings.Contains(got, "--load-format runai_streamer") {
		t.Errorf("got %s", got)
	}
	spec.ExtraArgs = []string{"--load-format", "remote"}
	if got := strings.Join(CommandLine(spec, "h", 1, ""), " "); strings.Count(got, "--load-format") != 1 {
		t.Errorf("got %s", got)
	}
}
