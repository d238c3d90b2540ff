package load

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// teller says at each moment what a gateway tells of its model, and answers after a while, not as a stream.
type teller struct {
	began    time.Time
	replicas func(at time.Duration) (string, error)
	takes    func(at time.Duration) time.Duration
}

func (g teller) RoundTrip(r *http.Request) (*http.Response, error) {
	at, body := time.Since(g.began), wholeAnswer
	if r.Method == http.MethodGet {
		replicas, err := g.replicas(at)
		if err != nil {
			return nil, err
		}
		body = `{"id":"m","pilotlight":{"replicas":` + replicas + `}}`
	} else {
		time.Sleep(g.takes(at))
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// The model goes at 1.05 s, which the look at 1.2 s shows; the request of 1.1 s was sent in between and waits for its return.
func TestColdIsSeenWhileARequestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := teller{began: time.Now(), replicas: func(at time.Duration) (string, error) {
			if at > 1050*time.Millisecond && at < 5*time.Second {
				return "0", nil
			}
			return "1", nil
		}, takes: func(at time.Duration) time.Duration {
			if at > 1050*time.Millisecond && at < 5*time.Second {
				return 5*time.Second - at
			}
			return 10 * time.Millisecond
		}}
		r, err := Run(t.Context(), Options{URL: "http://x/v1", sleep: time.Sleep, Models: []Share{{"m", 1}}, Transport: g,
			Plan: []Arrival{{500 * time.Millisecond, 1, 1}, {1100 * time.Millisecond, 1, 1}, {2 * time.Second, 1, 1}, {5500 * time.Millisecond, 1, 1}}})
		if err != nil || r.OK != 4 || r.Cold != 2 || !near(r.ColdEnd.Max, 3.9) || !near(r.ColdEnd.P50, 3) || !near(r.EndToEnd.Max, 0.01) {
			t.Errorf("%v, %v", r, err)
		}
	})
}

// Who stops telling is not taken at its last word.
func TestOldStatesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := teller{began: time.Now(), replicas: func(at time.Duration) (string, error) {
			if at > time.Second {
				return "", errors.New("no route")
			}
			return "0", nil
		}, takes: func(time.Duration) time.Duration { return 10 * time.Millisecond }}
		r, err := Run(t.Context(), Options{URL: "http://x/v1", sleep: time.Sleep, Models: []Share{{"m", 1}}, Transport: g, Plan: plan(4, 700*time.Millisecond)})
		if err != nil || r.OK != 4 || r.Cold != 2 {
			t.Errorf("%v, %v", r, err)
		}
	})
}

// A thousand models are not asked for five times a second each.
func TestManyModelsAreLookedAtInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := make(chan struct{}, 10_000)
		g := teller{began: time.Now(), replicas: func(time.Duration) (string, error) {
			looks <- struct{}{}
			return "1", nil
		}, takes: func(time.Duration) time.Duration { return 5 * time.Millisecond }}
		models := make([]Share, 1000)
		for i := range models {
			models[i] = Share{strings.Repeat("m", i+1), 1}
		}
		if _, err := Run(t.Context(), Options{URL: "http://x/v1", sleep: time.Sleep, Models: models, Transport: g, Plan: plan(2, 10*time.Second)}); err != nil {
			t.Fatal(err)
		}
		if n := len(looks); n < 1990 || n > 2010 { // each once beforehand, then a hundred a second
			t.Errorf("%d looks", n)
		}
	})
}
