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
		m.picker = func(_ any, c Choices) int { return c.Len() - 1 }
		if n := testing.AllocsPerRun(1000, func() {
			lease, _ := m.TryAcquire()
			lease.Release()
		}); n != 0 {
			t.Errorf("%d replicas, with a picker: %v allocations", replicas, n)
		}
		closeModel(t, m)
	}
}
