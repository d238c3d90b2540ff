package mockengine

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestScriptTravelsInAPrompt(t *testing.T) {
	for _, want := range []Script{
		{},
		{ID: 7, Frames: 3},
		{ID: 12345678, Frames: 1000, Gap: 1500 * time.Microsecond, Pad: 4096, Hold: time.Hour, Split: true},
		{ID: 1, Status: 503},
		{ID: 2, Frames: 2, Break: BreakFrame},
		{ID: 3, Status: 400, Split: true, Break: BreakHead},
	} {
		got, ok := parse([]byte(`{"messages":[{"role":"user","content":"play/1/x"},{"role":"user","content":"` + want.String() + `"}],"rid":"play"}`))
		if !ok || got != want {
			t.Errorf("got %+v, %v; want %+v", got, ok, want)
		}
	}
	for _, bad := range []string{`""`, `"play/"`, `"play/1/2/3/4/"`, `"play/1/2/3/4/5`, `"play/1/2/3/4/-5/"`, `"play/1/2/3/4/5/loud/"`, `"play/1/2/3/4/5/status=x/"`} {
		if s, ok := parse([]byte(bad)); ok {
			t.Errorf("%s was read as %+v", bad, s)
		}
	}
}

func TestTextOfAScript(t *testing.T) {
	if got, want := (Script{ID: 4, Frames: 3, Pad: 2}).Text(), "4.0 xx4.1 xx4.2 xx"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := len((Script{ID: 4, Frames: 1, Pad: 5000}).Text()), 4+5000; got != want {
		t.Errorf("got %d bytes, want %d", got, want)
	}
}

func TestSeen(t *testing.T) {
	var s seen
	for _, n := range []uint64{0, 63, 64, 1000} {
		if s.add(n) {
			t.Errorf("%d was seen before it came", n)
		}
		if !s.add(n) {
			t.Errorf("%d is forgotten", n)
		}
	}
}
