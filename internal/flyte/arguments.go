package flyte

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"pilotlight/internal/flyte/python"
)

// extraArgs copies the arguments, and turns speculative_config into those that Flyte makes of it.
func (m *model) extraArgs() {
	args := m.speculation()
	switch value := m.app.get("extra_args").(type) {
	case nil:
	case python.Text:
		if len(args) == 0 {
			if value != "" {
				m.put("extra_args", str(string(value)), "")
			}
			return
		}
		m.note(true, "extra_args: add %q", string(value))
	case python.List:
		routers := false // SGLang's router has options of its own
		for i, item := range value {
			switch v := item.(type) {
			case python.Text:
				if strings.HasPrefix(string(v), "--") {
					routers = strings.HasPrefix(string(v), "--router-")
				}
				if routers {
					m.note(false, "extra_args: %s is left out; it is the router's", string(v))
					continue
				}
				args = append(args, string(v))
			case python.Number:
				args = append(args, string(v))
			default:
				m.unknown(fmt.Sprintf("extra_args[%d]", i), item)
			}
		}
	default:
		m.unknown("extra_args", value)
	}
	if len(args) == 0 {
		return
	}
	node := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, arg := range args {
		node.Content = append(node.Content, quoted(arg))
	}
	m.put("extra_args", node, "")
}

func (m *model) speculation() []string {
	var args []string
	add := func(name string, values ...string) {
		args = append(append(args, "--speculative-"+strings.TrimPrefix(strings.ReplaceAll(name, "_", "-"), "speculative-")), values...)
	}
	switch config := m.app.get("speculative_config").(type) {
	case nil:
	case python.Dict:
		for _, pair := range config {
			key, ok := pair.Key.(python.Text)
			switch value := pair.Value.(type) {
			case python.Text:
				add(string(key), string(value))
			case python.Number:
				add(string(key), string(value))
			case python.Bool:
				if value {
					add(string(key))
				}
			default:
				ok = false
			}
			if !ok {
				m.unknown("speculative_config", pair.Value)
			}
		}
	default:
		m.unknown("speculative_config", config)
	}
	for _, field := range []string{"draft_model_hf_path", "draft_model_path"} {
		switch value := m.app.get(field).(type) {
		case nil:
		case python.Text:
			if value != "" {
				add("draft_model_path", string(value))
			}
		case *python.Call:
			if repo := m.app.downloads[runOf(value)]; repo != "" {
				add("draft_model_path", repo)
			} else {
				m.note(true, "%s: %s is resolved where Flyte deploys; add --speculative-draft-model-path", field, oneLine(value.Text))
			}
		default:
			m.unknown(field, value)
		}
	}
	return args
}
