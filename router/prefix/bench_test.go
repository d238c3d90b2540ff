package prefix

import (
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
)

// fleet is 100 replicas whose memories are full, and prompts of 4,096 tokens (16 KiB): chats whose first half everybody has, and
// that go on where one replica has been; the same with nothing shared; all of it everywhere.
func fleet(kind string) (*Index, []Candidate, [][]byte) {
	r := rand.New(rand.NewPCG(1, 2))
	x, all := New(Config{Capacity: 2000}), candidates(100)
	stem := text(r, 32)
	for i := range all {
		for range 2000 / 40 {
			x.Dispatch(x.hashed(text(r, 40)), 0, all[i].ID)
		}
	}
	prompts := make([][]byte, 64)
	for i := range prompts {
		switch kind {
		case "chat":
			prompts[i] = append(append([]byte(nil), stem...), text(r, 32)...)
		case "new":
			prompts[i] = text(r, 64)
		case "everywhere":
			prompts[i] = append(append([]byte(nil), stem...), stem...)
		}
	}
	for i := range all {
		switch kind {
		case "chat":
			x.Dispatch(x.hashed(stem), 0, all[i].ID)
			x.Dispatch(x.hashed(prompts[i%len(prompts)]), 0, all[i].ID)
		case "everywhere":
			x.Dispatch(x.hashed(prompts[0]), 0, all[i].ID)
		}
	}
	return x, all, prompts
}

// BenchmarkDecision is hashing, choosing and giving back.
func BenchmarkDecision(b *testing.B) {
	for _, kind := range []string{"chat", "new", "everywhere"} {
		b.Run(kind, func(b *testing.B) {
			x, all, prompts := fleet(kind)
			var blocks Blocks
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				prompt := prompts[i%len(prompts)]
				if kind == "new" { // to everybody: each one has its own first bytes
					strconv.AppendInt(prompt[:0], int64(i), 10)
				}
				x.Hash(&blocks, "", prompt)
				_, claim, err := x.Choose(&blocks, 100, all)
				if err != nil {
					b.Fatal(err)
				}
				x.Done(claim)
			}
		})
	}
}

// BenchmarkMemory says what an index costs per block that it remembers, when each is at one replica only.
func BenchmarkMemory(b *testing.B) {
	const each = 10_000
	r := rand.New(rand.NewPCG(3, 4))
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		x := New(Config{Capacity: each})
		prompt := text(r, 500)
		for id := uint64(1); id <= 100; id++ {
			for k := range each / 500 {
				strconv.AppendUint(prompt[:0], id<<32|uint64(k), 10)
				x.Dispatch(x.hashed(prompt), 0, id)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(x.Len()), "B/block")
		runtime.KeepAlive(x)
	}
}
