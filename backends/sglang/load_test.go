package sglang

import "testing"

func TestInFlight(t *testing.T) {
	for _, c := range []struct {
		body string
		want int // −1: an error
	}{
		{`{"timestamp":"2026-11-24T10:00:00+00:00","version":"0.5.15","loads":[{"dp_rank":0,"num_running_reqs":2,"num_waiting_reqs":1}]}`, 3},
		{`{"loads":[{"num_running_reqs":0,"num_waiting_reqs":0},{"num_running_reqs":1,"num_waiting_reqs":0}]}`, 1},
		{`{"loads":[{"num_running_reqs":0,"num_waiting_reqs":0}]}`, 0},
		{`[{"dp_rank":0,"num_reqs":3,"num_waiting_reqs":1,"num_tokens":7}]`, 3}, // /get_load
		{`[{"num_reqs":0},{"num_reqs":0}]`, 0},
		{`{"loads":[]}`, -1}, // nobody has said that it is idle
		{`[]`, -1},
		{`{"loads":[{"running":0}]}`, -1},
		{`{}`, -1},
		{`<html>`, -1},
	} {
		n, err := InFlight([]byte(c.body))
		if err != nil {
			n = -1
		}
		if n != c.want {
			t.Errorf("%s: got %d, %v; want %d", c.body, n, err, c.want)
		}
	}
}
