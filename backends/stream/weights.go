package stream

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"pilotlight/backends/store"
)

const suffix = ".safetensors"

// errUnfit is a folder that the loader cannot load a model from.
var errUnfit = errors.New("the model cannot be streamed")

// unfit is an errUnfit with what to do.
type unfit struct{ problem, fix string }

func (u unfit) Error() string { return u.problem + ": " + u.fix }
func (unfit) Unwrap() error   { return errUnfit }

// chosen are the weights that the loader will read: all *.safetensors directly in the folder, as it does.
func chosen(list store.Listing) (files []store.File, err error) {
	var sharded, below, other []string
	for _, f := range list.Files {
		base := path.Base(f.Path)
		switch {
		case strings.HasPrefix(base, "model-rank-") && strings.HasSuffix(base, suffix):
			sharded = append(sharded, f.Path)
		case strings.HasSuffix(f.Path, suffix) && base == f.Path:
			files = append(files, f)
		case strings.HasSuffix(f.Path, suffix):
			below = append(below, f.Path)
		case slices.ContainsFunc(store.WeightFiles, func(pattern string) bool { ok, _ := path.Match(pattern, base); return ok }):
			other = append(other, f.Path)
		}
	}
	has := func(name string) bool {
		return slices.ContainsFunc(list.Files, func(f store.File) bool { return f.Path == name })
	}
	switch {
	case len(sharded) > 0:
		return nil, unfit{"the weights are cut for tensor parallelism (sharded_state), and SGLang's streaming loader reads whole checkpoints only",
			"stream the model as it was before it was cut (each rank keeps its part), or write stream_model: false and have the cut one loaded from the store"}
	case len(files) == 0 && len(below) > 0:
		return nil, unfit{fmt.Sprintf("the weights lie in folders below (%s), and the loader looks only directly into it", below[0]), "give the folder that holds them"}
	case len(files) == 0 && len(other) > 0:
		return nil, unfit{fmt.Sprintf("the weights are %s, and only safetensors can be streamed", other[0]), "convert them, or write stream_model: false"}
	case len(files) == 0:
		return nil, unfit{"there are no *.safetensors files", "check the prefix; the loader reads weights in that form only"}
	case !has("config.json"):
		return nil, unfit{"there is no config.json beside the weights", "upload the whole model: configuration and tokenizer, too"}
	}
	// Mistral's repositories hold everything twice, and the loader reads all that there is.
	if len(files) > 1 && slices.ContainsFunc(files, func(f store.File) bool { return strings.HasPrefix(f.Path, "consolidated") }) &&
		slices.ContainsFunc(files, func(f store.File) bool { return strings.HasPrefix(f.Path, "model") }) {
		return nil, unfit{"the weights are there twice, as model*.safetensors and as consolidated*.safetensors, and the loader would load both", "remove one kind from the folder"}
	}
	for _, f := range files {
		// Files that were copied into a server's folder instead of uploaded have none, and Amazon's library gives up on them.
		if f.Version == "" || strings.Contains(f.Version, ":") {
			return nil, unfit{f.Path + " has no ETag, without which the loader's library reads nothing", "upload it through the S3 API (aws s3 cp); it was put into the server's folder"}
		}
	}
	return files, nil
}

// indexFile lists which file has which tensor, where there are several.
const indexFile = "model.safetensors.index.json"

// checkIndex compares the index with the files. No index is fine.
func checkIndex(index []byte, files []store.File) error {
	var of struct {
		Map map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(index, &of); err != nil {
		return unfit{indexFile + " is not JSON", "upload it again"}
	}
	for _, name := range of.Map {
		if !slices.ContainsFunc(files, func(f store.File) bool { return f.Path == name }) {
			return unfit{name + " is missing, which " + indexFile + " names", "upload it; without it the model would be loaded with holes"}
		}
	}
	return nil
}

// maxHeader bounds a safetensors header, as the format's own reader does (100 MB; safetensors, MAX_HEADER_SIZE).
const maxHeader = 100_000_000

// readable reads the first bytes of a weight file, which shows that objects may be read and that this is one: eight bytes of the length of a
// JSON header (https://github.com/huggingface/safetensors#format).
func readable(ctx context.Context, source store.Source, commit string, f store.File) error {
	notOne := unfit{f.Path + " is not a safetensors file", "upload it again"}
	if f.Size < 10 {
		return notOne
	}
	r, err := source.Open(ctx, commit, f, 0, 9)
	if err != nil {
		return err
	}
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return errors.Join(fmt.Errorf("reading %s: %w", f.Path, err), r.Close())
	}
	if n := binary.LittleEndian.Uint64(head[:8]); n > maxHeader || int64(n) > f.Size-8 || head[8] != '{' {
		return errors.Join(notOne, r.Close())
	}
	return r.Close()
}
