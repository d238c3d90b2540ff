package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"pilotlight/backends"
	"pilotlight/backends/store"
)

// Store is where models are kept on this machine.
type Store struct {
	Path     string // absolute; empty: nowhere is known, and nothing is kept
	MaxBytes int64  // of all models together; 0: as much as the disk has
	// Remote is the address of an object store's folder that several stores share, asked before a model's source; empty: none.
	Remote string
}

// Prefetch is a model that is fetched when the gateway starts.
type Prefetch struct {
	Name    string // by which store:NAME finds it
	Weights backends.Weights
	Model   string // the entry of models that asks for it, and whose variables hold for it; empty: an entry of prefetch
	// Shard is how the weights are cut up once they are here, by whoever starts with them first or fetches them by hand, on GPUs like Accelerator.
	Shard       backends.Shard
	Accelerator GPU
	Line        int // where that begins in the file; 0: Model does
}

const storePrefix = "store:"

func (r *reader) store(c *Config, v value) {
	f := v.fields("path", "max_bytes", "remote")
	path := f.get("path")
	if c.Store.Path = store.DefaultPath(r.env); path.given() {
		c.Store.Path = r.home(path, path.text(""))
	}
	if c.Store.Path != "" {
		c.Store.Path = beside(r.file, c.Store.Path)
	}
	c.Store.MaxBytes = f.get("max_bytes").size(0, leastResource)
	r.kept = c.Store
	if remote := f.get("remote"); remote.given() {
		text, _, ok := remote.expandable(false)
		if !ok {
			return
		}
		if o, err := store.ParseOrigin(text, "/"); err != nil || o.Kind != store.FromS3 {
			remote.asSecret().fail("is not the address of an object store's folder", "write s3://bucket/prefix; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
		} else {
			c.Store.Remote = o.Raw()
		}
	}
}

// prefetches reads the list of models to fetch at the start: each a source, or a mapping.
func (r *reader) prefetches(c *Config, v value) {
	names := map[string]value{}
	for _, item := range v.items() {
		p := Prefetch{Line: item.line}
		named := item
		if item.node.Kind == yaml.ScalarNode {
			p.Weights.Origin, p.Name = r.origin(item, item.text(""))
		} else {
			f := item.fields("name", "source", "revision", "include", "exclude", "accelerator", "shard")
			if item.kind() != "a mapping" {
				continue
			}
			source := f.get("source")
			p.Weights.Origin, p.Name = r.origin(source, r.required(source, "write owner/name of a hub, /a/folder, https://… or s3://bucket/prefix"))
			r.choice(&p.Weights, f)
			p.Shard, p.Accelerator = r.sharding(f)
			if name := f.get("name"); name.given() {
				named = name
				p.Name = name.artefact(name.text(""))
				p.Weights.Name = p.Name
			}
		}
		if p.Name == "" {
			continue // reported
		}
		if first, taken := names[p.Name]; taken {
			named.fail(fmt.Sprintf("is already used on line %d by %s", first.line, first.path), "give each artefact its own name")
			continue
		}
		names[p.Name] = named
		c.Prefetch = append(c.Prefetch, p)
	}
	if len(c.Prefetch) > 0 && c.Store.Path == "" {
		v.fail("there is no store, because HOME is not set", "write store: {path: /var/lib/models}")
	}
}

// origin reads the place of a model; its text, and the name that the store gives it.
func (r *reader) origin(v value, text string) (origin, name string) {
	if text == "" {
		return "", "" // reported
	}
	o, err := store.ParseOrigin(r.home(v, text), filepath.Dir(r.file))
	if err != nil {
		v.asSecret().fail(err.Error(), "write owner/name of a hub, /a/folder, https://… or s3://bucket/prefix")
		return "", ""
	}
	return o.Text, o.Name
}

// artefact checks a name of the store.
func (v value) artefact(name string) string {
	if err := store.CheckRepo(name); name != "" && err != nil {
		v.fail("is no name for the store", `write letters, digits, '_', '-' and '.', such as qwen3 or Qwen/Qwen3-0.6B`)
		return ""
	}
	return name
}

// choice reads what of a model is wanted.
func (r *reader) choice(w *backends.Weights, f fields) {
	w.Revision = f.get("revision").text("")
	for _, list := range []struct {
		field string
		to    *[]string
	}{{"include", &w.Include}, {"exclude", &w.Exclude}} {
		v := f.get(list.field)
		if v.given() && v.node.Kind == yaml.ScalarNode {
			*list.to = []string{v.text("")}
			continue
		}
		for _, item := range v.items() {
			*list.to = append(*list.to, item.text(""))
		}
	}
	if err := (store.Filter{Include: w.Include, Exclude: w.Exclude}).Check(); err != nil {
		f.fail(err.Error(), "write shell patterns, such as *.safetensors")
	}
}

// source reads where the weights are: exactly one of model_hf_path and model_path, unless nothing uses it.
func (r *reader) source(m *Model, f fields, command []word, c *Config) {
	hub, path, prefetch := f.get("model_hf_path"), f.get("model_path"), f.get("prefetch")
	hubID, local := hub.text(""), path.text("")
	if hub.given() && path.given() {
		path.fail("model_path and model_hf_path exclude each other", "keep one")
		return
	}
	if hubID != "" {
		hub.hubID(hubID)
		m.Spec.Weights = backends.Weights{Origin: hubID, IfPresent: true}
		if store.CheckRepo(hubID) != nil || c.Store.Path == "" {
			m.Spec.Weights = backends.Weights{}
		} else if m.options != nil {
			m.Spec.Weights.Revision, _ = m.options.value("--revision")
		}
	}
	if local != "" {
		local = r.localPath(m, path, local, c)
	}
	if m.Spec.Driver == backends.DriverStatic {
		m.Spec.Weights = backends.Weights{}
		return
	}
	r.prefetch(m, prefetch, hub.given(), c)
	m.Spec.ModelPath = hubID + local
	if hub.given() || path.given() {
		return
	}
	if m.Spec.Engine == backends.EngineOpenAI && !slices.ContainsFunc(append(texts(command), m.Spec.ExtraArgs...),
		func(s string) bool { return strings.Contains(s, "{model_path}") }) {
		return // the command names its model itself
	}
	f.fail("model_hf_path or model_path is needed", "write model_hf_path: owner/name, or model_path: /a/folder")
}

// prefetch reads whether a model's weights are fetched when the gateway starts, and which of them. model_hf_path alone leaves the download
// to the engine.
func (r *reader) prefetch(m *Model, v value, hub bool, c *Config) {
	if !v.given() {
		return
	}
	w := &m.Spec.Weights
	var choice fields
	if v.node.Kind == yaml.ScalarNode {
		if !v.boolean(false) {
			return
		}
	} else {
		choice = v.fields("revision", "include", "exclude", "accelerator", "shard")
		if v.kind() != "a mapping" {
			return
		}
		var accelerator GPU
		m.Spec.Shard, accelerator = r.sharding(choice)
		r.checkSharding(m, choice.get("shard"), choice.get("accelerator"), accelerator)
		delete(choice.byName, "shard") // what is left chooses files
		delete(choice.byName, "accelerator")
		if m.Spec.Shard.TP > 0 && w.Label() == "" && !hub && len(choice.byName) == 0 && c.Store.Path != "" {
			return // a folder of this machine, whose weights are cut up as they lie there
		}
	}
	switch {
	case c.Store.Path == "":
		v.fail("there is no store, because HOME is not set", "write store: {path: /var/lib/models}")
		return
	case w.Label() == "" && hub:
		return // its name is wrong, and reported
	case w.Label() == "":
		v.fail("is for models of a hub or an address; a folder of this machine is there already", "remove it")
		return
	case w.Name != "" && len(choice.byName) > 0:
		v.fail("says what to fetch of a model that model_path takes as it is in the store", "say it in the entry of prefetch: with that name, or give model_hf_path")
		return
	case w.IfPresent && len(choice.byName) > 0:
		flag := w.Revision
		r.choice(w, choice)
		if w.Revision == "" {
			w.Revision = flag
		} else if flag != "" && flag != w.Revision {
			choice.get("revision").fail("differs from --revision "+flag+" in extra_args", "remove the argument")
		}
	case len(choice.byName) > 0:
		r.choice(w, choice)
	}
	w.IfPresent = false
	m.Prefetch = true
}

// hubName is Hugging Face's form of a repository id: one or two parts of at most 96 characters.
var hubName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?$`)

func (v value) hubID(id string) {
	if !hubName.MatchString(id) {
		v.fail("is not a Hugging Face repository id", "write owner/name; a folder belongs in model_path")
	}
}

// localPath reads model_path. It writes out ~ and paths that begin with a dot; what the store provides is noted, and everything else goes to the
// engine as it is.
func (r *reader) localPath(m *Model, v value, path string, c *Config) string {
	name, stored := strings.CutPrefix(path, storePrefix)
	switch {
	case stored && v.artefact(name) != "":
		m.Spec.Weights = backends.Weights{Name: name}
		for _, p := range c.Prefetch {
			if p.Name == name {
				m.Spec.Weights = p.Weights
				m.Spec.Weights.Name = name
				m.Spec.Shard = p.Shard
				r.checkSharding(m, v, v, p.Accelerator)
			}
		}
		r.needStore(v, c)
		return path
	case stored:
		if name == "" {
			v.fail("names nothing of the store", "write store:NAME")
		}
	case strings.Contains(path, "://"):
		v.secret = strings.Contains(path, "@")
		m.Spec.Weights.Origin, _ = r.origin(v, path)
		r.needStore(v, c)
		return path
	case strings.HasPrefix(path, "-"):
		v.fail("begins with '-', which the engine would take for an option", "write ./"+path)
	case strings.HasPrefix(path, "."):
		return beside(r.file, path)
	}
	return r.home(v, path)
}

func (r *reader) needStore(v value, c *Config) {
	if c.Store.Path == "" {
		v.fail("there is no store, because HOME is not set", "write store: {path: /var/lib/models}")
	}
}
