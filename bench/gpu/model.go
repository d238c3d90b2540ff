package main

import (
	"cmp"
	"slices"
)

// model is an entry of the configuration's models. What is empty is left to the gateway.
type model struct {
	Name     string
	Path     string // empty: the small model
	Args     any    // a list, or one text
	Version  string // engine_version, in the place of the options'
	Fraction string // of the GPU's memory, for weights and cache; empty: 0.3, "own": Args has it
	Fields   map[string]any
}

const smallFraction = "0.3" // leaves room for whoever else uses the GPU, and is quick to set up

// config is a whole configuration as the gateway reads it.
func (o *options) config(models []model) map[string]any {
	var entries []any
	for _, m := range models {
		process := map[string]any{"command": slices.Concat(o.Command, o.More[m.Name])}
		if version := cmp.Or(m.Version, o.EngineVersion); version != "" {
			process["engine_version"] = version
		}
		entry := map[string]any{
			"name": m.Name, "model_id": m.Name, "model_path": cmp.Or(m.Path, o.Model),
			"scaling": map[string]any{"scaledown_after": "1h"},
			"backend": map[string]any{"process": process},
		}
		own := slices.Clone(o.EngineArgs)
		if m.Fraction != "own" {
			own = append(own, "--mem-fraction-static", cmp.Or(m.Fraction, smallFraction))
		}
		switch args := m.Args.(type) {
		case nil:
			entry["extra_args"] = own
		case []string:
			entry["extra_args"] = slices.Concat(own, args)
		case string: // as people write it in one line
			for i := len(own) - 1; i >= 0; i-- {
				args = own[i] + " " + args
			}
			entry["extra_args"] = args
		}
		for name, value := range m.Fields {
			entry[name] = value
		}
		entries = append(entries, entry)
	}
	return map[string]any{
		"listen": "127.0.0.1:0", "admin": map[string]any{"listen": "127.0.0.1:0"}, "state_dir": "state", "models": entries,
	}
}
