package load

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// String keeps messages of failed tests readable.
func (r *Result) String() string {
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		return err.Error()
	}
	return b.String()
}

func TestJain(t *testing.T) {
	for _, tt := range []struct {
		got  []float64
		want float64
	}{{nil, 1}, {[]float64{5, 5, 5, 5}, 1}, {[]float64{4, 0, 0, 0}, 0.25}, {[]float64{1, 3}, 0.8}} {
		if j := Jain(tt.got); math.Abs(j-tt.want) > 1e-12 {
			t.Errorf("%v: %v, want %v", tt.got, j, tt.want)
		}
	}
}

func TestQuantilesAreExactToThreeDigits(t *testing.T) {
	h := newHistogram(fine)
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Millisecond)
	}
	q := h.quantiles()
	for _, x := range [][2]float64{{q.P50, .5}, {q.P90, .9}, {q.P99, .99}, {q.P999, .999}, {q.Max, 1}, {q.Mean, .5005}} {
		if math.Abs(x[0]-x[1])/x[1] > 0.002 {
			t.Errorf("%+v", q)
		}
	}
}

// Percentiles, counts and fairness of known calls, beside the plain way to compute them.
func TestResultOfKnownCalls(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	r := newRecord(0)
	ends := map[string][]float64{} // by tenant, and "cold"
	for i := range 9000 {
		tenant := fmt.Sprint("t", i%3)
		c := Call{At: time.Duration(i) * 10 * time.Millisecond, Tenant: tenant, Model: "m", AnswerTokens: 10, MaxTokens: 20, Late: time.Millisecond}
		switch {
		case i%100 == 99:
			c.Error, c.Detail = "http 503 queue_full", "first"
		case i%1000 == 500:
			c.Error = errDropped
		case i%1000 == 600:
			c.Error = errCancelled
		default:
			c.Total = time.Duration(1+rng.ExpFloat64()*float64(1+i%3)*1e9) * time.Nanosecond
			if c.Cold = i < 300; c.Cold {
				tenant = "cold"
			}
			c.First = c.Total / 2
			ends[tenant] = append(ends[tenant], c.Total.Seconds())
		}
		if c.Error == errDropped {
			r.drop(c)
			continue
		}
		if !r.admit(1) {
			t.Fatal("the place was not given back")
		}
		r.done(c)
	}
	begun := time.Unix(0, 0)
	res := r.result(&run{o: Options{Plan: plan(9000, 0)}, start: begun, end: begun.Add(100 * time.Second)}, false)
	want := Counts{Sent: 8991, OK: 8892, Failed: 90, Cancelled: 9, Dropped: 9, Cold: 297, Tokens: 88920}
	if res.Counts != want || res.Errors["http 503 queue_full"] != 90 || len(res.Errors) != 1 || res.Planned != 9000 || !near(res.RequestsPerSecond, 88.92) || !near(res.TokensPerSecond, 889.2) || res.Late.Count != 8991 {
		t.Errorf("%+v", res)
	}
	check := func(name string, q Quantiles, values []float64) {
		t.Helper()
		slices.Sort(values)
		for _, x := range [][2]float64{{q.P50, .5}, {q.P90, .9}, {q.P95, .95}, {q.P99, .99}, {q.P999, .999}, {q.Max, 1}} {
			if w := rank(values, x[1]); math.Abs(x[0]-w) > 0.001*w+1e-6 {
				t.Errorf("%s: %v of them within %v s, want %v", name, x[1], x[0], w)
			}
		}
		if q.Count != len(values) {
			t.Errorf("%s: %d, want %d", name, q.Count, len(values))
		}
	}
	warm := slices.Concat(ends["t0"], ends["t1"], ends["t2"])
	check("all", res.EndToEnd, warm)
	check("cold", res.ColdEnd, slices.Clone(ends["cold"]))
	for _, tenant := range res.Tenants {
		check(tenant.Name, tenant.EndToEnd, slices.Clone(ends[tenant.Name]))
		if !near(tenant.TTFT.P50, tenant.EndToEnd.P50/2) {
			t.Errorf("%+v", tenant)
		}
	}
	// Mean times are 1, 2 and 3 s, all got about half of the tokens they asked for, and of t2 the slowest take about three times t0's.
	if f := res.Fairness; math.Abs(f.Time-36.0/42) > 0.02 || f.Tokens < 0.999 || f.Slowest != "t2" || math.Abs(f.Ratio-3) > 0.5 {
		t.Errorf("%+v", f)
	}
	var arrived, ok, failed, dropped int
	for _, b := range res.Series {
		arrived, ok, failed, dropped = arrived+b.Arrived, ok+b.OK, failed+b.Errors["http 503 queue_full"], dropped+b.Dropped
	}
	if arrived != 9000 || ok != 8892 || failed != 90 || dropped != 9 || len(res.Series) != 90 || res.Series[1].At != 1 || res.Series[1].Arrived != 100 {
		t.Errorf("%d arrived, %d ok, %d failed, %d dropped in %d buckets", arrived, ok, failed, dropped, len(res.Series))
	}
}

func TestSeriesHasNoHoles(t *testing.T) {
	b := series([]Call{{At: 3 * time.Second, Total: time.Second, First: time.Second}, {At: 3*time.Second + 1, Total: 3 * time.Second}, {At: time.Hour, Error: "cut"}})
	first, last := b[0], b[len(b)-1]
	if len(b) != 13 || first.At != 0 || first.Width != 300 || first.Arrived != 2 || first.End50 != 1 || first.End99 != 3 || first.TTFT99 != 1 || b[7].Arrived != 0 || b[7].At != 2100 || last.Errors["cut"] != 1 {
		t.Errorf("%d buckets, %+v to %+v", len(b), first, last)
	}
	if b := series(nil); b == nil || len(b) != 0 {
		t.Errorf("%v of nothing", b)
	}
}

// Who asks for ten times as much, and gets it, is not favoured.
func TestFairnessIsByWhatWasAskedFor(t *testing.T) {
	calls := map[string][]*Call{"a": {{AnswerTokens: 10, MaxTokens: 10, Total: time.Second}}, "b": {{AnswerTokens: 100, MaxTokens: 100, Total: time.Second}}}
	if f := fairness(parts(calls, nil, newMeter())); f.Tokens < 0.9999 || f.Time < 0.9999 || !near(f.Ratio, 1) {
		t.Errorf("%+v", f)
	}
	calls["b"] = append(calls["b"], &Call{MaxTokens: 300, Error: errDropped}) // a quarter of what it asked for
	if f := fairness(parts(calls, nil, newMeter())); !near(f.Tokens, 1.25*1.25/(2*1.0625)) {
		t.Errorf("%+v", f)
	}
}

func TestLoneTenantIsNotCompared(t *testing.T) {
	if f := fairness([]portion{{}}); f != nil {
		t.Errorf("%+v", f)
	}
	if f := fairness([]portion{{Part: Part{Name: "a"}}, {Part: Part{Name: "b"}}}); f == nil || f.Slowest != "" || f.Ratio != 0 || f.Time != 1 {
		t.Errorf("nobody was answered: %+v", f)
	}
}
