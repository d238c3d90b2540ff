package load

import (
	"context"
	"maps"
	"net"
	"testing"
	"time"

	"pilotlight/bench/sglangsim"
)

// simulator serves on a socket until the test's end.
func simulator(t *testing.T, change func(*sglangsim.Options)) string {
	t.Helper()
	o := sglangsim.Defaults()
	o.TTFT, o.ITL, o.HealthDelay = 20*time.Millisecond, 2*time.Millisecond, 0
	change(&o)
	s, err := sglangsim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	for deadline := time.Now().Add(5 * time.Second); !s.Ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the simulator does not come up")
		}
	}
	return "http://" + ln.Addr().String() + "/v1"
}

// Each fault of the simulator comes out as its class, as often as it was made.
func TestSimulatedFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  func(*sglangsim.Options)
		errors map[string]int // of 40 streams
	}{
		{"none", func(*sglangsim.Options) {}, map[string]int{}},
		{"reset", func(o *sglangsim.Options) {
			o.Faults = sglangsim.Faults{CutTokens: 3, Cut: "rst", Every: 4, HangAfter: -1}
		}, map[string]int{"cut": 10}},
		{"connection closed", func(o *sglangsim.Options) { o.Faults = sglangsim.Faults{CutTokens: 3, Every: 4, HangAfter: -1} }, map[string]int{"cut": 10}},
		{"ended without [DONE]", func(o *sglangsim.Options) {
			o.Faults = sglangsim.Faults{CutTokens: 3, Cut: "clean", Every: 4, HangAfter: -1}
		}, map[string]int{"cut": 10}},
		{"error events", func(o *sglangsim.Options) { o.Faults = sglangsim.Faults{ErrorTokens: 3, Every: 2, HangAfter: -1} }, map[string]int{"in-stream INTERNAL_SERVER_ERROR": 20}},
		{"another key", func(o *sglangsim.Options) { o.APIKey = "k" }, map[string]int{"http 401": 40}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := simulator(t, tt.fault)
			p := plan(40, 5*time.Millisecond)
			for i := range p {
				p[i].PromptTokens, p[i].MaxTokens = 50, 10
			}
			r, err := Run(t.Context(), Options{URL: url, Models: []Share{{"m", 1}}, Stream: 1, Plan: p, SharedPrefix: 20})
			failed := 0
			for _, n := range tt.errors {
				failed += n
			}
			if err != nil || !maps.Equal(r.Errors, tt.errors) || r.Failed != failed || r.OK != 40-failed || r.Tokens != 10*r.OK || r.InterToken.Count > 9*r.OK || r.InterToken.Count < r.OK { // late tokens share an event
				t.Fatalf("%+v, %v", r, err)
			}
			if r.OK > 0 && (r.TTFT.P50 < 0.02 || r.EndToEnd.P50 < 0.02+9*0.002 || r.InterToken.Max < 0.002 || r.PromptTokens < 50*r.OK || r.PromptTokens > 100*r.OK) {
				t.Errorf("%+v", r)
			}
		})
	}
}
