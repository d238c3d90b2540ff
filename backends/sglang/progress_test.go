package sglang

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pilotlight/backends"
)

func TestProgressOfARealStart(t *testing.T) {
	f, err := os.Open("testdata/start-0.5.15.log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var p Progress
	var phases []backends.Phase
	changes, limit := 0, 0
	for s := bufio.NewScanner(f); s.Scan(); {
		before := p.Percent()
		changed := p.Line(s.Text())
		if p.Percent() < before {
			t.Fatalf("percent fell from %.1f to %.1f at %q", before, p.Percent(), s.Text())
		}
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase() {
			phases = append(phases, p.Phase())
		}
		if changed {
			changes++
		}
		if n, ok := MaxRunningRequests(s.Text()); ok {
			if limit != 0 {
				t.Errorf("a second line told a limit: %q", s.Text())
			}
			limit = n
		}
		if strings.Contains(s.Text(), "Load weight begin") && (p.Percent() < 15 || p.Percent() > 25) {
			t.Errorf("got %.1f %% when loading begins", p.Percent())
		}
	}
	want := []backends.Phase{backends.PhaseLaunch, backends.PhaseWeights, backends.PhaseKVCache, backends.PhaseGraphs, backends.PhaseWarmup}
	if !slices.Equal(phases, want) {
		t.Errorf("got phases %v, want %v", phases, want)
	}
	if p.Percent() != 99 {
		t.Errorf("got %.1f %% at the end, want 99: only a probe makes it 100", p.Percent())
	}
	if changes < 20 {
		t.Errorf("got %d changes, too few to show a bar", changes)
	}
	if limit != 4096 {
		t.Errorf("got a limit of %d, want 4096", limit)
	}
}

func TestProgressOfADownload(t *testing.T) {
	var p Progress
	p.Line("[2026-11-24 04:03:37] Load weight begin. avail mem=139.13 GB")
	if p.Phase() != backends.PhaseWeights || p.Percent() != 20 {
		t.Fatalf("got %s %.1f, want weights 20", p.Phase(), p.Percent())
	}
	for _, c := range []struct {
		line    string
		phase   backends.Phase
		percent float64
	}{
		{"model-00001-of-00004.safetensors:  50%|█████     | 2.48G/4.97G [00:12<00:12, 201MB/s]", backends.PhaseDownload, 22.5},
		{"model-00002-of-00004.safetensors:  50%|█████     | 2.48G/4.97G [00:12<00:12, 201MB/s]", backends.PhaseDownload, 25},
		{"model-00001-of-00004.safetensors:  20%|██        | 0.99G/4.97G [00:02<00:12, 201MB/s]", backends.PhaseDownload, 25},
		{"Fetching 4 files:  50%|█████     | 2/4 [00:25<00:25, 12.6s/it]", backends.PhaseDownload, 30},
		{"Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:01<00:03,  1.1s/it]", backends.PhaseWeights, 47.5},
		// A straggler's bar changes nothing any more.
		{"model-00004-of-00004.safetensors: 100%|██████████| 4.97G/4.97G [00:25<00:00, 201MB/s]", backends.PhaseWeights, 47.5},
		{"[2026-11-24 04:03:37 TP0] Load weight end. elapsed=9 s", backends.PhaseWeights, 70},
		{"[2026-11-24 04:03:37 TP1] Load weight begin. avail mem=139.13 GB", backends.PhaseWeights, 70},
	} {
		before, phase := p.Percent(), p.Phase()
		changed := p.Line(c.line)
		if p.Phase() != c.phase || p.Percent() != c.percent {
			t.Errorf("after %q: got %s %.2f, want %s %.2f", c.line, p.Phase(), p.Percent(), c.phase, c.percent)
		}
		if want := p.Percent() > before || p.Phase() != phase; changed != want {
			t.Errorf("after %q: got changed %t, want %t", c.line, changed, want)
		}
	}
}

// Files count by their bytes, so that a small one that is done says little.
func TestSharesOfADownload(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  float64
	}{
		{"by bytes", []string{
			"tokenizer.json: 100%|██████████| 17.2M/17.2M [00:00<00:00, 201MB/s]",
			"model-00002-of-00002.safetensors: 100%|██████████| 100M/100M [00:00<00:00, 201MB/s]",
			"model-00001-of-00002.safetensors:  60%|██████    | 2.94G/4.90G [00:12<00:12, 201MB/s]",
		}, 0.608},
		{"by number of files", []string{"Fetching 4 files:  50%|█████     | 2/4 [00:25<00:25, 12.6s/it]"}, 0.5},
		{"one bar of all files", []string{
			"Downloading (incomplete total...):   3%|   | 2.67M/78.2M [00:19<00:13, 5.56MB/s]",
			"Downloading (incomplete total...):  40%|████      | 1.96GB/4.90GB [00:25<00:25, 100MB/s]",
		}, 0.4},
		{"one bar, nothing to fetch", []string{"Downloading (incomplete total...): 0.00B [00:00, ?B/s]"}, 0},
	} {
		var p Progress
		p.Line("[2026-11-24 04:03:37] Load weight begin. avail mem=139.13 GB")
		for _, line := range c.lines {
			p.Line(line)
		}
		if got := p.Share(); got < c.want-0.0001 || got > c.want+0.0001 {
			t.Errorf("%s: got a share of %v, want %v", c.name, got, c.want)
		}
		if want := map[bool]backends.Phase{true: backends.PhaseDownload, false: backends.PhaseWeights}[c.want > 0]; p.Phase() != want {
			t.Errorf("%s: got phase %s, want %s", c.name, p.Phase(), want)
		}
	}
}

// Counts are more exact than the percentages beside them.
func TestSharesOfOtherPhases(t *testing.T) {
	var p Progress
	for _, c := range []struct {
		line string
		want float64
	}{
		{"Multi-thread loading shards:   0% Completed | 0/163 [00:00<?, ?it/s]", 0},
		{"Multi-thread loading shards:   1% Completed | 1/163 [00:01<02:00, 1.2s/it]", 1.0 / 163},
		{"Load weight end. elapsed=9 s", 1},
		{"Capture target prefill CUDA graph begin. backend=breakable", 0},
		{"Capturing num tokens (num_tokens=480 avail_mem=96.54 GB):  50%|█████     | 29/58 [00:03<00:02, 11.56it/s]", 0.25},
		{"Capture target decode CUDA graph begin. backend=full", 0.5},
		{"Capturing batches (bs=112 avail_mem=96.44 GB):  50%|█████     | 18/36 [00:01<00:01, 16.58it/s]", 0.625},
	} {
		p.Line(c.line)
		if p.Share() != c.want {
			t.Errorf("after %q: got %v, want %v", c.line, p.Share(), c.want)
		}
	}
}

func TestProgressIgnoresOtherLines(t *testing.T) {
	var p Progress
	for _, line := range []string{"", "hello", "100% sure", "using 90% of memory", "Decode batch, #running-req: 1", "\x00\xff"} {
		if p.Line(line) || p.Percent() != 0 || p.Phase() != backends.PhaseLaunch {
			t.Errorf("%q counted as progress: %s %.1f", line, p.Phase(), p.Percent())
		}
	}
	if !p.Bound() || p.Phase() != backends.PhaseWarmup || p.Percent() != 92 {
		t.Errorf("after Bound: got %s %.1f", p.Phase(), p.Percent())
	}
	if p.Bound() {
		t.Error("a second Bound counted as progress")
	}
}

func TestProgressOfOlderReleases(t *testing.T) {
	var p Progress
	for _, c := range []struct {
		line  string
		phase backends.Phase
	}{
		{"[2025-10-01 10:00:00] Capture cuda graph begin. This can take up to several minutes. avail mem=8.1 GB", backends.PhaseGraphs},
		{"Capturing batches (bs=160 avail_mem=8.0 GB):  50%|█████     | 12/24 [00:05<00:05,  2.3it/s]", backends.PhaseGraphs},
		{"[2025-10-01 10:00:10] Capture cuda graph end. Time elapsed: 10.1 s", backends.PhaseGraphs},
		{"[2025-10-01 10:00:11] max_total_num_tokens=441000, chunked_prefill_size=2048, max_prefill_tokens=16384, max_running_requests=2048, context_len=8192", backends.PhaseGraphs},
		{"[2025-10-01 10:00:12] INFO:     Uvicorn running on http://127.0.0.1:30000 (Press CTRL+C to quit)", backends.PhaseWarmup},
	} {
		if !p.Line(c.line) || p.Phase() != c.phase {
			t.Errorf("%q: got %s %.1f, want progress in %s", c.line, p.Phase(), p.Percent(), c.phase)
		}
	}
}

// Whatever an engine prints, percent stays in 0..99 and never falls, and memory stays bounded.
func FuzzProgress(f *testing.F) {
	f.Add("Load weight begin\nFetching 4 files: 50%|\nCapturing x: 999%|\nLoading pt checkpoint shards: 100% Completed\n")
	f.Add("Capture cuda graph begin\nCapture cuda graph end\nCapture cuda graph begin\n")
	f.Fuzz(func(t *testing.T, text string) {
		var p Progress
		for line := range strings.SplitSeq(text, "\n") {
			before, phase, share := p.Percent(), p.Phase(), p.Share()
			p.Line(line)
			Redact(line)
			if p.Share() > 1 || p.Share() < 0 || p.Phase() == phase && p.Share() < share {
				t.Fatalf("share went from %v to %v at %q", share, p.Share(), line)
			}
			if p.Percent() < before || p.Percent() > 99 {
				t.Fatalf("percent went from %v to %v at %q", before, p.Percent(), line)
			}
		}
	})
}

func TestProgressRemembersABoundedNumberOfFiles(t *testing.T) {
	var p Progress
	for i := range maxFiles + 100 {
		p.Line(fmt.Sprintf("f%d.safetensors:  10%%|█  | 1/10", i))
	}
	if len(p.files) != maxFiles {
		t.Errorf("got %d files, want %d", len(p.files), maxFiles)
	}
}
