package config

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// testEnv is the environment of the tests.
func testEnv(name string) (string, bool) {
	value, ok := map[string]string{
		"HOME":                   "/home/op",
		"HF_TOKEN":               "hf_sesame",
		"UPSTREAM_KEY":           "sesame-upstream",
		"UPSTREAM_HOST":          "10.0.0.7",
		"PILOTLIGHT_ADMIN_TOKEN": "sesame-admin-0123456789",
		"EMPTY":                  "",
	}[name]
	return value, ok
}
