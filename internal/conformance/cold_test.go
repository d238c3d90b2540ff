package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// slowStart answers after two seconds, as a gateway does whose model had to be started.
func slowStart(w http.ResponseWriter, r *http.Request) {
	var body struct{ Stream bool }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(2 * time.Second):
	case <-r.Context().Done():
		return
	}
	if body.Stream {
		w.Header().Set("content-type", "text/event-stream")
		fmt.Fprint(w, chunkHead, chunkTail, streamDone)
		return
	}
	w.Header().Set("content-type", "application/json")
	fmt.Fprint(w, answerBody)
}

func TestColdCases(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(slowStart))
	t.Cleanup(server.Close)
	target := Target{BaseURL: server.URL + "/v1", Key: "sk-x", Model: "m"}
	cases := []Case{
		ColdCase("cold", "m", false, 2*time.Second),
		ColdCase("cold stream", "m", true, 2*time.Second),
		ImpatientCase("impatient", "m", false),
		ImpatientCase("impatient stream", "m", true),
	}
	CheckTogether(t, func(Client) []Play { return []Play{{Target: target, Cases: cases}} })
}

func TestColdCasesRefuseWrongOutcomes(t *testing.T) {
	target := Target{Model: "other"}
	good := Outcome{OK: true, Text: "x", FinishReason: "stop", Model: "m", Elapsed: 5.5}
	cold := ColdCase("cold", "m", false, 5*time.Second)
	if err := cold.Check(target, good); err != nil {
		t.Errorf("good outcome: %v", err)
	}
	for name, spoil := range map[string]func(*Outcome){
		"early":      func(o *Outcome) { o.Elapsed = 4 },
		"late":       func(o *Outcome) { o.Elapsed = 30 },
		"wrong name": func(o *Outcome) { o.Model = "other" },
		"error":      func(o *Outcome) { o.OK = false },
	} {
		o := good
		spoil(&o)
		if cold.Check(target, o) == nil {
			t.Errorf("%s: passes: %s", name, o)
		}
	}
	impatient := ImpatientCase("impatient", "m", false)
	for _, o := range []Outcome{good, {Error: &Fault{Class: "APITimeoutError"}, Elapsed: 60}, {Error: &Fault{Class: "APIConnectionError"}, Elapsed: 1}} {
		if impatient.Check(target, o) == nil {
			t.Errorf("passes: %s", o)
		}
	}
	if err := impatient.Check(target, Outcome{Error: &Fault{Class: "APITimeoutError"}, Elapsed: 1}); err != nil {
		t.Errorf("good outcome: %v", err)
	}
}
