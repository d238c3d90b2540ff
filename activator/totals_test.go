package activator

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestNobodyFillsAQueueForOthers: however many tenants send as much as they can, one more finds room.
func TestNobodyFillsAQueueForOthers(t *testing.T) {
	for _, bytes := range []bool{false, true} {
		for floods, share := range map[int]int{1: 1882, 3: 653, 50: 39} {
			b := &bounds{}
			size := int64(0)
			if bytes {
				size = 100
				b.setLimits(0, 2000*size)
			} else {
				b.setLimits(2000, 0)
			}
			taken := map[string]int{}
			for range 2000 {
				for i := range floods {
					if tenant := fmt.Sprint("flood", i); b.take(tenant, size) {
						taken[tenant]++
					}
				}
			}
			for tenant, n := range taken {
				if n < share-20 || n > share+20 {
					t.Errorf("%d floods, bytes %v: %s has %d places, want about %d", floods, bytes, tenant, n, share)
				}
			}
			if !b.take("one", size) {
				t.Errorf("%d floods, bytes %v: no room for another tenant", floods, bytes)
			}
		}
	}
}

func TestSmallQueueCanBeOneTenants(t *testing.T) {
	for limit := 1; limit <= 17; limit++ {
		b := &bounds{}
		b.setLimits(limit, 0)
		for i := range limit {
			if !b.take("a", 1) {
				t.Errorf("%d of %d places are taken, and no more", i, limit)
			}
		}
		if b.take("a", 1) || b.take("b", 1) {
			t.Errorf("more than %d places", limit)
		}
	}
}

func TestBoundsCountBack(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	b := &bounds{}
	b.setLimits(100, 5000)
	type one struct {
		tenant string
		bytes  int64
	}
	var waiting []one
	for range 10_000 {
		if o := (one{fmt.Sprint(random.IntN(5)), random.Int64N(100)}); random.IntN(2) == 0 && b.take(o.tenant, o.bytes) {
			waiting = append(waiting, o)
		} else if n := len(waiting); n > 0 {
			i := random.IntN(n)
			b.give(waiting[i].tenant, waiting[i].bytes)
			waiting[i] = waiting[n-1]
			waiting = waiting[:n-1]
		}
		sum := int64(0)
		for _, o := range waiting {
			sum += o.bytes
		}
		if b.requests.Load() != int64(len(waiting)) || b.bytes.Load() != sum || sum > 5000 || len(waiting) > 100 {
			t.Fatalf("%d requests of %d bytes are counted, want %d of %d", b.requests.Load(), b.bytes.Load(), len(waiting), sum)
		}
	}
	for _, o := range waiting {
		b.give(o.tenant, o.bytes)
	}
	if b.requests.Load() != 0 || b.bytes.Load() != 0 || len(b.held) != 0 {
		t.Errorf("left: %d requests, %d bytes, %d tenants", b.requests.Load(), b.bytes.Load(), len(b.held))
	}
}
