package load

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Quantiles of a duration in seconds, exact to 0.1 % or a microsecond (to 1 % for the gaps of a Part). Count 0 means that nothing was measured.
type Quantiles struct {
	Count int     `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9"`
	Max   float64 `json:"max"`
}

// histogram counts durations from a microsecond to a day.
type histogram struct{ h *hdrhistogram.Histogram }

// Decimal digits to which histograms are exact. The coarse one takes 30 KB and not 230, and there is one for each tenant.
const (
	fine   = 3
	coarse = 2
)

const longest = 24 * time.Hour

func newHistogram(digits int) histogram {
	return histogram{hdrhistogram.New(1, longest.Microseconds(), digits)}
}

func (h histogram) add(d time.Duration) {
	if err := h.h.RecordValue(min(max(d.Microseconds(), 1), longest.Microseconds())); err != nil {
		panic("BUG: the value was clamped: " + err.Error())
	}
}

// at is the smallest duration in seconds that a share q of the measured ones does not exceed. The library takes the nearest rank, which may be the one before.
func (h histogram) at(q float64) float64 {
	n := float64(h.h.TotalCount())
	rank := math.Ceil(q*n - 1e-9) // 0.9 of 100 is 90, whatever floating point says
	return float64(h.h.ValueAtQuantile(100*rank/n)) / 1e6
}

func (h histogram) quantiles() Quantiles {
	n := h.h.TotalCount()
	if n == 0 {
		return Quantiles{}
	}
	return Quantiles{int(n), h.h.Mean() / 1e6, h.at(0.5), h.at(0.9), h.at(0.95), h.at(0.99), h.at(0.999), float64(h.h.Max()) / 1e6}
}
