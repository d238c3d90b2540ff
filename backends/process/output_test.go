package process

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pilotlight/backends/sglang"
)

// heard follows a new file and keeps what it is told.
type heard struct {
	*output
	writer *os.File
	mu     sync.Mutex
	lines  []string
}

func newHeard(t *testing.T, limit int64) *heard {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.log")
	w, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	h := &heard{writer: w}
	h.output, err = follow(path, 0, limit, slog.New(slog.DiscardHandler), sglang.Redact, func(line string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.lines = append(h.lines, line)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *heard) write(t *testing.T, text string) {
	t.Helper()
	if _, err := h.writer.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestOutputLines(t *testing.T) {
	for _, c := range []struct {
		name   string
		pieces []string
		told   []string
		kept   []string
	}{
		{"plain", []string{"a\nb\n"}, []string{"a", "b"}, []string{"a", "b"}},
		{"in pieces", []string{"a", "b\nc", "\n"}, []string{"ab", "c"}, []string{"ab", "c"}},
		{"unfinished at the end", []string{"a\nb"}, []string{"a", "b"}, []string{"a", "b"}},
		{"carriage returns and newlines", []string{"a\r\nb\r", "\nc\n"}, []string{"a", "b", "c"}, []string{"a", "b", "c"}},
		{"a bar is one line", []string{"x\n\r 1%\r 2%\r 3%\ny\n"}, []string{"x", "1%", "2%", "3%", "y"}, []string{"x", "3%", "y"}},
		{"empty lines", []string{"\n\n  \na\n\n"}, []string{"a"}, []string{"a"}},
		{"bytes that are no text", []string{"a\xffb\n"}, []string{"a\uFFFDb"}, []string{"a\uFFFDb"}},
		{"secrets", []string{"api_key='abc'\n"}, []string{"api_key='abc'"}, []string{"api_key=***"}},
		{"a long line", []string{strings.Repeat("x", 10_000) + "\n"}, []string{strings.Repeat("x", 10_000)}, []string{strings.Repeat("x", lineLimit) + "…"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHeard(t, 1<<20)
			for _, piece := range c.pieces {
				h.write(t, piece)
				if err := h.catchUp(); err != nil {
					t.Fatal(err)
				}
			}
			if err := h.close(); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(h.lines, c.told) {
				t.Errorf("told %q, want %q", h.lines, c.told)
			}
			if got := h.tail(10); !slices.Equal(got, c.kept) {
				t.Errorf("kept %q, want %q", got, c.kept)
			}
		})
	}
}

func TestOutputPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeard(t, 1<<20)
		last := func() string { return strings.Join(h.tail(1), "") }
		h.write(t, "a\n")
		time.Sleep(startingPause + 1)
		synctest.Wait()
		if got := last(); got != "a" {
			t.Errorf("got %q while starting, want a", got)
		}
		h.slow()
		time.Sleep(startingPause) // the last quick look
		synctest.Wait()
		h.write(t, "b\n")
		time.Sleep(readyPause - 2*startingPause)
		synctest.Wait()
		if got := last(); got != "a" {
			t.Errorf("got %q at once, want a: a ready engine is looked at seldom", got)
		}
		time.Sleep(2 * startingPause)
		synctest.Wait()
		if got := last(); got != "b" {
			t.Errorf("got %q, want b", got)
		}
		if err := h.close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestOutputRing(t *testing.T) {
	h := newHeard(t, 1<<20)
	for i := range ringLines + 50 {
		h.write(t, fmt.Sprintf("line %d\n", i))
	}
	h.write(t, "bar 1\rbar 2\r")
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	got := h.tail(ringLines * 2)
	if len(got) != ringLines || got[0] != "line 51" || got[ringLines-1] != "bar 2" || got[ringLines-2] != "line 449" {
		t.Errorf("got %d lines from %q to %q", len(got), got[0], got[len(got)-1])
	}
	if got := h.tail(2); !slices.Equal(got, []string{"line 449", "bar 2"}) {
		t.Errorf("got %q", got)
	}
	if got := h.tail(-1); len(got) != 0 {
		t.Errorf("got %q for a negative number", got)
	}
}

// A line without an end must not grow in memory for ever.
func TestOutputCutsEndlessLines(t *testing.T) {
	h := newHeard(t, 1<<30)
	h.write(t, strings.Repeat("x", 3*segmentLimit))
	if err := h.catchUp(); err != nil {
		t.Fatal(err)
	}
	h.reading.Lock()
	if n := len(h.partial); n > segmentLimit {
		t.Errorf("%d bytes are held back", n)
	}
	h.reading.Unlock()
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
}

// The writer keeps its descriptor across a rotation, and the disk use stays bounded.
func TestOutputRotation(t *testing.T) {
	const limit = 10_000
	h := newHeard(t, limit)
	const lines = 1000
	for i := range lines {
		h.write(t, fmt.Sprintf("line %04d %s\n", i, strings.Repeat("x", 89)))
		if i%20 == 0 {
			if err := h.catchUp(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	if len(h.lines) != lines {
		t.Errorf("heard %d lines, want %d", len(h.lines), lines)
	}
	for i, line := range h.lines {
		if !strings.HasPrefix(line, fmt.Sprintf("line %04d", i)) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	for _, path := range []string{h.path, h.path + ".1"} {
		info, err := os.Stat(path)
		if err != nil || info.Size() > 2*limit {
			t.Errorf("%s: got %v, %v; want at most %d bytes", path, info, err, 2*limit)
		}
	}
	old, err := os.ReadFile(h.path + ".1")
	if err != nil || !strings.HasPrefix(string(old), "line ") {
		t.Errorf("the old log begins with %.20q, %v", old, err)
	}
}

func TestOutputTruncatedBySomebodyElse(t *testing.T) {
	h := newHeard(t, 1<<20)
	h.write(t, "first line\nsecond line\n")
	if err := h.catchUp(); err != nil {
		t.Fatal(err)
	}
	if err := h.writer.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := h.catchUp(); err != nil {
		t.Fatal(err)
	}
	h.write(t, "x\n")
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	if got := h.tail(1); !slices.Equal(got, []string{"x"}) {
		t.Errorf("got %q", got)
	}
}

// An engine that writes faster than we look is rotated under its hands, and the disk use stays bounded.
func TestRotationUnderABusyEngine(t *testing.T) {
	const lines, limit = 5000, 64 << 10
	d := newDriver(t, func(o *Options) { o.logLimit = limit })
	r := mustLaunch(t, d, specOf(t, "m", fake{Spam: lines, ReadyAfter: time.Millisecond}), 1)
	size := func(path string) int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			return 0
		}
		return info.Size()
	}
	if err := r.out.catchUp(); err != nil {
		t.Fatal(err)
	}
	if now, old := size(r.record.Log), size(r.record.Log+".1"); now > limit || old > limit || old == 0 {
		t.Errorf("got %d and %d bytes, want each at most %d", now, old, limit)
	}
	if got := r.Tail(ringLines); len(got) < 100 {
		t.Errorf("got %d lines", len(got))
	}
}

// However the bytes are cut into reads, the lines are the same.
func FuzzOutputFragments(f *testing.F) {
	f.Add("a\r\nb\n\r 1%\r 2%\nc", uint8(1))
	f.Add("\u00e4\n\xff\r\r\n\n", uint8(2))
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		read := func(size int) (told, kept []string) {
			o := &output{redact: func(s string) string { return s }, line: func(s string) { told = append(told, s) }}
			for b := []byte(text); len(b) > 0; {
				n := min(size, len(b))
				o.split(b[:n])
				b = b[n:]
			}
			return told, o.tail(ringLines)
		}
		told, kept := read(max(1, int(size)))
		wantTold, wantKept := read(len(text) + 1)
		if !slices.Equal(told, wantTold) || !slices.Equal(kept, wantKept) {
			t.Errorf("in pieces of %d: told %q, kept %q; want %q, %q", size, told, kept, wantTold, wantKept)
		}
	})
}
