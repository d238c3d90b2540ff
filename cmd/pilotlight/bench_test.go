package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func bench(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := rootCommand()
	var out strings.Builder
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append([]string{"bench"}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestBenchCommand(t *testing.T) {
	fail := false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fail {
			w.WriteHeader(503)
			return
		}
		fmt.Fprint(w, `{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`)
	}))
	defer s.Close()
	dir := t.TempDir()
	keys, page, object, trace := filepath.Join(dir, "keys"), filepath.Join(dir, "r.html"), filepath.Join(dir, "r.json"), filepath.Join(dir, "t.csv")
	for name, text := range map[string]string{keys: "# ours\na:k1\nb:k2\n", trace: "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9,8,1\n2023-11-16 18:17:04.9,3,2\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	common := []string{"--url", s.URL + "/v1", "--stream", "0"}
	out, err := bench(t, append(common, "--model", "org/m=2", "--model", "n", "--keys-file", keys, "--rate", "1000", "--requests", "20", "--html", page, "--json", object)...)
	if err != nil || !strings.Contains(out, "20 ok") || !strings.Contains(out, "tenant") {
		t.Errorf("%v:\n%s", err, out)
	}
	for _, name := range []string{page, object} {
		if text, err := os.ReadFile(name); err != nil || len(text) < 500 {
			t.Errorf("%s: %d bytes, %v", name, len(text), err)
		}
	}
	if out, err := bench(t, append(common, "--model", "m", "--trace", trace, "--speed", "100", "--json", "-")...); err != nil || !strings.Contains(out, `"ok": 2`) {
		t.Errorf("%v:\n%s", err, out)
	}
	fail = true
	if _, err := bench(t, append(common, "--model", "m", "--requests", "2", "--rate", "1000")...); !errors.Is(err, errFailedRequests) {
		t.Errorf("failures end with %v", err)
	}
	if _, err := bench(t, append(common, "--model", "m", "--requests", "2", "--rate", "1000", "--allow-errors")...); err != nil {
		t.Error(err)
	}
	var usage usageError
	for _, bad := range [][]string{{}, {"--model", "m=0"}, {"--model", "m", "--rate", "0"}, {"--model", "m", "--arrivals", "x"}, {"--model", "m", "--stream", "2", "--requests", "1"},
		{"--model", "m", "--trace", filepath.Join(dir, "none")}, {"--model", "m", "--keys-file", trace}, {"--model", "m", "--prompt-tokens", "0"}} {
		if _, err := bench(t, bad...); !errors.As(err, &usage) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// The default duration ends a plan that nothing else does; what is asked for by number or trace is not cut short by it.
func TestBenchPlanLength(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace.csv")
	if err := os.WriteFile(trace, []byte("time,prompt,output\n0,1,1\n20,1,1\n100,1,1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		flags benchFlags
		want  int
	}{
		{benchFlags{}, 30}, {benchFlags{requests: 100}, 100}, {benchFlags{requests: 100, duration: 50 * time.Second}, 50}, {benchFlags{requests: 20, duration: 50 * time.Second}, 20},
		{benchFlags{trace: trace}, 3}, {benchFlags{trace: trace, duration: 30 * time.Second}, 2}, {benchFlags{trace: trace, duration: 30 * time.Second, speed: 10}, 3}, {benchFlags{trace: trace, requests: 1}, 1},
	} {
		f := tt.flags
		f.models, f.rate, f.arrivals, f.prompt, f.answer = []string{"m"}, 1, "constant", 1, 1
		if o, err := f.options(); err != nil || len(o.Plan) != tt.want {
			t.Errorf("%+v: %d requests, %v; want %d", f, len(o.Plan), err, tt.want)
		}
	}
}
