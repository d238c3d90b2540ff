package config

import (
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"pilotlight/auth/jwt"
)

// issuers reads auth.jwt: one issuer, or a list of them.
func (r *reader) issuers(v value) []jwt.Issuer {
	if !v.given() {
		return nil
	}
	items := []value{v}
	if v.node.Kind == yaml.SequenceNode {
		items = v.items()
	}
	var all []jwt.Issuer
	lines := map[string]int{}
	for _, item := range items {
		issuer, ok := r.issuer(item)
		if !ok {
			continue
		}
		if _, twice := lines[issuer.URL]; twice {
			item.fail("the issuer "+issuer.URL+" is there already", "name all of its audiences in one entry")
			continue
		}
		lines[issuer.URL] = item.line
		all = append(all, issuer)
	}
	return all
}

func (r *reader) issuer(v value) (issuer jwt.Issuer, ok bool) {
	before := len(r.problems)
	f := v.fields("issuer", "audience", "jwks_url", "leeway", "scope", "claims")
	if v.kind() != "a mapping" {
		return issuer, false
	}
	url := f.get("issuer")
	if !url.given() {
		url.fail("is needed", "give the iss claim of its tokens, such as https://login.example.com")
	}
	issuer.URL, _, _ = url.expandable(false)
	issuer.JWKSURL, _, _ = f.get("jwks_url").expandable(false)
	audience := f.get("audience")
	switch {
	case !audience.given():
		audience.fail("is needed", "name what tokens for this endpoint have as aud; without it, tokens for others would pass")
	case audience.node.Kind == yaml.SequenceNode:
		issuer.Audience = audience.names()
	default:
		issuer.Audience = []string{audience.text("")}
	}
	if leeway := f.get("leeway"); leeway.given() {
		if issuer.Leeway = leeway.duration(0, 0); issuer.Leeway == 0 {
			issuer.Leeway = -1
		}
		if issuer.Leeway > maxLeeway {
			leeway.fail("is above "+maxLeeway.String(), "clocks that are kept differ by less than a second")
		}
	}
	issuer.Scope = f.get("scope").text("")
	if strings.ContainsAny(issuer.Scope, " \t") {
		f.get("scope").fail("is more than one scope", "name one")
	}
	claims := f.get("claims").fields("tenant", "tenant_prefix", "scopes", "models", "limits")
	issuer.Claims = jwt.Mapping{
		Tenant: claims.get("tenant").text(""), TenantPrefix: claims.get("tenant_prefix").text(""), Scopes: claims.get("scopes").text(""),
		Models: claims.get("models").text(""), Limits: claims.get("limits").text(""),
	}
	if len(r.problems) > before {
		return issuer, false
	}
	if err := issuer.Validate(); err != nil {
		v.fail(err.Error(), "")
		return issuer, false
	}
	return issuer, true
}

// maxLeeway is more than a wrong clock excuses.
const maxLeeway = 5 * time.Minute

// issuerLines shows whose tokens are accepted.
func (d *describer) issuerLines(issuers []jwt.Issuer) {
	for _, i := range issuers {
		d.line(0, "issuer       %s for %s", i.URL, strings.Join(i.Audience, ", "))
	}
}
