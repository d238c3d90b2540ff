package config

import (
	"fmt"
	"regexp"
	"strings"

	"pilotlight/activator"
	"pilotlight/backends"
	"pilotlight/gateway"
)

// Model is one entry of models.
type Model struct {
	Name    string // resource name: lowercase letters, digits, '-'
	ModelID string // what clients send; may hold '/', ':' and '.'
	Aliases []string
	// RequiresAuth is false for a model that callers without a key may use.
	RequiresAuth bool
	Resources    Resources
	// Pinned replicas do not give their GPUs up to other models. Priority ranks models that want the same ones.
	Pinned    bool
	Priority  int
	Spec      backends.Spec
	Activator activator.Config
	Cold      gateway.Cold
	Timeouts  gateway.Timeouts
	Routing   gateway.Routing
	Names     Names
	// Prefetch: Spec.Weights are fetched when the gateway starts, not only when a replica does.
	Prefetch bool
	Line     int // where the entry begins in the file

	masked        map[string]bool // names of Spec.Env whose text Describe hides
	options       *options        // nil: the engine is not SGLang, or is not started by us
	engineVersion value           // the field, while the file is read
}

const (
	// maxQueuedRequests is far above what 10,000 waiting requests in half a GiB allow, and below overflow.
	maxQueuedRequests = 10_000_000
	maxReplicas       = 10_000
	maxConcurrency    = 1_000_000
	leastRate         = 0.001
)

// modelFields keeps the places of a model's names for the checks across models.
type modelFields struct {
	model   Model
	name    value
	id      value
	aliases []value
	gpu     value
	links   nameLinks
}

var (
	resourceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`) // a DNS label, as Kubernetes wants
	// clientName is what survives in JSON, in a URL's path and in a log line without escaping.
	clientName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@+-]*(/[A-Za-z0-9_:@+-][A-Za-z0-9._:@+-]*)*$`)
)

const maxClientName = 200

func (r *reader) model(v value, c *Config) modelFields {
	f := v.fields("name", "model_id", "aliases", "model_hf_path", "model_path", "stream_model", "resources", "gpu_share",
		"extra_args", "env_vars", "requires_auth", "scaling", "prefetch", "image", "secrets", "pinned", "priority", "queue",
		"cold", "timeouts", "routing", "split", "fallback", "shadow",
		"parameters", "backend", "limits")
	read := modelFields{name: f.get("name"), id: f.get("model_id")}
	if v.kind() != "a mapping" {
		return read // reported; what it lacks says nothing more
	}
	m := Model{Line: v.line, RequiresAuth: f.get("requires_auth").boolean(true)}

	m.Name = r.required(read.name, "name it with lowercase letters, digits and '-'")
	if m.Name != "" && !resourceName.MatchString(m.Name) {
		read.name.fail("a name holds lowercase letters, digits and '-', at most 63, and neither begins nor ends with '-'",
			suggestName(m.Name))
	}
	m.ModelID = r.required(read.id, "give the name that clients send as model")
	read.id.clientName(m.ModelID)
	for _, alias := range f.get("aliases").items() {
		name := alias.text("")
		alias.clientName(name)
		m.Aliases = append(m.Aliases, name)
		read.aliases = append(read.aliases, alias)
	}

	r.modelLimits(c, m.ModelID, f.get("limits"))
	m.Cold = r.cold(f.get("cold"))
	scaling := f.get("scaling").fields("replicas", "metric", "scaledown_after", "window", "sleep_after", "sleep")
	m.Activator = r.scaling(scaling)
	r.queueShare(&m, f.get("queue"), c)
	m.Spec = backends.Spec{Model: m.Name, ModelID: m.ModelID}
	resources := f.get("resources").fields("cpu", "memory", "gpu", "disk", "shm")
	m.Resources = r.resources(resources)
	command := r.backend(&m, f, scaling)
	r.timeouts(&m, f.get("timeouts"))
	r.routing(&m, f.get("routing"))
	read.links = r.names(&m, f)
	r.environment(&m, f.get("env_vars").asSecret(), f.get("secrets").asSecret())
	gpu := resources.get("gpu")
	gpuKnown := gpu.given() && (m.Resources.GPU.Count > 0 || gpu.node.Value == "0") // not if it was wrong
	r.checkArgs(&m, f, command, gpuKnown)
	r.source(&m, f, command, c)
	r.stream(&m, f)
	r.sharing(&m, f, gpu)
	r.checkMemory(&m, gpu, f.get("extra_args"))
	r.sleep(&m, scaling, f.get("gpu_share"))
	read.gpu = gpu
	r.laterModel(f)
	if m.Spec.Driver == backends.DriverProcess {
		r.notEnforced(resources)
	}
	if m.Spec.Driver == backends.DriverProcess && m.Spec.ModelPath != "" {
		m.Activator.Kin = string(m.Spec.Engine) + " " + m.Spec.ModelPath // the same weights take about as long under other flags
	}
	m.engineVersion = value{} // it would keep the whole document
	read.model = m
	return read
}

func (r *reader) required(v value, fix string) string {
	if !v.given() {
		v.fail("is needed", fix)
	}
	return v.text("")
}

func (v value) clientName(name string) {
	if name == "" {
		return // absent or reported
	}
	if len(name) > maxClientName || !clientName.MatchString(name) {
		v.fail("clients name models with letters, digits and . _ : @ + - in parts between single slashes, at most 200 characters",
			suggestClientName(name))
	}
}

var notInClientName = regexp.MustCompile(`[^A-Za-z0-9._:@+/-]+`)

func suggestClientName(name string) string {
	var parts []string
	for part := range strings.SplitSeq(notInClientName.ReplaceAllString(name, "-"), "/") {
		if part = strings.Trim(part, ".-"); part != "" {
			parts = append(parts, part)
		}
	}
	if s := strings.Trim(strings.Join(parts, "/"), "-._:@+/"); len(s) <= maxClientName && clientName.MatchString(s) {
		return "write " + s
	}
	return "begin with a letter or digit"
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

func suggestName(name string) string {
	s := strings.Trim(notInName.ReplaceAllString(strings.ToLower(name), "-"), "-")
	if s == "" || len(s) > 63 {
		return ""
	}
	return "write " + s
}

// unique checks that no two models share a resource name, and that each client name means one model.
func unique(models []modelFields) {
	names, ids := map[string]value{}, map[string]value{}
	claim := func(taken map[string]value, name string, v value) {
		if name == "" {
			return
		}
		if first, ok := taken[name]; ok {
			v.fail(fmt.Sprintf("is already used on line %d by %s", first.line, first.path), "give each model its own names")
			return
		}
		taken[name] = v
	}
	for _, m := range models {
		claim(names, m.model.Name, m.name)
		claim(ids, m.model.ModelID, m.id)
		for i, alias := range m.aliases {
			claim(ids, m.model.Aliases[i], alias)
		}
	}
}

func (r *reader) scaling(f fields) activator.Config {
	c := activator.DefaultConfig()
	c.ScaledownAfter = f.get("scaledown_after").duration(c.ScaledownAfter, 0)
	c.SleepAfter = f.get("sleep_after").duration(0, leastPause)
	r.replicas(&c, f.get("replicas"))

	c.Window = f.get("window").duration(c.Window, leastPause)
	metric := f.get("metric").fields("concurrency", "request_rate")
	concurrency, rate := metric.get("concurrency"), metric.get("request_rate")
	c.Concurrency = int(concurrency.integer(0, 1, maxConcurrency))
	if rate.given() {
		n, ok := rate.fraction()
		switch {
		case ok && (n < leastRate || n > maxConcurrency):
			rate.fail(fmt.Sprintf("is not between %g and %d", leastRate, maxConcurrency), "write the requests per second that one replica takes well, such as 5 or 0.5")
		case ok && c.Max <= max(1, c.Min):
			rate.warn("has no effect: load does not change the number of replicas", "write scaling.replicas: [0, 4] to have it do so")
		case ok:
			c.RequestRate = n
		}
	}
	switch {
	case concurrency.given() && rate.given():
		metric.fail("one metric only", "keep concurrency or request_rate")
	case metric.given() && len(metric.byName) == 0 && metric.kind() == "a mapping":
		metric.fail("names no metric", "write {concurrency: 32}")
	}
	return c
}

// replicas reads n, which means [n, n], or [min, max].
func (r *reader) replicas(c *activator.Config, v value) {
	const fix = "write [0, 1] for a replica on demand, [0, 4] for as many as load asks for, or 1 for one that always runs"
	if !v.given() {
		return
	}
	if v.kind() == "a number" {
		n := v.integer(1, 0, maxReplicas)
		if n == 0 {
			v.fail("would never start a replica", fix)
			return
		}
		c.Min, c.Max = int(n), int(n)
		return
	}
	if v.kind() != "a list" {
		v.expected("a whole number or [min, max]", fix)
		return
	}
	if len(v.node.Content) != 2 {
		v.fail("expected [min, max], got "+count(len(v.node.Content), "number"), fix)
		return
	}
	before := len(r.problems)
	bounds := v.items()
	if len(bounds) != 2 {
		return // an empty entry, reported
	}
	lo, hi := int(bounds[0].integer(0, 0, maxReplicas)), int(bounds[1].integer(1, 0, maxReplicas))
	switch {
	case len(r.problems) > before:
		return
	case hi < 1:
		v.fail("the most replicas must be at least 1", fix)
		return
	case lo > hi:
		v.fail(fmt.Sprintf("the least (%d) is more than the most (%d)", lo, hi), fmt.Sprintf("write [%d, %d]", hi, lo))
		return
	}
	c.Min, c.Max = lo, hi
}

func (r *reader) queueShare(m *Model, v value, c *Config) {
	f := v.fields("max_requests", "max_bytes")
	requests, size := f.get("max_requests"), f.get("max_bytes")
	m.Activator.MaxQueuedRequests = int(requests.integer(int64(m.Activator.MaxQueuedRequests), 1, maxQueuedRequests))
	m.Activator.MaxQueuedBytes = size.size(m.Activator.MaxQueuedBytes, leastBodyBytes)
	if requests.given() && m.Activator.MaxQueuedRequests > c.Queue.MaxRequests {
		requests.warn("is more than the total of queue.max_requests", fmt.Sprintf("at most %d will wait", c.Queue.MaxRequests))
	}
	if size.given() && m.Activator.MaxQueuedBytes > c.Queue.MaxBytes {
		size.warn("is more than the total of queue.max_bytes", "the total binds")
	}
	if size.given() && m.Activator.MaxQueuedBytes < int64(c.Gateway.MaxBodyBytes) {
		size.warn("is less than max_body_bytes: a request of that size can never wait for this model",
			"raise it, or lower max_body_bytes")
	}
}

func (r *reader) cold(v value) gateway.Cold {
	c := gateway.DefaultCold()
	f := v.fields("grace", "heartbeat", "keep_alive_json", "max_wait")
	c.Grace = f.get("grace").duration(c.Grace, 0)
	c.Heartbeat = f.get("heartbeat").duration(c.Heartbeat, leastPause)
	c.KeepAliveJSON = f.get("keep_alive_json").boolean(false)
	c.MaxWait = f.get("max_wait").duration(c.MaxWait, 0)
	return c
}
