package app

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pilotlight/activator"
)

func TestSlowStartsInWords(t *testing.T) {
	for _, c := range []struct {
		slow    activator.SlowStart
		text    string
		remedy  string // a part of it
		level   string
		inLog   string
		running bool
	}{
		{activator.SlowStart{Total: 130 * time.Second, Learned: 45 * time.Second, Phase: "weights", Took: 100 * time.Second, Usual: 15 * time.Second, ReadBytes: 8e9},
			"the latest start took 2m10s, more than twice the usual 45s; 1m40s of it in phase weights (usually 15s), reading 80 MB/s",
			"faster storage", "level=WARN", "mb_per_s=80", false},
		{activator.SlowStart{Total: 100 * time.Second, Learned: 45 * time.Second, Running: true, Phase: "download", Took: 80 * time.Second},
			"the start has taken 1m40s, more than twice the usual 45s; 1m20s of it in phase download (80 %)",
			"hf download", "level=WARN", "phase=download", true},
		{activator.SlowStart{Total: 100 * time.Second, Learned: 90 * time.Second, Phase: "cuda_graphs", Took: 63 * time.Second},
			"the latest start took 1m40s; 1m3s of it in phase cuda_graphs (63 %)",
			"fewer CUDA graphs", "level=INFO", "phase_took=1m3s", false},
		{activator.SlowStart{Total: 100 * time.Second, Phase: "weights", Took: 63 * time.Second, ReadBytes: 63 * 3e9},
			"the latest start took 1m40s; 1m3s of it in phase weights (63 %), reading 3000 MB/s",
			"the storage is fast", "level=INFO", "mb_per_s=3000", false},
	} {
		got := DescribeSlow(&c.slow)
		if got.Text != c.text || !strings.Contains(got.Remedy, c.remedy) || got.IsRunning != c.running {
			t.Errorf("got %q, %q\nwant %q, %q", got.Text, got.Remedy, c.text, c.remedy)
		}
		var log bytes.Buffer
		a := &App{log: slog.New(slog.NewTextHandler(&log, nil))}
		a.noteSlow("m", 3, c.slow)
		for _, want := range []string{c.level, "model=m", "replica=3", c.inLog, "remedy="} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %q: %s", want, log.String())
			}
		}
	}
}
