package shard

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pilotlight/backends/sglang/flags"
)

// Recipe is all that sharded weights depend on: they fit an engine with the same recipe, and no other.
type Recipe struct {
	Model  string `json:"model"`  // "org/name"; of a folder, its own name
	Commit string `json:"commit"` // 40 hex digits
	// Engine is "sglang" and Version its release: what is kept of a model, under which names and in which layout, is its own business.
	Engine  string `json:"engine"`
	Version string `json:"engine_version"`
	TP      int    `json:"tp"`
	DType   string `json:"dtype"`                  // as torch calls it, or "auto" where the model does not say
	Quant   string `json:"quantization,omitempty"` // --quantization; the model's own is part of the model
	// Options are others that change what an engine keeps of a model, in full, sorted.
	Options []string `json:"options,omitempty"`
}

// shaping are SGLang's options that change names, shapes or values of the tensors that a rank holds, beside those that Recipe names
// (0.5.15: server_args.py; models and quantisation methods read them while they are built or after they are loaded).
var shaping = []string{
	"--attn-cp-size", "--cpu-offload-gb", "--disable-shared-experts-fusion", "--enable-dp-attention", "--enable-dp-lm-head", "--enable-eplb",
	"--enable-fp32-lm-head", "--encoder-only", "--ep-num-redundant-experts", "--ep-size", "--flashinfer-mxfp4-moe-precision", "--fp4-gemm-backend",
	"--fp8-gemm-backend", "--init-expert-location", "--is-embedding", "--json-model-override-args", "--language-only", "--mm-enable-dp-encoder",
	"--model-impl", "--modelopt-quant", "--moe-a2a-backend", "--moe-dense-tp-size", "--moe-dp-size", "--moe-runner-backend", "--quantization-param-path",
	"--torchao-config",
}

// NewRecipe says what the sharded weights of the model in folder depend on, for an engine of this release with these options. The error
// says which option rules sharding out, and what to do.
func NewRecipe(model, commit, folder, version string, options *flags.Line) (Recipe, error) {
	r := Recipe{Model: model, Commit: commit, Engine: "sglang", Version: version, TP: max(options.Int("--tp-size"), 1)}
	r.Quant, _ = options.Value("--quantization")
	for _, name := range shaping {
		value, given := options.Value(name)
		if o := options.Table.Option(name); !given || o == nil || value != "" && value == o.Default {
			continue
		}
		r.Options = append(r.Options, strings.TrimSuffix(name+" "+value, " "))
	}
	slices.Sort(r.Options)
	asked, _ := options.Value("--dtype")
	var err error
	r.DType, err = dtype(folder, asked)
	if message, fix := flags.Unshardable(options); message != "" {
		err = errors.Join(err, fmt.Errorf("%s; %s", message, fix))
	}
	return r, err
}

// Args are what an engine gets beside its own options to load sharded weights.
func Args() []string { return []string{"--load-format", flags.ShardedState} }

// spelled are names of types that SGLang takes for others (_STR_DTYPE_TO_TORCH_DTYPE).
var spelled = map[string]string{"half": "float16", "float": "float32"}

// dtype is what SGLang makes of --dtype (model_config.py, _get_and_verify_dtype): as asked, else as the model says, and never float32 without
// being asked.
func dtype(folder, asked string) (string, error) {
	asked = strings.ToLower(asked)
	if name, ok := spelled[asked]; ok {
		return name, nil
	}
	if asked != "" && asked != "auto" {
		return asked, nil
	}
	text, err := os.ReadFile(filepath.Join(folder, "config.json"))
	if err != nil {
		return "", fmt.Errorf("reading the model's configuration: %w", err)
	}
	type types struct {
		DType string `json:"dtype"`
		Torch string `json:"torch_dtype"`
	}
	var config struct {
		types
		Kind string `json:"model_type"`
		Text types  `json:"text_config"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return "", fmt.Errorf("reading the model's config.json: %w", err)
	}
	for _, name := range []string{config.DType, config.Torch, config.Text.DType, config.Text.Torch} {
		switch name = strings.TrimPrefix(name, "torch."); {
		case name == "":
		case name == "float32" && strings.HasPrefix(config.Kind, "gemma"):
			return "bfloat16", nil
		case name == "float32":
			return "float16", nil
		default:
			return name, nil
		}
	}
	return "auto", nil
}

// maxName is how long a model's name in the store may be.
const maxName = 96

// Repo is the store's name for sharded weights of the model.
func (r Recipe) Repo() string {
	const under = "sharded/"
	name := under + strings.ReplaceAll(r.Model, "/", "__")
	return strings.TrimRight(name[:min(len(name), maxName)], "-.")
}

// Revision is the store's name for sharded weights of this recipe. It holds the whole commit and, where there are options that have no
// place of their own, a hash of them.
func (r Recipe) Revision() string {
	parts := []string{r.Commit, r.Engine + "-" + r.Version, "tp" + strconv.Itoa(r.TP), r.DType}
	if r.Quant != "" {
		parts = append(parts, r.Quant)
	}
	if len(r.Options) > 0 {
		sum := sha256.Sum256([]byte(strings.Join(r.Options, "\x00")))
		parts = append(parts, "with-"+hex.EncodeToString(sum[:4]))
	}
	return strings.Join(parts, "/")
}

// text is the recipe in words, without the model.
func (r Recipe) text() string {
	text := fmt.Sprintf("SGLang %s, --tp-size %d, %s", r.Version, r.TP, r.DType)
	if r.Quant != "" {
		text += ", --quantization " + r.Quant
	}
	for _, o := range r.Options {
		text += ", " + o
	}
	return text
}

// Fits says why weights that were made by recipe made do not fit an engine that wants recipe r; nil: they do.
func (r Recipe) Fits(made Recipe) error {
	var wrong []string
	differ := func(what, have, want string) {
		if have != want {
			wrong = append(wrong, fmt.Sprintf("%s %s and not %s", what, have, want))
		}
	}
	differ("for --tp-size", strconv.Itoa(made.TP), strconv.Itoa(r.TP))
	differ("by SGLang", made.Version, r.Version)
	differ("in", made.DType, r.DType)
	differ("with --quantization", orNone(made.Quant), orNone(r.Quant))
	differ("with", orNone(strings.Join(made.Options, " ")), orNone(strings.Join(r.Options, " ")))
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("the sharded weights were made %s", strings.Join(wrong, ", "))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
