package flags

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// counterpart is what an option of vLLM's server (its 0.6 to 0.11 releases) is in SGLang.
type counterpart struct {
	takes Arity // how many values vLLM's option has
	// to are SGLang's names for it; the first one that the release has is used. None: see drop and refuse.
	to []string
	// convert makes SGLang's values of vLLM's. why is set if that is impossible: what to do instead. leave is set if
	// SGLang does so anyway. nil: the values are the same.
	convert func(t *Table, values []string) (out []string, leave bool, why string)
	note    string // how the two differ; may be empty
	drop    string // why it can be left out: it changes nothing that a client could notice
	refuse  string // why there is nothing to put in its place, and what to do
}

var vllm = map[string]counterpart{
	"--max-model-len": {to: []string{"--context-length"}, convert: modelLength},
	"--gpu-memory-utilization": {to: []string{"--mem-fraction-static"},
		note: "it is the share for weights and KV cache, not for the whole process"},
	"--max-num-seqs":           {to: []string{"--max-running-requests"}},
	"--max-num-batched-tokens": {to: []string{"--chunked-prefill-size"}},
	"--max-seq-len-to-capture": {drop: "SGLang chooses by batch size what it captures"},
	"--enforce-eager":          {takes: None, to: []string{"--disable-cuda-graph"}},
	"--seed":                   {to: []string{"--random-seed"}},
	"--root-path":              {to: []string{"--fastapi-root-path"}},
	"--tokenizer":              {to: []string{"--tokenizer-path"}},
	"--block-size":             {to: []string{"--page-size"}},
	"--kv-cache-dtype":         {to: []string{"--kv-cache-dtype"}, convert: words(map[string]string{"fp8": "fp8_e4m3"})},
	"--enable-sleep-mode":      {takes: None, to: []string{"--enable-memory-saver"}},

	"--enable-prefix-caching":     {takes: None, drop: "SGLang caches prefixes unless --disable-radix-cache is given"},
	"--no-enable-prefix-caching":  {takes: None, to: []string{"--disable-radix-cache"}},
	"--enable-chunked-prefill":    {takes: None, drop: "SGLang prefills in chunks unless --chunked-prefill-size -1 is given"},
	"--no-enable-chunked-prefill": {takes: None, to: []string{"--chunked-prefill-size"}, convert: always("-1")},
	"--num-scheduler-steps":       {to: []string{"--num-continuous-decode-steps"}},
	"--scheduling-policy": {to: []string{"--schedule-policy"}, convert: func(_ *Table, v []string) ([]string, bool, string) {
		if first(v) == "priority" {
			return nil, false, "write --enable-priority-scheduling"
		}
		return v, false, ""
	}},
	"--async-scheduling":   {takes: None, drop: "SGLang overlaps scheduling unless --disable-overlap-schedule is given"},
	"--preemption-mode":    {drop: "SGLang decides itself"},
	"--compilation-config": {drop: "SGLang compiles in its own way; see its --cuda-graph options"},
	"--swap-space":         {drop: "SGLang swaps no requests out; --enable-hierarchical-cache keeps prefixes in main memory"},

	"-tp": {to: []string{"--tp-size"}}, "--tp": {to: []string{"--tp-size"}},
	"-pp": {to: []string{"--pp-size"}}, "--pp": {to: []string{"--pp-size"}},
	"-dp": {to: []string{"--dp-size"}}, "--dp": {to: []string{"--dp-size"}},
	"-q": {to: []string{"--quantization"}}, "--quant": {to: []string{"--quantization"}},
	"--enable-expert-parallel": {takes: None, refuse: "write --ep-size with the number of GPUs that share the experts"},
	"--distributed-executor-backend": {convert: func(_ *Table, v []string) ([]string, bool, string) {
		return nil, first(v) != "ray", "remove it; a replica runs on one machine and needs no Ray"
	}},
	"--max-parallel-loading-workers": {drop: "SGLang chooses itself"},
	"--data-parallel-backend":        {drop: "a replica runs on one machine"},

	"--lora-modules":          {takes: Some, to: []string{"--lora-paths"}, convert: loraModules},
	"--max-loras":             {to: []string{"--max-loras-per-batch"}},
	"--max-cpu-loras":         {to: []string{"--max-loaded-loras"}},
	"--lora-dtype":            {drop: "SGLang loads adapters in the model's own type"},
	"--lora-extra-vocab-size": {refuse: "remove it; SGLang loads no adapters with added vocabulary by number"},
	"--fully-sharded-loras":   {takes: None, drop: "it changes only how adapters are laid out"},

	"--task":                       {convert: task, to: []string{"--is-embedding"}},
	"--runner":                     {convert: task, to: []string{"--is-embedding"}},
	"--model-impl":                 {to: []string{"--model-impl"}, convert: words(map[string]string{"vllm": "sglang"})},
	"--hf-overrides":               {to: []string{"--json-model-override-args"}},
	"--rope-scaling":               {to: []string{"--json-model-override-args"}, convert: inside("rope_scaling")},
	"--rope-theta":                 {to: []string{"--json-model-override-args"}, convert: inside("rope_theta")},
	"--generation-config":          {to: []string{"--sampling-defaults"}, convert: generationConfig},
	"--override-generation-config": {to: []string{"--preferred-sampling-params"}},
	"--speculative-model":          {to: []string{"--speculative-draft-model-path"}},
	"--num-speculative-tokens":     {to: []string{"--speculative-num-draft-tokens"}},
	"--speculative-config": {refuse: "write --speculative-algorithm, --speculative-draft-model-path, --speculative-num-steps and " +
		"--speculative-num-draft-tokens"},
	"--guided-decoding-backend": {to: []string{"--grammar-backend"}, convert: grammarBackend},
	"--enable-reasoning":        {takes: None, drop: "--reasoning-parser alone turns it on"},
	"--enable-auto-tool-choice": {takes: None, drop: "--tool-call-parser alone turns it on"},
	"--tool-call-parser": {to: []string{"--tool-call-parser"}, convert: words(map[string]string{"llama3_json": "llama3",
		"deepseek_v3": "deepseekv3", "deepseek_v31": "deepseekv31", "qwen3_xml": "qwen3_coder", "openai": "gpt-oss", "hermes": "qwen25"})},
	"--reasoning-parser": {to: []string{"--reasoning-parser"}, convert: words(map[string]string{"deepseek_r1": "deepseek-r1",
		"deepseek_v3": "deepseek-v3", "openai_gptoss": "gpt-oss"})},
	"--limit-mm-per-prompt":          {takes: Some, to: []string{"--limit-mm-data-per-request"}, convert: mediaLimits},
	"--chat-template-content-format": {drop: "SGLang finds out itself"},
	"--enable-prompt-tokens-details": {takes: None, to: []string{"--enable-cache-report"}},
	"--max-logprobs":                 {drop: "SGLang has no such limit"},

	"--disable-log-requests":       {takes: None, drop: "SGLang logs no requests unless --log-requests is given"},
	"--no-enable-log-requests":     {takes: None, drop: "SGLang logs no requests unless --log-requests is given"},
	"--enable-log-requests":        {takes: None, to: []string{"--log-requests"}},
	"--disable-log-stats":          {takes: None, drop: "the gateway reads SGLang's log and keeps it short"},
	"--uvicorn-log-level":          {to: []string{"--log-level-http"}},
	"--disable-uvicorn-access-log": {takes: None, to: []string{"--log-level-http"}, convert: always("warning")},
	"--disable-fastapi-docs":       {takes: None, drop: "clients do not reach the replica's own pages"},

	"--tokenizer-revision": {refuse: "remove it; SGLang's --revision is for model and tokenizer"},
	"--code-revision":      {refuse: "remove it; SGLang's --revision is for model and code"},
	"--allowed-origins":    {refuse: "remove it; clients do not reach the replica itself"},
	"--allowed-methods":    {refuse: "remove it; clients do not reach the replica itself"},
	"--allowed-headers":    {refuse: "remove it; clients do not reach the replica itself"},
	"--middleware":         {refuse: "remove it; SGLang loads none"},
	"--response-role":      {refuse: "remove it; SGLang always answers as assistant"},

	"--wait-for-initial-weights": {takes: None, refuse: "write --checkpoint-engine-wait-weights-before-ready"},
}

// translate looks whether args[i] is an option of vLLM that SGLang calls otherwise or lacks, or has values that it writes
// otherwise. It returns how many arguments that takes up, 0 if it is none, and what stands in their place; it
// reports to line. Names that SGLang has are left alone unless their value is not one of SGLang's.
func (t *Table) translate(line *Line, args []string, i int) (n int, replacement []string, was string) {
	name, value, joined := strings.Cut(args[i], "=")
	c, known := vllm[name]
	if !known && strings.HasPrefix(name, "--") && strings.Contains(name, "_") {
		// vLLM takes underscores for dashes.
		dashed := strings.ReplaceAll(name, "_", "-")
		if c, known = vllm[dashed]; !known && t.byName[dashed] != nil {
			rest, _ := strings.CutPrefix(args[i], name)
			line.warn(i, name, "is written with dashes in SGLang", "write "+dashed)
			return 1, []string{dashed + rest}, name
		}
	}
	if !known {
		return 0, nil, ""
	}
	n = 1
	var values []string
	switch {
	case joined:
		values = []string{value}
	case c.takes != None:
		for i+n < len(args) && (c.takes == Some || n == 1) && !isOption(args[i+n]) {
			values = append(values, args[i+n])
			n++
		}
	}
	if o := t.byName[name]; o != nil && fits(o, values) {
		return 0, nil, "" // SGLang's own, with a value of SGLang's
	}
	own := t.byName[name] != nil
	if c.refuse != "" {
		line.fail(i, name, "is vLLM's, and SGLang has nothing like it", c.refuse)
		return n, nil, ""
	}
	if c.drop != "" {
		line.warn(i, name, "is vLLM's and is left out: "+c.drop, "remove it")
		return n, nil, ""
	}
	if c.takes != None && len(values) == 0 {
		line.fail(i, name, "has no value", "write "+c.example(t))
		return n, nil, ""
	}
	if c.takes == None && joined {
		line.fail(i, name, "takes no value", "remove it")
		return n, nil, ""
	}
	out := values
	if c.convert != nil {
		var leave bool
		var why string
		out, leave, why = c.convert(t, values)
		switch {
		case leave:
			line.warn(i, name, "is vLLM's and is left out: SGLang does so anyway", "remove it")
			return n, nil, ""
		case why != "" && own:
			return 0, nil, "" // SGLang's own name with a value that is neither's
		case why != "":
			line.fail(i, name, "is vLLM's, and this value has nothing like it in SGLang", why)
			return n, nil, ""
		}
	}
	for _, to := range c.to {
		if t.byName[to] == nil {
			continue
		}
		replacement = append([]string{to}, out...)
		if len(out) == 1 && strings.HasPrefix(out[0], "-") {
			replacement = []string{to + "=" + out[0]}
		}
		if !own && strings.HasPrefix(to, name) { // an abbreviation that SGLang has, or had
			return n, replacement, name
		}
		shown := to
		if o := t.byName[to]; len(out) == 1 && (o.Choices != nil || o.Type == Int || o.Type == Float || o.Type == Size) {
			shown += " " + out[0] // a free text may be a secret, and warnings go to the log
		}
		message := "is vLLM's name; SGLang gets " + shown
		if own {
			message = "has vLLM's value; SGLang gets " + shown
		}
		if c.note != "" {
			message += " (" + c.note + ")"
		}
		line.warn(i, name, message, "write "+shown)
		return n, replacement, name
	}
	line.fail(i, name, fmt.Sprintf("is vLLM's name of %s, which SGLang %s does not have", c.to[0], t.version), "remove it, or install a newer SGLang")
	return n, nil, ""
}

func (c counterpart) example(t *Table) string {
	for _, to := range c.to {
		if o := t.byName[to]; o != nil && o.Arity != None {
			return to + " " + o.example()
		}
	}
	return "it with one, or remove it"
}

func (l *Line) fail(at int, name, message, fix string) {
	l.Errors = append(l.Errors, Finding{At: at, Name: name, Message: message, Fix: fix})
}

func (l *Line) warn(at int, name, message, fix string) {
	l.Warnings = append(l.Warnings, Finding{At: at, Name: name, Message: message, Fix: fix})
}

func isOption(arg string) bool {
	return len(arg) > 1 && arg[0] == '-' && !negativeNumber.MatchString(arg) && !strings.Contains(arg, " ")
}

// fits tells whether SGLang itself would take these values.
func fits(o *Option, values []string) bool {
	g := Given{Option: o, Written: o.Name, Values: values}
	if o.Arity == None {
		return len(values) == 0
	}
	return g.check() == nil
}

// nearestForeign helps with a misspelt name of vLLM.
func (t *Table) nearestForeign(name string) string {
	near := nearest(name, slices.Sorted(maps.Keys(vllm)))
	if near == "" {
		return ""
	}
	for _, to := range vllm[near].to {
		if t.byName[to] != nil {
			return fmt.Sprintf("did you mean %s (vLLM's %s)?", to, near)
		}
	}
	return ""
}

type conversion = func(*Table, []string) ([]string, bool, string)

// always ignores the values.
func always(out ...string) conversion {
	return func(*Table, []string) ([]string, bool, string) { return out, false, "" }
}

// words replaces the values that are written otherwise.
func words(other map[string]string) conversion {
	return func(_ *Table, values []string) ([]string, bool, string) {
		to, ok := other[first(values)]
		if !ok {
			return nil, false, "use one of SGLang's values"
		}
		return []string{to}, false, ""
	}
}

// inside puts a value into a JSON object, as a value of config.json.
func inside(field string) conversion {
	return func(_ *Table, values []string) ([]string, bool, string) {
		if !json.Valid([]byte(first(values))) {
			return nil, false, "write --json-model-override-args '{\"" + field + "\": …}'"
		}
		return []string{fmt.Sprintf("{%q: %s}", field, first(values))}, false, ""
	}
}

// modelLength reads vLLM's numbers: 32k is 32,000 and 32K is 32,768; -1 and auto leave it to the model.
func modelLength(_ *Table, values []string) ([]string, bool, string) {
	text := first(values)
	if text == "-1" || text == "auto" {
		return nil, true, ""
	}
	scaled := text
	if last := len(text) - 1; last > 0 && strings.ContainsRune("KMGT", rune(text[last])) {
		scaled = text + "i" // a capital is binary there
	} else if last > 0 && strings.ContainsRune("mgt", rune(text[last])) {
		scaled = text[:last] + strings.ToUpper(text[last:])
	}
	n, ok := SizeValue(scaled)
	if !ok || n < 1 {
		return nil, false, "write --context-length 8192"
	}
	return []string{strconv.FormatInt(n, 10)}, false, ""
}

// loraModules leaves name=path and reads vLLM's JSON, whose fields SGLang names otherwise.
func loraModules(_ *Table, values []string) ([]string, bool, string) {
	var out []string
	for _, v := range values {
		if strings.HasPrefix(v, "{") {
			var adapter struct{ Name, Path string }
			if err := json.Unmarshal([]byte(v), &adapter); err != nil || adapter.Name == "" || adapter.Path == "" {
				return nil, false, "write --lora-paths NAME=PATH"
			}
			v = adapter.Name + "=" + adapter.Path
		}
		out = append(out, v)
	}
	return out, false, ""
}

func task(_ *Table, values []string) ([]string, bool, string) {
	switch first(values) {
	case "generate", "auto":
		return nil, true, ""
	case "embed", "embedding", "pooling", "classify", "reward", "score":
		return nil, false, ""
	}
	return nil, false, "remove it, or write --is-embedding for a model that does not generate"
}

func generationConfig(_ *Table, values []string) ([]string, bool, string) {
	switch first(values) {
	case "auto":
		return []string{"model"}, false, ""
	case "vllm":
		return []string{"openai"}, false, ""
	}
	return nil, false, "remove it; SGLang reads the generation_config.json beside the weights"
}

func grammarBackend(_ *Table, values []string) ([]string, bool, string) {
	name, _, _ := strings.Cut(first(values), ":") // options follow the colon
	switch name {
	case "auto":
		return nil, true, ""
	case "xgrammar", "outlines":
		return []string{name}, false, ""
	case "guidance":
		return []string{"llguidance"}, false, ""
	}
	return nil, false, "write --grammar-backend xgrammar, llguidance or outlines"
}

// mediaLimits reads image=4,video=1 or JSON.
func mediaLimits(_ *Table, values []string) ([]string, bool, string) {
	if len(values) == 1 && strings.HasPrefix(values[0], "{") && json.Valid([]byte(values[0])) {
		return values, false, ""
	}
	limits := map[string]int{}
	for _, pair := range strings.Split(strings.Join(values, ","), ",") {
		kind, number, _ := strings.Cut(pair, "=")
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 {
			return nil, false, `write --limit-mm-data-per-request '{"image": 4}'`
		}
		limits[kind] = n
	}
	out, err := json.Marshal(limits) // sorted by kind
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return []string{string(out)}, false, ""
}
