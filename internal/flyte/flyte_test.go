package flyte

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/internal/config"
)

var update = flag.Bool("update", false, "write the golden files")

func environment(name string) (string, bool) {
	value, ok := map[string]string{"HOME": "/home/op", "HUB_TOKEN": "sesame", "REGION": "here"}[name]
	return value, ok
}

func TestImport(t *testing.T) {
	sources, err := filepath.Glob(filepath.Join("testdata", "*.py"))
	if err != nil || len(sources) < 3 {
		t.Fatal(sources, err)
	}
	for _, path := range sources {
		name := strings.TrimSuffix(filepath.Base(path), ".py")
		t.Run(name, func(t *testing.T) {
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			result, err := Import(File{name + ".py", string(source)})
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(golden, result.YAML, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(result.YAML) != string(want) {
				t.Errorf("got\n%s\nwant\n%s", result.YAML, want)
			}
			if marks := strings.Count(string(result.YAML), "# (!)"); marks != result.Open {
				t.Errorf("%d comments ask for something, and %d are counted", marks, result.Open)
			}
			_, err = config.Parse("/etc/pilotlight/imported.yaml", result.YAML, environment)
			if whole := name != "unknown"; whole != (err == nil) {
				t.Errorf("as a configuration: %v", err)
			}
		})
	}
}

func TestImportRefuses(t *testing.T) {
	if _, err := Import(File{"a.py", "x = 1"}, File{"b.py", "# SGLangAppEnvironment()"}); !errors.Is(err, ErrNoApp) {
		t.Errorf("got %v", err)
	}
	if _, err := Import(File{"a.py", "\nx = 'y"}); err == nil || err.Error() != "a.py: line 2: a text is not closed" {
		t.Errorf("got %v", err)
	}
}

// What a file holds must not become more than comments and values: a name with a line end in it could otherwise add fields.
func FuzzImport(f *testing.F) {
	f.Add("evil\n    requires_auth: false", "m", "x\n- name: y")
	f.Add("a: b", "*x", "#")
	f.Fuzz(func(t *testing.T, name, id, key string) {
		quote := func(s string) string {
			return `"` + strings.NewReplacer("\\", "\\\\", "\"", "\\\"", "\n", "\\n", "\r", "\\r").Replace(s) + `"`
		}
		result, err := Import(File{"a\n.py", "a = SGLangAppEnvironment(name=" + quote(name) + ", model_id=" + quote(id) + ", model_hf_path='o/m', secrets=" +
			quote(key) + ", unheard=" + quote(key) + ", description=f(" + quote(key) + "))"})
		if err != nil {
			return // not UTF-8
		}
		conf, err := config.Parse("/x.yaml", result.YAML, environment)
		if err == nil && (len(conf.Models) != 1 || conf.Models[0].Name != name || conf.Models[0].ModelID != id || !conf.Models[0].RequiresAuth) {
			t.Errorf("got %+v from\n%s", conf.Models, result.YAML)
		}
		var problems *config.Problems
		if errors.As(err, &problems) && strings.Contains(err.Error(), "not valid YAML") {
			t.Errorf("%v in\n%s", err, result.YAML)
		}
	})
}
