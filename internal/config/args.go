package config

import (
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

// refuse reports an argument by its option's name only: what stands beside it in one text may be a secret.
func (w word) refuse(name, message, fix string) {
	w.at.asSecret().fail(strings.TrimSpace(name+" "+message), fix)
}

// checkArgs checks the command and extra_args together, for the engine that reads them.
func (r *reader) checkArgs(m *Model, f fields, command []word, gpuKnown bool) {
	extra := f.get("extra_args").words()
	if m.Spec.Driver != backends.DriverProcess {
		return
	}
	m.Spec.ExtraArgs = texts(extra)
	all := append(command[:len(command):len(command)], extra...)
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
	r.checkOptions(m, f, command, extra, gpuKnown)
}
