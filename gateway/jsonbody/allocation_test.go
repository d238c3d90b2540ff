//go:build !race

package jsonbody

import "testing"

func TestWarmPathDoesNotAllocate(t *testing.T) {
	body := []byte(`{"messages":[{"role":"user","content":"é\n"}],"priority":3,"mo\u0064el":"public","stream":true,"stream_options":{"a":1}}`)
	var f Fields
	var p Patch
	dst := make([]byte, 0, 4<<10)
	pieces := make([][]byte, 0, 16)
	patch := func() {
		if err := Scan(body, &f); err != nil {
			t.Fatal(err)
		}
		if name, err := f.Model(); err != nil || string(name) != "public" {
			t.Fatalf("got model %q, %v", name, err)
		}
		if _, _, err := f.Bool(Stream); err != nil {
			t.Fatal(err)
		}
		p.Reset(&f)
		p.DeleteReserved()
		p.SetString(Model, "served")
		p.SetString(RID, "0123456789abcdef")
		p.IncludeUsage()
		dst = p.AppendTo(dst[:0])
		pieces = Pieces(pieces[:0], body, p.Edits())
		if _, _, ok := TopLevelString(dst, "model"); !ok {
			t.Fatalf("no model in %s", dst)
		}
	}
	patch() // grows the patch's memory
	if n := testing.AllocsPerRun(100, patch); n != 0 {
		t.Errorf("got %v allocations for a request, want 0", n)
	}
}
