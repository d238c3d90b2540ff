package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pilotlight/backends/sglang/flags"
)

// parseWith reads one SGLang model with these fields, on a machine where its command has that release.
func parseWith(t *testing.T, release string, unknown error, lines ...string) (*Config, error) {
	t.Helper()
	return Source{Env: testEnv, EngineRelease: func(command []string, dir string, env map[string]string) (string, error) {
		if !slices.Equal(command, defaultCommand) || dir != "/srv" || env["PYTHONPATH"] != "/opt" {
			t.Errorf("asked for %q in %s with %v", command, dir, env)
		}
		return release, unknown
	}}.Parse("/etc/pilotlight/p.yaml", []byte(withField(append(lines, "env_vars: {PYTHONPATH: /opt}")...)))
}

func TestInstalledReleaseDecides(t *testing.T) {
	const dir = "backend: {process: {dir: /srv}}"
	for _, c := range []struct {
		release string
		unknown error
		args    string
		want    string // in the error, or else in the description
	}{
		{"0.5.2", nil, "--context-length 32k", "--context-length 32k is not a whole number"},
		{"0.5.15", nil, "--context-length 32k", "SGLang 0.5.15 is installed, options of SGLang 0.5.15"},
		{"0.5.15.post1", nil, "--context-length 32k", "SGLang 0.5.15.post1 is installed, options of SGLang 0.5.15"},
		{"0.5.16", nil, "--trust-remote-code", "engine_version: SGLang 0.5.16 is not among the releases whose options are known; 0.5.15 is taken instead"},
		{"0.5.15", nil, "--hybrid-kvcache-ratio 0.5", "--hybrid-kvcache-ratio is not an option of SGLang 0.5.15"},
		{"", flags.ErrNoPython, "--hybrid-kvcache-ratio 0.5", "not known, options of SGLang 0.5.7"},
		{"", flags.ErrNoSGLang, "--trust-remote-code", "a: python3 has no package sglang"},
		{"", errors.New("python3 did not say"), "--trust-remote-code", "a: python3 did not say; set backend.process.engine_version"},
		{"homemade", nil, "--trust-remote-code", `a: "homemade" is no release such as 0.5.15; set backend.process.engine_version`},
	} {
		conf, err := parseWith(t, c.release, c.unknown, dir, fmt.Sprintf("extra_args: %q", c.args))
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = describe(conf)
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s %v with %q: got %s\nwant %q in it", c.release, c.unknown, c.args, got, c.want)
		}
	}
}

func TestGivenReleaseIsNotAskedFor(t *testing.T) {
	source := Source{Env: testEnv, EngineRelease: func([]string, string, map[string]string) (string, error) {
		t.Error("asked although engine_version is given, or nothing is started")
		return "", nil
	}}
	for _, backend := range []string{"{process: {engine_version: 0.5.15}}", "{process: {engine_version: custom}}",
		"{process: {engine: openai, command: 'serve {port}'}}", "{static: {urls: ['http://x']}}"} {
		if _, err := source.Parse("/etc/pilotlight/p.yaml", []byte(withField("backend: "+backend))); err != nil {
			t.Error(err)
		}
	}
}
