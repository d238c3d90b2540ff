package config

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"pilotlight/activator"
	"pilotlight/backends"
)

// defaultCommand is SGLang's documented start; `sglang serve` is newer and missing before 0.5.4.
var defaultCommand = []string{"python3", "-m", "sglang.launch_server"}

const defaultProbe = "/health"

// backend reads the driver's block and returns the words of the command, for the checks on arguments.
func (r *reader) backend(m *Model, f, scaling fields) (command []word) {
	b := f.get("backend").fields("process", "docker", "kubernetes", "static")
	var chosen []string
	for _, name := range []string{"process", "docker", "kubernetes", "static"} {
		if _, written := b.byName[name]; written { // "process:" alone means its defaults
			chosen = append(chosen, name)
		}
	}
	if len(chosen) > 1 {
		b.fail("names more than one backend: "+strings.Join(chosen, ", "), "keep one")
	}
	for _, name := range []string{"docker", "kubernetes"} {
		if v := b.get(name); slices.Contains(chosen, name) {
			if v.given() {
				v.entries() // contents belong to a later release; syntax does not
			}
			v.later("use backend process on this machine, or static for servers that run elsewhere")
		}
	}
	m.Spec.ServedName = servedName(m.ModelID)
	m.Spec.Driver, m.Spec.Engine, m.Spec.Probe = backends.DriverProcess, backends.EngineSGLang, defaultProbe
	if slices.Contains(chosen, "static") {
		r.static(m, f, scaling, b.get("static"))
		return nil
	}
	return r.process(m, b.get("process"))
}

func (r *reader) process(m *Model, v value) []word {
	f := v.fields("command", "engine", "engine_version", "probe", "dir")
	r.engine(m, f.get("engine"), f.get("probe"))
	if dir := f.get("dir"); dir.given() {
		m.Spec.Dir = beside(r.file, r.home(dir, dir.text("")))
	}
	m.engineVersion = f.get("engine_version")
	if m.Spec.Engine != backends.EngineSGLang && m.engineVersion.given() {
		m.engineVersion.fail("is for engine sglang, whose options are checked", "remove it")
	}
	command := f.get("command")
	if !command.given() {
		if m.Spec.Engine == backends.EngineOpenAI {
			command.fail("is needed for engine openai", `write the program and its arguments, with {port} where the port belongs`)
		}
		m.Spec.Command = slices.Clone(defaultCommand)
		return nil
	}
	before := len(r.problems)
	words := command.words()
	if len(words) == 0 && len(r.problems) == before {
		command.fail("must not be empty", "remove it for "+strings.Join(defaultCommand, " "))
	}
	m.Spec.Command = texts(words)
	return words
}

func (r *reader) engine(m *Model, engine, probe value) {
	known := []string{string(backends.EngineSGLang), string(backends.EngineOpenAI)}
	if name := engine.text(known[0]); contains(known, name) {
		m.Spec.Engine = backends.Engine(name)
	} else {
		engine.fail("unknown engine", "use sglang, or openai for any other server with OpenAI's routes")
	}
	m.Spec.Probe = probe.text(defaultProbe)
	if u, err := url.Parse(m.Spec.Probe); err != nil || !strings.HasPrefix(m.Spec.Probe, "/") || u.Host != "" ||
		strings.ContainsAny(m.Spec.Probe, " #") {
		probe.fail("is not a path", "write a path such as /health")
	}
}

// static reads servers that somebody else runs. What only a start would use draws a warning; what would
// change how many replicas there are is refused.
func (r *reader) static(m *Model, model, scaling fields, v value) {
	f := v.fields("urls", "api_key", "engine", "probe", "served_model_name")
	m.Spec.Driver = backends.DriverStatic
	r.engine(m, f.get("engine"), f.get("probe"))
	// The server has a name for its model already, and knows nothing of ours but by it.
	m.Spec.ServedName = f.get("served_model_name").text(m.ModelID)
	m.Spec.StaticAPIKey = r.credential(f.get("api_key"))

	urls := f.get("urls")
	before := len(r.problems)
	items := urls.items()
	for _, item := range items {
		if base := item.baseURL(); base == "" {
			continue
		} else if slices.Contains(m.Spec.URLs, base) {
			item.asSecret().fail("is listed twice", "keep one")
		} else {
			m.Spec.URLs = append(m.Spec.URLs, base)
		}
	}
	if len(items) == 0 && len(r.problems) == before {
		urls.fail("at least one URL is needed", "write urls: [http://host:30000]")
	}

	for _, name := range []string{"resources", "extra_args", "env_vars", "secrets", "model_path", "model_hf_path", "prefetch"} {
		if field := model.get(name); field.given() {
			field.asSecret().warn("has no effect on a static backend, whose servers somebody else starts", "remove it")
		}
	}
	for _, name := range []string{"replicas", "scaledown_after"} {
		if field := scaling.get(name); field.given() {
			field.asSecret().fail("a static backend has one replica for each URL and stops none", "remove it")
		}
	}
	m.Activator.Min, m.Activator.Max = max(len(m.Spec.URLs), 1), max(len(m.Spec.URLs), 1)
	m.Activator.ScaledownAfter = activator.DefaultConfig().ScaledownAfter
}

// baseURL reads http(s)://host[:port][/prefix] and drops a trailing slash.
func (v value) baseURL() string {
	text, _, ok := v.expandable(false)
	if !ok {
		return ""
	}
	v = v.asSecret() // it may hold a key from the environment
	u, err := url.Parse(text)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.Opaque != "":
		v.fail("is not an http or https URL", "write http://host:30000")
	case u.User != nil:
		v.fail("holds a user or password", "use api_key")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		v.fail("holds a query or a fragment", "keep scheme, host, port and path")
	case strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/v1"):
		v.fail("ends in /v1, which each request's own path brings", "leave /v1 off")
	default:
		return strings.TrimRight(text, "/")
	}
	return ""
}

var notServed = regexp.MustCompile(`[^A-Za-z0-9._/-]`)

// servedName is the name told to the engine: SGLang takes ':' for a LoRA adapter and asserts that its own
// name holds none; other signs are left out to be safe with any engine.
func servedName(modelID string) string { return notServed.ReplaceAllString(modelID, "-") }

// placeholders are what EngineOpenAI's command and arguments may hold (backends.Spec.Command).
var placeholders = []string{"{host}", "{port}", "{api_key}", "{model_path}", "{served_name}"}

var placeholder = regexp.MustCompile(`\{[a-z_]+\}`)

func (r *reader) checkPlaceholders(f fields, all []word) {
	port := false
	for _, w := range all {
		for _, name := range placeholder.FindAllString(w.text, -1) {
			port = port || name == "{port}"
			if !contains(placeholders, name) {
				w.refuse(name, "is no placeholder", "known: "+strings.Join(placeholders, ", "))
			}
		}
	}
	if !port && len(all) > 0 {
		f.get("backend").fail("the command has no {port}, so the engine would not know where to listen",
			`write "{port}" where the command takes its port`)
	}
}
