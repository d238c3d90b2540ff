package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAdmin(t *testing.T) {
	var notReady, badConfig error
	retried := ""
	a := NewAdmin(AdminOptions{
		Token:  "secret",
		Ready:  func() error { return notReady },
		State:  func() any { return map[string]string{"some": "state"} },
		Retry:  func(model string) bool { retried = model; return model == "org/m" },
		Reload: func() error { return badConfig },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "metric 1\n")
		}),
		Logger: slog.New(slog.DiscardHandler),
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- a.Serve(ln) }()
	client := &http.Client{Transport: &http.Transport{}}
	defer func() {
		client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(a.Shutdown(ctx), <-served); err != nil {
			t.Error(err)
		}
	}()
	send := func(method, path, token, origin string) (int, string) {
		req, err := http.NewRequest(method, "http://"+ln.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	for _, tt := range []struct {
		name, method, path, token, origin string
		status                            int
		body                              string
	}{
		{"alive", "GET", "/healthz", "", "", 200, `"ok"`},
		{"ready", "GET", "/readyz", "", "", 200, `"ready"`},
		{"state", "GET", "/api/state", "secret", "", 200, `{"some":"state"}`},
		{"state without the token", "GET", "/api/state", "", "", 401, "invalid_admin_token"},
		{"state with another token", "GET", "/api/state", "secre", "", 401, "invalid_admin_token"},
		{"metrics", "GET", "/metrics", "secret", "", 200, "metric 1"},
		{"metrics without the token", "GET", "/metrics", "", "", 401, "invalid_admin_token"},
		{"reload", "POST", "/api/reload", "secret", "", 200, "reloaded"},
		{"reload by GET", "GET", "/api/reload", "secret", "", 404, "unknown_url"},
		{"reload from a web page", "POST", "/api/reload", "secret", "https://evil.example", 403, "cross_site_request"},
		{"retry", "POST", "/api/models/org/m/retry", "secret", "", 200, `"model":"org/m"`},
		{"retry of no model", "POST", "/api/models/x/retry", "secret", "", 404, "model_not_found"},
		{"nothing", "GET", "/x", "secret", "", 404, "unknown_url"},
	} {
		status, body := send(tt.method, tt.path, tt.token, tt.origin)
		if status != tt.status || !strings.Contains(body, tt.body) {
			t.Errorf("%s: %d %s, want %d with %s", tt.name, status, body, tt.status, tt.body)
		}
	}
	if retried != "x" {
		t.Errorf("retried %q last", retried)
	}
	notReady, badConfig = errors.New("shutting down"), errors.New("p.yaml:3: models: wrong")
	if status, body := send("GET", "/readyz", "", ""); status != 503 || !strings.Contains(body, "shutting down") {
		t.Errorf("not ready: %d %s", status, body)
	}
	if status, body := send("POST", "/api/reload", "secret", ""); status != 422 || !strings.Contains(body, "p.yaml:3") {
		t.Errorf("bad configuration: %d %s", status, body)
	}
	a.SetToken("")
	if status, _ := send("GET", "/api/state", "", ""); status != 200 {
		t.Errorf("without a token: %d", status)
	}
}
