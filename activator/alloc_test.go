//go:build !race

package activator

import "testing"

func TestWarmPathDoesNotAllocate(t *testing.T) {
	for _, replicas := range []int{1, 4} {
		m := readyModel(t, replicas)
		if n := testing.AllocsPerRun(1000, func() {
			lease, ok := m.TryAcquire()
			if !ok {
				t.Fatal("no room")
			}
			lease.Release()
		}); n != 0 {
			t.Errorf("%d replicas: %v allocations", replicas, n)
		}
		var hint Hint = &last{}
		if n := testing.AllocsPerRun(1000, func() {
			lease, _ := m.TryAcquireFor(hint)
			lease.Release()
		}); n != 0 {
			t.Errorf("%d replicas, with a hint: %v allocations", replicas, n)
		}
		closeModel(t, m)
	}
}

// last is a Hint that takes the last replica.
type last struct{}

func (*last) Pick(c Choices) int { return c.Len() - 1 }
func (*last) Placed(uint64)      {}
func (*last) Left()              {}
