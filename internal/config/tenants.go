package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"pilotlight/auth"
	"pilotlight/auth/limits"
	"pilotlight/auth/tenants"
	"pilotlight/gateway"
)

// tenantName is what keys may belong to; see auth.Key.
var tenantName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// maxLimit is far above what anybody serves, and far from overflowing.
const maxLimit = 1 << 50

// limits reads a mapping of limits. An absent one limits nothing.
func (v value) limits() limits.Limits {
	f := v.fields("requests_per_minute", "tokens_per_minute", "tokens_per_day", "tokens_per_month", "concurrent_requests", "concurrent_cold_starts")
	return f.limits()
}

func (f fields) limits() limits.Limits {
	limit := func(name string) int64 {
		v := f.get(name)
		n := v.integer(0, 0, maxLimit)
		if v.given() && n == 0 && v.node.Value == "0" {
			v.fail("would let nothing through", "remove it for no limit; to keep a tenant out, revoke its keys or write models: []")
		}
		return n
	}
	return limits.Limits{
		RequestsPerMinute: limit("requests_per_minute"), TokensPerMinute: limit("tokens_per_minute"), TokensPerDay: limit("tokens_per_day"),
		TokensPerMonth: limit("tokens_per_month"), Concurrent: limit("concurrent_requests"), ColdStarts: limit("concurrent_cold_starts"),
	}
}

// tenants reads who may do what, but for the limits of models.
func (r *reader) tenants(c *Config, f, auth fields) {
	t := &c.Tenants
	total := f.get("limits").fields("requests_per_minute", "tokens_per_minute", "tokens_per_day", "tokens_per_month", "concurrent_requests",
		"concurrent_cold_starts", "answer_tokens")
	t.Total = total.limits()
	t.Answer = total.get("answer_tokens").integer(0, 1, maxLimit)
	t.Anonymous = auth.get("anonymous").limits()
	t.WrongKeys = auth.get("wrong_keys_per_minute").integer(tenants.DefaultWrongKeys, 1, maxLimit)
	for _, v := range auth.get("trusted_proxies").items() {
		if p, ok := v.prefix(); ok {
			c.Gateway.TrustedProxies = append(c.Gateway.TrustedProxies, p)
		}
	}
	lines := map[string]int{}
	for _, v := range f.get("tenants").items() {
		p := r.tenant(v)
		if first, twice := lines[p.Name]; twice && p.Name != "" {
			v.fail(fmt.Sprintf("the tenant %s is there already, on line %d", p.Name, first), "keep one")
			continue
		}
		lines[p.Name] = v.line
		t.Tenants = append(t.Tenants, p)
	}
}

func (r *reader) tenant(v value) tenants.Policy {
	f := v.fields("name", "limits", "key_limits", "models", "routes", "wake_models", "max_tokens", "max_context", "priority", "weight", "cache_salt")
	p := tenants.Policy{Limits: f.get("limits").limits(), KeyLimits: f.get("key_limits").limits()}
	if v.kind() != "a mapping" {
		return p
	}
	name := f.get("name")
	p.Name = r.required(name, `give the tenant of its keys; "*" stands for all that have no entry`)
	if p.Name != "" && p.Name != tenants.Everybody && !tenantName.MatchString(p.Name) {
		name.fail("a tenant is named by 1 to 64 letters, digits and . _ @ -", "")
	}
	if p.Name == auth.Anonymous.Tenant && f.get("key_limits").given() {
		f.get("key_limits").fail("callers without a key have none", "limit each address by auth.anonymous")
	}
	p.Models = f.get("models").names()
	if routes := f.get("routes"); routes.given() {
		p.Routes = routes.names()
		for _, item := range routes.items() {
			if route := item.text(""); route != "" && !slices.Contains(gateway.RouteNames(), route) {
				item.fail("is no route", "known are "+strings.Join(gateway.RouteNames(), ", "))
			}
		}
	}
	p.NoWake = !f.get("wake_models").boolean(true)
	p.MaxTokens = f.get("max_tokens").integer(0, 1, maxLimit)
	p.MaxContext = f.get("max_context").integer(0, 1, maxLimit)
	p.Priority = int(f.get("priority").integer(0, tenants.LeastPriority, tenants.MostPriority))
	p.Weight = int(f.get("weight").integer(1, 1, tenants.MostWeight))
	p.CacheSalt = f.get("cache_salt").boolean(false)
	return p
}

// names reads a list of texts; nil: there is none.
func (v value) names() []string {
	if !v.given() {
		return nil
	}
	names := []string{}
	for _, item := range v.items() {
		if name := item.text(""); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// prefix reads an address or a range of addresses.
func (v value) prefix() (netip.Prefix, bool) {
	text := v.text("")
	if text == "" {
		return netip.Prefix{}, false
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		v.fail("is neither an address nor a range of addresses", "write it as 10.0.0.0/8 or fd00::/8")
		return netip.Prefix{}, false
	}
	return p.Masked(), true
}

// modelLimits reads the limits of a model for all tenants together.
func (r *reader) modelLimits(c *Config, id string, v value) {
	l := v.limits()
	if l == (limits.Limits{}) || id == "" {
		return
	}
	if c.Tenants.Models == nil {
		c.Tenants.Models = map[string]limits.Limits{}
	}
	c.Tenants.Models[id] = l
}

// tenantLines shows who may do what.
func (d *describer) tenantLines(t tenants.Rules, c *Config) {
	if t.Total != (limits.Limits{}) {
		d.line(0, "limits       %s", t.Total.String())
	}
	if t.Anonymous != (limits.Limits{}) {
		d.line(0, "anonymous    %s for each address", t.Anonymous.String())
	}
	if len(c.Gateway.TrustedProxies) > 0 {
		d.line(0, "proxies      %s may say where requests come from", strings.Trim(fmt.Sprint(c.Gateway.TrustedProxies), "[]"))
	}
	for _, p := range t.Tenants {
		name := "tenant " + p.Name
		if p.Name == tenants.Everybody {
			name = "every other tenant"
		}
		d.line(0, "%s", name)
		say := func(what, text string) {
			if text != "" {
				d.line(1, "%-12s %s", what, text)
			}
		}
		say("limits", p.Limits.String())
		say("each key", p.KeyLimits.String())
		list := func(what string, names []string) {
			if names != nil {
				say(what, strings.Join(append([]string{}, names...), ", "))
				if len(names) == 0 {
					say(what, "none")
				}
			}
		}
		list("models", p.Models)
		list("routes", p.Routes)
		var rest []string
		if p.NoWake {
			rest = append(rest, "starts no models")
		}
		if p.MaxTokens > 0 {
			rest = append(rest, fmt.Sprintf("at most %d tokens in an answer", p.MaxTokens))
		}
		if p.MaxContext > 0 {
			rest = append(rest, fmt.Sprintf("at most %d in all", p.MaxContext))
		}
		if p.CacheSalt {
			rest = append(rest, "a part of the prefix cache of its own")
		}
		say("rights", strings.Join(rest, ", "))
		if p.Priority != 0 || p.Weight > 1 {
			say("queue", fmt.Sprintf("priority %d, weight %d", p.Priority, max(p.Weight, 1)))
		}
	}
}
