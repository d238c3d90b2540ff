package flags

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The lines were given to the parser of each release itself (generate/oracle.py): this one must accept and refuse the
// same ones, and find the same options with the same values.
func TestParseAgreesWithSGLang(t *testing.T) {
	for _, table := range All() {
		t.Run(table.version, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", "lines-"+table.version+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var lines []struct {
				Args    []string
				Options [][2]json.RawMessage
				Error   string
			}
			if err := json.Unmarshal(data, &lines); err != nil {
				t.Fatal(err)
			}
			accepted := 0
			for _, line := range lines {
				given, mistakes := table.Parse(line.Args)
				if strings.HasPrefix(line.Error, "the following arguments are required") {
					continue // the gateway gives --model-path
				}
				if (line.Error != "") != (len(mistakes) > 0) {
					t.Errorf("%q: SGLang says %q, got %+v", line.Args, line.Error, mistakes)
					continue
				}
				if line.Error != "" {
					continue
				}
				accepted++
				if len(given) != len(line.Options) {
					t.Errorf("%q: got %d options, want %d", line.Args, len(given), len(line.Options))
					continue
				}
				for i, g := range given {
					var name string
					var values []*string
					if err := json.Unmarshal(line.Options[i][0], &name); err != nil {
						t.Fatal(err)
					}
					if err := json.Unmarshal(line.Options[i][1], &values); err != nil {
						t.Fatal(err)
					}
					if g.Option.Name != name || !sameValues(g, values) {
						t.Errorf("%q: got %s %q, want %s %s", line.Args, g.Option.Name, g.Values, name, line.Options[i][1])
					}
				}
			}
			if len(lines) < 200 || accepted < 80 {
				t.Errorf("%d lines with %d accepted are too few to tell", len(lines), accepted)
			}
		})
	}
}

// sameValues compares what was written with what Python made of it.
func sameValues(g Given, want []*string) bool {
	if g.Option.Arity == Optional && len(g.Values) == 0 {
		return len(want) == 1 // the value that stands for none
	}
	if g.Option.Type == JSON || g.Option.Name == "--lora-paths" {
		return true // Python has made objects of it
	}
	if len(g.Values) != len(want) {
		return false
	}
	for i, text := range g.Values {
		switch got := strings.TrimSpace(strings.ReplaceAll(text, "_", "")); {
		case want[i] == nil: // nullable_str
			if text != "" && text != "None" {
				return false
			}
		case g.Option.Type == Int:
			if n, err := strconv.Atoi(got); err != nil || strconv.Itoa(n) != *want[i] {
				return false
			}
		case g.Option.Type == Float:
			a, err1 := strconv.ParseFloat(got, 64)
			b, err2 := strconv.ParseFloat(*want[i], 64)
			if err1 != nil || err2 != nil || a != b && a == a {
				return false
			}
		case g.Option.Type == Size:
			if n, ok := SizeValue(text); !ok || strconv.FormatInt(n, 10) != *want[i] {
				return false
			}
		case text != *want[i]:
			return false
		}
	}
	return true
}
