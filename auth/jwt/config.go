package jwt

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

// Issuer is one whose tokens are accepted.
type Issuer struct {
	URL      string   // the iss claim, compared byte by byte
	Audience []string // one of them must be in aud; at least one
	// JWKSURL is where the keys are. Empty: URL/.well-known/openid-configuration tells (OpenID Connect Discovery 1.0 §4).
	JWKSURL string
	Leeway  time.Duration // for exp and nbf; zero: 30 s; negative: none
	Scope   string        // that a token must have among its scopes; empty: none
	Claims  Mapping
}

// Mapping names the claims that say what a caller is. A name is a claim's, or a path into objects with dots between.
type Mapping struct {
	Tenant string // empty: sub
	// TenantPrefix is put before the claim's value, so that an issuer cannot name other issuers' tenants. Empty: none.
	TenantPrefix string
	Scopes       string // a list, or words with spaces between (RFC 8693 §4.2); empty: scope
	Models       string // a list, or words with spaces between; empty: tokens restrict no models
	Limits       string // an object of numbers by name; empty: tokens limit nothing
}

const defaultLeeway = 30 * time.Second // clocks that NTP keeps differ by less

func (i Issuer) leeway() time.Duration {
	if i.Leeway == 0 {
		return defaultLeeway
	}
	return max(i.Leeway, 0)
}

// Validate names everything that is wrong with the issuer.
func (i Issuer) Validate() error {
	var errs []error
	if err := checkURL(i.URL); err != nil {
		errs = append(errs, fmt.Errorf("issuer %q: %w", i.URL, err))
	}
	if len(i.Audience) == 0 {
		errs = append(errs, fmt.Errorf("issuer %q: no audience; a token that was made for somebody else would be accepted", i.URL))
	}
	if i.JWKSURL != "" {
		if err := checkURL(i.JWKSURL); err != nil {
			errs = append(errs, fmt.Errorf("issuer %q: jwks_url %q: %w", i.URL, i.JWKSURL, err))
		}
	}
	return errors.Join(errs...)
}

// checkURL wants https, but not of this machine's own addresses: whoever can change the keys on the way can be anybody.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	return checkParsed(u)
}

func checkParsed(u *url.URL) error {
	switch {
	case u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New("is not an absolute URL without user and fragment")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()):
		return nil
	}
	return errors.New("does not begin with https://")
}
