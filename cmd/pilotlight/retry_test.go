package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRetryCommand(t *testing.T) {
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method+" "+r.URL.Path)
		switch {
		case r.Header.Get("Authorization") != "Bearer t":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/api/models/org/m/retry":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"error":{"message":"There is no model by that name."}}`)
		}
	}))
	defer server.Close()
	run := func(args ...string) (string, error) {
		root := rootCommand()
		var out strings.Builder
		root.SetOut(&out)
		root.SetArgs(append([]string{"retry"}, args...))
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	if out, err := run("org/m", "--admin", server.URL+"/", "--token", "t"); err != nil || !strings.Contains(out, "org/m") {
		t.Errorf("got %q, %v", out, err)
	}
	if len(got) != 1 || got[0] != "POST /api/models/org/m/retry" {
		t.Errorf("the listener got %v", got)
	}
	if _, err := run("other", "--admin", server.URL, "--token", "t"); err == nil || err.Error() != "There is no model by that name." {
		t.Errorf("an unknown model: %v", err)
	}
	if _, err := run("org/m", "--admin", server.URL, "--token", "wrong"); err == nil || !strings.Contains(err.Error(), "--token") {
		t.Errorf("a wrong token: %v", err)
	}
	var usage usageError
	for _, args := range [][]string{nil, {"a", "b"}, {"a", "--admin", server.URL, "-c", "f"}, {"a", "--admin", ":"}} {
		if _, err := run(args...); !errors.As(err, &usage) {
			t.Errorf("%v: %v, want a usage error", args, err)
		}
	}
}
