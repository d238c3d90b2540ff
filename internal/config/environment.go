package config

import (
	"fmt"
	"strings"

	"pilotlight/backends"
)

// environment reads env_vars and secrets into the spec and remembers which values no one may see.
func (r *reader) environment(m *Model, vars, secrets value) {
	lines := map[string]value{}
	for _, e := range vars.entries() {
		name := e.key.Value
		if !variableName.MatchString(name) {
			vars.line = e.key.Line // and not the name, which may be NAME=secret
			vars.fail("a variable's name holds letters, digits and '_', and does not begin with a digit", "write NAME: value")
			continue
		}
		lines[name] = e.value
		if !e.value.given() {
			e.value.fail("has no value", `write "" for an empty one`)
			continue
		}
		text, fromEnv, ok := e.value.expandable(true)
		if !ok {
			continue
		}
		secret := looksSecret(name, text)
		if secret && !fromEnv {
			e.value.asSecret().warn("a secret in plain text",
				fmt.Sprintf(`write "${%s}" and set %s in the gateway's environment, or use secrets`, name, name))
		}
		m.setEnv(name, text, secret || fromEnv)
	}
	for _, item := range secrets.items() {
		f := item.fields("name", "env", "file")
		if item.kind() != "a mapping" {
			continue
		}
		s := backends.Secret{
			Name: r.required(f.get("name"), "name it, such as hf-token"),
			Env:  r.required(f.get("env"), "name the variable that the engine reads, such as HF_TOKEN"),
			File: r.required(f.get("file"), "give the file that holds the secret"),
		}
		if s.File != "" {
			s.File = beside(r.file, r.home(f.get("file"), s.File))
		}
		if s.Env != "" {
			if !variableName.MatchString(s.Env) {
				f.get("env").fail("is not a variable's name", "use letters, digits and '_', and begin with a letter or '_'")
			} else if first, taken := lines[s.Env]; taken {
				f.get("env").fail(fmt.Sprintf("is already set on line %d by %s", first.line, first.path), "keep one")
			} else {
				lines[s.Env] = f.get("env")
			}
		}
		m.Spec.Secrets = append(m.Spec.Secrets, s)
	}
	if m.Spec.Driver == backends.DriverStatic {
		m.Spec.Env, m.Spec.Secrets, m.masked = nil, nil, nil // warned about
	}
}

func (m *Model) setEnv(name, text string, masked bool) {
	if m.Spec.Env == nil {
		m.Spec.Env = map[string]string{}
		m.masked = map[string]bool{}
	}
	m.Spec.Env[name] = text
	m.masked[name] = masked
}

// maskedAfter tells whether the argument behind a flag is a secret.
func maskedAfter(flag string) bool {
	flag, _, _ = strings.Cut(flag, "=")
	for _, end := range []string{"-key", "-token", "-password", "-secret"} {
		if strings.HasPrefix(flag, "--") && strings.HasSuffix(flag, end) {
			return true
		}
	}
	return false
}
