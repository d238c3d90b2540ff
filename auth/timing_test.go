package auth

import (
	"math"
	"slices"
	"testing"
	"time"
)

// measureTries takes turns between two wrong keys and gives the mean time of each and the error of their difference, in nanoseconds. The slowest
// tenth, which the scheduler has interrupted, is left out of both alike.
func measureTries(t *testing.T, keys *Keys, a, b []byte, tries int) (first, second, off float64) {
	t.Helper()
	const batch = 20 // of tries: one alone is shorter than the clock's own cost
	var times [2][]float64
	for range tries / batch {
		for i, key := range [2][]byte{a, b} {
			start := time.Now()
			for range batch {
				if _, err := keys.Identify(key, noon); err == nil {
					t.Fatal("accepted")
				}
			}
			times[i] = append(times[i], float64(time.Since(start).Nanoseconds())/batch)
		}
	}
	var mean, variance [2]float64
	for i := range times {
		kept := fastest(times[i], 0.9)
		for _, v := range kept {
			mean[i] += v / float64(len(kept))
		}
		for _, v := range kept {
			variance[i] += (v - mean[i]) * (v - mean[i]) / float64(len(kept)-1) / float64(len(kept))
		}
	}
	return mean[0], mean[1], math.Sqrt(variance[0] + variance[1])
}

func fastest(times []float64, share float64) []float64 {
	times = slices.Sorted(slices.Values(times))
	return times[:int(float64(len(times))*share)]
}

// Whether an id exists must not be told by the time that a refusal takes: a wrong secret of a known id is refused as slowly as an unknown id. Both
// hash what was presented, and compare it in constant time with something. Times are shown rather than asserted closely, since other programs
// share the machine; what would be told apart over a network, a microsecond, fails.
func TestRefusalsTakeTheSameTime(t *testing.T) {
	secret, key := generate(t, "team-a")
	keys := static(t, key)
	wrongSecret := []byte(secret)
	wrongSecret[len(wrongSecret)-1] ^= 1
	wrongID := []byte(secret)
	wrongID[len("pl-")] ^= 1
	for attempt := 1; ; attempt++ {
		known, unknown, off := measureTries(t, keys, wrongSecret, wrongID, 100_000)
		t.Logf("a wrong secret %.1f ns, a wrong id %.1f ns, off by ±%.1f ns", known, unknown, 2*off)
		if math.Abs(known-unknown) < 1000 {
			return
		}
		if attempt == 5 {
			t.Fatalf("a wrong secret takes %.0f ns, a wrong id %.0f ns", known, unknown)
		}
	}
}
