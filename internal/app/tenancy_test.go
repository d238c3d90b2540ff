package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pilotlight/auth"
	"pilotlight/auth/limits"
)

// usedEngine answers every chat with 100 tokens of use.
func usedEngine(t *testing.T) string {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"id":"x","object":"chat.completion","model":"a","choices":[],"usage":{"prompt_tokens":60,"completion_tokens":40,"total_tokens":100}}`)
	}))
	t.Cleanup(engine.Close)
	return engine.URL
}

func tenantConfig(engine, rest string) string {
	return fmt.Sprintf("models:\n  - {name: a, model_id: a, model_path: x, backend: {static: {urls: ['%s'], engine: openai}}}\nauth: {keys_file: DIR/keys.yaml}\n%s", engine, rest)
}

func (s *started) chat(t *testing.T, key string) (status int, code string, header http.Header) {
	t.Helper()
	req, err := http.NewRequest("POST", s.BaseURL()+"/chat/completions", strings.NewReader(`{"model":"a","messages":[],"max_tokens":50}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body struct{ Error struct{ Code string } }
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body.Error.Code, resp.Header
}

// What was counted outlives a reload, and budgets outlive a restart.
func TestLimitsOutliveReloadAndRestart(t *testing.T) {
	engine := usedEngine(t)
	s := start(t, tenantConfig(engine, "tenants:\n  - {name: t, limits: {requests_per_minute: 3, tokens_per_month: 1000}}\n"))
	secret, _, err := auth.KeyFile{Path: filepath.Join(s.dir, "keys.yaml")}.New("t", "", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for { // the keys file is followed
		if status, _, _ := s.chat(t, secret); status == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the key is not known")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if status, code, h := s.chat(t, secret); status != 200 || h.Get("X-Ratelimit-Remaining-Requests") != "1" {
		t.Fatalf("%d %s %v", status, code, h)
	}
	s.set(tenantConfig(engine, "tenants:\n  - {name: t, limits: {requests_per_minute: 2, tokens_per_month: 1000}}\n"))
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if status, code, _ := s.chat(t, secret); status != 429 || code != "rate_limit_exceeded" {
		t.Errorf("after the reload: %d %s, want 429", status, code)
	}
	s.set(tenantConfig(engine, "tenants:\n  - {name: t, limits: {tokens_per_month: 255}}\n"))
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	page := metrics(t, s)
	for _, want := range []string{`pilotlight_tenant_requests_total{result="admitted",tenant="t"} 2`, `pilotlight_tenant_requests_total{result="requests per minute",tenant="t"} 1`,
		`pilotlight_tenant_tokens_total{gen_ai_token_type="input",tenant="t"} 120`, `pilotlight_tenant_running{tenant="t"} 0`} {
		if !strings.Contains(page, want) {
			t.Errorf("metrics lack %s in\n%s", want, grep(page, "tenant"))
		}
	}
	if err := s.Shutdown(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s.done = true
	c, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	next, err := Start(t.Context(), Options{Config: c, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := next.Shutdown(ctx, nil); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	again := &started{App: next, t: t, dir: s.dir}
	if spent := next.tenancy.registry.Spent(limits.Tenant, "t", time.Now()); spent.MonthTokens != 200 {
		t.Errorf("spent %+v after the restart, want 200 tokens", spent)
	}
	if status, code, _ := again.chat(t, secret); status != 429 || code != "insufficient_quota" { // 200 + 10 + 50 of the prompt and answer
		t.Errorf("after the restart: %d %s, want 429 insufficient_quota", status, code)
	}
}

func metrics(t *testing.T, s *started) string {
	t.Helper()
	resp, err := http.Get(s.AdminURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

func grep(text, word string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// A file of the state folder that cannot be read must not bring a spent budget back.
func TestUnreadableBudgetsStopTheStart(t *testing.T) {
	s := &started{t: t, dir: t.TempDir()}
	s.set(models("a"))
	c, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.StateDir, "spent.json"), []byte(`{"salt":"00`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{Config: c, Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "spent.json") {
		t.Errorf("Start: %v", err)
	}
}
