package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/google/shlex"
	"go.yaml.in/yaml/v3"

	"pilotlight/backends"
)

// word is one argument and the field that holds it.
type word struct {
	text string
	at   value
}

// words reads a command line: a list, or one text with shell quoting. In the text '#' means itself, as for
// Python's shlex, which reads Flyte's extra_args.
func (v value) words() []word {
	v = v.asSecret() // people put keys among the arguments
	var out []word
	if v.given() && v.node.Kind == yaml.ScalarNode {
		text := v.text("")
		// The splitter takes '#' for a comment and text holds no zero byte, so one can stand for the other.
		parts, err := shlex.Split(strings.ReplaceAll(text, "#", "\x00"))
		if err != nil {
			v.fail("the quotes do not match", "close each quote, or write a list")
			return nil
		}
		for _, part := range parts {
			out = append(out, word{strings.ReplaceAll(part, "\x00", "#"), v})
		}
		return out
	}
	for _, item := range v.items() {
		if text, ok := item.argument(); ok {
			out = append(out, word{text, item})
		}
	}
	return out
}

func texts(words []word) []string {
	var out []string
	for _, w := range words {
		out = append(out, w.text)
	}
	return out
}

// flag splits --name=value; argument is false for what is no long option.
func (w word) flag() (name, argument string, hasArgument, ok bool) {
	if !strings.HasPrefix(w.text, "--") || len(w.text) == 2 {
		return "", "", false, false
	}
	name, argument, hasArgument = strings.Cut(w.text, "=")
	return name, argument, hasArgument, true
}

// refuse reports a flag by its name only: what stands beside it in one text may be a secret.
func (w word) refuse(name, message, fix string) {
	w.at.asSecret().fail(name+" "+message, fix)
}

// owned are the flags that the gateway gives to each replica itself.
var owned = map[string]string{
	"--host":              "remove it; replicas listen on loopback",
	"--port":              "remove it; each replica gets a free port",
	"--api-key":           "remove it; each replica gets a key of its own",
	"--served-model-name": "set model_id",
	"--model-path":        "set model_path or model_hf_path",
	"--model":             "set model_path or model_hf_path",
}

// foreign are options that SGLang refuses with exit status 2: vLLM's names, and abbreviations that more than
// one option begins with (SGLang 0.5 server arguments).
var foreign = map[string]string{
	"--max-model-len":            "write --context-length",
	"--gpu-memory-utilization":   "write --mem-fraction-static, the share for weights and KV cache",
	"--max-num-seqs":             "write --max-running-requests",
	"--max-num-batched-tokens":   "write --chunked-prefill-size or --max-prefill-tokens",
	"--enforce-eager":            "write --disable-cuda-graph",
	"--enable-sleep-mode":        "write --enable-memory-saver",
	"--lora-modules":             "write --lora-paths",
	"--seed":                     "write --random-seed",
	"--root-path":                "write --fastapi-root-path",
	"--enable-prefix-caching":    "remove it; SGLang caches prefixes unless --disable-radix-cache is given",
	"--swap-space":               "remove it; SGLang has no such option",
	"--wait-for-initial-weights": "remove it; SGLang has no such option",
	"--pp":                       "write --pp-size",
	"--quant":                    "write --quantization",
	"--load":                     "write --load-format",
	"--log":                      "write --log-level",
	"--tokenizer":                "write --tokenizer-path",
	"--trust":                    "write --trust-remote-code",
	"--cuda-graph-max":           "write --cuda-graph-max-bs",
}

// againstKey are options with which SGLang does not start beside --api-key, which every replica gets.
var againstKey = map[string]bool{"--grpc-port": true, "--smg-grpc-mode": true}

// checkArgs checks the command and extra_args together, for the engine that reads them.
func (r *reader) checkArgs(m *Model, f fields, command []word, gpuKnown bool) {
	extra := f.get("extra_args").words()
	if m.Spec.Driver != backends.DriverProcess {
		return
	}
	m.Spec.ExtraArgs = texts(extra)
	all := append(command, extra...)
	for _, w := range all {
		if looksSecret("", w.text) {
			w.at.asSecret().warn("an argument that looks like a secret, which every user of the machine can see in the process list",
				"use env_vars or secrets")
		}
	}
	if m.Spec.Engine != backends.EngineSGLang {
		r.checkPlaceholders(f, all)
		return
	}
	for i, w := range all {
		name, argument, hasArgument, ok := w.flag()
		if !ok {
			continue
		}
		if !hasArgument && i+1 < len(all) {
			argument = all[i+1].text
		}
		r.checkFlag(w, name, argument)
	}
	r.checkTensorParallel(m, all, gpuKnown)
}

func (r *reader) checkFlag(w word, name, argument string) {
	if option, _, both := strings.Cut(name, " "); both {
		w.refuse(option, "and its value are one argument", "write two list entries, or "+option+"=VALUE")
		return
	}
	if fix, ok := foreign[name]; ok {
		w.refuse(name, "is not an option of SGLang", fix)
		return
	}
	if option := ownedFlag(name); option != "" {
		w.refuse(name, "is set by the gateway", owned[option])
		return
	}
	if againstKey[name] {
		w.refuse(name, "does not work together with an API key, which every replica gets", "remove it")
	}
	if name == "--tokenizer-worker-num" && argument != "1" {
		w.refuse(name, "above 1 does not work together with an API key, which every replica gets", "remove it")
	}
	if name == "--delete-ckpt-after-loading" {
		w.refuse(name, "deletes the model's folder once it is loaded, so that it could start only once", "remove it")
	}
}

// ownedFlag returns the owned option that name is, or abbreviates: SGLang's parser takes any unique prefix.
func ownedFlag(name string) string {
	if _, ok := owned[name]; ok {
		return name
	}
	if len(name) < len("--po") {
		return ""
	}
	for _, option := range sortedNames(owned) {
		if strings.HasPrefix(option, name) {
			return option
		}
	}
	return ""
}

// tensorParallel are the names of one option: SGLang's own, its alias, and the prefix that everyone writes.
func tensorParallel(name string) bool {
	return name == "--tp" || len(name) > len("--tensor-p") && strings.HasPrefix("--tensor-parallel-size", name) ||
		strings.HasPrefix(name, "--tp-") && strings.HasPrefix("--tp-size", name)
}

// checkTensorParallel compares --tp with the GPUs asked for: SGLang takes one GPU per rank.
func (r *reader) checkTensorParallel(m *Model, all []word, gpuKnown bool) {
	for i, w := range all {
		name, argument, hasArgument, ok := w.flag()
		if !ok || !tensorParallel(name) {
			continue
		}
		if !hasArgument {
			if i+1 == len(all) {
				w.refuse(name, "has no value", "write "+name+" 1")
				continue
			}
			argument = all[i+1].text
		}
		ranks, err := strconv.Atoi(argument)
		if err != nil || ranks < 1 {
			w.refuse(name, "needs a whole number above zero", "")
			continue
		}
		gpu := m.Resources.GPU
		if gpuKnown && ranks > gpu.Count {
			w.refuse(name, fmt.Sprintf("%d needs %d GPUs, and resources.gpu asks for %d", ranks, ranks, gpu.Count),
				fmt.Sprintf("set resources.gpu: %q, or %s %d", GPU{gpu.Kind, ranks}, name, max(gpu.Count, 1)))
		}
	}
}
