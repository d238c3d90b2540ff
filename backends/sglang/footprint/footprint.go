// Package footprint says how much GPU memory a model takes before it is started: its weights, from the sizes of their
// files, and its KV cache, from its config.json. It reads folders and starts nothing.
//
// What it says of weights is what SGLang loads; what else SGLang keeps on a device (activations, CUDA graphs, workspaces:
// some gigabytes) is not in it. Functions are safe for concurrent use.
package footprint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Model is what a folder of weights takes. Zero means not known.
type Model struct {
	// WeightBytes is the size of the files that are loaded.
	WeightBytes int64
	// DType is the type that config.json names, such as bfloat16.
	DType string
	// Quantized tells that the files are quantized already.
	Quantized bool
	// Context is the longest context that config.json allows, in tokens.
	Context int

	layers     int // that keep a cache that grows with the context
	kvHeads    int
	headDim    int
	latentSize int // of the compressed cache of multi-head latent attention, per layer and token; it is not split
}

// ErrNoWeights is a folder without weights that are understood: GGUF files, or none.
var ErrNoWeights = errors.New("no safetensors or PyTorch weights in the folder")

// most bounds the JSON files that are read: the index of the largest models has some megabytes.
const most = 64 << 20

// Read looks at a model's folder, as Hugging Face lays it out.
func Read(folder fs.FS) (*Model, error) {
	var c struct {
		shape
		Text *shape `json:"text_config"` // of models that also see or hear
	}
	if err := readJSON(folder, "config.json", &c); err != nil {
		return nil, err
	}
	s := c.shape
	if c.Text != nil {
		s = *c.Text
		s.Type, s.NewType = either(s.Type, c.Type), either(s.NewType, c.NewType)
		if s.Quantization == nil {
			s.Quantization = c.Quantization
		}
	}
	m := s.model()
	var err error
	m.WeightBytes, err = weights(folder)
	return m, err
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// shape is what config.json has of a decoder. Names are those of Hugging Face's transformers.
type shape struct {
	Layers       int             `json:"num_hidden_layers"`
	Heads        int             `json:"num_attention_heads"`
	KVHeads      int             `json:"num_key_value_heads"`
	HeadDim      int             `json:"head_dim"`
	Hidden       int             `json:"hidden_size"`
	Context      int             `json:"max_position_embeddings"`
	Type         string          `json:"torch_dtype"`
	NewType      string          `json:"dtype"`
	LatentRank   int             `json:"kv_lora_rank"`
	RopeDim      int             `json:"qk_rope_head_dim"`
	LayerTypes   []string        `json:"layer_types"`
	Quantization json.RawMessage `json:"quantization_config"`
}

func (s shape) model() *Model {
	m := &Model{DType: either(s.NewType, s.Type), Context: max(s.Context, 0), Quantized: len(s.Quantization) > 0 && string(s.Quantization) != "null",
		layers: s.Layers, kvHeads: s.KVHeads, headDim: s.HeadDim}
	if m.kvHeads == 0 {
		m.kvHeads = s.Heads
	}
	if m.headDim == 0 && s.Heads > 0 {
		m.headDim = s.Hidden / s.Heads
	}
	if s.LatentRank > 0 {
		m.latentSize = s.LatentRank + s.RopeDim
	}
	if len(s.LayerTypes) > 0 {
		m.layers = 0
		for _, kind := range s.LayerTypes {
			// Others keep a state or a window whose size does not grow with the context.
			if kind == "full_attention" || kind == "attention" {
				m.layers++
			}
		}
	}
	if m.layers < 0 || m.kvHeads < 0 || m.headDim < 0 || m.layers > 1e4 || m.kvHeads > 1e5 || m.headDim > 1e5 || m.latentSize < 0 || m.latentSize > 1e6 {
		m.layers, m.kvHeads, m.headDim, m.latentSize = 0, 0, 0, 0 // no model looks so
	}
	return m
}

// KVBytesPerToken is what one token of context takes on one of tp devices, in bytes, with the engine's --kv-cache-dtype.
// 0: not known.
func (m *Model) KVBytesPerToken(tp int, dtype string) int64 {
	size := int64(2)
	switch {
	case strings.HasPrefix(dtype, "fp8"), dtype == "mxfp8":
		size = 1
	case strings.Contains(dtype, "fp4"):
		return 0 // half a byte and scales, which differ by kind
	case (dtype == "" || dtype == "auto") && m.DType == "float32":
		size = 2 // SGLang's auto takes float16 for it
	}
	if m.latentSize > 0 {
		return int64(m.layers) * int64(m.latentSize) * size
	}
	heads := (m.kvHeads + max(tp, 1) - 1) / max(tp, 1) // with fewer heads than devices each device has a copy
	return 2 * int64(m.layers) * int64(heads) * int64(m.headDim) * size
}

// Loaded is what the weights take once they are loaded with --dtype, in bytes: SGLang's auto loads float32 files as
// float16 (server arguments, dtype).
func (m *Model) Loaded(dtype string) int64 {
	half := dtype != "float32" && dtype != "float"
	if m.DType == "float32" && half && !m.Quantized {
		return m.WeightBytes / 2
	}
	return m.WeightBytes
}

// weights adds up the files that are loaded.
func weights(folder fs.FS) (int64, error) {
	for _, kind := range []struct{ index, pattern string }{
		{"model.safetensors.index.json", "*.safetensors"}, {"pytorch_model.bin.index.json", "pytorch_model*.bin"},
	} {
		names, err := listed(folder, kind.index)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		if len(names) == 0 {
			if names, err = fs.Glob(folder, kind.pattern); err != nil {
				return 0, err
			}
			names = withoutCopies(names)
		}
		if len(names) == 0 {
			continue
		}
		var sum int64
		for _, name := range names {
			info, err := fs.Stat(folder, name)
			if err != nil {
				return 0, fmt.Errorf("weights that %s names: %w", kind.index, err)
			}
			sum += info.Size()
		}
		return sum, nil
	}
	return 0, ErrNoWeights
}

// listed are the files that an index names.
func listed(folder fs.FS, index string) ([]string, error) {
	var file struct {
		Where map[string]string `json:"weight_map"`
	}
	if err := readJSON(folder, index, &file); err != nil {
		return nil, err
	}
	var names []string
	for _, name := range file.Where {
		if name = path.Clean(name); fs.ValidPath(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// withoutCopies leaves out the second form in which some repositories hold the same weights.
func withoutCopies(names []string) []string {
	main := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.HasPrefix(n, "consolidated") })
	if len(main) > 0 {
		return main
	}
	return names
}

func readJSON(folder fs.FS, name string, into any) error {
	info, err := fs.Stat(folder, name)
	if err != nil {
		return err
	}
	if info.Size() > most {
		return fmt.Errorf("%s has %d bytes", name, info.Size())
	}
	data, err := fs.ReadFile(folder, name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
