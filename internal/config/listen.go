package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// address reads host:port to listen on. An empty host means every address, port 0 a free port.
func (v value) address(def string) string {
	const fix = "write host:port, such as 127.0.0.1:8000"
	if !v.given() {
		return def
	}
	if _, tag, ok := v.scalar("host:port"); ok && tag != "!!str" {
		v.expected("host:port", fix)
		return def
	}
	text := v.text("")
	if text == "" {
		return def
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		v.fail("is not host:port", fix)
		return def
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		v.fail("the port must be a number from 0 to 65535", fix)
		return def
	}
	if strings.ContainsAny(host, " /@\t") {
		v.fail("is not host:port", fix)
		return def
	}
	return text
}

// tls reads the files that make the client listener encrypted. They are opened by who serves, and again when they change.
func (r *reader) tls(v value) (t TLS) {
	if !v.given() {
		return t
	}
	f := v.fields("cert", "key")
	file := func(v value, fix string) string {
		if path := r.required(v, fix); path != "" {
			return beside(r.file, r.home(v, path))
		}
		return ""
	}
	t.Cert = file(f.get("cert"), "give the file of the certificate and those that lead from it to a root, in PEM")
	t.Key = file(f.get("key"), "give the file of the certificate's private key, in PEM")
	return t
}

// isLoopback tells whether only this machine can reach the address.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// leastTokenLength is 16 characters: about 96 bits if they are random.
const leastTokenLength = 16

func (r *reader) admin(c *Config, v, listen value) {
	f := v.fields("listen", "token")
	c.Admin.Listen = f.get("listen").address(defaultAdminListen)
	token := f.get("token")
	c.Admin.Token = r.credential(token)
	if c.Admin.Token != "" && len(c.Admin.Token) < leastTokenLength {
		token.asSecret().warn("is shorter than 16 characters", "use a long random one")
	}
	if !token.given() && !isLoopback(c.Admin.Listen) {
		f.get("listen").fail("an admin listener that other machines can reach needs a token",
			`set admin.token: "${PILOTLIGHT_ADMIN_TOKEN}", or listen on 127.0.0.1`)
	}
	_, port, _ := net.SplitHostPort(c.Gateway.Listen) // checked by address
	_, adminPort, _ := net.SplitHostPort(c.Admin.Listen)
	if port == adminPort && port != "0" {
		at := f.get("listen")
		if !at.given() {
			at = listen // the default of admin.listen stands against a port that the file chose
		}
		at.fail("listen and admin.listen use the same port "+port, "give each its own")
	}
}

// credential reads a token or key and warns if it stands in the file itself.
func (r *reader) credential(v value) string {
	text, fromEnv, ok := v.expandable(false)
	if ok && !fromEnv {
		v.asSecret().warn("a secret in plain text", `write "${NAME}" and set NAME in the gateway's environment`)
	}
	return text
}

// home writes out a leading ~.
func (r *reader) home(v value, path string) string {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path
	}
	home, ok := r.env("HOME")
	if !ok || !filepath.IsAbs(home) {
		v.fail("~ cannot be written out, because HOME is not set", "write the whole path")
		return path
	}
	return filepath.Join(home, strings.TrimPrefix(path, "~"))
}

// stateDir follows the XDG base directory specification where the file is silent: $XDG_STATE_HOME, else
// ~/.local/state.
func (r *reader) stateDir(v value) string {
	if v.given() {
		return beside(r.file, r.home(v, v.text("")))
	}
	if state, ok := r.env("XDG_STATE_HOME"); ok && filepath.IsAbs(state) {
		return filepath.Join(state, "pilotlight")
	}
	if home, ok := r.env("HOME"); !ok || !filepath.IsAbs(home) {
		v.fail("is needed, because HOME is not set", "write state_dir: /var/lib/pilotlight, or another folder")
		return ""
	}
	return r.home(v, "~/.local/state/pilotlight")
}
