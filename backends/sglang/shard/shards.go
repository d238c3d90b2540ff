package shard

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// part is one file of a rank's weights.
type part struct {
	name    string
	rank    int
	number  int // 0, 1, … of its rank
	size    int64
	tensors map[string]string // type by name
}

// partName is SGLang's default pattern (ShardedStateLoader.DEFAULT_PATTERN).
var partName = regexp.MustCompile(`^model-rank-(\d+)-part-(\d+)\.safetensors$`)

// readParts reads what the ranks have written, and sees that it is whole: every rank from 0 on has files, numbered without a gap, each exactly
// as long as its header says, and all ranks hold tensors of the same names and types, each once. A rank's parts of tensors differ in
// nothing but shape, so what one of them lacks shows beside the others; that rank 0 lacks nothing is what SGLang itself has answered.
func readParts(dir string, tp int) ([]part, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var parts []part
	for _, e := range entries {
		m := partName.FindStringSubmatch(e.Name())
		if m == nil {
			return nil, fmt.Errorf("the engine left %q among the weights", e.Name())
		}
		p := part{name: e.Name()}
		if p.rank, err = strconv.Atoi(m[1]); err == nil {
			p.number, err = strconv.Atoi(m[2])
		}
		if err == nil {
			err = p.read(filepath.Join(dir, e.Name()))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		parts = append(parts, p)
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.number, b.number)) })
	return parts, complete(parts, tp)
}

// complete takes parts in their order.
func complete(parts []part, tp int) error {
	ranks := make([]map[string]string, tp)
	next := make([]int, tp)
	for _, p := range parts {
		if p.rank >= tp {
			return fmt.Errorf("%s is of a rank that there is not: there are %d", p.name, tp)
		}
		if p.number != next[p.rank] {
			return fmt.Errorf("rank %d has no part %d", p.rank, next[p.rank])
		}
		next[p.rank]++
		if ranks[p.rank] == nil {
			ranks[p.rank] = map[string]string{}
		}
		for name, kind := range p.tensors {
			if _, twice := ranks[p.rank][name]; twice {
				return fmt.Errorf("rank %d has %s twice", p.rank, name)
			}
			ranks[p.rank][name] = kind
		}
	}
	for rank, tensors := range ranks {
		if len(tensors) == 0 {
			return fmt.Errorf("rank %d has written nothing", rank)
		}
		for name, kind := range ranks[0] {
			if tensors[name] == "" {
				return fmt.Errorf("rank %d lacks %s", rank, name)
			}
			if tensors[name] != kind {
				return fmt.Errorf("rank %d has %s as %s, and rank 0 as %s", rank, name, tensors[name], kind)
			}
		}
		for name := range tensors {
			if ranks[0][name] == "" {
				return fmt.Errorf("rank 0 lacks %s, which rank %d has", name, rank)
			}
		}
	}
	return nil
}

// maxHeader is the longest header that a file may have (safetensors' MAX_HEADER_SIZE).
const maxHeader = 100_000_000

// read reads a file's header: its length in eight bytes, then JSON (github.com/huggingface/safetensors, Format).
func (p *part) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if p.size = info.Size(); !info.Mode().IsRegular() {
		return errors.New("it is not a file")
	}
	var length uint64
	if err := binary.Read(f, binary.LittleEndian, &length); err != nil {
		return fmt.Errorf("reading its header's length: %w", err)
	}
	if length > maxHeader {
		return fmt.Errorf("its header has %d bytes", length)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(f, text); err != nil {
		return fmt.Errorf("reading its header: %w", err)
	}
	var header map[string]struct {
		Type    string   `json:"dtype"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(text, &header); err != nil {
		return fmt.Errorf("reading its header: %w", err)
	}
	end := int64(0)
	p.tensors = make(map[string]string, len(header))
	for name, tensor := range header {
		if name == "__metadata__" {
			continue
		}
		if tensor.Type == "" || tensor.Offsets[0] < 0 || tensor.Offsets[1] < tensor.Offsets[0] {
			return fmt.Errorf("its header says nonsense of %s", name)
		}
		end = max(end, tensor.Offsets[1])
		p.tensors[name] = tensor.Type
	}
	if want := 8 + int64(length) + end; p.size != want {
		return fmt.Errorf("it has %d bytes and should have %d", p.size, want)
	}
	return nil
}
