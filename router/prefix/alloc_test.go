//go:build !race

package prefix

import "testing"

func TestDecisionAllocatesNothing(t *testing.T) {
	x, all, prompts := fleet("chat")
	var blocks Blocks
	i := 0
	if n := testing.AllocsPerRun(2000, func() {
		x.Hash(&blocks, "", prompts[i%len(prompts)])
		_, claim, err := x.Choose(&blocks, 100, all)
		if err != nil {
			t.Fatal(err)
		}
		x.Done(claim)
		i++
	}); n != 0 {
		t.Errorf("%v allocations in one decision", n)
	}
}
