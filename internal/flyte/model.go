package flyte

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"pilotlight/internal/flyte/python"
)

// model is a configuration's entry in the making.
type model struct {
	app   *app
	node  *yaml.Node
	notes []string // about what has no field
	open  int
}

// node writes the app as an entry of models.
func (a *app) node() (*yaml.Node, int) {
	m := &model{app: a, node: &yaml.Node{Kind: yaml.MappingNode}}
	from := fmt.Sprintf("from %s line %d", a.file, a.line)
	if a.target != "" {
		from += ": " + a.target
	}
	m.text("name")
	m.text("model_id")
	m.weights()
	m.resources()
	m.extraArgs()
	m.envVars()
	m.secrets()
	if value := a.get("requires_auth"); value != nil {
		if yes, ok := value.(python.Bool); ok {
			m.put("requires_auth", scalar("!!bool", strconv.FormatBool(bool(yes))), "")
		} else {
			m.unknown("requires_auth", value)
		}
	}
	m.scaling()
	if call := m.call("timeouts", "Timeouts"); call != nil {
		if seconds, ok := m.seconds("timeouts.request", call.Get("request")); ok {
			m.put("timeouts", mapping("request", seconds), "")
		}
	}
	m.rest()
	for _, source := range a.others {
		m.note(true, "%s: its arguments are not known", oneLine(string(source)))
	}
	m.node.HeadComment = strings.Join(append([]string{oneLine(from)}, m.notes...), "\n")
	return m.node, m.open
}

// note adds a comment above the entry; open marks one that asks a person for something.
func (m *model) note(open bool, format string, args ...any) {
	text := oneLine(fmt.Sprintf(format, args...)) // a line end in it would end the comment
	if open {
		text = "(!) " + text
		m.open++
	}
	m.notes = append(m.notes, text)
}

// unknown notes a value that only running the file would tell.
func (m *model) unknown(field string, value python.Value) {
	m.note(true, "%s: only running the file tells what %s is", field, oneLine(shown(value)))
}

// put adds a field with a comment behind it.
func (m *model) put(name string, value *yaml.Node, comment string) {
	value.LineComment = comment
	m.node.Content = append(m.node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, value)
}

// text copies a field that must be text.
func (m *model) text(name string) {
	switch value := m.app.get(name).(type) {
	case nil:
		m.note(true, "%s: is needed", name)
	case python.Text:
		m.put(name, str(string(value)), "")
	default:
		m.unknown(name, value)
	}
}

// call returns a field that is a call of this function, whatever module the function is imported from.
func (m *model) call(field, function string) *python.Call {
	value := m.app.get(field)
	if value == nil {
		return nil
	}
	call, ok := value.(*python.Call)
	if !ok || last(call.Function) != function {
		m.unknown(field, value)
		return nil
	}
	return call
}

func last(dotted string) string { return dotted[strings.LastIndexByte(dotted, '.')+1:] }

// weights says where the model comes from.
func (m *model) weights() {
	hub, path := m.app.get("model_hf_path"), m.app.get("model_path")
	if path == nil {
		path = m.app.get("model") // the plugin's name for it until 2.0
	}
	if hub == python.Text("") {
		hub = nil
	}
	if path == python.Text("") {
		path = nil
	}
	if hub != nil {
		m.text("model_hf_path")
		if path != nil {
			m.note(true, "model_path: left out, as model_hf_path excludes it")
			return
		}
	}
	switch value := path.(type) {
	case nil:
		if hub == nil {
			m.note(true, "model_hf_path or model_path: is needed")
		}
	case python.Text:
		m.put("model_path", str(string(value)), "")
		if scheme, _, remote := strings.Cut(string(value), "://"); remote && !slices.Contains([]string{"s3", "https", "http"}, scheme) {
			m.note(true, "model_path: copy the weights from %s to this machine and give their folder", value)
		}
	case *python.Call:
		repo := m.app.downloads[runOf(value)]
		if repo == "" {
			m.note(true, "model_path: %s is resolved where Flyte deploys; give a folder here, or model_hf_path", oneLine(value.Text))
			return
		}
		m.put("model_hf_path", str(repo), "which the file prefetches")
		m.put("prefetch", scalar("!!bool", "true"), "")
	default:
		m.unknown("model_path", value)
	}
	if yes, ok := m.app.get("stream_model").(python.Bool); ok && bool(yes) && path != nil {
		if text, ok := path.(python.Text); ok && strings.HasPrefix(string(text), "s3://") {
			m.put("stream_model", scalar("!!bool", "true"), "")
			return
		}
		m.note(false, "stream_model: weights are read from disk here")
	}
}

// runOf is the key in app.downloads of what RunOutput or ArtifactValue name.
func runOf(call *python.Call) string {
	switch last(call.Function) {
	case "RunOutput":
		if source, ok := call.Get("run_name").(python.Source); ok {
			return string(source)
		}
	case "ArtifactValue":
		if name, ok := call.Get("name").(python.Text); ok {
			return "artifact " + string(name)
		}
	}
	return ""
}

func (m *model) resources() {
	call := m.call("resources", "Resources")
	if call == nil {
		return
	}
	node := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	for _, name := range []string{"cpu", "memory", "gpu", "disk", "shm"} {
		value := call.Get(name)
		if pair, ok := value.(python.List); ok && len(pair) == 2 && (name == "cpu" || name == "memory") {
			value = pair[0] // requested, and at most
			m.note(false, "resources.%s: %s is the least and the most; the least is taken over", name, shown(pair))
		}
		switch v := value.(type) {
		case nil, python.None:
		case python.Text:
			add(node, name, quoted(string(v)))
		case python.Number:
			add(node, name, number(v))
		case *python.Call:
			if text, ok := m.device(v); ok && name == "gpu" {
				add(node, name, quoted(text))
			} else {
				m.unknown("resources."+name, v)
			}
		default:
			m.unknown("resources."+name, v)
		}
	}
	if len(node.Content) > 0 {
		m.put("resources", node, "")
	}
}

// device reads GPU("A100", 2, partition=...).
func (m *model) device(call *python.Call) (string, bool) {
	if last(call.Function) != "GPU" {
		return "", false
	}
	argument := func(position int, name string) python.Value {
		if len(call.Args) > position {
			return call.Args[position]
		}
		return call.Get(name)
	}
	kind, ok := argument(0, "device").(python.Text)
	count, ok2 := argument(1, "quantity").(python.Number)
	if argument(1, "quantity") == nil {
		count, ok2 = "1", true
	}
	if argument(2, "partition") != nil {
		m.note(true, "resources.gpu: partitions of a GPU are not given out here")
	}
	return string(kind) + ":" + string(count), ok && ok2
}

// aside are fields that mean nothing here, with why.
var aside = map[string]string{
	"image":         "replicas run what is installed on this machine; see backend.process.command",
	"port":          "the gateway gives each replica a free port",
	"description":   "",
	"depends_on":    "the gateway deploys nothing else",
	"interruptible": "",
	"cluster_pool":  "", "domain": "", "links": "", "include": "", "pod_template": "",
	"type": "", "command": "", "args": "", "parameters": "",
}

// handled are the fields that something was made of.
var handled = []string{"name", "model_id", "model_hf_path", "model_path", "model", "stream_model", "resources", "extra_args", "env_vars", "secrets",
	"requires_auth", "scaling", "timeouts", "draft_model_path", "draft_model_hf_path", "speculative_config"}

// rest names the fields of which nothing was made.
func (m *model) rest() {
	said := map[string]bool{}
	for _, field := range m.app.fields {
		value := m.app.get(field.Name)
		if slices.Contains(handled, field.Name) || said[field.Name] || value == nil {
			continue
		}
		said[field.Name] = true
		why, known := aside[field.Name]
		switch {
		case field.Name == "router":
			if value == python.Bool(false) {
				continue
			}
			m.note(true, "router: SGLang's router is not started; --dp-size alone gives data parallel workers")
		case why != "":
			m.note(false, "%s: left out; %s", field.Name, why)
		default:
			m.note(!known, "%s: left out; it has no counterpart", field.Name)
		}
	}
}
