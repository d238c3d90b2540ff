package flyte

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"pilotlight/internal/flyte/python"
)

// envVars copies variables; what the file reads from its own environment is read from the gateway's.
func (m *model) envVars() {
	value := m.app.get("env_vars")
	dict, ok := value.(python.Dict)
	if value != nil && !ok {
		m.unknown("env_vars", value)
	}
	node := &yaml.Node{Kind: yaml.MappingNode}
	for _, pair := range dict {
		name, ok := pair.Key.(python.Text)
		if !ok {
			m.unknown("env_vars", pair.Key)
			continue
		}
		switch v := pair.Value.(type) {
		case python.Text:
			add(node, string(name), str(strings.ReplaceAll(string(v), "${", "$${")))
		case python.Number:
			add(node, string(name), quoted(string(v)))
		case *python.Call:
			variable, known := getenv(v)
			if !known {
				m.unknown("env_vars."+string(name), v)
				continue
			}
			add(node, string(name), quoted("${"+variable+"}"))
		default:
			m.unknown("env_vars."+string(name), v)
		}
	}
	if len(node.Content) > 0 {
		m.put("env_vars", node, "")
	}
}

// getenv reads os.environ["X"], os.environ.get("X") and os.getenv("X").
func getenv(call *python.Call) (string, bool) {
	if !slices.Contains([]string{"os.getenv", "os.environ.get"}, call.Function) || len(call.Args) == 0 {
		return "", false
	}
	name, ok := call.Args[0].(python.Text)
	return string(name), ok
}

// secrets turns Flyte's named secrets into files, which is how engines get them here.
func (m *model) secrets() {
	value := m.app.get("secrets")
	var list python.List
	switch v := value.(type) {
	case nil:
		return
	case python.List:
		list = v
	default:
		list = python.List{v}
	}
	node := &yaml.Node{Kind: yaml.SequenceNode}
	for _, item := range list {
		var key, env string
		switch v := item.(type) {
		case python.Text:
			key = string(v)
		case *python.Call:
			k, _ := v.Get("key").(python.Text)
			if len(v.Args) > 0 {
				k, _ = v.Args[0].(python.Text)
			}
			e, _ := v.Get("as_env_var").(python.Text)
			if last(v.Function) == "Secret" {
				key, env = string(k), string(e)
			}
		}
		if key == "" {
			m.unknown("secrets", item)
			continue
		}
		if env == "" {
			env = strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
		}
		node.Content = append(node.Content, mapping("name", str(key), "env", str(env), "file", str("/run/secrets/"+key)))
		m.note(true, "secrets: put the secret %s into a file, and its name here", key)
	}
	if len(node.Content) > 0 {
		m.put("secrets", node, "")
	}
}
