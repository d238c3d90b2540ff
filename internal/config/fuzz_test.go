package config

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"pilotlight/backends"
)

// FuzzParse checks that no input panics or hangs, that every refusal says something, and that whatever is
// accepted keeps the promises that the rest of the gateway relies on.
func FuzzParse(f *testing.F) {
	paths, err := os.ReadDir("testdata")
	if err != nil {
		f.Fatal(err)
	}
	for _, entry := range paths {
		if strings.HasSuffix(entry.Name(), ".yaml") {
			data, err := os.ReadFile("testdata/" + entry.Name())
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte(valid))
	f.Fuzz(func(t *testing.T, data []byte) {
		began := time.Now()
		c, err := Parse("/etc/p.yaml", data, testEnv)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		if err != nil {
			var problems *Problems
			if !errors.As(err, &problems) || len(problems.List) == 0 || c != nil {
				t.Fatalf("got %v, %v", c, err)
			}
			for _, p := range problems.List {
				if p.Message == "" || p.Line < 0 || strings.ContainsAny(p.String(), "\n\r") {
					t.Errorf("bad problem %#v", p)
				}
			}
			return
		}
		checkInvariants(t, c)
		again, err := Parse("/etc/p.yaml", data, testEnv)
		if err != nil {
			t.Fatalf("accepted once and refused then: %v", err)
		}
		if changes := Diff(c, again); !changes.Empty() {
			t.Errorf("a file differs from itself: %v", changes.names())
		}
		text := describe(c)
		for _, secret := range []string{"hf_sesame", "sesame-upstream", "sesame-admin"} {
			if strings.Contains(string(data), secret) || !strings.Contains(text, secret) {
				continue // the file may hold the word itself, as a name
			}
			t.Errorf("a secret of the environment is shown:\n%s", text)
		}
	})
}

var forbiddenFlag = regexp.MustCompile(`^--(host|port|api-key|served-model-name|model|model-path|max-model-len)(=|$)`)

func checkInvariants(t *testing.T, c *Config) {
	t.Helper()
	check := func(ok bool, what string, m *Model) {
		t.Helper()
		if !ok {
			t.Errorf("broken promise: %s; model %+v", what, m)
		}
	}
	check(len(c.Models) > 0, "at least one model", nil)
	check(c.Queue.MaxRequests > 0 && c.Queue.MaxBytes > 0, "a bounded queue", nil)
	check(c.Gateway.MaxBodyBytes > 0, "a body limit", nil)
	check(c.Admin.Token != "" || isLoopback(c.Admin.Listen), "an admin listener with a token, or on loopback", nil)
	check(strings.HasPrefix(c.StateDir, "/") && strings.HasPrefix(c.KeysFile, "/"), "absolute paths", nil)
	names, ids := map[string]bool{}, map[string]bool{}
	for i := range c.Models {
		m := &c.Models[i]
		check(resourceName.MatchString(m.Name) && !names[m.Name], "a unique resource name", m)
		names[m.Name] = true
		for _, id := range append([]string{m.ModelID}, m.Aliases...) {
			check(id != "" && !ids[id], "unique client names", m)
			ids[id] = true
		}
		a := m.Activator
		check(0 <= a.Min && a.Min <= a.Max && a.Max >= 1, "min ≤ max, max ≥ 1", m)
		check(a.ScaledownAfter >= 0 && a.DrainTimeout >= 0 && a.Concurrency >= 0, "no negative settings", m)
		check(a.MaxQueuedRequests > 0 && a.MaxQueuedBytes > 0, "a bounded queue of its own", m)
		check(m.Cold.Heartbeat > 0 && m.Cold.Grace >= 0 && m.Cold.MaxWait >= 0, "a heartbeat", m)
		check(m.Timeouts.Request > 0 && m.Timeouts.FirstByte > 0 && m.Timeouts.IdleStream > 0 && m.Spec.StartTimeout > 0, "timeouts", m)
		check(strings.HasPrefix(m.Spec.Probe, "/"), "a probe path", m)
		check(m.Spec.ServedName != "", "a served name", m)
		switch m.Spec.Driver {
		case backends.DriverProcess:
			check(len(m.Spec.Command) > 0, "a command", m)
			if m.Spec.Engine == backends.EngineSGLang {
				check(m.Spec.ModelPath != "", "a model path", m)
				check(!strings.Contains(m.Spec.ServedName, ":"), "a served name without ':'", m)
				for _, arg := range append(m.Spec.Command, m.Spec.ExtraArgs...) {
					check(!forbiddenFlag.MatchString(arg), "no flag of the gateway's own", m)
				}
			}
		case backends.DriverStatic:
			check(len(m.Spec.URLs) == a.Max && a.Min == a.Max, "a replica for each URL", m)
		default:
			t.Errorf("driver %q", m.Spec.Driver)
		}
	}
}
