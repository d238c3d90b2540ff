package footprint

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder makes a model's folder; the weights' content does not matter.
func folder(config string, weights map[string]int) fstest.MapFS {
	out := fstest.MapFS{"config.json": {Data: []byte(config)}}
	for name, size := range weights {
		out[name] = &fstest.MapFile{Data: make([]byte, size)}
	}
	return out
}

// The shapes are those of published models: Llama 3 8B, Qwen3 0.6B, DeepSeek V3, Gemma 3 4B, Qwen3-Next.
func TestKVBytesPerToken(t *testing.T) {
	const llama = `{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096, "max_position_embeddings": 8192, "torch_dtype": "bfloat16"}`
	for _, c := range []struct {
		config string
		tp     int
		dtype  string
		want   int64
	}{
		{llama, 1, "auto", 131072}, {llama, 4, "", 32768}, {llama, 8, "", 16384}, {llama, 16, "", 16384}, {llama, 1, "fp8_e4m3", 65536}, {llama, 0, "", 131072},
		{llama, 1, "fp4_e2m1", 0}, {llama, 1, "bf16", 131072},
		{`{"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "hidden_size": 1024}`, 1, "", 114688},
		{`{"num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "hidden_size": 7168, "kv_lora_rank": 512, "qk_rope_head_dim": 64}`, 8, "", 70272},
		{`{"torch_dtype": "bfloat16", "text_config": {"num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "layer_types": ["sliding_attention", "full_attention", "linear_attention"]}}`, 1, "", 4096},
		{`{"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}`, 1, "", 2 * 2 * 4 * 16 * 2},
		{`{}`, 1, "", 0}, {`{"num_hidden_layers": -5, "head_dim": 8}`, 1, "", 0}, {`{"num_hidden_layers": 100000000000, "head_dim": 100000000, "num_key_value_heads": 1000000000}`, 1, "", 0},
	} {
		m, err := Read(folder(c.config, map[string]int{"model.safetensors": 10}))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.KVBytesPerToken(c.tp, c.dtype); got != c.want {
			t.Errorf("%s on %d with %q: got %d, want %d", c.config, c.tp, c.dtype, got, c.want)
		}
	}
}

func TestWeights(t *testing.T) {
	for _, c := range []struct {
		name    string
		weights map[string]int
		index   string
		want    int64
	}{
		{"one file", map[string]int{"model.safetensors": 100, "tokenizer.json": 7}, "", 100},
		{"an index names what is loaded", map[string]int{"model-1.safetensors": 100, "model-2.safetensors": 50, "old.safetensors": 9},
			`{"metadata": {"total_size": 1}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "./model-1.safetensors", "d": "../../etc/passwd"}}`, 150},
		{"a second copy", map[string]int{"model.safetensors": 100, "consolidated.safetensors": 100}, "", 100},
		{"only the other form", map[string]int{"consolidated.safetensors": 80}, "", 80},
		{"PyTorch", map[string]int{"pytorch_model-1.bin": 30, "pytorch_model-2.bin": 30, "training_args.bin": 5}, "", 60},
		{"safetensors before PyTorch", map[string]int{"model.safetensors": 40, "pytorch_model.bin": 80}, "", 40},
	} {
		f := folder("{}", c.weights)
		if c.index != "" {
			f["model.safetensors.index.json"] = &fstest.MapFile{Data: []byte(c.index)}
		}
		if m, err := Read(f); err != nil || m.WeightBytes != c.want {
			t.Errorf("%s: got %+v, %v; want %d", c.name, m, err, c.want)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	missing := folder("{}", nil)
	missing["model.safetensors.index.json"] = &fstest.MapFile{Data: []byte(`{"weight_map": {"a": "gone.safetensors"}}`)}
	for name, c := range map[string]struct {
		folder fs.FS
		want   error
	}{
		"no folder": {fstest.MapFS{}, fs.ErrNotExist}, "no weights": {folder("{}", map[string]int{"model.gguf": 5}), ErrNoWeights},
		"no JSON": {folder("{", map[string]int{"model.safetensors": 5}), nil}, "a file of the index is missing": {missing, fs.ErrNotExist},
	} {
		if _, err := Read(c.folder); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestLoaded(t *testing.T) {
	for _, c := range []struct {
		config, dtype string
		want          int64
	}{
		{`{"torch_dtype": "bfloat16"}`, "", 100}, {`{"torch_dtype": "float32"}`, "auto", 50}, {`{"dtype": "float32"}`, "float32", 100}, {`{"dtype": "float32"}`, "half", 50},
		{`{"torch_dtype": "float32", "quantization_config": {"bits": 4}}`, "", 100}, {`{"torch_dtype": "float32", "quantization_config": null}`, "", 50},
	} {
		m, err := Read(folder(c.config, map[string]int{"model.safetensors": 100}))
		if err != nil || m.Loaded(c.dtype) != c.want {
			t.Errorf("%s as %q: got %d, %v; want %d", c.config, c.dtype, m.Loaded(c.dtype), err, c.want)
		}
	}
}

func TestFolder(t *testing.T) {
	home := t.TempDir()
	snapshot := filepath.Join(home, "hub", "models--org--m", "snapshots", "abc")
	for path, text := range map[string]string{filepath.Join(snapshot, "config.json"): "{}", filepath.Join(home, "hub", "models--org--m", "refs", "main"): "abc\n"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	deep := filepath.Join(t.TempDir(), ".cache", "huggingface")
	if err := os.MkdirAll(filepath.Dir(deep), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(home, deep); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, revision, env, want string }{
		{"/models/a", "", "", "/models/a"}, {"org/m", "", "HF_HOME=" + home, snapshot}, {"org/m", "main", "HF_HUB_CACHE=" + filepath.Join(home, "hub"), snapshot},
		{"org/m", "abc", "HF_HOME=" + home, snapshot}, {"org/m", "other", "HF_HOME=" + home, ""}, {"org/m", "../../x", "HF_HOME=" + home, ""},
		{"org/m", "", "HOME=" + filepath.Dir(filepath.Dir(deep)), filepath.Join(deep, "hub", "models--org--m", "snapshots", "abc")},
		{"org/m", "", "XDG_CACHE_HOME=" + filepath.Dir(deep), filepath.Join(deep, "hub", "models--org--m", "snapshots", "abc")},
		{"org/other", "", "HF_HOME=" + home, ""}, {"a/b/c", "", "HF_HOME=" + home, ""}, {"s3://bucket/x", "", "HF_HOME=" + home, ""}, {"", "", "", ""}, {"org/m", "", "", ""},
	} {
		name, value, _ := strings.Cut(c.env, "=")
		got := Folder(c.path, c.revision, func(asked string) string {
			if asked == name {
				return value
			}
			return ""
		})
		if got != c.want {
			t.Errorf("%s at %q with %s: got %q, want %q", c.path, c.revision, c.env, got, c.want)
		}
	}
}
