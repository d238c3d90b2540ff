package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pilotlight/internal/testtools"
	"pilotlight/internal/testtools/gatewaytest"
	"pilotlight/internal/testtools/hubtest"
)

// A real engine answers from a model that we fetched as it does from the file itself.
func TestRealEngineFromThePrefetchedModel(t *testing.T) {
	engine := testtools.CPUEngineCommand(t)
	gguf, err := os.ReadFile(engine.ModelPath)
	if err != nil {
		t.Fatal(err)
	}
	hub := hubtest.New(t)
	file := filepath.Base(engine.ModelPath)
	hub.Add(file, gguf, true)
	hub.Add("config.json", []byte("{}"), false)
	store := t.TempDir()
	for name, value := range map[string]string{"HF_ENDPOINT": hub.Front.URL, "HF_HUB_CACHE": store, "HF_TOKEN": "", "HF_TOKEN_PATH": filepath.Join(store, "no-token"), "HF_HOME": store} {
		t.Setenv(name, value)
	}
	if _, errs, code := pilotlight(t, "prefetch", hub.Repo, "--name", "smol"); code != 0 {
		t.Fatalf("prefetch: %d, %s", code, errs)
	}
	hub.Front.Close()
	model := func(name, path, below string) string {
		command := make([]string, len(engine.Command))
		for i, word := range engine.Command {
			command[i] = strings.ReplaceAll(word, "{model_path}", "{model_path}"+below)
		}
		return gatewaytest.Model(name, "model_id: "+name+"\nmodel_path: "+gatewaytest.Text(t, path)+
			"\nbackend: {process: {engine: openai, probe: /health, command: "+gatewaytest.Text(t, command)+"}}")
	}
	s := serve(t, config(model("direct", engine.ModelPath, ""), model("fetched", "store:smol", "/"+file)))
	said := map[string]string{}
	for _, name := range []string{"direct", "fetched"} {
		body := `{"model": "` + name + `", "temperature": 0, "seed": 1, "max_tokens": 24, "messages": [{"role": "user", "content": "What is the capital of France?"}]}`
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.BaseURL+"/chat/completions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.Key("a"))
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		var doc struct {
			Choices []struct {
				Message struct{ Content string }
			}
		}
		if err != nil || json.Unmarshal(text, &doc) != nil || len(doc.Choices) != 1 || doc.Choices[0].Message.Content == "" {
			t.Fatalf("%s: %d, %s, %v", name, resp.StatusCode, text, err)
		}
		said[name] = doc.Choices[0].Message.Content
	}
	http.DefaultClient.CloseIdleConnections()
	if said["direct"] != said["fetched"] {
		t.Errorf("the file says %q, the store's copy %q", said["direct"], said["fetched"])
	}
	argv, err := os.ReadFile("/proc/" + strconv.Itoa(s.model("fetched").Replicas[0].PID) + "/cmdline")
	if want := filepath.Join(store, "models--"+strings.ReplaceAll(hub.Repo, "/", "--"), "snapshots", hub.Commit, file); err != nil || !strings.Contains(string(argv), want) {
		t.Errorf("the engine's command lacks %s: %q, %v", want, argv, err)
	}
}
