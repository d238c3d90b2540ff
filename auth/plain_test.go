package auth

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pilotlight/auth/limits"
)

// randomKeys are some of all that a file may hold.
func randomKeys(t testing.TB, n int) []Key {
	t.Helper()
	pick := func(texts ...string) string { return texts[rand.IntN(len(texts))] }
	keys := make([]Key, n)
	for i := range keys {
		_, k := generate(t, pick("team-a", "a.b@c", "Null", "1e3", "123", "true", "anon"))
		k.Name = pick("", "app", "an app: one", "true", "~", "- x", "#1", "ümlaut", "it's", "'", "a\\b", "null", " x")
		k.Created = noon.Add(time.Duration(rand.IntN(1e6)) * time.Second)
		if rand.IntN(3) == 0 {
			k.Expires = noon.Add(time.Hour)
		}
		if rand.IntN(3) == 0 {
			k.Revoked = noon
		}
		for range rand.IntN(4) {
			k.Models = append(k.Models, pick("*", "org/*", "gpt-4o:latest", "m", "y", "12", "a b", "[x]", "&a", "q:"))
		}
		if rand.IntN(2) == 0 {
			k.MaxTokens = rand.Int64N(1e6)
		}
		if rand.IntN(2) == 0 {
			k.Limits = limits.Limits{RequestsPerMinute: rand.Int64N(3), TokensPerDay: rand.Int64N(1e9), ColdStarts: rand.Int64N(2)}
		}
		keys[i] = k
	}
	return keys
}

func written(t testing.TB, keys []Key) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := writeKeys(path, keys); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What is read the short way is what YAML says, always; and what operators usually write goes the short way.
func TestPlainFilesAreReadAsYAML(t *testing.T) {
	short := 0
	for range 300 {
		data := written(t, randomKeys(t, 1+rand.IntN(2)))
		short += agree(t, data)
	}
	if short < 10 {
		t.Errorf("only %d of 300 files were read the short way", short)
	}
	_, usual := generate(t, "team-a")
	usual.Name, usual.Models, usual.Limits = "search app", []string{"org/*", "*"}, limits.Limits{RequestsPerMinute: 5, TokensPerMonth: 7}
	usual.Name = "search"
	_, other := generate(t, "b")
	other.Revoked, other.MaxTokens = noon, 9
	if agree(t, written(t, []Key{usual, other, usual})) == 0 {
		t.Errorf("not read the short way:\n%s", written(t, []Key{usual, other}))
	}
}

// agree tells 1 if data was read the short way.
func agree(t testing.TB, data []byte) int {
	t.Helper()
	got, ok := readPlain(data)
	if !ok {
		return 0
	}
	want, err := parseKeys("keys.yaml", data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("read %+v\nYAML says %+v, %v\n%s", got, want, err, data)
	}
	return 1
}

func FuzzReadPlain(f *testing.F) {
	for range 5 {
		f.Add(strings.TrimPrefix(string(written(f, randomKeys(f, 2))), header+"keys:\n"))
	}
	f.Add("    - id: a\n\n")
	f.Add("    - id: a\n      tenant: b")
	f.Fuzz(func(t *testing.T, body string) { agree(t, []byte(header+"keys:\n"+body)) })
}
