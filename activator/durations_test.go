package activator

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDurationsSurviveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "durations.json")
	d, err := OpenDurations(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := d.Estimate(Subject{Model: "m", Spec: "s"}); ok {
		t.Error("an estimate out of nothing")
	}
	for _, s := range []time.Duration{130, 64, 66, 65} { // the first one compiles kernels
		d.Record(Subject{Model: "m", Spec: "s", Kin: "k"}, StartRecord{Total: s * time.Second, Phases: []PhaseStart{
			{Phase: "launch"}, {Phase: "weights", At: (s - 10) * time.Second, Marks: []Mark{{Share: 0.5, At: (s - 5) * time.Second}}}}})
	}
	d.Close()
	if d, err = OpenDurations(path, nil); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, tt := range []struct {
		of     Subject
		whole  time.Duration
		inside time.Duration // from the half of the weights
	}{
		{Subject{Model: "m", Spec: "s"}, 66 * time.Second, 5 * time.Second},
		{Subject{Model: "m", Spec: "another spec"}, 66 * time.Second, 5 * time.Second}, // by the spec before it
		{Subject{Model: "other", Spec: "s2", Kin: "k"}, 66 * time.Second, 5 * time.Second},
		{Subject{Model: "other", Spec: "s", Kin: "else"}, 0, 0},
		{Subject{Model: "other", Spec: "s"}, 0, 0}, // without kin
	} {
		whole, ok := d.Estimate(tt.of)
		if whole != tt.whole || ok != (tt.whole > 0) {
			t.Errorf("%v: whole %v, %v", tt.of, whole, ok)
		}
		c := course{}.note("launch", 0, 0).note("weights", 0, 56*time.Second).note("weights", 0.5, 61*time.Second)
		f := d.forecast(tt.of, c)
		if (f != nil) != ok {
			t.Fatalf("%v: forecast %v", tt.of, f)
		}
		if f != nil && f.remaining(61*time.Second) != tt.inside {
			t.Errorf("%v: %v remain", tt.of, f.remaining(61*time.Second))
		}
	}
	d.Record(Subject{Model: "m", Spec: "another spec"}, StartRecord{Total: time.Second})
	if got, _ := d.Estimate(Subject{Model: "m", Spec: "another spec"}); got != time.Second {
		t.Errorf("after its first start: %v", got)
	}
	if got, _ := d.Estimate(Subject{Model: "m", Spec: "s"}); got != 66*time.Second {
		t.Errorf("the spec before: %v", got)
	}
	for range 50 {
		d.Record(Subject{Model: "m", Spec: "s"}, StartRecord{Total: time.Minute})
		for _, r := range []StartRecord{
			{Total: -1},
			{Total: time.Second, Phases: []PhaseStart{{Phase: "a", At: 2 * time.Second}}},
			{Total: time.Hour, Phases: []PhaseStart{{Phase: "a", At: 2}, {Phase: "b", At: 1}}},
			{Total: time.Hour, Phases: []PhaseStart{{Phase: "a", Marks: []Mark{{Share: 2, At: 1}}}}},
			{Total: time.Hour, Phases: []PhaseStart{{Phase: "a", Marks: []Mark{{Share: 0.5, At: 2}, {Share: 0.4, At: 3}}}}},
			{Total: time.Hour, Phases: []PhaseStart{{Phase: "a", Marks: []Mark{{Share: 0.5, At: 5}}}, {Phase: "b", At: 4}}},
		} {
			d.Record(Subject{Model: "m", Spec: "s"}, r) // not taken
		}
	}
	if got, _ := d.Estimate(Subject{Model: "m", Spec: "s"}); got != time.Minute {
		t.Errorf("after 50 starts of a minute: %v", got)
	}
	for _, spec := range []string{"c", "d", "e", "s"} {
		d.Record(Subject{Model: "m", Spec: spec}, StartRecord{Total: 2 * time.Minute})
	}
	if specs := d.models["m"]; len(specs) != specsKept || specs[2].Spec != "s" {
		t.Errorf("kept %+v", specs)
	}
	d.Close()
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

func TestDurationsMemoryIsBounded(t *testing.T) {
	d, err := OpenDurations("", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		d.Record(Subject{Model: "m", Spec: "s"}, StartRecord{Total: time.Minute})
	}
	if n := len(d.models["m"][0].Starts); n != startsKept {
		t.Errorf("%d starts kept", n)
	}
}

func TestDamagedDurationsAreIgnoredAndRewritten(t *testing.T) {
	for name, content := range map[string]string{
		"no json":       "\x00\x01",
		"cut off":       `{"version":1,"models":{"m":[{"spec":"s"`,
		"other types":   `{"version":1,"models":{"m":"s"}}`,
		"other version": `{"version":99,"models":{"m":[{"spec":"s","starts":[{"total_ns":5}]}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "durations.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			d, err := OpenDurations(path, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := d.Estimate(Subject{Model: "m", Spec: "s"}); ok || !strings.Contains(log.String(), "level=WARN") {
				t.Errorf("known: %v, log: %s", ok, log.String())
			}
			d.Record(Subject{Model: "m", Spec: "s"}, StartRecord{Total: time.Second})
			d.Close()
			if d, err = OpenDurations(path, nil); err != nil {
				t.Fatal(err)
			}
			if got, _ := d.Estimate(Subject{Model: "m", Spec: "s"}); got != time.Second {
				t.Errorf("after the rewrite: %v", got)
			}
		})
	}
}

func TestDurationsThatCannotBeReadOrWritten(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenDurations(dir, nil); err == nil {
		t.Error("a folder was read")
	}
	var log bytes.Buffer
	d, err := OpenDurations(filepath.Join(dir, "missing", "durations.json"), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	d.Record(Subject{Model: "m", Spec: "s"}, StartRecord{Total: time.Second})
	d.Close()
	if !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log: %s", log.String())
	}
	if _, ok := d.Estimate(Subject{Model: "m", Spec: "s"}); !ok {
		t.Error("forgotten because it could not be saved")
	}
}

func TestRetryAfter(t *testing.T) {
	for eta, want := range map[time.Duration]int{
		0: 10, time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2, 59 * time.Second: 59, time.Hour: 59,
	} {
		if got := RetryAfter(eta); got != want {
			t.Errorf("%v: %d, want %d", eta, got, want)
		}
	}
}

func TestTimesInFlightAreRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "durations.json")
	d, err := OpenDurations(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, second := Subject{Model: "m", Spec: "1"}, Subject{Model: "m", Spec: "2"}
	d.RecordService(first, time.Second)
	if got := d.Service(first); got != 0 {
		t.Errorf("%v for a spec that was never started", got)
	}
	d.Record(first, StartRecord{Total: time.Minute})
	d.RecordService(first, 3*time.Second)
	if got := d.Service(second); got != 3*time.Second {
		t.Errorf("%v for another spec of the model, want the 3 s of the first", got)
	}
	d.Record(second, StartRecord{Total: time.Minute})
	d.RecordService(second, 4*time.Second)
	d.Close()
	if d, err = OpenDurations(path, nil); err != nil {
		t.Fatal(err)
	}
	for of, want := range map[Subject]time.Duration{first: 3 * time.Second, second: 4 * time.Second, {Model: "other"}: 0} {
		if got := d.Service(of); got != want {
			t.Errorf("%+v: got %v, want %v", of, got, want)
		}
	}
}
