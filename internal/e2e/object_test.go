package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/internal/testtools"
)

// objects starts a real S3 server with a bucket "models", and makes the gateway's environment its owner's.
func objects(t *testing.T) testtools.S3 {
	t.Helper()
	server := testtools.S3Server(t)
	if err := os.Mkdir(filepath.Join(server.Folder, "models"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, value := range server.Env() {
		if name != "PATH" && name != "HOME" {
			t.Setenv(name, value)
		}
	}
	return server
}

// storeAt is a configuration's store in a new folder, with the remote.
func storeAt(t *testing.T) string {
	return "store: {path: " + t.TempDir() + ", remote: \"s3://models/tier\"}\n"
}

// TestGatewaysShareRemote has one gateway prefetch a hub's model, and another start it when the hub is gone.
func TestGatewaysShareRemote(t *testing.T) {
	hub, _ := hubFor(t)
	objects(t)
	first := filepath.Join(t.TempDir(), "first.yaml")
	text := storeAt(t) + "prefetch: [" + hub.Repo + "]\nmodels:\n  - {name: a, model_id: a, model_hf_path: " + hub.Repo + "}\n"
	if err := os.WriteFile(first, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := pilotlight(t, "prefetch", "--all", "-c", first); code != 0 {
		t.Fatalf("prefetch: %s%s", out, errs)
	}
	hub.Front.Close()
	s := serve(t, storeAt(t)+config(fromStore(simModel(t, "m", "scaling: {replicas: [0, 1], scaledown_after: 1}"), "model_path: store:"+hub.Repo)))
	s.ask(t.Context(), "a", "m", "hello", false).wants(t, "hello", false)
}

// watcher is an engine that notes what it was started with, where SGLang would look, and goes on as the simulator.
const watcher = `import hashlib, json, os, sys
model = sys.argv[sys.argv.index("--model-path") + 1]
folder = os.path.join(os.environ["SGLANG_CACHE_DIR"], "model_streamer", hashlib.sha256(model.encode()).hexdigest()[:16])
with open(%q, "w") as note:
    json.dump({"argv": sys.argv, "env": dict(os.environ), "files": {name: open(os.path.join(folder, name)).read() for name in os.listdir(folder)}}, note)
os.execv(%q, [%q] + sys.argv[1:])
`

// loader makes packages of the streaming loader's names, which a real Python finds. Its libraries are the mathematical one, which all have.
func loader(t *testing.T, python string) string {
	t.Helper()
	site := t.TempDir()
	for name, text := range map[string]string{
		"runai_model_streamer-0.17.0.dist-info/METADATA":    "Metadata-Version: 2.1\nName: runai-model-streamer\nVersion: 0.17.0\n",
		"runai_model_streamer_s3-0.17.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: runai-model-streamer-s3\nVersion: 0.17.0\n",
		"runai_model_streamer/__init__.py":                  "", "runai_model_streamer_s3/__init__.py": "", "torch.py": "", "numpy.py": "", "humanize.py": "", "boto3.py": "",
		"runai_model_streamer/libstreamer/lib/any": "",
	} {
		path := filepath.Join(site, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), python, "-c", `import ctypes, ctypes.util
lib = ctypes.CDLL(ctypes.util.find_library("m"))
print([line.split()[-1] for line in open("/proc/self/maps") if "libm" in line][0])`).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"libstreamer.so", "libstreamers3.so"} {
		if err := os.Symlink(strings.TrimSpace(string(out)), filepath.Join(site, "runai_model_streamer/libstreamer/lib", name)); err != nil {
			t.Fatal(err)
		}
	}
	return site
}

// TestStreamedStart starts a model whose weights stay in the object store.
func TestStreamedStart(t *testing.T) {
	server := objects(t)
	// An address's model is one of the remote's: its files lie there under their own names.
	folder, here := t.TempDir(), t.TempDir()
	header := `{"w":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}`
	for name, text := range map[string]string{
		"config.json": `{"model_type": "x"}`, "tokenizer.json": "{}", "model.safetensors": string(rune(len(header))) + "\x00\x00\x00\x00\x00\x00\x00" + header + "123456789",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	upload := filepath.Join(here, "upload.yaml")
	if err := os.WriteFile(upload, []byte(storeAt(t)+"models:\n  - {name: a, model_id: a, model_path: /x}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := pilotlight(t, "prefetch", folder, "-c", upload)
	if code != 0 {
		t.Fatalf("prefetch: %s", errs)
	}
	snapshot := strings.TrimSpace(out)
	repo := filepath.Base(filepath.Dir(filepath.Dir(snapshot)))
	address := "s3://models/tier/" + repo + "/snapshots/" + filepath.Base(snapshot)

	python := testtools.Python(t)
	site, note, cache, script := loader(t, python), filepath.Join(here, "note.json"), t.TempDir(), filepath.Join(here, "engine.py")
	sim := testtools.Binary(t, "./cmd/sglang-sim")
	text := replaceInOrder(watcher, note, sim, sim)
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	store := t.TempDir()
	model := func(lines string) string {
		return "store: {path: " + store + "}\n" + config("  - name: m\n    model_id: m\n    model_path: "+address+"\n    stream_model: true\n    env_vars: {PYTHONPATH: "+site+", SGLANG_CACHE_DIR: "+cache+"}\n"+
			"    backend: {process: {command: ["+python+", "+script+"], engine: sglang, engine_version: custom}}\n"+lines)
	}
	s := serve(t, model(""))
	s.ask(t.Context(), "a", "m", "hello", false).wants(t, "hello", false)
	var started struct {
		Argv  []string          `json:"argv"`
		Env   map[string]string `json:"env"`
		Files map[string]string `json:"files"`
	}
	said, err := os.ReadFile(note)
	if err == nil {
		err = json.Unmarshal(said, &started)
	}
	if err != nil {
		t.Fatal(err)
	}
	argv := strings.Join(started.Argv, " ")
	if !strings.Contains(argv, "--model-path "+address) || !strings.Contains(argv, "--load-format runai_streamer") || strings.Contains(argv, server.Secret) {
		t.Errorf("argv: %s", argv)
	}
	for name, want := range map[string]string{
		"AWS_SECRET_ACCESS_KEY": server.Secret, "RUNAI_STREAMER_S3_ENDPOINT": server.URL, "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0", "AWS_DEFAULT_REGION": "us-east-1",
	} {
		if started.Env[name] != want {
			t.Errorf("%s: got %q, want %q", name, started.Env[name], want)
		}
	}
	if started.Files["config.json"] != `{"model_type": "x"}` || started.Files["model.safetensors"] != "" {
		t.Errorf("files beside the weights: %v", started.Files)
	}
	found, err := filepath.Glob(filepath.Join(store, "models--*", "snapshots", "*", "*"))
	if err != nil || len(found) != 2 {
		t.Errorf("in the store: %v, %v", found, err)
	}
	if bytes.Contains([]byte(s.Log()), []byte(server.Secret)) {
		t.Error("the secret is in the log")
	}

	// What check shows, before and after something breaks.
	file := filepath.Join(here, "check.yaml")
	if err := os.WriteFile(file, []byte(model("")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, _ := pilotlight(t, "check", "-c", file); !strings.Contains(out, "by runai-model-streamer 0.17.0; credentials: AWS_ACCESS_KEY_ID") || strings.Contains(out, server.Secret) {
		t.Errorf("check: %s%s", out, errs)
	}
	if err := os.RemoveAll(filepath.Join(site, "runai_model_streamer_s3-0.17.0.dist-info")); err != nil {
		t.Fatal(err)
	}
	if out, errs, _ := pilotlight(t, "check", "-c", file); !strings.Contains(out, "m: would not start: ") || !strings.Contains(out, "pip install runai-model-streamer-s3==0.17.0") {
		t.Errorf("check: %s%s", out, errs)
	}
}

// replaceInOrder puts texts, quoted, in the places of %q.
func replaceInOrder(format string, texts ...string) string {
	for _, text := range texts {
		quoted, err := json.Marshal(text)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		format = strings.Replace(format, "%q", string(quoted), 1)
	}
	return format
}
