package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pilotlight/backends/store"
	"pilotlight/backends/weights"
)

const (
	barWidth = 24
	// logEvery is how often a download is told of where lines cannot be written over.
	logEvery = 10 * time.Second
)

// bar shows a download: one line that is written over on a terminal, now and then a line elsewhere. Not safe for concurrent use.
type bar struct {
	w       io.Writer
	label   string
	columns int // of the terminal; 0: it is none
	began   time.Time
	told    time.Time
	drawn   bool
}

func newBar(w io.Writer, label string) *bar {
	b := &bar{w: w, label: label, began: time.Now()}
	b.told = b.began
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			b.columns = 80 // where it does not tell
			if size.Col > 0 {
				b.columns = max(int(size.Col), 40)
			}
		}
	}
	return b
}

// show takes one report. What cannot be shown is no reason to stop a download.
func (b *bar) show(p store.Progress) {
	if p.Phase == store.Finished && !b.drawn && p.BytesFetched == 0 {
		return // all of it was there
	}
	if b.columns == 0 {
		if now := time.Now(); now.Sub(b.told) >= logEvery {
			b.told = now
			fmt.Fprintln(b.w, b.line(p, ""))
		}
		return
	}
	full := int(p.Fraction() * barWidth)
	line := []rune(b.line(p, "["+strings.Repeat("=", full)+strings.Repeat(" ", barWidth-full)+"] "))
	if len(line) > b.columns-1 {
		line = line[:b.columns-1]
	}
	b.drawn = true
	fmt.Fprintf(b.w, "\r\x1b[K%s", string(line))
}

func (b *bar) line(p store.Progress, drawing string) string {
	detail := weights.Detail(p)
	if detail == "" {
		detail = p.Phase.String()
	}
	return fmt.Sprintf("%s: %s%3.0f %%, %s", b.label, drawing, 100*p.Fraction(), detail)
}

// end leaves the line for others to write on.
func (b *bar) end() {
	if b.drawn {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}
