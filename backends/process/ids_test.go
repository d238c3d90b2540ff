package process

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLastID(t *testing.T) {
	d, err := New(Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, name := range []string{"logs/m-3.log", "logs/m-12.log.1", "logs/m-2-99.log", "logs/m-x.log", "logs/other-50.log", "replicas/m-7.json"} {
		if err := os.WriteFile(filepath.Join(d.opts.StateDir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for model, want := range map[string]uint64{"m": 12, "m-2": 99, "other": 50, "none": 0} {
		if got := d.LastID(model); got != want {
			t.Errorf("LastID(%q) = %d, want %d", model, got, want)
		}
	}
}
