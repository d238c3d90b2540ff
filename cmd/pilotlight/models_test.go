package main

import (
	"strings"
	"testing"
	"time"

	"pilotlight/backends/store"
)

func TestPrintModels(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	commit := strings.Repeat("ab", 20)
	var out strings.Builder
	err := printModels(&out, []store.Model{{
		Repo: "org/model", Bytes: 1500e6, Unfinished: 20e6, LastUsed: now.Add(-3 * time.Hour),
		Revisions: []store.Revision{{Commit: commit, Refs: []string{"main"}, Whole: true}, {Commit: commit}},
		Artefacts: []store.Artefact{{Name: "chat"}}, Users: []store.User{{Who: "chat replica 2", PID: 7}},
	}, {Repo: "gpt2", LastUsed: now}}, now)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	want := [][]string{
		{"MODEL", "SIZE", "LAST USED", "REVISIONS", "NAMES", "USED BY"},
		{"org/model", "1.5 GB (20 MB unfinished)", "3 hours ago", "main=abababababab, abababababab (not whole)", "chat", "chat replica 2 (pid 7)"},
		{"gpt2", "0 B", "now", "-", "-", "-"},
		{"2 models, 1.5 GB"},
	}
	for i, cells := range want {
		rest := lines[i]
		for _, cell := range cells {
			var found bool
			if _, rest, found = strings.Cut(rest, cell); !found {
				t.Errorf("line %q lacks %q", lines[i], cell)
			}
		}
	}
}

func TestABarWithoutATerminalIsQuiet(t *testing.T) {
	var out strings.Builder
	b := newBar(&out, "org/model")
	p := store.Progress{Phase: store.Downloading, Bytes: 100e6, BytesDone: 25e6, Rate: 5e6, ETA: 15 * time.Second}
	b.show(p)
	b.end()
	if out.String() != "" {
		t.Errorf("told at once: %q", out.String())
	}
	b.told = time.Now().Add(-logEvery)
	b.show(p)
	b.show(p)
	if want := "org/model:  25 %, 25 MB of 100 MB, 5.0 MB/s, 15s left\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestABarFitsItsTerminal(t *testing.T) {
	var out strings.Builder
	b := newBar(&out, "org/a-model-with-a-rather-long-name")
	b.columns = 60
	b.show(store.Progress{Phase: store.Downloading, Bytes: 100e6, BytesDone: 50e6, Rate: 5e6, ETA: 10 * time.Second})
	line := strings.TrimPrefix(out.String(), "\r\x1b[K")
	if len([]rune(line)) != 59 || !strings.Contains(line, "[============") {
		t.Errorf("drawn: %q", line)
	}
	out.Reset()
	b.end()
	if out.String() != "\r\x1b[K" {
		t.Errorf("at the end: %q", out.String())
	}
}
