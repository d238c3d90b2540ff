package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheLargeModelHasEightBillionParameters(t *testing.T) {
	s := eight
	s.vocab = 49152 // SmolLM2's
	var bytes int64
	for _, file := range s.files() {
		for _, tensor := range file {
			bytes += tensor.bytes()
		}
	}
	if bytes < 15.9e9 || bytes > 16.2e9 {
		t.Errorf("%d bytes", bytes)
	}
}

// What is written reads as the format says, and the values are numbers of the right size.
func TestRandomWeightsAreWhole(t *testing.T) {
	o := simulated(t)
	dir := filepath.Join(t.TempDir(), "large")
	s := shape{hidden: 64, inter: 96, layers: 3, heads: 4, kvHeads: 2, headDim: 16, layersPerFile: 2}
	if err := makeRandom(t.Context(), o.Model, dir, s); err != nil {
		t.Fatal(err)
	}
	var index struct {
		Metadata struct {
			Total int64 `json:"total_size"`
		} `json:"metadata"`
		Map map[string]string `json:"weight_map"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "model.safetensors.index.json"))
	if err == nil {
		err = json.Unmarshal(text, &index)
	}
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil || len(files) != 3 {
		t.Fatalf("files %v, %v", files, err)
	}
	sum, tensors := int64(0), 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		length := binary.LittleEndian.Uint64(data)
		var header map[string]struct {
			DType   string  `json:"dtype"`
			Shape   []int64 `json:"shape"`
			Offsets []int64 `json:"data_offsets"`
		}
		if err := json.Unmarshal(data[8:8+length], &header); err != nil || length%8 != 0 {
			t.Fatalf("a header of %d bytes, %v", length, err)
		}
		values := data[8+length:]
		delete(header, "__metadata__")
		covered := int64(0)
		for name, h := range header {
			size := int64(2)
			for _, d := range h.Shape {
				size *= d
			}
			if h.DType != "BF16" || h.Offsets[1]-h.Offsets[0] != size || index.Map[name] != filepath.Base(file) {
				t.Errorf("%s in %s: %+v, and the index says %q", name, file, h, index.Map[name])
			}
			covered += size
			tensors++
			mean := 0.0
			for i := h.Offsets[0]; i < h.Offsets[1]; i += 2 {
				v := float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(values[i:])) << 16))
				mean += v / float64(size/2)
				if norm := strings.Contains(name, "norm"); norm && v != 1 || !norm && (math.Abs(v) < 1.0/128 || math.Abs(v) >= 1.0/32) {
					t.Fatalf("%s has %v", name, v)
				}
			}
			if !strings.Contains(name, "norm") && math.Abs(mean) > 0.004 {
				t.Errorf("%s: mean %v", name, mean)
			}
		}
		if covered != int64(len(values)) {
			t.Errorf("%s: %d bytes of tensors in %d", file, covered, len(values))
		}
		sum += covered
	}
	if sum != index.Metadata.Total || tensors != len(index.Map) || tensors != 3+3*9 {
		t.Errorf("%d bytes and %d tensors, the index has %d and %d", sum, tensors, index.Metadata.Total, len(index.Map))
	}
	config, err := readConfig(dir)
	if err != nil || config["num_hidden_layers"] != 3.0 || config["vocab_size"] != 49152.0 || config["tie_word_embeddings"] != false {
		t.Errorf("config %v, %v", config, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "tokenizer.json")); err != nil {
		t.Error(err)
	}
	if err := makeRandom(t.Context(), filepath.Join(dir, "nothing"), dir, s); err != nil {
		t.Errorf("one that is there was not taken: %v", err)
	}
}

func TestHalfALargeModelIsNotLeft(t *testing.T) {
	o := simulated(t)
	parent := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := makeRandom(ctx, o.Model, filepath.Join(parent, "large"), eight); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if entries, err := os.ReadDir(parent); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
