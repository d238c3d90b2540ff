package config

import (
	"reflect"
)

// Changes is what a reload has to do, model by model and in the order of the file that names them.
type Changes struct {
	Added []*Model // of the new configuration
	// Removed models drain; they belong to the old configuration.
	Removed []*Model
	// Replaced models of the new configuration have another Spec.Hash: their replicas are replaced.
	Replaced []*Model
	// Adjusted models of the new configuration changed in settings that no replica sees; nothing restarts.
	Adjusted []*Model
	// Settings are the top-level fields that changed and hold at once, by path.
	Settings []string
	// NeedRestart are the top-level fields that changed and that a running gateway cannot take over, by path.
	// They are reported, not applied; everything else is.
	NeedRestart []string
}

// Empty tells whether nothing changed.
func (c *Changes) Empty() bool {
	return len(c.Added)+len(c.Removed)+len(c.Replaced)+len(c.Adjusted)+len(c.Settings)+len(c.NeedRestart) == 0
}

// Diff compares two configurations. Models are matched by name, and where they stand in the file does not
// matter. It keeps pointers into both.
func Diff(old, fresh *Config) Changes {
	var c Changes
	before := make(map[string]*Model, len(old.Models))
	for i := range old.Models {
		before[old.Models[i].Name] = &old.Models[i]
	}
	for i := range fresh.Models {
		m := &fresh.Models[i]
		was, ok := before[m.Name]
		delete(before, m.Name)
		switch {
		case !ok:
			c.Added = append(c.Added, m)
		case was.Spec.Hash() != m.Spec.Hash():
			c.Replaced = append(c.Replaced, m)
		case !sameSettings(*was, *m):
			c.Adjusted = append(c.Adjusted, m)
		}
	}
	for i := range old.Models {
		if m, ok := before[old.Models[i].Name]; ok {
			c.Removed = append(c.Removed, m)
		}
	}

	note := func(list *[]string, path string, was, is any) {
		if !reflect.DeepEqual(was, is) {
			*list = append(*list, path)
		}
	}
	note(&c.NeedRestart, "listen", old.Gateway.Listen, fresh.Gateway.Listen)
	note(&c.NeedRestart, "admin.listen", old.Admin.Listen, fresh.Admin.Listen)
	note(&c.NeedRestart, "state_dir", old.StateDir, fresh.StateDir)
	note(&c.NeedRestart, "store", old.Store, fresh.Store)
	note(&c.Settings, "prefetch", old.Prefetch, fresh.Prefetch)
	note(&c.NeedRestart, "devices", old.Devices, fresh.Devices)
	tls := &c.Settings // other files
	if (old.TLS == TLS{}) != (fresh.TLS == TLS{}) {
		tls = &c.NeedRestart // another protocol
	}
	note(tls, "tls", old.TLS, fresh.TLS)
	note(&c.Settings, "max_body_bytes", old.Gateway.MaxBodyBytes, fresh.Gateway.MaxBodyBytes)
	note(&c.Settings, "telemetry.access_log", old.Gateway.AccessLog, fresh.Gateway.AccessLog)
	note(&c.Settings, "telemetry.otlp_endpoint", old.Traces.Endpoint, fresh.Traces.Endpoint)
	was, is := old.Traces, fresh.Traces
	was.Endpoint, is.Endpoint = "", ""
	note(&c.Settings, "telemetry.traces", was, is)
	note(&c.Settings, "admin.token", old.Admin.Token, fresh.Admin.Token)
	note(&c.Settings, "auth.keys_file", old.KeysFile, fresh.KeysFile)
	note(&c.Settings, "auth.jwt", old.Issuers, fresh.Issuers)
	note(&c.Settings, "auth.anonymous", old.Tenants.Anonymous, fresh.Tenants.Anonymous)
	note(&c.Settings, "auth.wrong_keys_per_minute", old.Tenants.WrongKeys, fresh.Tenants.WrongKeys)
	note(&c.Settings, "auth.trusted_proxies", old.Gateway.TrustedProxies, fresh.Gateway.TrustedProxies)
	note(&c.Settings, "limits", [2]any{old.Tenants.Total, old.Tenants.Answer}, [2]any{fresh.Tenants.Total, fresh.Tenants.Answer})
	note(&c.Settings, "models[].limits", old.Tenants.Models, fresh.Tenants.Models)
	note(&c.Settings, "tenants", old.Tenants.Tenants, fresh.Tenants.Tenants)
	note(&c.Settings, "queue", old.Queue, fresh.Queue)
	return c
}

// sameSettings compares everything but the place in the file.
func sameSettings(a, b Model) bool {
	a.Line, b.Line = 0, 0
	a.masked, b.masked = nil, nil
	a.options, b.options = nil, nil // their effect is in Spec
	return reflect.DeepEqual(a, b)
}
