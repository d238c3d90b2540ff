package config

import (
	"regexp"

	"pilotlight/backends"
	"pilotlight/gateway"
	"pilotlight/router"
)

// headerName is a field name of HTTP without the signs that nobody uses in one (RFC 9110, 5.1).
var headerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// routing reads how requests are placed among a model's replicas.
func (r *reader) routing(m *Model, v value) {
	m.Routing = gateway.Routing{Policy: router.PolicyPrefix, SessionHeader: gateway.DefaultSessionHeader}
	f := v.fields("policy", "session_header")
	m.Spec.CacheReport = m.Activator.Max > 1 && m.Spec.Driver == backends.DriverProcess && m.Spec.Engine == backends.EngineSGLang
	policy := f.get("policy")
	names := make([]string, len(router.Policies))
	for i, p := range router.Policies {
		names[i] = string(p)
	}
	if name := policy.text(string(m.Routing.Policy)); contains(names, name) {
		m.Routing.Policy = router.Policy(name)
	} else {
		policy.fail("unknown policy", "use prefix, least_requests or round_robin")
	}
	header := f.get("session_header")
	m.Routing.SessionHeader = header.text(m.Routing.SessionHeader)
	if !headerName.MatchString(m.Routing.SessionHeader) {
		header.fail("is not the name of a header", "write a name such as "+gateway.DefaultSessionHeader)
	}
}
