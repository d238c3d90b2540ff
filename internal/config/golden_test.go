package config

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/backends"
	"pilotlight/backends/sglang/flags"
)

// launch stands for the engine's command line, which package sglang makes.
func launch(s *backends.Spec) []string {
	var asleep []string
	if s.Sleep != "" {
		asleep = flags.ForSleep(s.Sleep == backends.SleepWeights, s.Command, s.ExtraArgs)
	}
	return append(append(s.Command, "--model-path", s.ModelPath, "--served-model-name", s.ServedName,
		"--port", "30000", "--api-key", "sesame-replica"), append(asleep, s.ExtraArgs...)...)
}

// describe is Describe on a machine that has no files and no programs but python3.
func describe(c *Config) string {
	d := describer{config: c, commandLine: launch,
		exists: func(string) bool { return false },
		lookPath: func(program string) (string, error) {
			if program == "python3" {
				return "/usr/bin/python3", nil
			}
			return "", exec.ErrNotFound
		}}
	d.all()
	return d.out.String()
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// parseFixture reads a file of testdata as if it lay in /etc/pilotlight, so that paths do not depend on the machine.
func parseFixture(t *testing.T, path string) (*Config, error) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return Parse("/etc/pilotlight/"+filepath.Base(path), data, testEnv)
}

func fixtures(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures for %s (%v)", pattern, err)
	}
	return paths
}

func TestGoodFiles(t *testing.T) {
	for _, path := range fixtures(t, "testdata/*.good.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c, err := parseFixture(t, path)
			if err != nil {
				t.Fatal(err)
			}
			text := describe(c)
			if strings.Contains(text, "sesame") {
				t.Errorf("a secret is shown:\n%s", text)
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".golden", text)
		})
	}
}

func TestBadFiles(t *testing.T) {
	for _, path := range fixtures(t, "testdata/*.bad.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			_, err := parseFixture(t, path)
			var problems *Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want *Problems", err)
			}
			if strings.Contains(err.Error(), "sesame") {
				t.Errorf("a secret is shown:\n%v", err)
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".golden", err.Error()+"\n")
		})
	}
}

func TestExamples(t *testing.T) {
	env := func(name string) (string, bool) {
		if value, ok := testEnv(name); ok {
			return value, true
		}
		return "from-the-environment", true
	}
	for _, path := range fixtures(t, "../../examples/*.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c, err := Load(path, env)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range c.Warnings {
				if !strings.Contains(w.Message, "not enforced") {
					t.Errorf("an example draws a warning: %v", w)
				}
			}
			var out bytes.Buffer
			if err := Describe(&out, c, launch, nil, nil); err != nil || out.Len() == 0 {
				t.Errorf("Describe: %v", err)
			}
		})
	}
}

func TestDescribeReportsTheWriter(t *testing.T) {
	c, err := parseFixture(t, "testdata/full.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Describe(write, c, launch, nil, nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want the writer's error", err)
	}
}
