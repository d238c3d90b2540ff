package limits

import (
	"compress/gzip"
	"encoding/csv"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

type recorded struct {
	at                time.Time
	prompt, generated int64
}

func trace(t *testing.T) []recorded {
	t.Helper()
	file, err := os.Open("testdata/azure-llm-code-2023.csv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(unpacked).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var arrivals []recorded
	for _, row := range rows[1:] {
		at, err := time.Parse("2006-01-02 15:04:05.9999999", row[0])
		if err != nil {
			t.Fatal(err)
		}
		prompt, err := strconv.ParseInt(row[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		generated, err := strconv.ParseInt(row[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		arrivals = append(arrivals, recorded{at, prompt, generated})
	}
	return arrivals
}

// exact is the limiter that keeps every admitted request and looks back 60 s to the nanosecond.
type exact struct {
	limits   Limits
	admitted []*counted
}

type counted struct {
	at, end time.Time
	tokens  int64
}

func (e *exact) admit(tokens int64, now, end time.Time) *counted {
	e.admitted = slices.DeleteFunc(e.admitted, func(c *counted) bool { return now.Sub(c.at) >= time.Minute && !c.end.After(now) })
	var requests, sum, running int64
	for _, c := range e.admitted {
		if now.Sub(c.at) < time.Minute {
			requests++
			sum += c.tokens
		}
		if c.end.After(now) {
			running++
		}
	}
	l := e.limits
	if l.RequestsPerMinute > 0 && requests >= l.RequestsPerMinute || l.TokensPerMinute > 0 && sum+tokens > l.TokensPerMinute ||
		l.Concurrent > 0 && running >= l.Concurrent {
		return nil
	}
	c := &counted{now, end, tokens}
	e.admitted = append(e.admitted, c)
	return c
}

// An hour of recorded arrivals, each of which reserves 2,000 tokens beyond its prompt and generates one in 20 ms, against each limit
// that it passes by far. In no 60 s is a limit passed, and no more than 2 % are refused that an exact limiter admits.
func TestRecordedArrivals(t *testing.T) {
	const reserve, perToken = 2000, 20 * time.Millisecond
	arrivals := trace(t)
	for _, tt := range []struct {
		name   string
		limits Limits
	}{
		{"requests", Limits{RequestsPerMinute: 60}},
		{"tokens", Limits{TokensPerMinute: 150_000}},
		{"concurrency", Limits{Concurrent: 2}},
		{"all", Limits{RequestsPerMinute: 80, TokensPerMinute: 200_000, Concurrent: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			book := NewBook(arrivals[0].at)
			account := book.Account(Tenant, "t")
			account.SetLimits(tt.limits)
			type running struct {
				end  time.Time
				used int64
				r    *Reservation
				ours *counted
				ref  *counted
			}
			var open []running
			var ours []*counted // what the book admitted, for the check
			reference := exact{limits: tt.limits}
			admitted, wanted, first := 0, 0, 0
			for _, a := range arrivals {
				open = slices.DeleteFunc(open, func(o running) bool {
					if o.end.After(a.at) {
						return false
					}
					if o.r != nil {
						o.r.Settle(o.used, o.end)
						o.ours.tokens = o.used
					}
					if o.ref != nil {
						o.ref.tokens = o.used
					}
					return true
				})
				o := running{end: a.at.Add(time.Duration(a.generated) * perToken), used: a.prompt + a.generated}
				if o.ref = reference.admit(a.prompt+reserve, a.at, o.end); o.ref != nil {
					wanted++
				}
				r := new(Reservation)
				if _, ok := book.Admit(r, Payers{Tenant: account}, a.prompt+reserve, a.at); ok {
					o.r, o.ours = r, &counted{a.at, o.end, a.prompt + reserve}
					ours = append(ours, o.ours)
					admitted++
				}
				open = append(open, o)
				for first < len(ours) && a.at.Sub(ours[first].at) >= time.Minute {
					first++
				}
				var tokens, busy int64
				for _, c := range ours[first:] {
					tokens += c.tokens
				}
				for _, o := range open {
					if o.r != nil && o.end.After(a.at) {
						busy++
					}
				}
				requests := int64(len(ours) - first)
				l := tt.limits
				if l.RequestsPerMinute > 0 && requests > l.RequestsPerMinute || l.TokensPerMinute > 0 && tokens > l.TokensPerMinute ||
					l.Concurrent > 0 && busy > l.Concurrent {
					t.Fatalf("%v: passed: %d requests, %d tokens, %d running", a.at, requests, tokens, busy)
				}
			}
			t.Logf("%d of %d admitted, %d by an exact limiter", admitted, len(arrivals), wanted)
			if refused := len(arrivals) - admitted; refused < len(arrivals)/20 {
				t.Errorf("only %d of %d refused: the limit is hardly tested", refused, len(arrivals))
			}
			if float64(admitted) < 0.98*float64(wanted) {
				t.Errorf("got %d admitted, want at least 98 %% of %d", admitted, wanted)
			}
		})
	}
}
