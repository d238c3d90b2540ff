package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// ringLines holds a failure's story: tracebacks of a few ranks. Progress bars take one line each.
	ringLines = 400
	// lineLimit cuts lines in the ring: SGLang's dump of its arguments alone has some 10 KB.
	lineLimit = 2 << 10
	// segmentLimit cuts a line that does not end.
	segmentLimit = 64 << 10
	// startingPause and readyPause are the times between looks at the file. Looking is one read at the end
	// of a file, about a microsecond; 50 models that start together cost 1,000 reads a second, and 50 that
	// are ready 100. inotify would wake us for each line of a busy server, needs a scarce instance, and
	// says nothing on network file systems.
	startingPause = 50 * time.Millisecond
	readyPause    = 500 * time.Millisecond
)

// output follows a replica's log file: it keeps the last lines, tells each line to a listener, and rotates
// the file. Lines end with \n or \r; one that ends with \r is overwritten by the next, as on a terminal,
// so that bars do not push everything else out of the ring.
type output struct {
	path   string
	limit  int64
	logger *slog.Logger
	redact func(string) string
	// line is told each line, unredacted, from one goroutine at a time. It must not keep or log it.
	line func(string)

	reading sync.Mutex // serialises reads of the file; guards the fields up to mu
	file    *os.File
	offset  int64
	partial []byte
	buf     []byte
	skip    bool // up to the end of the line in whose midst the reading begins

	mu        sync.Mutex // guards the fields below; never held across I/O
	ring      []string
	head      int  // index of the oldest line once the ring is full
	transient bool // the newest line ended with \r

	ready chan struct{} // closed: the slow pace
	stop  chan struct{}
	done  chan struct{}
}

// follow starts to follow the file at path: from its beginning, or what is left of it after skipping from bytes and the rest of the line there,
// part of which could not be told to hold a secret.
func follow(path string, from, limit int64, logger *slog.Logger, redact func(string) string, line func(string)) (*output, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0) // written to only by truncation
	if err != nil {
		return nil, fmt.Errorf("engine log: %w", err)
	}
	o := &output{
		path: path, limit: limit, logger: logger, redact: redact, line: line, file: file,
		buf: make([]byte, 32<<10), offset: from, skip: from > 0,
		ready: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go o.run()
	return o, nil
}

func (o *output) run() {
	defer close(o.done)
	pause, ready := startingPause, o.ready
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-o.stop:
			return
		case <-ready:
			pause, ready = readyPause, nil
		case <-timer.C:
			if err := o.catchUp(); err != nil {
				o.logger.Warn("engine log cannot be followed", "path", o.path, "error", err)
				return
			}
			timer.Reset(pause)
		}
	}
}

// slow sets the pace for a replica that is ready. It may be called once.
func (o *output) slow() { close(o.ready) }

// close reads what is left, ends the following, and gives the file back.
func (o *output) close() error {
	close(o.stop)
	<-o.done
	err := o.catchUp()
	o.reading.Lock()
	defer o.reading.Unlock()
	if len(o.partial) > 0 {
		o.take(o.partial, '\n')
		o.partial = nil
	}
	return errors.Join(err, o.file.Close())
}

// catchUp reads everything that was written up to now. Safe for concurrent use.
func (o *output) catchUp() error {
	o.reading.Lock()
	defer o.reading.Unlock()
	for {
		n, err := o.file.ReadAt(o.buf, o.offset)
		o.offset += int64(n)
		o.split(o.buf[:n])
		switch {
		case err == nil:
			continue
		case !errors.Is(err, io.EOF):
			return err
		}
		info, err := o.file.Stat()
		switch {
		case err != nil:
			return err
		case info.Size() < o.offset:
			o.offset, o.skip = 0, false // somebody else truncated it
		case o.offset > o.limit:
			return o.rotate()
		default:
			return nil
		}
	}
}

// rotate copies the log aside and truncates it, because the engine keeps it open; the engine appends, so
// its next line lands at the new end. What it writes between the last read and the truncation, some
// microseconds, is lost. If the copy cannot be written the old lines are lost instead of the disk.
func (o *output) rotate() error {
	if err := o.copyAside(); err != nil {
		o.logger.Warn("old engine log is dropped", "path", o.path, "error", err)
	}
	for { // what came during the copy
		n, err := o.file.ReadAt(o.buf, o.offset)
		o.offset += int64(n)
		o.split(o.buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := o.file.Truncate(0); err != nil {
		return err
	}
	o.offset, o.skip = 0, false
	return nil
}

func (o *output) copyAside() (err error) {
	old, err := os.OpenFile(o.path+".1", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	// A burst between two looks may be far larger than the limit; its end is what matters.
	from := max(0, o.offset-o.limit)
	_, err = io.Copy(old, io.NewSectionReader(o.file, from, o.offset-from))
	if err = errors.Join(err, old.Close()); err != nil {
		return errors.Join(err, os.Remove(old.Name()))
	}
	return nil
}

// split cuts new bytes into lines.
func (o *output) split(b []byte) {
	if o.skip {
		_, rest, ended := bytes.Cut(b, []byte("\n"))
		if !ended {
			return
		}
		o.skip, b = false, rest
	}
	for len(b) > 0 {
		i := bytes.IndexAny(b, "\r\n")
		if i < 0 {
			o.partial = append(o.partial, b...)
			if len(o.partial) > segmentLimit {
				o.take(o.partial, '\n')
				o.partial = o.partial[:0]
			}
			return
		}
		line := b[:i]
		if len(o.partial) > 0 {
			o.partial = append(o.partial, line...)
			line = o.partial
		}
		o.take(line, b[i])
		o.partial = o.partial[:0]
		b = b[i+1:]
	}
}

// take keeps one line and tells it. Empty ones are dropped, but one that ends with \n completes what stands
// before it, so that \r\n is an ending and not an overwriting.
func (o *output) take(b []byte, ending byte) {
	line := strings.TrimSpace(strings.ToValidUTF8(string(b), "\uFFFD"))
	if line == "" {
		if ending == '\n' {
			o.complete()
		}
		return
	}
	o.line(line)
	o.keep(cut(o.redact(line)), ending == '\r')
}

func (o *output) complete() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.transient = false
}

func cut(line string) string {
	if len(line) <= lineLimit {
		return line
	}
	return strings.ToValidUTF8(line[:lineLimit], "") + "…"
}

func (o *output) keep(line string, transient bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.transient:
		o.ring[(o.head+len(o.ring)-1)%len(o.ring)] = line
	case len(o.ring) < ringLines:
		o.ring = append(o.ring, line)
	default:
		o.ring[o.head] = line
		o.head = (o.head + 1) % ringLines
	}
	o.transient = transient
}

// tail returns the last n lines, oldest first, secrets masked; all that are kept if n is larger.
func (o *output) tail(n int) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	n = max(0, min(n, len(o.ring)))
	out := make([]string, 0, n)
	for i := len(o.ring) - n; i < len(o.ring); i++ {
		out = append(out, o.ring[(o.head+i)%len(o.ring)])
	}
	return out
}
