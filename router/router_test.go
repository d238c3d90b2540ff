package router

import (
	"errors"
	"io"
	"testing"

	"pilotlight/backends/transport"
)

func TestTableResolve(t *testing.T) {
	table, err := NewTable([]Entry[int]{
		{Names: []string{"org/model:7b", "gpt-4o-mini"}, Model: 1},
		{Names: []string{"qwen3"}, Model: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		want int
	}{{"org/model:7b", 1}, {"gpt-4o-mini", 1}, {"qwen3", 2}, {"Qwen3", 0}, {"", 0}, {"org/model", 0}} {
		got, err := table.Resolve(tt.name)
		if got != tt.want || (err != nil) != (tt.want == 0) {
			t.Errorf("Resolve(%q) = %d, %v; want model %d", tt.name, got, err, tt.want)
		}
		if tt.want == 0 && !errors.Is(err, ErrModelNotFound) {
			t.Errorf("Resolve(%q) error = %v, want ErrModelNotFound", tt.name, err)
		}
	}
	if got := table.Models(); len(got) != 2 || got[0] != 1 {
		t.Errorf("Models() = %v, want the order of the configuration", got)
	}
	if _, err := NewTable([]Entry[int]{{Names: []string{"a", "b"}}, {Names: []string{"b"}}}); err == nil {
		t.Error("a name for two models was accepted")
	}
}

func TestMayRetry(t *testing.T) {
	head := &transport.Error{Phase: transport.PhaseHead, Err: io.ErrUnexpectedEOF}
	for _, tt := range []struct {
		name string
		err  error
		dead bool
		want bool
	}{
		{"refused", &transport.Error{Phase: transport.PhaseDial, Refused: true, Err: io.EOF}, false, true},
		{"dial time-out", &transport.Error{Phase: transport.PhaseDial, Err: io.EOF}, false, false},
		{"no byte came, replica alive", head, false, false},
		{"no byte came, replica dead", head, true, true},
		{"half sent, replica dead", &transport.Error{Phase: transport.PhaseSend, Err: io.EOF}, true, true},
		{"response had begun, replica alive", &transport.Error{Phase: transport.PhaseBody, Err: io.EOF}, false, false},
		{"response had begun, replica dead", &transport.Error{Phase: transport.PhaseBody, Err: io.EOF}, true, true},
		{"cancelled", transport.ErrCancelled, true, false},
	} {
		if got := MayRetry(tt.err, tt.dead); got != tt.want {
			t.Errorf("%s: MayRetry = %v, want %v", tt.name, got, tt.want)
		}
	}
}
