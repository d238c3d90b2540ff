package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
)

// shape is a Llama's: all that its weights' names and sizes depend on.
type shape struct {
	hidden, inter, layers, heads, kvHeads, headDim, vocab int
	layersPerFile                                         int
}

// eight is the shape of models with 8 billion parameters, with more layers in the place of a large vocabulary's embeddings.
var eight = shape{hidden: 4096, inter: 14336, layers: 35, heads: 32, kvHeads: 8, headDim: 128, layersPerFile: 5}

// tensor is one of a model's, in bf16.
type tensor struct {
	name  string
	shape []int
	ones  bool // a norm's weights; others are random
}

func (t *tensor) bytes() int64 {
	n := int64(2)
	for _, d := range t.shape {
		n *= int64(d)
	}
	return n
}

// files are the tensors of each file of the weights.
func (s shape) files() (files [][]tensor) {
	files = append(files, []tensor{
		{"model.embed_tokens.weight", []int{s.vocab, s.hidden}, false}, {"model.norm.weight", []int{s.hidden}, true}, {"lm_head.weight", []int{s.vocab, s.hidden}, false},
	})
	var layers []tensor
	for i := range s.layers {
		add := func(name string, ones bool, shape ...int) {
			layers = append(layers, tensor{fmt.Sprintf("model.layers.%d.%s.weight", i, name), shape, ones})
		}
		add("input_layernorm", true, s.hidden)
		add("self_attn.q_proj", false, s.heads*s.headDim, s.hidden)
		add("self_attn.k_proj", false, s.kvHeads*s.headDim, s.hidden)
		add("self_attn.v_proj", false, s.kvHeads*s.headDim, s.hidden)
		add("self_attn.o_proj", false, s.hidden, s.heads*s.headDim)
		add("post_attention_layernorm", true, s.hidden)
		add("mlp.gate_proj", false, s.inter, s.hidden)
		add("mlp.up_proj", false, s.inter, s.hidden)
		add("mlp.down_proj", false, s.hidden, s.inter)
		if (i+1)%s.layersPerFile == 0 || i+1 == s.layers {
			files, layers = append(files, layers), nil
		}
	}
	return files
}

// makeRandom makes a model of this shape with random weights in dir, with the small one's tokenizer. A folder that is there already is
// taken as it is.
func makeRandom(ctx context.Context, small, dir string, s shape) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	config, err := readConfig(small)
	if err != nil {
		return err
	}
	vocab, ok := config["vocab_size"].(float64)
	if !ok || config["model_type"] != "llama" {
		return fmt.Errorf("%s is no Llama with a vocab_size, whose weights we would know the names of", small)
	}
	s.vocab = int(vocab)
	maps.Copy(config, s.config())
	making := dir + ".making" // so that half a model is never taken for a whole one
	if err := os.RemoveAll(making); err != nil {
		return err
	}
	if err := likeModel(small, making, config); err != nil {
		return err
	}
	if err := s.write(ctx, making); err != nil {
		return errors.Join(err, os.RemoveAll(making))
	}
	return os.Rename(making, dir)
}

// config are the members of config.json that the shape settles.
func (s shape) config() map[string]any {
	return map[string]any{
		"hidden_size": s.hidden, "intermediate_size": s.inter, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
		"num_key_value_heads": s.kvHeads, "head_dim": s.headDim, "tie_word_embeddings": false,
	}
}

// write writes all files of the weights, as many at once as there are CPUs, and their index.
func (s shape) write(ctx context.Context, dir string) error {
	files := s.files()
	index, total := map[string]string{}, int64(0)
	errs := make([]error, len(files))
	var wg sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	for i, tensors := range files {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(files))
		for _, t := range tensors {
			index[t.name] = name
			total += t.bytes()
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = writeTensors(ctx, filepath.Join(dir, name), tensors, uint64(i))
		})
	}
	wg.Wait()
	text, err := json.MarshalIndent(map[string]any{"metadata": map[string]any{"total_size": total}, "weight_map": index}, "", " ")
	if err = errors.Join(err, errors.Join(errs...)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), text, 0o600)
}

// writeTensors writes one file in the safetensors format: the header's length in eight bytes, little-endian, the header as JSON, and
// the tensors one after the other (huggingface/safetensors, README).
func writeTensors(ctx context.Context, path string, tensors []tensor, seed uint64) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	header, at := map[string]any{"__metadata__": map[string]string{"format": "pt"}}, int64(0)
	for _, t := range tensors {
		header[t.name] = map[string]any{"dtype": "BF16", "shape": t.shape, "data_offsets": []int64{at, at + t.bytes()}}
		at += t.bytes()
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	for len(text)%8 != 0 { // readers want the tensors aligned
		text = append(text, ' ')
	}
	w := bufio.NewWriterSize(f, 1<<20)
	_, _ = w.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(text)))) // Flush returns the errors
	_, _ = w.Write(text)
	random := rand.NewPCG(8, seed)
	for _, t := range tensors {
		if err := writeValues(ctx, w, &t, random); err != nil {
			return err
		}
	}
	return w.Flush()
}

// writeValues writes a tensor's: 1, or either sign of a number between 2⁻⁷ and 2⁻⁵, whose size is about that of weights before training.
func writeValues(ctx context.Context, w io.Writer, t *tensor, random *rand.PCG) error {
	const (
		one = 0x3F80_3F80_3F80_3F80
		// Of each bf16, the sign, the exponent's last bit and the fraction are random; the exponent's first seven bits make it 120 or 121.
		free, fixed = 0x80FF_80FF_80FF_80FF, 0x3C00_3C00_3C00_3C00
	)
	block := make([]byte, 1<<20)
	for left := t.bytes(); left > 0; left -= int64(len(block)) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		block = block[:min(int64(len(block)), left)]
		for i := 0; i+8 <= len(block); i += 8 {
			v := uint64(one)
			if !t.ones {
				v = random.Uint64()&free | fixed
			}
			binary.LittleEndian.PutUint64(block[i:], v)
		}
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	return nil
}

func readConfig(dir string) (config map[string]any, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	return config, json.Unmarshal(text, &config)
}

// likeModel makes a model's folder without weights: config, and links to the small one's other files.
func likeModel(small, dir string, config map[string]any) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600); err != nil {
		return err
	}
	if small, err = filepath.Abs(small); err != nil {
		return err
	}
	entries, err := os.ReadDir(small)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if name == "config.json" || name == "model.safetensors.index.json" || slices.Contains([]string{".safetensors", ".bin", ".gguf"}, filepath.Ext(name)) {
			continue
		}
		if err := os.Symlink(filepath.Join(small, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
