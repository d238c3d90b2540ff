package config

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"pilotlight/gateway"
)

// Names says which models answer the requests for a model's names, and what these are given.
type Names struct {
	Split    []Split
	Fallback Fallback
	Shadow   Split // gets copies; without a Model there are none
	// Parameters are members of request bodies, defaults and overrides.
	Parameters []gateway.Parameter
}

// Split gives a part of a model's requests to another one.
type Split struct {
	Model   string // its resource name
	Percent float64
}

// Fallback says which models answer in place of another one, by their resource names, and when.
type Fallback struct {
	Models             []string
	After              time.Duration
	Cold, Full, Failed bool
}

// defaultFallbackAfter is longer than a busy model takes to have a place, and shorter than nearly all starts.
const defaultFallbackAfter = 30 * time.Second

// nameLinks are where a model names others, until all are known.
type nameLinks struct{ split, fallback, shadow []value }

// names reads split, fallback, shadow and parameters.
func (r *reader) names(m *Model, f fields) (links nameLinks) {
	total := 0.0
	for _, item := range f.get("split").items() {
		part := item.fields("model", "percent")
		if item.kind() != "a mapping" {
			continue
		}
		s := Split{Model: r.required(part.get("model"), "give the name of another model")}
		percent := part.get("percent")
		n, ok := percent.fraction()
		switch {
		case !percent.given():
			percent.fail("is needed", "write the share of requests, such as percent: 5")
		case ok && !(n > 0 && n <= 100):
			percent.fail("is not above 0 and at most 100", "")
		default:
			s.Percent = n
			total += n
		}
		m.Names.Split = append(m.Names.Split, s)
		links.split = append(links.split, part.get("model"))
	}
	if total > 100+1e-9 {
		f.get("split").fail(fmt.Sprintf("its parts are %g %% together", total), "keep them at 100 or below; what is left stays with this model")
	}
	if shadow := f.get("shadow"); shadow.given() {
		part := shadow.fields("model", "percent")
		if shadow.kind() == "a mapping" {
			m.Names.Shadow = Split{Model: r.required(part.get("model"), "give the name of another model"), Percent: 100}
			links.shadow = append(links.shadow, part.get("model"))
		}
		if percent := part.get("percent"); percent.given() {
			n, ok := percent.fraction()
			if ok && !(n > 0 && n <= 100) {
				percent.fail("is not above 0 and at most 100", "")
			}
			m.Names.Shadow.Percent = n
		}
	}
	fallback := f.get("fallback")
	part := fallback.fields("models", "after", "on")
	b := &m.Names.Fallback
	b.After = part.get("after").duration(defaultFallbackAfter, 0)
	for _, item := range part.get("models").items() {
		b.Models = append(b.Models, item.text(""))
		links.fallback = append(links.fallback, item)
	}
	on := part.get("on")
	if !on.given() {
		b.Cold, b.Full, b.Failed = true, true, true
	}
	for _, item := range on.items() {
		switch item.text("") {
		case "cold":
			b.Cold = true
		case "full":
			b.Full = true
		case "failed":
			b.Failed = true
		default:
			item.fail("is no reason to fall back", "use cold, full or failed")
		}
	}
	switch {
	case !fallback.given():
		*b = Fallback{}
	case fallback.kind() == "a mapping" && len(b.Models) == 0 && !part.get("models").given():
		part.get("models").fail("is needed", "list the names of the models that answer instead")
	}
	r.parameters(m, f.get("parameters"))
	return links
}

// ownParameters are members of request bodies that say what a request is, or that only the gateway may set.
var ownParameters = []string{"model", "stream", "stream_options", "messages", "prompt", "input", "background", "previous_response_id", "rid", "priority",
	"bootstrap_host", "bootstrap_port", "bootstrap_room", "session_id", "session_params", "custom_logit_processor"}

// sameParameter are members that say the same in other words.
var sameParameter = map[string]string{"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}

const maxParameters = 64

// parameters reads the members that requests are given.
func (r *reader) parameters(m *Model, v value) {
	f := v.fields("defaults", "overrides")
	lines := map[string]value{}
	for _, kind := range []string{"defaults", "overrides"} {
		for _, e := range f.get(kind).entries() {
			name := e.key.Value
			if contains(ownParameters, name) {
				e.value.fail("cannot be set for all requests", "remove it")
				continue
			}
			if first, ok := lines[name]; ok {
				e.value.fail(fmt.Sprintf("is already given on line %d by %s", first.line, first.path), "keep one")
				continue
			}
			lines[name] = e.value
			raw, err := e.value.json()
			if err != nil {
				e.value.fail("cannot be written as JSON: "+err.Error(), "use text, numbers, true or false, lists and mappings")
				continue
			}
			m.Names.Parameters = append(m.Names.Parameters, gateway.Parameter{Name: name, Raw: raw, Override: kind == "overrides", Unless: sameParameter[name]})
		}
	}
	if len(m.Names.Parameters) > maxParameters {
		v.fail(fmt.Sprintf("holds more than %d members", maxParameters), "")
	}
}

// json writes a value as JSON.
func (v value) json() ([]byte, error) {
	if v.node == nil {
		return []byte("null"), nil
	}
	var plain any
	if err := v.node.Decode(&plain); err != nil {
		return nil, err
	}
	if f, ok := plain.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return nil, fmt.Errorf("%v is no number of JSON", f)
	}
	return json.Marshal(plain)
}

// linkNames checks the names of other models, once all are known.
func linkNames(models []modelFields) {
	byName := map[string]*Model{}
	for i := range models {
		byName[models[i].model.Name] = &models[i].model
	}
	check := func(m *Model, v value, name string, seen map[string]bool) {
		other := byName[name]
		switch {
		case name == "":
		case other == nil:
			v.fail("no model has this name", suggestField(name, sortedNames(byName)))
		case other == m:
			v.fail("is the model itself", "name another one")
		case seen[name]:
			v.fail("is named twice", "keep one")
		case !m.RequiresAuth && other.RequiresAuth:
			v.fail("asks for a key, and this model does not", "set requires_auth: true here, or false there")
		}
		seen[name] = true
	}
	for i := range models {
		m := &models[i].model
		seen := map[string]bool{}
		for k, v := range models[i].links.split {
			check(m, v, m.Names.Split[k].Model, seen)
		}
		for _, v := range models[i].links.shadow {
			check(m, v, m.Names.Shadow.Model, map[string]bool{})
		}
		seen = map[string]bool{}
		for k, v := range models[i].links.fallback {
			check(m, v, m.Names.Fallback.Models[k], seen)
		}
	}
}

// names shows which models answer for this one's names.
func (d *describer) names(m *Model) {
	for _, s := range m.Names.Split {
		d.line(1, "split        %g %% of the requests go to %s", s.Percent, s.Model)
	}
	if f := m.Names.Fallback; len(f.Models) > 0 {
		var on []string
		for _, reason := range []struct {
			set  bool
			text string
		}{{f.Cold, "cold for " + f.After.String()}, {f.Full, "full for " + f.After.String()}, {f.Failed, "failed"}} {
			if reason.set {
				on = append(on, reason.text)
			}
		}
		d.line(1, "fallback     %s, if it is %s", strings.Join(f.Models, ", "), strings.Join(on, ", or "))
	}
	if s := m.Names.Shadow; s.Model != "" {
		d.line(1, "shadow       copies of %g %% of the requests go to %s, and their answers nowhere", s.Percent, s.Model)
	}
	for _, p := range m.Names.Parameters {
		kind := "default"
		if p.Override {
			kind = "always"
		}
		d.line(1, "parameter    %s %s %s", kind, p.Name, p.Raw)
	}
}
