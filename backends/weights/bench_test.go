package weights

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pilotlight/backends"
	"pilotlight/backends/store"
)

// BenchmarkHold is what a start pays to find weights in the store, hold them and let them go: a model of 40 files, as a large one has.
func BenchmarkHold(b *testing.B) {
	folder := b.TempDir()
	for i := range 40 {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("model-%02d.safetensors", i)), []byte("weights"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	s, err := store.New(store.Options{Path: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	k := New(s, nil)
	r := Request{Weights: backends.Weights{Origin: folder, Name: "chat"}, Who: "chat replica 1"}
	if _, err := k.Fetch(context.Background(), r); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		h, err := k.Hold(context.Background(), r)
		if err == nil {
			err = h.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
