package load

import (
	"math"
	"slices"
	"time"
)

// Bucket is a piece of the run's time: the requests that were planned in it.
type Bucket struct {
	At      float64 `json:"at"`    // its beginning, in seconds since the run's
	Width   float64 `json:"width"` // seconds
	Arrived int     `json:"arrived"`
	OK      int     `json:"ok"`
	Dropped int     `json:"dropped,omitempty"`
	// Errors by class.
	Errors map[string]int `json:"errors,omitempty"`
	// Percentiles of whole answers, cold ones too, exact; 0: there is none.
	TTFT50 float64 `json:"ttft_p50"`
	TTFT99 float64 `json:"ttft_p99"`
	End50  float64 `json:"end_to_end_p50"`
	End99  float64 `json:"end_to_end_p99"`
	// Late is by how much the generator missed the worst of the planned times.
	Late float64 `json:"late_max"`
}

// A series has so many buckets that ten calls fall into one on average, within these bounds.
const (
	leastBuckets = 20
	mostBuckets  = 150
)

// widths of buckets: the smallest that makes few enough is taken.
var widths = []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute}

// series cuts calls, which are in the order of their planned times, into pieces of equal length, none left out.
func series(calls []Call) []Bucket {
	list := []Bucket{}
	if len(calls) == 0 {
		return list
	}
	from, to := calls[0].At, calls[len(calls)-1].At
	most := time.Duration(min(max(len(calls)/10, leastBuckets), mostBuckets))
	width := widths[0]
	for _, width = range widths {
		if (to-from)/width < most {
			break
		}
	}
	from = from.Truncate(width)
	for rest := calls; from <= to; from += width {
		n := 0
		for n < len(rest) && rest[n].At < from+width {
			n++
		}
		list = append(list, bucket(from, width, rest[:n]))
		rest = rest[n:]
	}
	return list
}

func bucket(at, width time.Duration, calls []Call) Bucket {
	b := Bucket{At: at.Seconds(), Width: width.Seconds(), Arrived: len(calls)}
	var first, end []float64
	for i := range calls {
		b.Late = max(b.Late, calls[i].Late.Seconds())
		switch c := &calls[i]; c.Error {
		case "":
			b.OK++
			end = append(end, c.Total.Seconds())
			if c.First > 0 {
				first = append(first, c.First.Seconds())
			}
		case errDropped:
			b.Dropped++
		case errCancelled:
		default:
			if b.Errors == nil {
				b.Errors = map[string]int{}
			}
			b.Errors[c.Error]++
		}
	}
	slices.Sort(first)
	slices.Sort(end)
	b.TTFT50, b.TTFT99, b.End50, b.End99 = rank(first, 0.5), rank(first, 0.99), rank(end, 0.5), rank(end, 0.99)
	return b
}

// rank is the smallest of the sorted values that a share q of them does not exceed.
func rank(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
