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
	if _, _, ok := d.Estimate("m", "s", ""); ok {
		t.Error("an estimate out of nothing")
	}
	for _, s := range []time.Duration{130, 64, 66, 65} { // the first one compiles kernels
		d.Record("m", "s", StartRecord{Total: s * time.Second, Phases: []PhaseStart{{"launch", 0}, {"weights", (s - 10) * time.Second}}})
	}
	d.Close()
	if d, err = OpenDurations(path, nil); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, tt := range []struct {
		spec, phase string
		want        time.Duration
		fromPhase   bool
	}{
		{"s", "", 66 * time.Second, false},
		{"s", "weights", 10 * time.Second, true},
		{"s", "never seen", 66 * time.Second, false},
		{"another spec", "weights", 10 * time.Second, true}, // by the spec before it
	} {
		if got, fromPhase, ok := d.Estimate("m", tt.spec, tt.phase); got != tt.want || fromPhase != tt.fromPhase || !ok {
			t.Errorf("%s, %s: %v, %v, %v", tt.spec, tt.phase, got, fromPhase, ok)
		}
	}
	d.Record("m", "another spec", StartRecord{Total: time.Second})
	if got, _, _ := d.Estimate("m", "another spec", ""); got != time.Second {
		t.Errorf("after its first start: %v", got)
	}
	if got, _, _ := d.Estimate("m", "s", ""); got != 66*time.Second {
		t.Errorf("the spec before: %v", got)
	}
	for range 50 {
		d.Record("m", "s", StartRecord{Total: time.Minute})
		d.Record("m", "s", StartRecord{Total: -1}) // not taken
	}
	for _, spec := range []string{"c", "d", "e", "s"} {
		d.Record("m", spec, StartRecord{Total: 2 * time.Minute})
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
		d.Record("m", "s", StartRecord{Total: time.Minute})
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
			if _, _, ok := d.Estimate("m", "s", ""); ok || !strings.Contains(log.String(), "level=WARN") {
				t.Errorf("known: %v, log: %s", ok, log.String())
			}
			d.Record("m", "s", StartRecord{Total: time.Second})
			d.Close()
			if d, err = OpenDurations(path, nil); err != nil {
				t.Fatal(err)
			}
			if got, _, _ := d.Estimate("m", "s", ""); got != time.Second {
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
	d.Record("m", "s", StartRecord{Total: time.Second})
	d.Close()
	if !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log: %s", log.String())
	}
	if _, _, ok := d.Estimate("m", "s", ""); !ok {
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
