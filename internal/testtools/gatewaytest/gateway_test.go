package gatewaytest

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGatewayServesStopsAndServesAgain(t *testing.T) {
	g := Serve(t, Config(SimModel(t, "m", "model_id: org/m\naliases: [other]", "--sim-start", "0s")))
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), "POST", g.BaseURL+"/chat/completions", strings.NewReader(`{"model":"other","messages":[{"role":"user","content":"echo: x"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+g.Key("a"))
		resp, err := admin.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), `"other"`) {
			t.Errorf("got %d %s, %v; want an answer under the alias", resp.StatusCode, body, err)
		}
		m, err := g.Model("m")
		if err != nil || m.ModelID != "org/m" || m.Starts != 1 || len(g.Engines()) != 1 {
			t.Errorf("got %+v, %v, engines %v; want one start of org/m", m, err, g.Engines())
		}
		g.Stop()
		if n := len(g.Engines()); n != 0 {
			t.Errorf("%d engines of a gateway that was stopped", n)
		}
		g.Start()
	}
	if _, err := g.Model("none"); err == nil {
		t.Error("got no error for a model that is not there")
	}
	g.Until(time.Second, "what is so already", func() bool { return true })
}
